//! The quarantine works on paths that the container turns into links meanwhile: it must never
//! touch a file outside of the container.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lazaret_tests::command::{self, LIMIT};
use lazaret_tests::incident::Incident;
use lazaret_tests::malware::sha256;
use lazaret_tests::node::Node;

use crate::arena::Arena;
use crate::case::Case;
use crate::foothold::Foothold;
use crate::program;

pub(crate) const CASES: &[Case] = &[Case::new("path::folder_becomes_a_link_to_the_host", links)];

const FOLDER: &str = "/opt/folder";
const SECONDS: &str = "6";
/// Of these many items each is given back under a path that leads elsewhere half of the time.
const RESTORED: usize = 8;

fn links(arena: &Arena) -> Result<()> {
    let node = arena.own_node("[quarantine]\nmode = 'all'")?;
    let foothold = Foothold::gain(&node, "links")?;
    let bait = Bait::lay(&node, arena)?;
    foothold
        .attack(&["swap", "run", FOLDER, &bait.folder(), SECONDS])?
        .ok()?;
    let items = items(&node)?;
    ensure!(!items.is_empty(), "nothing was moved, so there was no race");
    bait.is_untouched().context("by the quarantine")?;

    bait.take()?;
    let attack = foothold.begin(&["swap", "idle", FOLDER, &bait.folder(), SECONDS])?;
    for item in items.iter().take(RESTORED) {
        // It fails where there is no folder at that moment.
        command::run(&mut node.daemon()?.cli(&["quarantine", "restore", item]))?;
    }
    attack.wait(LIMIT)?.ok()?;
    bait.is_gone().context("by a restore")
}

fn items(node: &Node) -> Result<Vec<String>> {
    let listed = command::check(&mut node.daemon()?.cli(&["quarantine", "list", "--json"]))?;
    let items = Incident::parse_all(&listed)?;
    Ok(items.iter().map(|item| item.text("/id").to_owned()).collect())
}

/// An evil file of the host, of the same name and content as the container's.
struct Bait {
    file: PathBuf,
    sha256: String,
}

impl Bait {
    fn lay(node: &Node, arena: &Arena) -> Result<Self> {
        let folder = node.scratch().places().disk().join("host");
        fs::create_dir(&folder)?;
        let file = folder.join("program");
        let content = program::make_evil(&arena.program()?)?;
        fs::write(&file, &content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        let sha256 = sha256(&content);
        Ok(Self { file, sha256 })
    }

    fn folder(&self) -> String {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        folder.display().to_string()
    }

    fn is_untouched(&self) -> Result<()> {
        let content = fs::read(&self.file).context("the host's file is gone")?;
        ensure!(sha256(&content) == self.sha256, "the host's file has changed");
        Ok(())
    }

    fn take(&self) -> Result<()> {
        Ok(fs::remove_file(&self.file)?)
    }

    fn is_gone(&self) -> Result<()> {
        ensure!(!self.file.exists(), "the host has got a file");
        Ok(())
    }
}
