//! What the cases of one containerd release share: a node, an image, and the bad list.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use lazaret_tests::binaries::Binaries;
use lazaret_tests::image::Image;
use lazaret_tests::malware::Malware;
use lazaret_tests::node::Node;
use lazaret_tests::packages::Release;
use lazaret_tests::{command, daemon};

/// Busybox and everything below.
pub(crate) const IMAGE: &str = "lazaret.test/all:1";
/// The same, and its entrypoint is [`EVIL`].
pub(crate) const EVIL_IMAGE: &str = "lazaret.test/evil:1";
/// The same, for the user `tester` with the uid 1000.
pub(crate) const USER_IMAGE: &str = "lazaret.test/user:1";
/// A listed static executable; an applet shell.
pub(crate) const EVIL: &str = "/evil/sh";
/// A listed script under a clean interpreter.
pub(crate) const EVIL_SCRIPT: &str = "/evil/script";
/// A clean script under [`EVIL`].
pub(crate) const SCRIPT_OF_EVIL: &str = "/opt/script-of-evil";
/// A dynamic shell, clean.
pub(crate) const DYNAMIC: &str = "/opt/dash";
/// What makes the listed [`EVIL_DYNAMIC`] of it.
pub(crate) const EVIL_TAIL: &str = "e2e dynamic";
/// The same, listed.
pub(crate) const EVIL_DYNAMIC: &str = "/evil/dash";
/// What a container appends to busybox to make a listed file of its own.
pub(crate) const DROPPED: &str = "dropped";
/// The helper for storms.
pub(crate) const INSIDE: &str = "/opt/inside";

const HOST_SHELL: &str = "/bin/dash";

pub(crate) struct World {
    release: Release,
    binaries: Option<Binaries>,
    shared: Mutex<Option<Arc<Node>>>,
    /// Held by who unpacks an image.
    unpacking: Mutex<()>,
}

impl World {
    pub(crate) fn new(release: Release, binaries: Binaries) -> Arc<Self> {
        Arc::new(Self {
            release,
            binaries: Some(binaries),
            shared: Mutex::new(None),
            unpacking: Mutex::default(),
        })
    }

    /// Enough to list the cases, and nothing more.
    pub(crate) fn listed() -> Vec<Arc<Self>> {
        let world = |release: &Release| Self {
            release: *release,
            binaries: None,
            shared: Mutex::default(),
            unpacking: Mutex::default(),
        };
        lazaret_tests::packages::RELEASES
            .iter()
            .map(world)
            .map(Arc::new)
            .collect()
    }

    pub(crate) fn release(&self) -> Release {
        self.release
    }

    /// Why no case can run in this world.
    pub(crate) fn not_prepared(&self) -> Option<&'static str> {
        self.binaries
            .is_none()
            .then_some("runs by `cargo xtask test e2e`")
    }

    pub(crate) fn binaries(&self) -> Result<&Binaries> {
        self.binaries.as_ref().context("the cases are only listed")
    }

    /// The node that cases share: none of them harms its daemon.
    pub(crate) fn node(&self) -> Result<Arc<Node>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = shared.as_ref() {
            return Ok(Arc::clone(node));
        }
        let node = Arc::new(self.own_node("")?);
        *shared = Some(Arc::clone(&node));
        Ok(node)
    }

    /// A node for one case, `config` laid over its `lazaret.toml`.
    pub(crate) fn own_node(&self, config: &str) -> Result<Node> {
        let node = Node::start(self.release, self.binaries()?, &config.parse()?)?;
        self.furnish(&node)?;
        Ok(node)
    }

    /// Takes the shared node down.
    pub(crate) fn close(&self) {
        drop(self.shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Images and the bad list.
    pub(crate) fn furnish(&self, node: &Node) -> Result<()> {
        node.import(&self.image(IMAGE)?)?;
        node.import(
            &self
                .image(EVIL_IMAGE)?
                .entrypoint(&[EVIL, "-c", "echo THE-MALWARE-RAN"]),
        )?;
        node.import(&self.image(USER_IMAGE)?.user("1000:1000"))?;
        let daemon = node.daemon()?;
        daemon.add_signature(&evil()?.sha256, "test binary")?;
        daemon.add_signature(&evil_script().sha256, "test script")?;
        daemon.add_signature(&evil_dynamic()?.sha256, "test dynamic binary")?;
        daemon.add_signature(&dropped()?.sha256, "test dropped binary")
    }

    /// The image as a folder, for roots that are not mounted by containerd.
    pub(crate) fn lower(&self, node: &Node) -> Result<std::path::PathBuf> {
        let _one_at_a_time = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = node.scratch().places().disk().join("by-hand-image");
        if !dir.is_dir() {
            self.image(IMAGE)?.unpack(&dir)?;
        }
        Ok(dir)
    }

    fn image(&self, name: &str) -> Result<Image> {
        let script = format!("#!{EVIL}\necho {}\n", lazaret_tests::malware::EFFECT);
        let mut image = Image::busybox(name)?
            .file(relative(EVIL), 0o755, evil()?.content)
            .file(relative(EVIL_SCRIPT), 0o755, evil_script().content)
            .file(relative(SCRIPT_OF_EVIL), 0o755, script)
            .file(relative(DYNAMIC), 0o755, std::fs::read(HOST_SHELL)?)
            .file(relative(EVIL_DYNAMIC), 0o755, evil_dynamic()?.content)
            .file(relative(INSIDE), 0o755, self.binaries()?.inside()?);
        for library in libraries()? {
            image = image.file(relative(&library), 0o755, std::fs::read(&library)?);
        }
        Ok(image)
    }
}

pub(crate) fn evil() -> Result<Malware> {
    Malware::binary("e2e")
}

pub(crate) fn evil_script() -> Malware {
    Malware::script("/bin/sh", "e2e script")
}

pub(crate) fn dropped() -> Result<Malware> {
    Malware::binary(DROPPED)
}

pub(crate) fn evil_dynamic() -> Result<Malware> {
    Malware::of_program(HOST_SHELL, EVIL_TAIL)
}

/// The loader of dynamic programs, the same path here and in the image.
pub(crate) fn loader() -> Result<String> {
    let libraries = libraries()?;
    let loader = libraries.into_iter().find(|path| path.contains("/ld-"));
    loader.context("a dynamic program without a loader")
}

/// Everything [`HOST_SHELL`] is linked against, the loader with it.
fn libraries() -> Result<Vec<String>> {
    let text = command::check(std::process::Command::new("ldd").arg(HOST_SHELL))?;
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(str::to_owned).collect())
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// Where a node's configuration lies.
pub(crate) fn config_of(node: &Node) -> std::path::PathBuf {
    daemon::config_path(node.scratch().places())
}
