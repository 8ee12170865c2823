// Coin miners for Linux: the program, its configuration, and the scripts that
// install it. A miner is not always somebody else's: none of this is Critical, so
// that an owner who mines on purpose can say so in a policy.

rule miner_elf_option_names : miner
{
    meta:
        description = "ELF program with the command line of a RandomX/CryptoNight miner"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // Long options, as getopt keeps them: whole NUL-terminated strings. One
        // alone is nothing (nicehash stands in many texts); together they are the
        // option table of one family of programs and of nothing else.
        $opt1 = "donate-level" fullword
        $opt2 = "donate-over-proxy" fullword
        $opt3 = "rig-id" fullword
        $opt4 = "randomx-1gb-pages" fullword
        $opt5 = "randomx-wrmsr" fullword
        $opt6 = "randomx-no-rdmsr" fullword
        $opt7 = "randomx-cache-qos" fullword
        $opt8 = "cpu-max-threads-hint" fullword
        $opt9 = "huge-pages-jit" fullword
        $opt10 = "tls-fingerprint" fullword
        $opt11 = "self-select" fullword
        $opt12 = "nicehash" fullword
        $opt13 = "api-worker-id" fullword

        // What such a program speaks or computes.
        $pool1 = "stratum+tcp://"
        $pool2 = "stratum+ssl://"
        $pool3 = "keepalived" fullword
        $pool4 = "mining.subscribe"
        $algo1 = "cn-heavy/" nocase
        $algo2 = "cn-pico" nocase
        $algo3 = "rx/wow" nocase
        $algo4 = "argon2/chukwa" nocase
        $algo5 = "RandomX" nocase
        $algo6 = "cryptonight" nocase

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 40MB
        and 5 of ($opt*)
        and (any of ($pool*) or 2 of ($algo*))
}

rule miner_elf_stratum_client : miner
{
    meta:
        description = "ELF program that mines over the stratum protocol"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // A client sends these three. Traffic classifiers know the first names of
        // the protocol too, but neither share counters nor a URL to connect to.
        $send1 = "mining.subscribe"
        $send2 = "mining.authorize"
        $send3 = "mining.submit"
        $url = /stratum\+(tcp|ssl|tls|udp)/
        $work1 = "hash/s" nocase
        $work2 = "hashrate" nocase
        $work3 = "H/s)"
        $work4 = "stale share" nocase
        $work5 = "accepted share" nocase
        $work6 = "rejected share" nocase
        $work7 = "stratum_recv_line"
        $work8 = "extranonce" nocase

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 40MB
        and all of ($send*) and $url and 2 of ($work*)
}

rule miner_pool_login : miner
{
    meta:
        description = "Program or script with the login and submit calls of a CryptoNote pool"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // The JSON-RPC pair of a CryptoNote pool client, as C format strings or as
        // script text: quotes may be escaped.
        $login = /\\?"method\\?"\s?:\s?\\?"login\\?"\s?,\s?\\?"params\\?"\s?:\s?\{\s?\\?"login\\?"\s?:/
        $submit1 = /\\?"method\\?"\s?:\s?\\?"submit\\?"\s?,\s?\\?"params\\?"\s?:\s?\{\s?\\?"(id|job_id)\\?"\s?:/
        $submit2 = /\{\s?\\?"id\\?"\s?:\s?\\?"%s\\?"\s?,\s?\\?"job_id\\?"\s?:\s?\\?"%s\\?"\s?,\s?\\?"nonce\\?"/

    condition:
        filesize < 40MB and $login and any of ($submit*)
}

rule miner_config_json : miner
{
    meta:
        description = "JSON configuration of a RandomX/CryptoNight miner"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        $pools = /"pools"\s{0,8}:\s{0,8}\[\s{0,40}\{/
        $url = /"url"\s{0,8}:\s{0,8}"[^"\s]{4,200}"/
        $user = /"user"\s{0,8}:\s{0,8}"[^"\s]{1,200}"/
        $key1 = "\"donate-level\""
        $key2 = "\"randomx\""
        $key3 = "\"huge-pages\""
        $key4 = "\"max-threads-hint\""
        $key5 = "\"rig-id\""
        $key6 = "\"nicehash\""
        $key7 = "\"tls-fingerprint\""
        $key8 = "\"keepalive\""
        $key9 = "\"cn/0\""
        $key10 = /"algo"\s{0,8}:\s{0,8}"(rx|cn|cn-heavy|cn-lite|argon2|gr|kawpow)[\/"]/
        $key11 = /"coin"\s{0,8}:\s{0,8}"(monero|wownero|ravencoin|zephyr)"/

    condition:
        filesize < 64KB and $pools and $url and $user and 3 of ($key*)
}

rule miner_command_line : miner
{
    meta:
        description = "Script or unit that starts a miner with a pool and a wallet"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // A Monero address has 95 base58 characters and begins with 4 or 8; the
        // integrated form has 106. Nothing else in a command line looks like it.
        $xmr = /(-o|--url)[ =]["']?[^\s"']{4,120}:[0-9]{2,5}["']?\s[^\n]{0,160}(-u|--user)[ =]["']?[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}/
        $xmr_first = /(-u|--user)[ =]["']?[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}[^\n]{0,160}(-o|--url)[ =]["']?[^\s"']{4,120}:[0-9]{2,5}/
        $stratum = /(-o|--url|--pool)[ =]["']?stratum\+(tcp|ssl|tls):\/\/[^\s"'<>]{4,120}:[0-9]{2,5}["']?\s[^\n]{0,160}(-u|--user|-O|--userpass|--wallet)[ =]["']?[^\s"']{20,}/

    condition:
        filesize < 256KB and uint32be(0) != 0x7f454c46 and any of them
}

rule miner_pool_url_in_config : miner
{
    meta:
        description = "Pool URL of the stratum protocol in a setting or an argument"
        // Somebody should look; a wallet or a command line makes it certain.
        severity = "Warning"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // With a port, quoted or assigned: text about the protocol has neither.
        $setting = /["'= ]stratum[12]?\+(tcp|ssl|tls|udp):\/\/[A-Za-z0-9_.:@%-]{4,160}:[0-9]{2,5}["'\s,;]/

    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46 and $setting
}

rule miner_installer_script : miner
{
    meta:
        description = "Shell script that kills other miners, tunes the machine and fetches its own"
        severity = "Error"
        attack = "T1496.001"
        reference = "none"
        version = 1

    strings:
        // Rivals are removed first: process names and pool ports that only miners have.
        $rival = /(pkill|killall|kill|grep|pgrep)\s[^\n]{0,120}(xmrig|xmr-stak|minerd|kdevtmpfsi|kinsing|cryptonight|stratum|donate-level|monerohash|minexmr|supportxmr|nanopool|c3pool|hashvault)/ nocase

        // Tuning that pays for RandomX: huge pages, the prefetcher's MSR.
        $tune1 = /vm\.nr_hugepages\s{0,2}=/
        $tune2 = /wrmsr\s+-a\s+0x(1a4|c001102[0-9b])/ nocase
        $tune3 = "modprobe msr"
        $tune4 = "/proc/sys/vm/nr_hugepages"
        $tune5 = "--donate-level"
        $tune6 = "--cpu-max-threads-hint"

        // Staying.
        $stay1 = /crontab\s+(-r\b|-\s*(\n|;|$)|\/tmp\/)/
        $stay2 = /chattr\s+(-R\s+)?[+-][aiu]{1,3}\s[^\n]{0,80}(cron|ld\.so\.preload|authorized_keys|\/tmp)/
        $stay3 = "/etc/ld.so.preload"
        $stay4 = /systemctl\s+(enable|daemon-reload)/
        $stay5 = /(\/etc\/cron\.(d|hourly|daily)\/|\/var\/spool\/cron)/

        // Fetching.
        $fetch = /(curl|wget|lwp-download)\s[^\n]{0,160}(https?:\/\/|\$)/

        $shebang = /^#!\s?\/(usr\/)?bin\/(env\s+)?(ba|da|a|z)?sh/

    condition:
        filesize < 256KB and $shebang and $fetch
        and (
            (#rival >= 2 and (any of ($tune*) or 2 of ($stay*)))
            or (2 of ($tune*) and #rival >= 1)
            or (2 of ($tune1, $tune2, $tune3, $tune4) and any of ($tune5, $tune6) and any of ($stay*))
        )
}
