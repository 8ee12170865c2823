//! Five thousand rules of the kinds that public collections have: they load unchanged from a
//! folder, judge, and fit.

#![expect(
    clippy::expect_used,
    reason = "a test that meets what it did not expect must fail"
)]

use std::fmt::Write;
use std::fs;
use std::time::Instant;

use lazaret_scan_worker::judge::Judge;
use lazaret_scan_worker::rules;
use lazaret_scan_worker::similar::Similar;

const RULES: u32 = 5_000;
const RULES_A_FILE: u32 = 50;

/// What a scan worker is allowed by default, in KiB.
const WORKER_MEMORY: u64 = 1 << 20;

/// One rule of each kind in turn; every name and string is another one.
fn rule(n: u32) -> String {
    let mark = format!("{:08x}", n.wrapping_mul(2_654_435_761));
    let meta = format!(
        "meta: author = \"somebody\" date = \"2031-01-01\" hash = \"{mark}\" score = {}",
        n % 100
    );
    let body = match n % 10 {
        0 => format!(
            "strings: $a = \"marker_{mark}\" ascii wide nocase $b = \"beside_{mark}\" fullword condition: any of them"
        ),
        1 => format!(
            "strings: $h = {{ {} ?? 4D [2-8] ( 5A | 90 ) {} }} condition: $h",
            spaced(&mark),
            spaced(&mark)
        ),
        2 => format!(
            "strings: $r = /user-agent: [a-z]{{2,8}}\\/{mark}\\.[0-9]+/i condition: $r and filesize < 2MB"
        ),
        3 => format!(
            "strings: $a = \"{mark}\" condition: uint16(0) == 0x5A4D and pe.number_of_sections > 3 and $a"
        ),
        4 => format!("strings: $a = \"{mark}\" condition: elf.type == elf.ET_EXEC and #a > 1"),
        5 => format!("condition: filesize < 1KB and hash.md5(0, filesize) == \"{mark}{mark}{mark}{mark}\""),
        6 => format!(
            "strings: $a = \"{mark}\" condition: $a and math.entropy(0, filesize) > 7.{}",
            n % 9
        ),
        7 => {
            format!("strings: $a = \"x{mark}\" xor(0x01-0xff) $b = \"y{mark}\" base64 condition: all of them")
        }
        8 => format!(
            "strings: $s1 = \"{mark}1\" $s2 = \"{mark}2\" $s3 = \"{mark}3\" condition: 2 of ($s*) and for any i in (1..#s1) : (@s1[i] < 4096)"
        ),
        _ => format!("strings: $a = \"{mark}\" condition: is_text and $a"),
    };
    format!("rule collected_{n} : tag{} {{ {meta} {body} }}\n", n % 7)
}

fn spaced(hex: &str) -> String {
    let pairs: Vec<_> = hex.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
    pairs.join(" ")
}

fn status(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("our own status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("a known key");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn five_thousand_rules_load_judge_and_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    let beginning = "import \"pe\"\nimport \"elf\"\nimport \"math\"\nimport \"hash\"\n\
                     private rule is_text { condition: filesize > 0 and uint8(0) < 0x7f }\n\
                     global rule not_huge { condition: filesize < 200MB }\n";
    let mut index = String::from("// all of them\n");
    for file in 0..RULES / RULES_A_FILE {
        let numbers = file * RULES_A_FILE..(file + 1) * RULES_A_FILE;
        let text: String = numbers.map(rule).collect();
        let name = format!("family_{file:03}.yar");
        fs::write(folder.path().join(&name), format!("{beginning}{text}")).expect("a file");
        writeln!(index, "include \"./{name}\"").expect("a line");
    }
    fs::write(folder.path().join("index.yar"), index).expect("a file");

    let (before, start) = (status("VmRSS:"), Instant::now());
    let loaded = rules::load(&[folder.path().to_owned()], None).expect("rules");
    let (took, after) = (start.elapsed(), status("VmRSS:"));
    let errors: Vec<_> = loaded
        .problems
        .iter()
        .filter(|problem| !problem.warning)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let public = loaded
        .rules
        .iter()
        .filter(|rule| rule.identifier().starts_with("collected_"))
        .count();
    assert_eq!(public, RULES as usize);

    let similar = Similar::default();
    let mut judge = Judge::new(&loaded.rules, &similar);
    let mark = |n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761));
    let mut content = format!(
        "marker_{} and user-agent: abc/{}.1 {}",
        mark(10),
        mark(12),
        mark(19)
    );
    let scanned = judge
        .judge(content.as_bytes(), None, &mut |_| {})
        .expect("a verdict");
    let mut names: Vec<_> = scanned
        .findings
        .iter()
        .map(|finding| finding.rule.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["collected_10", "collected_12", "collected_19"]);

    content.push_str(&"some text that meets nothing \n".repeat(40_000));
    let start = Instant::now();
    judge
        .judge(content.as_bytes(), None, &mut |_| {})
        .expect("a verdict");
    println!(
        "{RULES} rules in {took:?}: {} MiB more, peak {} MiB; a file of {} KiB in {:?}",
        (after - before) >> 10,
        status("VmHWM:") >> 10,
        content.len() >> 10,
        start.elapsed()
    );
    assert!(status("VmRSS:") < WORKER_MEMORY);
}
