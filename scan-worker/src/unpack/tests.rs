use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use lazaret_api::scan::v1::Limit;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

/// What a visitor was told: paths with contents, and what could not be read.
#[derive(Default)]
struct Seen {
    members: Vec<(String, Vec<u8>)>,
    unreadable: Vec<(String, Unreadable)>,
    depth: usize,
}

impl Visitor for Seen {
    fn enter(&mut self, path: &str, content: &[u8]) {
        self.depth += 1;
        self.members.push((path.into(), content.into()));
    }

    fn unreadable(&mut self, path: &str, why: Unreadable) {
        self.unreadable.push((path.into(), why));
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }
}

impl Seen {
    fn paths(&self) -> Vec<&str> {
        self.members.iter().map(|(path, _)| path.as_str()).collect()
    }

    fn content(&self, path: &str) -> &[u8] {
        &self
            .members
            .iter()
            .find(|(known, _)| known == path)
            .expect(path)
            .1
    }
}

fn limits() -> Limits {
    Limits {
        depth: 6,
        members: 100,
        size: 64 << 20,
        ratio: 100,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn walked(content: &[u8], limits: Limits) -> (Seen, Option<Limit>) {
    let (mut seen, mut budget) = (Seen::default(), Budget::new(limits));
    walk(content, &mut budget, &mut seen);
    assert_eq!(seen.depth, 0, "what was entered was left");
    (seen, budget.limit())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

fn xz(content: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(3);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Name, method, flags, data.
type Packed<'a> = (&'a str, u16, u16, Vec<u8>);

/// The headers and contents of a zip, and its directory.
fn zip_parts(members: &[Packed<'_>]) -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (name, method, flags, data) in members {
        let offset = u32::try_from(body.len()).unwrap().to_le_bytes();
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let (method, flags) = (method.to_le_bytes(), flags.to_le_bytes());
        // Version, flags, method, time, checksum, sizes, lengths of name and extras.
        let common = [
            &[20, 0][..],
            &flags,
            &method,
            &[0; 4],
            &[0; 4],
            &size,
            &size,
            &length,
            &[0; 2],
        ]
        .concat();
        body.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\0",
                &common[..],
                &[0; 10],
                &offset,
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    (body, directory)
}

fn zip(members: &[Packed<'_>]) -> Vec<u8> {
    let (body, directory) = zip_parts(members);
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let offset = u32::try_from(body.len()).unwrap().to_le_bytes();
    let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &offset, &[0; 2]].concat();
    [body, directory, end].concat()
}

fn stored<'a>(name: &'a str, data: &[u8]) -> Packed<'a> {
    (name, 0, 0, data.to_vec())
}

fn deflated<'a>(name: &'a str, data: &[u8]) -> Packed<'a> {
    (name, 8, 0, deflate(data))
}

#[test]
fn what_is_no_archive_has_nothing_inside() {
    for content in [
        &b""[..],
        b"PK",
        b"#!/bin/sh\n",
        &[0; 2048],
        b"<?php echo 1;",
        &[b'0'; 600],
    ] {
        assert_eq!(Form::of(content), None);
        assert!(walked(content, limits()).0.members.is_empty());
    }
}

#[test]
fn every_form_is_read() {
    let tar = tar(&[("d/c.php", b"inner")]);
    for (content, path) in [
        (tar.clone(), "d/c.php"),
        (gzip(&tar), "gzip!/d/c.php"),
        (xz(&tar), "xz!/d/c.php"),
        (zstd(&tar), "zstd!/d/c.php"),
        (zip(&[stored("b.tar", &tar)]), "b.tar!/d/c.php"),
        (zip(&[deflated("b.tar", &tar)]), "b.tar!/d/c.php"),
        (zip(&[("b.tar", 93, 0, zstd(&tar))]), "b.tar!/d/c.php"),
        (zip(&[("b.tar", 95, 0, xz(&tar))]), "b.tar!/d/c.php"),
    ] {
        let (seen, limit) = walked(&content, limits());
        assert_eq!((seen.content(path), limit), (&b"inner"[..], None), "{path}");
    }
}

#[test]
fn streams_of_several_parts_are_one() {
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let (seen, _) = walked(&[skipped, zstd(b"one "), zstd(b"two")].concat(), limits());
    assert_eq!(seen.content("zstd"), b"one two");
    let (seen, _) = walked(&[gzip(b"one "), gzip(b"two")].concat(), limits());
    assert_eq!(seen.content("gzip"), b"one two");
}

#[test]
fn long_names_of_tar_are_known() {
    let name = "n/".repeat(90) + "c.php";
    let (seen, _) = walked(&tar(&[(&name, b"x"), ("b", b"y")]), limits());
    assert!(seen.paths()[0].starts_with("n/n/n/"));
    assert_eq!(seen.paths()[1], "b");
}

#[test]
fn a_zip_behind_a_program_is_read() {
    let content = [
        b"#!/usr/bin/env python3\n".to_vec(),
        zip(&[deflated("__main__.py", b"x")]),
    ]
    .concat();
    assert_eq!(walked(&content, limits()).0.paths(), ["__main__.py"]);
}

#[test]
fn what_the_directory_of_a_zip_hides_is_read() {
    let shown = zip_parts(&[stored("shown", b"1")]);
    let hidden = zip_parts(&[deflated("hidden", b"2")]).0;
    let whole = zip(&[stored("shown", b"1")]);
    let end = &whole[shown.0.len() + shown.1.len()..];
    let content = [&shown.0[..], &hidden, &shown.1, end].concat();
    let (seen, _) = walked(&content, limits());
    assert!(seen.paths().contains(&"hidden"), "{:?}", seen.paths());
}

#[test]
fn what_was_cut_short_is_read_as_far_as_it_goes() {
    let text = b"a line of text that repeats itself\n".repeat(2_000);
    let tar = tar(&[("first", &text), ("second", &text)]);
    let zip = zip(&[deflated("first", &text), deflated("second", &text)]);
    for (content, path) in [
        (&tar[..tar.len() - 40_000], "second"),
        (&zip[..zip.len() - 60], "second"),
        (&gzip(&text)[..100], "gzip"),
    ] {
        let (seen, limit) = walked(content, limits());
        assert!(seen.content(path).starts_with(&text[..30]), "{path}");
        assert_eq!(limit, None);
    }
    // Behind damage the next header is found.
    let damaged = [&tar[..512], &[b'?'; 512], &tar[512..]].concat();
    assert!(walked(&damaged, limits()).0.paths().contains(&"second"));
}

#[test]
fn encrypted_and_unknown_members_are_told_once() {
    let content = zip(&[
        ("secret", 8, 1, b"????".to_vec()),
        ("more", 8, 1, b"????".to_vec()),
        ("rare", 14, 0, b"????".to_vec()),
        stored("plain", b"x"),
    ]);
    let (seen, limit) = walked(&content, limits());
    let expected = [
        ("secret".to_owned(), Unreadable::Encrypted),
        ("rare".to_owned(), Unreadable::Method),
    ];
    assert_eq!((seen.unreadable, limit), (expected.to_vec(), None));
}

#[test]
fn a_bomb_reaches_the_ratio_and_its_neighbour_is_still_judged() {
    let zeros = vec![0; 40 << 20];
    let content = zip(&[deflated("bomb", &zeros), stored("neighbour", b"x")]);
    let (seen, limit) = walked(&content, limits());
    assert_eq!(limit, Some(Limit::Ratio));
    assert!(seen.content("bomb").len() < 10 << 20);
    assert_eq!(seen.content("neighbour"), b"x");
    for bomb in [gzip(&zeros), zstd(&zeros), xz(&zeros)] {
        assert_eq!(walked(&bomb, limits()).1, Some(Limit::Ratio));
    }
}

#[test]
fn depth_stops_a_nest_and_not_what_lies_beside_it() {
    let mut nest = b"the core".to_vec();
    for _ in 0..10 {
        nest = zip(&[stored("n", &nest)]);
    }
    let content = zip(&[stored("nest", &nest), stored("beside", b"x")]);
    let (seen, limit) = walked(&content, limits());
    assert_eq!(limit, Some(Limit::Depth));
    assert!(seen.paths().contains(&"beside"));
    assert_eq!(seen.members.len(), 7);
    let none = Limits { depth: 0, ..limits() };
    assert!(walked(&content, none).0.members.is_empty());
}

#[test]
fn members_size_and_time_end_it() {
    let names: Vec<_> = (0..200).map(|n| format!("f{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| stored(name, b"x")).collect();
    let (seen, limit) = walked(&zip(&many), limits());
    assert_eq!((seen.members.len(), limit), (100, Some(Limit::Members)));

    let small = Limits {
        size: 1 << 20,
        ..limits()
    };
    let (seen, limit) = walked(&gzip(&vec![7; 3 << 20]), small);
    assert_eq!(limit, Some(Limit::Size));
    assert!(seen.content("gzip").len() <= (1 << 20) + 1);

    let late = Limits {
        deadline: Instant::now() - Duration::from_millis(1),
        ..limits()
    };
    assert_eq!(walked(&zip(&many), late).1, Some(Limit::Time));
}

/// Every layer is small, all together are 2^40 times their size.
#[test]
fn a_nest_of_bombs_is_bounded() {
    let mut bomb = vec![0; 1 << 20];
    for layer in 0..5 {
        let names: Vec<_> = (0..16).map(|n| format!("{layer}-{n}")).collect();
        let packed = deflate(&bomb);
        let members: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), 8, 0, packed.clone()))
            .collect();
        bomb = zip(&members);
    }
    let start = Instant::now();
    let (seen, limit) = walked(&bomb, limits());
    assert!(limit.is_some());
    assert!(
        seen.members
            .iter()
            .map(|(_, content)| content.len())
            .sum::<usize>()
            <= (64 << 20) + 1
    );
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_window_that_is_too_large_is_a_limit() {
    // A frame header that asks for a window of 2 GiB.
    let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xa8, 1, 0, 0];
    assert_eq!(walked(&greedy, limits()).1, Some(Limit::Size));
}

#[test]
fn names_are_escaped() {
    let (seen, _) = walked(&zip(&[stored("a\n\u{1b}.php", b"x")]), limits());
    assert_eq!(seen.paths(), ["a\\n\\u{1b}.php"]);
}
