//! The walk through archives: whatever is in them, it ends within its budget, and leaves
//! what it entered.

#![no_main]

use std::time::{Duration, Instant};

use lazaret_fuzz::unpack::{Budget, Limits, Unreadable, Visitor, walk};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 1 << 20;

#[derive(Default)]
struct Seen {
    open: usize,
    members: u32,
    bytes: usize,
}

impl Visitor for Seen {
    fn enter(&mut self, path: &str, content: &[u8]) {
        assert!(!path.contains(char::is_control));
        self.open += 1;
        self.members += 1;
        self.bytes += content.len();
    }

    fn unreadable(&mut self, path: &str, _: Unreadable) {
        assert!(!path.contains(char::is_control));
    }

    fn leave(&mut self) {
        self.open -= 1;
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut seen = Seen::default();
    let mut budget = Budget::new(Limits {
        depth: 4,
        members: 100,
        size: MOST as u64,
        ratio: 100,
        deadline: Instant::now() + Duration::from_secs(5),
    });
    walk(bytes, &mut budget, &mut seen);
    assert_eq!(seen.open, 0);
    // The content that goes beyond the limit is judged, too.
    assert!(seen.members <= 100 && seen.bytes <= MOST + 1);
});
