//! An evil program is run other than by its path.

use anyhow::{Context, Result, ensure};

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::{Foothold, SIGNALS};
use crate::program::{self, DENIED};

pub(crate) const CASES: &[Case] = &[
    Case::new("reach::by_its_path", |arena| denied(arena, "path")),
    Case::new("reach::by_the_path_of_a_descriptor", |arena| {
        denied(arena, "proc-path")
    }),
    Case::new("reach::by_a_descriptor", |arena| denied(arena, "descriptor")),
    Case::new("reach::from_an_open_folder", |arena| denied(arena, "folder")),
    Case::new("reach::deleted", |arena| denied(arena, "deleted")),
    Case::new("reach::without_a_name", |arena| denied(arena, "nameless")),
    Case::new("reach::memory_file", |arena| forbidden(arena, "memory-file")),
    Case::new("reach::executable_memory_file", |arena| {
        forbidden(arena, "executable-memory-file")
    }),
    Case::new("reach::interpreter_of_an_interpreter", |arena| {
        denied(arena, "script")
    }),
    Case::new("reach::in_a_chroot", |arena| denied(arena, "chroot")),
    Case::new("reach::mapped_as_a_library", |arena| denied(arena, "mapping")),
    Case::new("reach::in_a_namespace", |arena| denied(arena, "namespace")).unless(no_namespaces),
    Case::new("reach::bound_over_a_sealed_one", |arena| denied(arena, "bind")).unless(no_namespaces),
    Case::new("reach::in_a_detached_mount", |arena| denied(arena, "tree")).unless(no_namespaces),
    Case::new("reach::in_a_moved_mount", |arena| denied(arena, "moved-tree")).unless(no_namespaces),
    Case::new("reach::in_an_overlay_of_its_own", |arena| {
        denied(arena, "new-overlay")
    })
    .unless(no_namespaces),
];

/// Containers make user namespaces of their own, unless the machine forbids it.
pub(crate) fn no_namespaces() -> Option<&'static str> {
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let none = most.is_ok_and(|most| most.trim() == "0");
    none.then_some("needs user namespaces")
}

fn denied(arena: &Arena, way: &str) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "reach")?;
    let [evil, _] = program::evil(&arena.program()?)?;
    let shared = format!("{SIGNALS}/reached/program");
    for file in ["/opt/reached/program", "/tmp/reached/program", &shared] {
        let outcome = foothold.attack(&["reach", way, file])?;
        ensure!(outcome.code == DENIED, "{file}: {outcome:?}");
    }
    foothold
        .denial_by(|incident| incident.text("/file/sha256") == evil)
        .context(way.to_owned())?;
    foothold.leave()
}

/// The kernel itself does not let it run, and we are not asked.
fn forbidden(arena: &Arena, way: &str) -> Result<()> {
    let node = arena.node()?;
    let foothold = Foothold::gain(&node, "reach")?;
    let outcome = foothold.attack(&["reach", way, "/opt/reached/program"])?;
    ensure!(outcome.code == DENIED, "{outcome:?}");
    foothold.leave()
}
