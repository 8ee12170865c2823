// What ransomware leaves behind, and programs that carry such a note. A note is
// recognised by its parts: what happened, what is offered, how to pay or to get in
// touch, and the threats. News and handbooks have the first two, seldom all.

rule ransom_note_with_contact : ransomware
{
    meta:
        description = "Ransom note with an address to pay or to write to"
        severity = "Error"
        attack = "T1486"
        reference = "none"
        version = 1

    strings:
        $what1 = "have been encrypted" nocase
        $what2 = "has been encrypted" nocase
        $what3 = "were encrypted" nocase
        $what4 = "are encrypted" nocase
        $what5 = "files are locked" nocase
        $what6 = "have been locked" nocase
        $what7 = "has been locked" nocase
        $what8 = "was encrypted" nocase
        $what9 = "were stolen and encrypted" nocase
        $what10 = /data (is|was|has been) (backed up|exfiltrated|downloaded|stolen)/ nocase

        $offer1 = "decryption key" nocase
        $offer2 = "decryptor" nocase
        $offer3 = /(recover|restore|decrypt|unlock) (all )?(of )?your (\w{1,20} ){0,3}(files|data|network|servers?|systems?|documents|databases?)/ nocase
        $offer4 = "decryption tool" nocase
        $offer5 = "decryption software" nocase
        $offer6 = "decrypt one file" nocase
        $offer7 = /decrypt [0-9] files? for free/ nocase
        $offer8 = "get your data back" nocase
        $offer9 = "get your files back" nocase
        $offer10 = "private key" nocase

        // Where the money or the mail goes.
        $to_onion = /\b[a-z2-7]{56}\.onion\b/
        $to_btc1 = /\bbc1[ac-hj-np-z02-9]{39,59}\b/
        $to_btc2 = /\b[13][1-9A-HJ-NP-Za-km-z]{32,33}\b/
        $to_xmr = /\b[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}\b/
        $to_mail = /[A-Za-z0-9._-]{2,40}@(proton(mail)?\.(com|me|ch)|tuta(nota|mail)?\.(com|de|io)|onionmail\.org|cock\.li|airmail\.cc|mailfence\.com|aol\.com|firemail\.cc|keemail\.me|msgsafe\.io|dnmx\.org)/ nocase
        $to_tox = /\btox( id| chat)?\s{0,3}[:=]?\s{0,3}[0-9A-F]{76}\b/ nocase
        $to_session = /\bsession( id)?\s{0,3}[:=]\s{0,3}05[0-9a-f]{64}\b/ nocase

        $press1 = /do not (try|attempt) to (decrypt|recover|restore|rename)/ nocase
        $press2 = /(do not|don't) (rename|modify|delete|edit|move|shut ?down|reboot|reset)/ nocase
        $press3 = /third[- ]party (software|tools?|decryptors?|recovery)/ nocase
        $press4 = /(will be|be) (published|leaked|sold|made public|deleted|destroyed|doubled|lost)/ nocase
        $press5 = /(within|after|in|you have) (24|48|72|96) ?hours/ nocase
        $press6 = /(permanent(ly)?|irreversibl[ey]) (data )?(loss|lost|damage|deleted|destroyed)/ nocase
        $press7 = "bitcoin" nocase
        $press8 = "monero" nocase
        $press9 = /[0-9]\s?(BTC|XMR)\b/
        $press10 = "tor browser" nocase
        $press11 = /(your|personal|unique|decryption|victim|client) id\b/ nocase
        $press12 = "contact the police" nocase

    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46
        and any of ($what*) and any of ($offer*) and any of ($to_*) and 3 of ($press*)
}

rule ransom_note_wording : ransomware
{
    meta:
        description = "Text worded like a ransom note"
        // A report about ransomware can read like this.
        severity = "Warning"
        attack = "T1486"
        reference = "none"
        version = 1

    strings:
        $what1 = /your (\w{1,20} ){0,4}(files|data|documents|databases?|servers?|systems?|network) (\w{1,20} ){0,6}(have|has|are|is|was|were) (\w{1,20} ){0,2}(encrypted|locked)/ nocase
        $offer1 = /(recover|restore|decrypt|unlock) (all )?(of )?your (\w{1,20} ){0,3}(files|data|network|servers?|systems?|documents|databases?)/ nocase
        $offer2 = "decryptor" nocase
        $offer3 = "decryption key" nocase
        $pay1 = "bitcoin" nocase
        $pay2 = "monero" nocase
        $pay3 = "tor browser" nocase
        $pay4 = ".onion"
        $pay5 = "ransom" nocase
        $press1 = /do not (try|attempt) to (decrypt|recover|restore|rename)/ nocase
        $press2 = /(do not|don't) (rename|modify|delete) (\w{1,20} ){0,3}files/ nocase
        $press3 = /third[- ]party (software|tools?|decryptors?|recovery)/ nocase
        $press4 = /(within|after|in|you have) (24|48|72|96) ?hours/ nocase
        $press5 = /(personal|unique|decryption) id\b/ nocase

    condition:
        filesize < 64KB and uint32be(0) != 0x7f454c46
        and $what1 and any of ($offer*) and any of ($pay*) and 2 of ($press*)
}

rule ransom_database_note : ransomware
{
    meta:
        description = "Note left in the place of a wiped database"
        severity = "Error"
        attack = "T1485"
        reference = "none"
        version = 1

    strings:
        // Wipers of open databases leave one row or key with this sentence shape.
        $pay = /(you must|must|please|to recover (it|them|your data)[,:]?( you)?( must)?) (pay|send) [0-9.]{1,8} ?(BTC|bitcoins?|XMR)\b/ nocase
        $gone1 = /(databases?|data|collections?|indices|tables) (is|are|was|were|has been|have been) (a )?(backed ?up|dumped|downloaded|deleted|dropped|erased)/ nocase
        $gone2 = "we have backed up" nocase
        $to1 = /\bbc1[ac-hj-np-z02-9]{39,59}\b/
        $to2 = /\b[13][1-9A-HJ-NP-Za-km-z]{32,33}\b/
        $to3 = /\b[a-z2-7]{56}\.onion\b/

    condition:
        filesize < 4MB and uint32be(0) != 0x7f454c46
        and $pay and any of ($gone*) and any of ($to*)
}

rule ransom_elf_carries_note : ransomware
{
    meta:
        description = "ELF program that carries a ransom note"
        severity = "Error"
        attack = "T1486"
        reference = "none"
        version = 1

    strings:
        $what = /your (\w{1,20} ){0,4}(files|data|documents|databases?|servers?|systems?|network|virtual machines) (\w{1,20} ){0,6}(have|has|are|is|was|were) (\w{1,20} ){0,2}(encrypted|locked)/ nocase
        $offer1 = /(recover|restore|decrypt|unlock) (all )?(of )?your (\w{1,20} ){0,3}(files|data|network|servers?|systems?|documents|databases?)/ nocase
        $offer2 = "decryptor" nocase
        $offer3 = "decryption key" nocase
        $to1 = /\b[a-z2-7]{56}\.onion\b/
        $to2 = "tor browser" nocase
        $to3 = "bitcoin" nocase
        $to4 = "monero" nocase
        // What it works on: disks of virtual machines, databases, backups.
        $act1 = ".vmdk"
        $act2 = "vim-cmd vmsvc"
        $act3 = "esxcli"
        $act4 = "readdir"
        $act5 = "nftw"
        $act6 = "rename"
        $act7 = ".encrypted"
        $act8 = ".locked"
        $act9 = /(README|HOW_TO|RESTORE|RECOVER|DECRYPT)[A-Z_-]{0,30}\.(txt|html)/

    condition:
        uint32be(0) == 0x7f454c46 and filesize < 20MB
        and $what and any of ($offer*) and any of ($to*) and any of ($act*)
}
