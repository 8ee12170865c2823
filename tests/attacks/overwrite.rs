//! A file is sealed, because it ran and was clean, and then it becomes evil.

use anyhow::{Context, Result, ensure};

use crate::arena::{Arena, VICTIM};
use crate::case::Case;
use crate::foothold::{Foothold, SIGNALS, told};
use crate::program::Runs;

pub(crate) const CASES: &[Case] = &[
    Case::new("overwrite::write", |arena| sealed(arena, "write")),
    Case::new("overwrite::pwritev", |arena| sealed(arena, "pwritev")),
    Case::new("overwrite::store_through_a_mapping", |arena| {
        sealed(arena, "mmap")
    }),
    Case::new("overwrite::libaio", |arena| sealed(arena, "aio")),
    Case::new("overwrite::io_uring", |arena| sealed(arena, "io_uring")).unless(io_uring_is_off),
    Case::new("overwrite::splice", |arena| sealed(arena, "splice")),
    Case::new("overwrite::sendfile", |arena| sealed(arena, "sendfile")),
    Case::new("overwrite::copy_file_range", |arena| {
        sealed(arena, "copy_file_range")
    }),
    Case::new("overwrite::punched_hole", |arena| sealed(arena, "punch")),
    Case::new("overwrite::truncate_and_rewrite", |arena| {
        sealed(arena, "truncate")
    }),
    Case::new("overwrite::through_a_hard_link", |arena| {
        sealed(arena, "hardlink")
    }),
    Case::new("overwrite::rename_over", |arena| sealed(arena, "rename")),
    Case::new("overwrite::linked_nameless_file", |arena| {
        sealed(arena, "tmpfile")
    }),
    Case::new("overwrite::writer_that_does_not_wait", |arena| {
        sealed(arena, "nonblock")
    }),
    Case::new("overwrite::while_no_signal_can_be_queued", |arena| {
        sealed(arena, "signals+mmap")
    }),
    Case::new("overwrite::copied_up_by_chmod", |arena| {
        copied_up(arena, "chmod+mmap")
    }),
    Case::new("overwrite::copied_up_by_touch", |arena| {
        copied_up(arena, "touch+mmap")
    }),
    Case::new("overwrite::copied_up_by_append", |arena| {
        copied_up(arena, "append+mmap")
    }),
    Case::new("overwrite::mapping_from_before", mapped_before),
    Case::new("overwrite::volume_write", |arena| known(arena, "write")),
    Case::new("overwrite::volume_store_through_a_mapping", |arena| {
        known(arena, "mmap")
    }),
    Case::new("overwrite::volume_libaio", |arena| known(arena, "aio")),
    Case::new("overwrite::volume_io_uring", |arena| known(arena, "io_uring")).unless(io_uring_is_off),
    Case::new("overwrite::volume_copy_file_range", |arena| {
        known(arena, "copy_file_range")
    }),
    Case::new("overwrite::volume_punched_hole", |arena| known(arena, "punch")),
    Case::new("overwrite::volume_through_a_hard_link", |arena| {
        known(arena, "hardlink")
    }),
    Case::new("overwrite::volume_mapping_from_before", |arena| {
        in_places(arena, "settled+kept-mapping", &[VOLUME], Before::Held)
    }),
];

/// In the upper layer, in memory, and in the image.
const PLACES: [&str; 3] = ["/opt/file", "/tmp/file", VICTIM];

/// On a file system of the host.
const VOLUME: &str = "/signals/file";

/// What becomes of the file before it is overwritten.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// It runs, and then is not asked about.
    Sealed,
    /// It runs, and its digest is known by its inode.
    Known,
    /// It does not run.
    Held,
}

fn io_uring_is_off() -> Option<&'static str> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    setting
        .is_ok_and(|setting| setting.trim() != "0")
        .then_some("needs io_uring")
}

fn sealed(arena: &Arena, how: &str) -> Result<()> {
    in_places(arena, how, &PLACES, Before::Sealed)
}

/// It is the container's own by the time it is judged; of the image it has the content.
fn copied_up(arena: &Arena, how: &str) -> Result<()> {
    in_places(arena, how, &[VICTIM], Before::Sealed)
}

/// It can be stored to at any time, so it is never sealed, nor run.
fn mapped_before(arena: &Arena) -> Result<()> {
    in_places(arena, "kept-mapping", &PLACES, Before::Held)
}

/// A file of a volume is never sealed.
fn known(arena: &Arena, how: &str) -> Result<()> {
    in_places(arena, &format!("settled+{how}"), &[VOLUME], Before::Known)
}

fn in_places(arena: &Arena, how: &str, places: &[&str], before: Before) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "overwrite")?;
    for file in places {
        overwritten(&foothold, how, file, before).with_context(|| (*file).to_owned())?;
    }
    foothold.leave()
}

fn overwritten(foothold: &Foothold<'_>, how: &str, file: &str, before: Before) -> Result<()> {
    let sealed = foothold.sealed()?;
    let attack = foothold.begin(&["overwrite", how, file, SIGNALS])?;
    foothold.wait_ready()?;
    if before == Before::Sealed {
        foothold.wait_sealed(sealed)?;
    }
    let outcome = foothold.go(attack)?;
    let runs: Runs = told(&outcome)?;
    if before == Before::Held {
        runs.before.was_held().context("before")?;
        ensure!(runs.before.good == 0, "it ran: {runs:?}");
    } else {
        runs.before.was_good().context("before")?;
    }
    if before != Before::Sealed {
        ensure!(foothold.sealed()? <= sealed, "it was sealed");
    }
    runs.after.was_held().context("after")?;
    ensure!(runs.after.good == 0, "nothing was overwritten: {runs:?}");
    foothold.denial(file)?;
    Ok(())
}
