use super::*;

/// A text without the cuts that keep this file from being what it tests.
fn found(text: &str) -> Option<(&'static str, Severity)> {
    judge(text.replace('¦', "").as_bytes()).map(|found| (found.rule, found.severity))
}

const CODE: Option<(&str, Severity)> = Some(("request_reaches_code", Severity::Error));
const COMMAND: Option<(&str, Severity)> = Some(("request_reaches_command", Severity::Error));

#[test]
fn what_a_request_sends_is_followed_to_where_it_runs() {
    for (text, expected) in [
        ("<?php ev¦al($_PO¦ST['a']);", CODE),
        ("<?php $a = trim($_GE¦T['a']); $b = $a; sys¦tem($b);", COMMAND),
        (
            "<?php function f($c) { pass¦thru($c); } f($_COO¦KIE['c']);",
            COMMAND,
        ),
        ("<?php foreach ($_GE¦T as $v) { ev¦al($v); }", CODE),
        (
            "<% Runtime.getRun¦time().exec(request.getPara¦meter(\"c\")); %>",
            COMMAND,
        ),
        (
            "from flask import request\nimport os\nos.po¦pen(request.ar¦gs['c'])\n",
            COMMAND,
        ),
        ("#!/usr/bin/perl\nmy $c = par¦am('c'); print `$c`;", COMMAND),
        (
            "const {exec} = require('child_¦process'); app.get('/', (req) => exec(req.que¦ry.c));",
            COMMAND,
        ),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn an_argument_is_no_command_and_a_number_is_nothing() {
    for text in [
        "<?php exec('convert ' . $_GET['size'] . ' a.png');",
        "<?php system('ls ' . escapeshellarg($_GET['d']));",
        "<?php if ($_POST['a'] == 'b') { system('uptime'); }",
        "<?php $n = intval($_GET['n']); eval('$x = ' . $n . ';');",
        "<?php eval(file_get_contents('part.php'));",
        "const m = /x(.*)/.exec(req.url); require('child_process').execFile('git', ['log', req.query.b]);",
        "import subprocess\nsubprocess.run(['git', 'log', request.args['b']])\n",
    ] {
        assert_eq!(found(text), None, "{text}");
    }
}

#[test]
fn hidden_names_are_read() {
    let hidden = Some(("hidden_function", Severity::Error));
    assert_eq!(found("<?php $f = 'sys' . 't¦em'; $f($_GE¦T['a']);"), hidden);
    assert_eq!(found("<?php $f = strrev('met¦sys'); $f($_GE¦T['a']);"), hidden);
    assert_eq!(found("<?php $f = \"\\x73ys¦tem\"; $f($_GE¦T['a']);"), hidden);
}

#[test]
fn a_decoded_payload_is_suspicious() {
    let payload: String = (0..600_u32)
        .map(|n| {
            char::from(
                b'A' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26 + if n % 3 == 0 { 32 } else { 0 },
            )
        })
        .collect();
    let text = format!("<?php ev¦al(gzinflate(base64_decode('{payload}')));");
    assert_eq!(found(&text), Some(("encoded_code", Severity::Warning)));
}

#[test]
fn the_reasons_say_what_was_counted() {
    let text = "<?php ev¦al(base64_decode($_PO¦ST['a']));".replace('¦', "");
    let reasons = judge(text.as_bytes()).unwrap().reasons;
    assert_eq!(
        reasons,
        "13 points: what a request sends is run as code by eval, through a decoder"
    );
}

#[test]
fn hostile_text_costs_a_bounded_time() {
    use std::time::{Duration, Instant};
    for text in [
        format!("<?php {}", "eval(".repeat(60_000)),
        format!("<?php {}", "$a=f($a,$a);".repeat(20_000)),
        format!("<?php {}", "{[(".repeat(100_000)),
        format!("<?php \"{}", "$".repeat(300_000)),
        format!("<?php {}", "<<<A\n".repeat(60_000)),
        "import x\n".to_owned() + &"eval(x, ".repeat(40_000),
    ] {
        let start = Instant::now();
        let _found = judge(text.as_bytes());
        // Without optimisation; with it, a tenth.
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}: {}",
            start.elapsed(),
            &text[..30]
        );
    }
}

#[test]
fn what_is_no_program_is_nothing() {
    for text in ["", "<?php", "\0\0\0", "<%", "plain text", "${", "import "] {
        assert_eq!(judge(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(judge(&vec![b'<'; MAX_TEXT + 1]), None);
}
