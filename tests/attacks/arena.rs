//! What attacks share: a node, an image with everything that an attacker brings along, and the
//! list of what is evil.

use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::command;
use lazaret_tests::image::Image;
use lazaret_tests::malware::Malware;
use lazaret_tests::node::Node;
use lazaret_tests::packages::RELEASES;

use crate::program::{self, INSIDE};

pub(crate) const IMAGE: &str = "lazaret.test/attacks:1";
/// The same program as [`INSIDE`], to be overwritten.
pub(crate) const VICTIM: &str = "/victim/file";
/// A dynamic program, clean.
pub(crate) const DYNAMIC: &str = "/opt/dash";
/// The same, evil.
pub(crate) const EVIL_DYNAMIC: &str = "/evil/dash";
/// Folders with a library that [`DYNAMIC`] needs: a good one, and an evil one.
pub(crate) const GOOD_LIBRARIES: &str = "/good/lib";
pub(crate) const EVIL_LIBRARIES: &str = "/evil/lib";
pub(crate) const LIBRARY: &str = "libc.so.6";
/// What an attacker appends to busybox to make an evil file of his own.
pub(crate) const DROPPED: &str = "attack dropped";

const HOST_DYNAMIC: &str = "/bin/dash";

pub(crate) struct Arena {
    binaries: Binaries,
    shared: Mutex<Option<Arc<Node>>>,
}

impl Arena {
    pub(crate) fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            shared: Mutex::default(),
        }
    }

    /// The node that attacks share: none of them harms its daemon, or makes it forget seals.
    pub(crate) fn node(&self) -> Result<Arc<Node>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = shared.as_ref() {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(self.own_node("")?);
        *shared = Some(Arc::clone(&node));
        Ok(node)
    }

    /// A node for one attack, `config` laid over its `lazaret.toml`.
    pub(crate) fn own_node(&self, config: &str) -> Result<Node> {
        let release = *RELEASES.last().context("no release")?;
        let node = Node::start(release, &self.binaries, &config.parse()?)?;
        node.import(&self.image()?)?;
        let [other_word, hole] = program::evil(&self.binaries.inside()?)?;
        let daemon = node.daemon()?;
        daemon.add_signature(&other_word, "test program")?;
        daemon.add_signature(&hole, "test program with a hole")?;
        daemon.add_signature(&evil_dynamic()?.sha256, "test dynamic program")?;
        daemon.add_signature(&evil_library()?.sha256, "test library")?;
        daemon.add_signature(&dropped()?.sha256, "test dropped program")?;
        Ok(node)
    }

    /// What the attackers' program is made of.
    pub(crate) fn program(&self) -> Result<Vec<u8>> {
        self.binaries.inside()
    }

    /// Takes the shared node down.
    pub(crate) fn close(&self) {
        drop(self.shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn image(&self) -> Result<Image> {
        let program = self.program()?;
        let mut image = Image::busybox(IMAGE)?
            .file(relative(INSIDE), 0o755, program.clone())
            .file(relative(VICTIM), 0o755, program)
            .file(relative(DYNAMIC), 0o755, fs::read(HOST_DYNAMIC)?)
            .file(relative(EVIL_DYNAMIC), 0o755, evil_dynamic()?.content);
        for path in libraries()? {
            image = image.file(relative(&path), 0o755, fs::read(&path)?);
        }
        for (folder, library) in [
            (GOOD_LIBRARIES, good_library()?),
            (EVIL_LIBRARIES, evil_library()?),
        ] {
            let path = format!("{folder}/{LIBRARY}");
            image = image.file(relative(&path), 0o755, library.content);
        }
        Ok(image)
    }
}

pub(crate) fn dropped() -> Result<Malware> {
    Malware::binary(DROPPED)
}

pub(crate) fn evil_dynamic() -> Result<Malware> {
    Malware::of_program(HOST_DYNAMIC, "attack dynamic")
}

pub(crate) fn evil_library() -> Result<Malware> {
    Malware::of_program(&library(LIBRARY)?, "attack library")
}

/// Not listed: a copy of the library by another path has to work.
fn good_library() -> Result<Malware> {
    Malware::of_program(&library(LIBRARY)?, "good library")
}

/// The loader of dynamic programs, the same path here and in the image.
pub(crate) fn loader() -> Result<String> {
    library("ld-")
}

fn library(name: &str) -> Result<String> {
    let mut libraries = libraries()?.into_iter();
    let found = libraries.find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(name)));
    found.with_context(|| format!("{HOST_DYNAMIC} needs no {name}"))
}

/// Everything [`HOST_DYNAMIC`] is linked against, the loader with it.
fn libraries() -> Result<Vec<String>> {
    let text = command::check(Command::new("ldd").arg(HOST_DYNAMIC))?;
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(str::to_owned).collect())
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}
