//! ELF files made for the tests: a header that is right, a body that never runs.

/// Where the code of [`program`] would begin.
const HEADER: usize = 64;

/// An ELF-64 of type `kind` whose body is `body`, with an empty section table at its end unless
/// it is stripped of it. Nothing in it is executable: there is no program header.
pub(crate) fn program(kind: u8, body: &[u8], sections: bool) -> Vec<u8> {
    let mut file = vec![0_u8; HEADER];
    let table = u32::try_from(HEADER + body.len())
        .unwrap_or_default()
        .to_le_bytes();
    for (at, bytes) in [
        (0, [0x7f, b'E', b'L', b'F'].as_slice()),
        (4, &[2, 1, 1]),
        (16, &[kind, 0, 62, 0, 1]),
        (52, &[64, 0, 56, 0, 0, 0, 64, 0]),
    ] {
        file.splice(at..at + bytes.len(), bytes.iter().copied());
    }
    if sections {
        file.splice(40..44, table);
        file.splice(60..61, [1]);
    }
    file.extend_from_slice(body);
    if sections {
        file.resize(file.len() + 64, 0);
    }
    file
}

/// Strings as a linker leaves them: each ends in NUL.
pub(crate) fn strings(list: &[&str]) -> Vec<u8> {
    let mut bytes = vec![0];
    for string in list {
        bytes.extend_from_slice(crate::whole(string).as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Bytes without structure: what compression and encryption leave.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

const EXEC: u8 = 2;
const DYN: u8 = 3;

/// Programs that are met by their strings: name, rule, type, strings.
const LINKED: &[(&str, &str, u8, &[&str])] = &[
    (
        "miner options",
        "miner_elf_option_names",
        EXEC,
        &[
            "donate-le¦vel",
            "rig-id",
            "nicehash",
            "randomx-1gb¦-pages",
            "cpu-max-¦threads-hint",
            "stratum+tcp://",
        ],
    ),
    (
        "miner client",
        "miner_elf_stratum_client",
        EXEC,
        &[
            "mining.subs¦cribe",
            "mining.auth¦orize",
            "mining.sub¦mit",
            "stratum+tcp",
            "hashrate",
            "%.2f hash/s",
        ],
    ),
    (
        "kernel thread",
        "elf_memfd_fake_kernel_thread",
        EXEC,
        &["memfd_create", "/proc/self/fd/%d", "[kwor¦ker/0:0]"],
    ),
    (
        "self-deleting",
        "elf_self_deleting_implant",
        EXEC,
        &["/proc/self/exe", "unlink", "connect", "prctl", "[kthre¦add]"],
    ),
    (
        "downloader",
        "elf_memfd_downloader",
        EXEC,
        &["memfd_create", "fexecve", "GET /%s HTTP/1.1"],
    ),
    (
        "preload",
        "elf_preload_installer",
        EXEC,
        &["/etc/ld.so.pre¦load", "chattr ¦+i", "/dev/shm/x.so"],
    ),
    (
        "process hider",
        "elf_process_hider",
        DYN,
        &[
            "readdir",
            "readdir64",
            "dlsym",
            "/proc/self/fd/%d",
            "/proc/%s/stat",
        ],
    ),
    (
        "note",
        "ransom_elf_carries_note",
        EXEC,
        &[
            "Your files have been encr¦ypted",
            "our decryptor",
            "tor browser",
            "readdir",
        ],
    ),
];

/// x86-64: a socket by short pushes, then `dup2` in a loop; no shell follows.
const SHELLCODE: &[u8] = b"\x6a\x29\x58\x99\x6a\x02\x5f\x6a\x01\x5e\x0f\x05\
                           \x6a\x03\x5e\x48\xff\xce\x6a\x21\x58\x0f\x05\x75\xf6";

/// x86-64: the numbers of `memfd_create` and `execveat`, each with a system call.
const SYSCALLS: &[u8] = b"\xb8\x3f\x01\0\0\x0f\x05\xb8\x42\x01\0\0\x0f\x05";

/// Name, the rule it must meet, the file.
pub(crate) fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let packer = "$Info: This file is pack¦ed with the UPX executable packer";
    let packed = [strings(&["UPX!", packer]), noise(2048), strings(&["UPX!"])].concat();
    let tampered = strings(&[packer, "PROT_EXEC|PROT_WR¦ITE failed."]);
    let outer = program(EXEC, &strings(&["outer"]), true);
    let inner = program(EXEC, &strings(&["inner"]), true);
    let mut files: Vec<_> = LINKED
        .iter()
        .map(|(name, rule, kind, list)| (*name, *rule, program(*kind, &strings(list), true)))
        .collect();
    files.extend([
        ("upx", "elf_packed_upx", program(EXEC, &packed, false)),
        (
            "upx tampered",
            "elf_packed_upx_tampered",
            program(EXEC, &tampered, false),
        ),
        (
            "unknown packer",
            "elf_packed_unknown",
            program(EXEC, &noise(65536), false),
        ),
        (
            "shellcode",
            "reverse_shell_elf_shellcode",
            program(EXEC, SHELLCODE, false),
        ),
        (
            "bare system calls",
            "elf_memfd_raw_syscalls",
            program(EXEC, SYSCALLS, false),
        ),
        (
            "appended program",
            "elf_appended_elf",
            [outer.clone(), inner].concat(),
        ),
        (
            "appended data",
            "elf_appended_encrypted",
            [outer, noise(65536)].concat(),
        ),
    ]);
    files
}
