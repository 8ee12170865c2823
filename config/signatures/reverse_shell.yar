// Reverse and bind shells: an interactive shell whose input and output are a
// network connection. What is looked for is the wiring of the two, never a tool's
// name: nc, socat, openssl, telnet and every interpreter are ordinary programs.
//
// Handbooks quote the same lines. A line counts as a program (Error) in a script,
// that is a file with an interpreter line, or in a small file without a Markdown
// fence or HTML; elsewhere it is a Warning.

rule reverse_shell_sh_script : reverse_shell
{
    meta:
        description = "Script that ties a shell to a network connection"
        severity = "Error"
        attack = "T1059.004"
        reference = "none"
        version = 1

    strings:
        // The shell's own sockets: sh -i with all its descriptors on /dev/tcp, or a
        // numbered descriptor opened there and then given to a shell.
        $devtcp1 = /\b(ba|z|k)?sh\s+(-[a-z]{1,3}\s+)?([0-9]?[<>]{1,2}&?|&>)\s{0,4}["']?\/dev\/(tcp|udp)\/[^\s\/]{1,80}\/[^\s;&|]{1,20}/
        $devtcp2 = /exec\s{1,4}[0-9]{1,3}<>\s{0,4}["']?\/dev\/(tcp|udp)\/[^\s\/]{1,80}\/[^\n]{1,20}[^}]{0,200}(sh\s+(-i\s+)?([0-9]{0,3}[<>]&[0-9]{1,3}\s{0,2}){2}|while\s+(IFS=\s+)?read\s)/
        $devtcp3 = /\/dev\/(tcp|udp)\/[^\s\/]{1,80}\/[^\s;&|]{1,20}\s{0,4}[;\n&]{1,2}[^\n]{0,60}\b(ba|z|k)?sh\s+(-i\s+)?([0-9]{0,3}[<>]&[$A-Z{}0-9]{1,12}\s{0,2}){2}/
        $devtcp4 = /[0-9]{0,2}>\s?\/dev\/(tcp|udp)\/[^\s\/]{1,80}\/[^\s;&|]{1,20}\s+0[<>]&[0-9]\s+[0-9]>&[0-9]/
        $ztcp = /ztcp\s[^\n;&]{3,80}[;&\n]{1,2}[^\n]{0,40}sh\s{0,4}[<>]&\s{0,2}\$\{?REPLY/

        // netcat and its kin running a shell. A handler script is no shell.
        $nc_exec = /\b(nc|ncat|netcat|nc\.traditional|nc\.openbsd)(\.exe)?\s[^\n|;]{0,120}(-[a-zA-Z]{0,6}[ec]|--exec|--sh-exec|--lua-exec)[ =]['"]?(\/usr)?(\/bin\/)?(busybox )?(ba|da|z|k|a)?sh\b/
        $nc_exec_var = /\b(nc|ncat|netcat)\s[^\n|;]{0,80}-[a-z]{0,4}e\s+["']?\$\{?SHELL\b/
        $socat1 = /\bsocat\s[^\n]{0,160}(exec|system):\\?["']?(\/usr)?(\/bin\/)?(ba|da|z|k|a)?sh\b[^\n]{0,120}\b(tcp|udp|openssl|ssl|sctp)[46]?(-connect|-listen|-l)?:/ nocase
        $socat2 = /\bsocat\s[^\n]{0,120}\b(tcp|udp|openssl|ssl|sctp)[46]?(-connect|-listen|-l)?:[^\n]{1,120}\s(exec|system):\\?["']?(\/usr)?(\/bin\/)?(ba|da|z|k|a)?sh\b/ nocase

        // A pipe, named or not, that closes the circle around a program that connects.
        $fifo1 = /\b(ba|da|z|k|a)?sh\s{1,4}(-[a-z]{1,3}\s+)?([<0-9][^|\n]{0,60}\s)?[0-9&]?>(&1)?\s{0,4}(2>&1)?\s{0,4}\|\s{0,4}(busybox\s+)?(nc|ncat|netcat|telnet|openssl\s+s_client|socat)\b[^\n]{0,160}>{1,2}\s{0,4}[\/$"]/
        $fifo2 = /\b(nc|ncat|netcat|telnet|openssl\s+s_client)\s[^|\n]{1,160}<\s{0,4}["']?[\/$][^|\n]{1,80}\|\s{0,4}(\/usr)?(\/bin\/)?(ba|da|z|k|a)?sh\b[^|\n]{0,60}>\s{0,4}["']?[\/$]/
        $fifo3 = /\b(telnet|nc|ncat|netcat)\s[^|\n]{3,80}\|\s{0,4}(\/usr)?(\/bin\/)?(ba|da|z|k|a)?sh\b[^|\n]{0,40}\|\s{0,4}(telnet|nc|ncat|netcat)\s/
        $fifo4 = /\bcoproc\s[^\n]{0,60}\b(nc|ncat|netcat|openssl|socat)\s[^\n]{3,200}[^}]{0,80}\bsh\s+(-i\s+)?<&"?\$\{/

        // awk talks TCP through a file name.
        $awk = /\/inet[46]?\/(tcp|udp)\/[0-9a-z]{1,8}\/[^\s\/]{1,80}\/[^\n]{1,400}\|&?\s{0,2}getline[^}]{1,300}(\|&?\s{0,2}getline|system\()/

        // The same lines inside base64, at any of its three alignments.
        $b64_devtcp = "/dev/tcp/" base64
        $b64_sh1 = "bash -i" base64
        $b64_sh2 = "sh -i >" base64
        $b64_sh3 = " exec:" base64
        $b64_run = /base64\s+(-d|-D|--decode|-di)/

        $shebang = /^#!\s?\/[^\n]{2,60}/
        $fence = /\n[ \t]{0,8}```/
        $html = /<(html|body|p|div|h[1-6]|code|pre|li)\b[^>]{0,80}>/ nocase

    condition:
        filesize < 512KB and uint32be(0) != 0x7f454c46
        and (
            any of ($devtcp*, $ztcp, $nc_exec*, $socat*, $fifo*, $awk)
            or ($b64_devtcp and any of ($b64_sh*) and $b64_run)
        )
        and ($shebang or (filesize < 8KB and not $fence and not $html))
}

rule reverse_shell_sh_text : reverse_shell
{
    meta:
        description = "Text with a line that ties a shell to a network connection"
        // A list of such lines in a handbook, or a program's template.
        severity = "Warning"
        attack = "T1059.004"
        reference = "none"
        version = 1

    strings:
        $devtcp = /\b(ba|z|k)?sh\s+-i\s+([0-9]?[<>]{1,2}&?|&>)\s{0,4}["']?\/dev\/(tcp|udp)\/[^\s\/]{1,80}\/[^\s;&|]{1,20}/
        $nc = /\b(nc|ncat|netcat)\s[^\n|;]{3,120}-[a-zA-Z]{0,6}e\s['"]?(\/usr)?\/bin\/(ba|da|z|k|a)?sh\b/
        $fifo = /\bmkfifo\s+([^\n;&]{1,60})[;&\n][^\n]{0,80}\bsh\s+-i\s[^\n]{0,40}2>&1\s{0,2}\|\s{0,4}(nc|ncat|telnet|openssl)\s[^\n]{3,160}>/
        $shebang = /^#!\s?\/[^\n]{2,60}/

    condition:
        filesize < 4MB and filesize >= 8KB and not $shebang and any of ($devtcp, $nc, $fifo)
}

rule reverse_shell_python : reverse_shell
{
    meta:
        description = "Python code that puts a shell on a socket"
        severity = "Error"
        attack = "T1059.006"
        reference = "none"
        version = 1

    strings:
        // Three steps close to each other: connect, descriptors, shell.
        $connect = /\.connect(_ex)?\s{0,2}\(\s{0,2}\(/
        $bind = /\.bind\s{0,2}\(\s{0,2}\(/
        $dup1 = /dup2\s{0,2}\(\s{0,2}\w{1,30}(\.fileno\(\))?\s{0,2},\s{0,2}([012]|\w{1,12})\s{0,2}\)/
        $dup2 = /for\s+\w{1,12}\s+in\s{0,2}[\(\[]\s{0,2}0\s{0,2},\s{0,2}1\s{0,2},\s{0,2}2/
        $dup3 = /stdin\s{0,2}=\s{0,2}\w{1,20}(\.fileno\(\))?\s{0,2},\s{0,2}stdout\s{0,2}=\s{0,2}\w{1,20}(\.fileno\(\))?/
        $shell1 = /pty\.spawn\s{0,2}\(\s{0,2}\[?\s{0,2}["'](\/usr)?(\/bin\/)?\w{0,3}sh["']/
        $shell2 = /subprocess\.\w{3,12}\s{0,2}\(\s{0,2}\[?\s{0,2}["'](\/usr)?(\/bin\/)?\w{0,3}sh["']/
        $shell3 = /os\.exec[lv]p?e?\s{0,2}\(\s{0,2}["'](\/usr)?(\/bin\/)?\w{0,3}sh["']/
        $shell4 = /os\.(system|popen)\s{0,2}\(\s{0,2}["'](\/usr)?(\/bin\/)?\w{0,3}sh(\s-i)?["']/

    condition:
        filesize < 256KB and uint32be(0) != 0x7f454c46
        and (#dup1 >= 2 or $dup2 or $dup3)
        and (
            (for any of ($dup1, $dup2, $dup3) : ( $ in (@connect[1]..@connect[1] + 1200) )
                and for any of ($shell*) : ( $ in (@connect[1]..@connect[1] + 1200) ))
            or (for any of ($dup1, $dup2, $dup3) : ( $ in (@bind[1]..@bind[1] + 1200) )
                and for any of ($shell*) : ( $ in (@bind[1]..@bind[1] + 1200) ))
        )
}

rule reverse_shell_python_loop : reverse_shell
{
    meta:
        description = "Small Python program that runs what a connection it opened sends"
        severity = "Error"
        attack = "T1059.006"
        reference = "none"
        version = 1

    strings:
        $socket = /socket\.socket\s{0,2}\(|\bsocket\(\s{0,2}(socket\.)?AF_INET/
        $connect = /\.connect\s{0,2}\(/
        // What was received reaches a shell, and its output goes back.
        $run = /(subprocess\.(Popen|run|check_output|getoutput|call)|os\.popen|os\.system|commands\.getoutput)\s{0,2}\(\s{0,2}[a-z_]{1,20}(\.decode\([^)]{0,20}\)|\.strip\(\)|\[[0-9:]{1,5}\]){0,3}\s{0,2}[,)]/ nocase
        $recv = /\.recv\s{0,2}\(/
        $send = /\.send(all)?\s{0,2}\(/
        $loop = /while\s{0,2}\(?\s{0,2}(True|1|not\s)/

    condition:
        filesize < 12KB and uint32be(0) != 0x7f454c46 and all of them
}

rule reverse_shell_perl : reverse_shell
{
    meta:
        description = "Perl code that puts a shell on a socket"
        severity = "Error"
        attack = "T1059"
        reference = "none"
        version = 1

    strings:
        $sock1 = /connect\s{0,2}\(\s{0,2}[\w$]{1,20}\s{0,2},\s{0,2}(pack_)?sockaddr_in\s{0,2}\(/
        $sock2 = /IO::Socket::(INET6?|IP|SSL)(\s{0,2}->\s{0,2}new)?\s{0,2}\(\s{0,4}["']?(PeerAddr|PeerHost|Proto|LocalPort)/
        $dup1 = /open\s{0,2}\(?\s{0,2}STD(IN|OUT|ERR)\s{0,2},\s{0,2}["'][<>+]{1,2}&=?\s{0,2}[\w$]{0,20}["']/
        $dup2 = /STD(IN|OUT|ERR)\s{0,2}->\s{0,2}fdopen\s{0,2}\(\s{0,2}\$/
        $dup3 = /\$~\s{0,2}->\s{0,2}fdopen\s{0,2}\(/
        $shell1 = /(exec|system)\s{0,2}[\s\({]\s{0,2}["'{]{0,2}(\/usr)?(\/bin\/)(ba|da|z|k)?sh\b/
        $shell2 = /system\s{0,2}\$_\s+(for|while)|system\s{0,2}\$_\s{0,2}while|`\$_`/

    condition:
        filesize < 128KB and uint32be(0) != 0x7f454c46
        and any of ($sock*)
        and any of ($shell*)
        and #dup1 + #dup2 + #dup3 >= 2
}

rule reverse_shell_ruby : reverse_shell
{
    meta:
        description = "Ruby code that puts a shell on a socket"
        severity = "Error"
        attack = "T1059"
        reference = "none"
        version = 1

    strings:
        $exec = /TCPSocket\.(new|open)\s{0,2}\(?[^\n]{3,80}\)?(\.to_i)?[^}]{0,80}exec\s{0,2}\(?\s{0,2}(sprintf\s{0,2}\(\s{0,2})?["'](\/usr)?(\/bin\/)?\w{0,3}sh\s+-i\s{0,2}<&/
        $reopen = /TCPSocket\.(new|open)[^}]{3,300}\$std(in|out|err)\.reopen[^}]{1,200}(exec|system)\s{0,2}\(?\s{0,2}["'](\/usr)?(\/bin\/)?\w{0,3}sh/
        $loop = /TCPSocket\.(new|open)\s{0,2}\(?[^\n]{3,80}[;\n][^}]{0,60}while\s{0,2}\(?[^\n;]{0,40}\.gets[^}]{1,60}IO\.popen\s{0,2}\(\s{0,2}\w{1,20}\s{0,2},/

    condition:
        filesize < 128KB and uint32be(0) != 0x7f454c46 and any of them
}

rule reverse_shell_php : reverse_shell
{
    meta:
        description = "PHP code that puts a shell on a socket"
        severity = "Error"
        attack = "T1505.003"
        reference = "none"
        version = 1

    strings:
        // The socket inherits the next descriptor, which the shell is told to use.
        $inherit = /(p?fsockopen|stream_socket_client|socket_create)\s{0,2}\([^}]{3,240}(exec|shell_exec|system|passthru|popen|`)\s{0,2}\(?\s{0,2}["'`]?[^"'\n]{0,20}sh\s+(-i\s+)?[0-9]?<&\s{0,2}\d/

        // The long form: a shell's pipes and a socket, carried across by a loop.
        $sock = /(p?fsockopen|stream_socket_client)\s{0,2}\(/
        $proc = /proc_open\s{0,2}\(\s{0,2}(\$\w{1,20}|["'][^"'\n]{0,40}sh)/
        $pipe = /array\s{0,2}\(\s{0,2}["']pipe["']|\[\s{0,2}["']pipe["']/
        $carry1 = /fwrite\s{0,2}\(\s{0,2}\$pipes\[0\]/
        $carry2 = /fread\s{0,2}\(\s{0,2}\$pipes\[[12]\]/
        $carry3 = /stream_select\s{0,2}\(/
        $shell = /["'\s;](\/usr)?\/bin\/(ba|da|z|k)?sh\b|["';\s](ba)?sh\s+-i["'\s]/

        // A descriptor table that is the socket itself.
        $direct = /proc_open\s{0,2}\(\s{0,2}["'][^"'\n]{0,40}sh[^"'\n]{0,8}["']\s{0,2},\s{0,2}(array\s{0,2}\(|\[)\s{0,2}(0\s{0,2}=>\s{0,2})?\$(\w{1,20})\s{0,2},\s{0,2}(1\s{0,2}=>\s{0,2})?\$\w{1,20}\s{0,2},/

    condition:
        filesize < 128KB and uint32be(0) != 0x7f454c46
        and (
            $inherit
            or ($sock and $direct)
            or ($sock and $proc and $pipe and $shell and 2 of ($carry*))
        )
}

rule reverse_shell_node : reverse_shell
{
    meta:
        description = "JavaScript (Node) code that puts a shell on a socket"
        severity = "Error"
        attack = "T1059.007"
        reference = "none"
        version = 1

    strings:
        $spawn = /(spawn|exec|execFile)\s{0,2}\(\s{0,2}["'`](\/usr)?(\/bin\/)?(ba|da|z|k)?sh["'`]/
        $in = /\.pipe\s{0,2}\(\s{0,2}\w{1,20}\.stdin\s{0,2}\)/
        $out = /\.stdout\.pipe\s{0,2}\(\s{0,2}\w{1,20}\s{0,2}\)/
        $net = /(\.connect|createConnection|createServer|\.listen)\s{0,2}\(/
        $module = /require\s{0,2}\(\s{0,2}["'`](node:)?(net|tls|dgram)["'`]\s{0,2}\)|from\s+["'](node:)?(net|tls)["']/
        // In one expression: exec with the shell's own redirection.
        $oneliner = /child_process["'`]\s{0,2}\)\s{0,2}\.(exec|execSync|spawn)\s{0,2}\([^\n]{0,60}(\/dev\/tcp\/[^\n]{3,80}0>&1|\bnc\s[^\n]{3,80}-[ec]\s+(\/bin\/)?\w{0,3}sh)/

    condition:
        filesize < 128KB and uint32be(0) != 0x7f454c46
        and (($spawn and $in and $out and $net and $module) or $oneliner)
}

rule reverse_shell_lua_java_go : reverse_shell
{
    meta:
        description = "Lua, Java, Groovy or Go source that puts a shell on a socket"
        severity = "Error"
        attack = "T1059"
        reference = "none"
        version = 1

    strings:
        // Lua: read a line from the socket, popen it, send what it printed.
        $lua = /\.tcp\s{0,2}\(\s{0,2}\)[^\x00]{3,200}:?connect\s{0,2}\([^\x00]{3,200}:?receive\s{0,2}\([^\x00]{0,200}io\.popen\s{0,2}\(\s{0,2}\w{1,20}[^\x00]{0,200}:?send\s{0,2}\(/
        $lua_exec = /socket\.tcp\(\)[^\n]{3,120}connect\([^\n]{3,120}os\.execute\s{0,2}\(\s{0,2}["'][^"'\n]{0,20}sh\s+-i\s+<&/

        // Java and Groovy: a shell process and a socket, copied byte by byte.
        $java_shell = /(ProcessBuilder\s{0,2}\(|\.exec\s{0,2}\(|String\s+\w{1,20}\s{0,2}=)[^;\n]{0,40}["'](\/usr)?\/bin\/(ba|da|z|k)?sh["']/
        $java_socket = /new\s+(java\.net\.)?Socket\s{0,2}\(/
        $java_copy1 = /\.getInputStream\(\)/
        $java_copy2 = /\.write\s{0,2}\(\s{0,2}\w{1,20}\.read\s{0,2}\(\s{0,2}\)\s{0,2}\)/

        // Go: the connection is the command's standard input and output.
        $go1 = /net\.Dial(TLS|Timeout)?\s{0,2}\(\s{0,2}["`]tcp/
        $go2 = /exec\.Command\s{0,2}\(\s{0,2}["`](\/usr)?(\/bin\/)?(ba|da|z|k)?sh["`]/
        $go3 = /\.Stdin\s{0,2}=\s{0,2}\w{1,20}/
        $go4 = /\.Stdout\s{0,2}=\s{0,2}\w{1,20}|Stdin,\s{0,2}\w{1,20}\.Stdout/

    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46
        and (
            $lua or $lua_exec
            or ($java_shell and $java_socket and $java_copy2 and #java_copy1 >= 2)
            or all of ($go*)
        )
}

rule reverse_shell_elf_shellcode : reverse_shell
{
    meta:
        description = "Tiny ELF program that is hand-written socket, dup2 and execve of a shell"
        severity = "Critical"
        attack = "T1059.004"
        reference = "none"
        version = 1

    strings:
        // x86-64: socket(AF_INET, SOCK_STREAM, 0) with short pushes, then dup2 in a
        // loop, then "/bin/sh" as an immediate. No compiler writes any of the three.
        $x64_socket = { 6A 29 58 [0-3] 6A 02 5F [0-3] 6A 01 5E [0-3] 0F 05 }
        $x64_dup2 = { 6A 03 5E 48 FF CE 6A 21 58 0F 05 75 }
        $x64_sh = { 48 (BB | B9 | BF | B8 | BA) 2F 62 69 6E 2F (73 68 | 2F 73) }

        // i386: the same through socketcall(2), "//sh" and "/bin" pushed.
        $x86_socket = { 31 DB F7 E3 53 43 53 6A 02 (89 E1 B0 66 | B0 66 89 E1) CD 80 }
        $x86_dup2 = { B0 3F CD 80 49 79 }
        $x86_sh = "h//shh/bin"

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 4KB
        and (2 of ($x64_*) or 2 of ($x86_*))
}
