// The EICAR anti-malware test file. It is harmless by definition, and every
// scanner reports it, so that an installation can be tested end to end.
//
// The test string stands here in two halves, the first of them with an escaped
// backslash: this file is not a test file, for us or for any other scanner.

rule eicar_test_file : test
{
    meta:
        description = "The EICAR anti-malware test file"
        severity = "Critical"
        attack = "T1204.002"
        reference = "https://www.eicar.org/download-anti-malware-testfile/"
        version = 1

    strings:
        $head = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$"
        $tail = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

    condition:
        // By the standard: the string at the very start, at most 128 bytes in all.
        filesize <= 128 and $head at 0 and $tail at 28
}

rule eicar_string_inside : test
{
    meta:
        description = "The EICAR test string inside a larger file"
        // Manuals, scanners and their test suites carry it.
        severity = "Notice"
        attack = "T1204.002"
        reference = "https://www.eicar.org/download-anti-malware-testfile/"
        version = 1

    strings:
        $head = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$"
        $tail = "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"

    condition:
        filesize > 68 and filesize < 1MB
        and not (filesize <= 128 and $head at 0)
        and $tail at @head[1] + 28
}
