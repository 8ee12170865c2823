// ELF packers, droppers and what installs them. Packing alone is no crime: many Go
// programs are shipped packed. What is done only against analysis is.
//
// ELF files are recognised by their header fields (System V ABI), little endian,
// without a parser: offsets below are those of Elf64_Ehdr and Elf32_Ehdr.

import "math"

rule elf_packed_upx : packer
{
    meta:
        description = "ELF program packed with UPX"
        severity = "Notice"
        attack = "T1027.002"
        reference = "https://upx.github.io/"
        version = 1

    strings:
        $magic = "UPX!"
        $info = "$Info: This file is packed with the UPX executable packer"

    condition:
        // l_info follows the program headers, and a pack header closes the file.
        uint32be(0) == 0x7f454c46 and filesize < 100MB
        and $magic in (0..512)
        and ($info or $magic in (filesize - 512..filesize))
}

rule elf_packed_upx_tampered : packer
{
    meta:
        description = "ELF program packed with UPX whose magic was removed against unpacking"
        severity = "Error"
        attack = "T1027.002"
        reference = "https://upx.github.io/"
        version = 1

    strings:
        $magic = "UPX!"
        // The stub's own texts, and the start of its decompressor's entry on x86-64
        // (call to the decompressor, push of the registers it will need).
        $info = "$Info: This file is packed with the"
        $id = "$Id: UPX "
        $prot = "PROT_EXEC|PROT_WRITE failed."
        // NRV2 bit reader: add ebx,ebx; je; rep ret; mov ebx,[rsi]; sub rsi,-4; adc ebx,ebx
        $nrv = { 01 DB 74 02 F3 C3 8B 1E 48 83 EE FC 11 DB 8A 16 F3 C3 }

    condition:
        // A packer's output has no section headers, and UPX's magic stands right
        // behind its program headers. UPX itself carries its stubs, and therefore
        // these texts, but it has sections or is packed properly.
        uint32be(0) == 0x7f454c46 and filesize < 100MB
        and (uint8(4) == 2 and uint16(0x3c) == 0 or uint8(4) == 1 and uint16(0x30) == 0)
        and not $magic in (0..4096)
        and (any of ($info, $id, $prot) or $nrv)
}

rule elf_packed_unknown : packer
{
    meta:
        description = "ELF program without sections whose content is compressed or encrypted"
        severity = "Warning"
        attack = "T1027.002"
        reference = "none"
        version = 1

    strings:
        $magic = "UPX!"

    condition:
        uint32be(0) == 0x7f454c46 and filesize > 16KB and filesize < 20MB
        and (uint16(0x10) == 2 or uint16(0x10) == 3)
        and (uint8(4) == 2 and uint16(0x3c) == 0 or uint8(4) == 1 and uint16(0x30) == 0)
        and not $magic in (0..512)
        and math.entropy(0, filesize) > 7.6
}

rule elf_memfd_fake_kernel_thread : dropper
{
    meta:
        description = "ELF program that runs from memory under the name of a kernel thread"
        severity = "Error"
        attack = "T1620"
        reference = "none"
        version = 1

    strings:
        $memfd = "memfd_create" fullword
        $run1 = "fexecve" fullword
        $run2 = "execveat" fullword
        $run3 = /\/proc\/(self|%d|%i|%ld|%u)\/fd\/%[dilu]/
        // Names in brackets exist only for kernel threads, and only in ps output.
        $name1 = /\[k(worker|swapd|softirqd|thread|intd|auditd|blockd|compactd|hugepaged)[^\]\n\x00]{0,24}\]/
        $name2 = /\[(migration|watchdog|rcu_sched|rcu_preempt|scsi_eh|jbd2|ext4-rsv|card0-crtc|netns|cpuhp)[^\]\n\x00]{0,24}\]/

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 20MB
        and $memfd and any of ($run*) and any of ($name*)
}

rule elf_memfd_downloader : dropper
{
    meta:
        description = "Small ELF program that fetches a file over HTTP and runs it from memory"
        severity = "Warning"
        attack = "T1620"
        reference = "none"
        version = 1

    strings:
        $memfd = "memfd_create" fullword
        $run1 = "fexecve" fullword
        $run2 = "execveat" fullword
        $run3 = /\/proc\/(self|%d|%i|%ld|%u)\/fd\/%[dilu]/
        $http1 = /GET (\/|%s)[^\n\x00]{0,120} HTTP\/1\.[01]/
        $http2 = "User-Agent: "
        $http3 = "curl_easy_perform"

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 3MB
        and $memfd and any of ($run*) and any of ($http*)
}

rule elf_memfd_raw_syscalls : dropper
{
    meta:
        description = "Tiny ELF program with memfd_create and execveat or fexecve as bare system calls"
        severity = "Error"
        attack = "T1620"
        reference = "none"
        version = 1

    strings:
        // mov eax, 319 ... syscall; mov eax, 322 (or 59 on /proc/self/fd) ... syscall
        $memfd = { (B8 3F 01 00 00 | 68 3F 01 00 00 58 | 66 B8 3F 01) [0-24] 0F 05 }
        $execveat = { (B8 42 01 00 00 | 68 42 01 00 00 58 | 66 B8 42 01) [0-40] 0F 05 }
        $path = "/proc/self/fd/"

    condition:
        uint32be(0) == 0x7f454c46 and uint8(4) == 2 and filesize < 32KB
        and $memfd and any of ($execveat, $path)
}

rule script_memfd_dropper : dropper
{
    meta:
        description = "Script that puts a program into a memfd and runs it"
        severity = "Error"
        attack = "T1620"
        reference = "none"
        version = 1

    strings:
        // 319 is memfd_create on x86-64, 279 on arm64.
        $perl = /syscall\s{0,2}\(\s{0,2}(319|279|&?SYS_memfd_create|\$\w{1,12})\s{0,2},/
        $python1 = /os\.memfd_create\s{0,2}\(/
        $python2 = /\.syscall\s{0,2}\(\s{0,2}(319|279)\s{0,2},/
        $ruby = /syscall\s{0,2}\(?\s{0,2}319\s{0,2},/
        $php = /FFI::cdef\s{0,2}\([^\n]{0,200}memfd_create/
        $fd = /\/proc\/(self|\$\$|["'.\s$+{}%a-z_()]{1,40})\/fd\//
        $exec1 = /exec[lv]?p?e?\s{0,2}[\({]/
        $exec2 = /exec\s{0,2}\{/
        $exec3 = /subprocess\.\w{3,12}\s{0,2}\(|os\.(system|popen|posix_spawn)\s{0,2}\(/
        // Where the program comes from: the network, or a literal of it.
        $from1 = /(urlopen|requests\.get|LWP::|HTTP::Tiny|IO::Socket|Net::HTTP|urlretrieve|open-uri|\bcurl\b|\bwget\b)/
        $from2 = /(b64decode|decode_base64|unpack\s{0,2}\(?\s{0,2}["'][Hmu]|a2b_|fromhex|zlib\.decompress)/
        $from3 = /(\\x[0-9a-fA-F]{2}){24,}/
        $shebang = /^#!\s?\/[^\n]{2,60}/

    condition:
        filesize < 40MB and uint32be(0) != 0x7f454c46
        and any of ($perl, $python*, $ruby, $php) and $fd and any of ($exec*) and any of ($from*)
        and ($shebang or filesize < 64KB)
}

rule script_embedded_elf : dropper
{
    meta:
        description = "Script that carries an ELF program as text, writes it and runs it"
        severity = "Error"
        attack = "T1027.009"
        reference = "none"
        version = 1

    strings:
        // An ELF header in base64 (64 and 32 bit, little endian) or as escapes,
        // followed by enough to be a program and not a magic-number table.
        $b64 = /f0VMRg[EI]B[A-Za-z0-9+\/=\n\\"']{400,401}/
        $hex = /\\x7f(\\x45\\x4c\\x46|ELF)\\x0[12]\\x01\\x01(\\x[0-9a-fA-F]{2}|[\x20-\x7e]){48,49}/ nocase
        $plain_hex = /7f454c460[12]0101[0-9a-f\n]{300,301}/ nocase
        $octal = /\\0?177(ELF|\\0?105\\0?114\\0?106)\\0?0?0?[12]\\0?0?0?1(\\[0-7]{1,4}|[\x20-\x7e]){48,49}/

        $write1 = /chmod\s+([0-7]{3,4}|[ugoa]{0,3}\+[rwx]{1,3})\s/
        $write2 = /os\.chmod\s{0,2}\(/
        $write3 = /chmod\s{0,2}\(?\s{0,2}0?[0-7]{3}\s{0,2},/
        $write4 = /chmod\s{0,2}\(\s{0,2}\$/
        $write5 = "memfd_create"

        $shebang = /^#!\s?\/[^\n]{2,60}/
        $php = "<?php"
        $python = /\nimport\s+(os|base64|sys|subprocess|ctypes)\b/

    condition:
        filesize < 40MB and uint32be(0) != 0x7f454c46
        and any of ($b64, $hex, $plain_hex, $octal) and any of ($write*)
        and ($shebang or $php or $python or filesize < 64KB)
}

rule script_fetch_run_each_architecture : dropper
{
    meta:
        description = "Script that fetches a program for each architecture, runs it and removes it"
        severity = "Error"
        attack = "T1105"
        reference = "none"
        version = 1

    strings:
        // One round: fetch, make executable, run, perhaps remove. Loaders of botnets
        // try them all, because they do not know where they are.
        $round = /\b(wget|curl|tftp|ftpget)\s[^\n]{4,240}[;&|\n]{1,2}[^\n]{0,120}chmod\s+(\+x|[0-7]{3,4})\s[^\n;&|]{1,80}[;&|\n]{1,2}[^\n]{0,20}(\.\/|sh\s|\/)[^\n]{1,120}/
        $arch1 = /[\/._-](mips|mipsel|mpsl)\b/
        $arch2 = /[\/._-]arm[4-7](l|n)?\b/
        $arch3 = /[\/._-](sh4|m68k|spc|sparc|ppc|powerpc|arc)\b/
        $arch4 = /[\/._-](x86|x86_64|i[3-6]86|amd64)\b/

    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46
        and #round >= 3 and 3 of ($arch*)
}

rule script_fetch_run_hidden : dropper
{
    meta:
        description = "Script that fetches a program into a scratch folder, runs it in the background and hides the traces"
        severity = "Warning"
        attack = "T1105"
        reference = "none"
        version = 1

    strings:
        // From a bare address, into a folder that everybody can write.
        $fetch = /\b(wget|curl)\s[^\n]{0,120}https?:\/\/[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]{1,5})?\/[^\n]{0,120}/
        $into = /(\/tmp|\/var\/tmp|\/dev\/shm|\/run\/user\/[0-9]{1,6}|\/var\/run)\/\.?[^\s;&|]{1,60}/
        $run = /chmod\s+(\+x|[0-7]{3,4})\s[^\n;&|]{1,80}/
        $hide1 = /rm\s+-r?f?r?\s[^\n;&|]{0,60}(\$0|\$\{0\}|BASH_SOURCE|\/tmp\/|\/var\/tmp\/|\/dev\/shm\/)/
        $hide2 = /history\s+-c|unset\s+HISTFILE|HISTFILE=\/dev\/null|HISTSIZE=0/
        $hide3 = /nohup\s[^\n]{1,160}>\s{0,2}\/dev\/null/
        $hide4 = /\bsetsid\s|\bdisown\b/
        $shebang = /^#!\s?\/(usr\/)?bin\/(env\s+)?(ba|da|a|z)?sh/

    condition:
        filesize < 64KB and ($shebang or filesize < 4KB)
        and $fetch and $into and $run and any of ($hide*)
}

rule script_preload_installer : dropper
{
    meta:
        description = "Script that adds a library to every program through ld.so.preload"
        // Some monitoring agents install themselves this way.
        severity = "Warning"
        attack = "T1574.006"
        reference = "none"
        version = 1

    strings:
        $write = /(echo|printf|cat|tee|cp|mv|install)\s[^\n]{0,200}(>{1,2}\s{0,2}|\s)["']?\/etc\/ld\.so\.preload/
        $python = /open\s{0,2}\(\s{0,2}["']\/etc\/ld\.so\.preload["']\s{0,2},\s{0,2}["'][wa]/

    condition:
        filesize < 256KB and uint32be(0) != 0x7f454c46 and any of them
}

rule script_preload_installer_hidden : dropper
{
    meta:
        description = "Script that preloads a library from a scratch or hidden folder into every program"
        severity = "Error"
        attack = "T1574.006"
        reference = "none"
        version = 1

    strings:
        $scratch = /(echo|printf)\s+(-[ne]\s+)?["']?(\/tmp|\/var\/tmp|\/dev\/shm|\/[^\s"']{0,80}\/\.[a-zA-Z0-9_-])[^\s"'>]{0,100}["']?\s{0,4}>{1,2}\s{0,2}["']?\/etc\/ld\.so\.preload/
        $write = />{1,2}\s{0,2}["']?\/etc\/ld\.so\.preload/
        $lock = /chattr\s+\+[ai]{1,2}\s[^\n]{0,80}\/etc\/ld\.so\.preload/
        $old = /touch\s+(-[acm]{1,3}\s+)?(-r|--reference)[ =][^\n]{1,80}\/etc\/ld\.so\.preload/

    condition:
        filesize < 256KB and uint32be(0) != 0x7f454c46
        and ($scratch or ($write and any of ($lock, $old)))
}

rule elf_process_hider : rootkit
{
    meta:
        description = "Shared library that hides processes or files from every program that preloads it"
        severity = "Error"
        attack = "T1014"
        reference = "none"
        version = 1

    strings:
        // It replaces readdir, calls the real one through dlsym, and looks at whose
        // directory it is: /proc through its own descriptor, names through stat.
        $hook1 = "readdir" fullword
        $hook2 = "readdir64" fullword
        $next = "dlsym" fullword
        $proc1 = /\/proc\/self\/fd\/%d/
        $proc2 = /\/proc\/%s\/(stat|cmdline|comm|status)/
        $more1 = "/etc/ld.so.preload"
        $more2 = "/proc/net/tcp"
        $more3 = "LD_PRELOAD" fullword
        $more4 = "pam_authenticate" fullword
        $more5 = "accept" fullword

    condition:
        // ET_DYN and small: a program that wraps readdir for good reasons has a
        // hundred other wrappers beside it.
        uint32be(0) == 0x7f454c46 and uint16(0x10) == 3 and filesize < 256KB
        and all of ($hook*) and $next
        and (all of ($proc*) or ($more1 and any of ($proc1, $proc2, $more2)) or ($more3 and $more4 and $more5))
}

rule elf_preload_installer : dropper
{
    meta:
        description = "Small ELF program that writes ld.so.preload and makes it immutable or hidden"
        severity = "Warning"
        attack = "T1574.006"
        reference = "none"
        version = 1

    strings:
        $file = "/etc/ld.so.preload"
        $do1 = "chattr +i"
        $do2 = "chattr -i"
        $do3 = /(\/tmp|\/var\/tmp|\/dev\/shm|\/usr\/(local\/)?lib|\/lib)\/\.?[A-Za-z0-9_.-]{1,40}\.so/
        $do4 = "/etc/cron.d/"
        $do5 = ".ssh/authorized_keys"
        // The loader itself and its tools name the file too.
        $not_loader = /ld-(linux|musl)[a-z0-9_.-]{0,20}|GLIBC_PRIVATE|rtld/

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 4MB
        and $file and 2 of ($do*) and not $not_loader
}

rule elf_appended_elf : dropper
{
    meta:
        description = "ELF program with a second ELF program behind its end"
        severity = "Warning"
        attack = "T1027.009"
        reference = "none"
        version = 1

    condition:
        // The section header table is the last thing a linker writes: what follows
        // it was put there by somebody else. AppImages say so at offset 8 ("AI").
        uint32be(0) == 0x7f454c46 and filesize < 100MB and uint16be(8) != 0x4149
        and (
            (uint8(4) == 2 and uint16(0x3c) > 0 and uint32(0x2c) == 0
                and uint32be(uint32(0x28) + uint16(0x3a) * uint16(0x3c)) == 0x7f454c46)
            or (uint8(4) == 1 and uint16(0x30) > 0
                and uint32be(uint32(0x20) + uint16(0x2e) * uint16(0x30)) == 0x7f454c46)
        )
}

rule elf_appended_encrypted : dropper
{
    meta:
        description = "ELF program with compressed or encrypted data behind its end"
        // Self-extracting installers do the same.
        severity = "Notice"
        attack = "T1027.009"
        reference = "none"
        version = 1

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 100MB and uint16be(8) != 0x4149
        and uint8(4) == 2 and uint16(0x3c) > 0 and uint32(0x2c) == 0
        and filesize > uint32(0x28) + uint16(0x3a) * uint16(0x3c) + 32768
        and math.entropy(
            uint32(0x28) + uint16(0x3a) * uint16(0x3c),
            filesize - uint32(0x28) - uint16(0x3a) * uint16(0x3c)
        ) > 7.9
}

rule elf_self_deleting_implant : dropper
{
    meta:
        description = "Small ELF program that removes its own file and goes on as a kernel thread"
        severity = "Error"
        attack = "T1070.004"
        reference = "none"
        version = 1

    strings:
        $self = "/proc/self/exe"
        $gone1 = "unlink" fullword
        $gone2 = "remove" fullword
        $gone3 = "unlinkat" fullword
        $net1 = "connect" fullword
        $net2 = "/dev/tcp/"
        $net3 = "gethostbyname" fullword
        $net4 = "getaddrinfo" fullword
        $name1 = /\[k(worker|swapd|softirqd|threadd|intd|auditd|blockd|compactd|hugepaged)[^\]\n\x00]{0,24}\]/
        $name2 = /\[(migration|watchdog|rcu_sched|rcu_preempt|scsi_eh|jbd2|ext4-rsv|card0-crtc|netns|cpuhp)[^\]\n\x00]{0,24}\]/
        $prctl = "prctl" fullword

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 4MB
        and $self and any of ($gone*) and any of ($net*) and any of ($name*) and $prctl
}
