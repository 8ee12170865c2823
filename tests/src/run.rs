//! What `ctr run` is told.

use std::path::Path;
use std::process::Command;

/// The stock runtime, our peer.
pub const STOCK: &str = "io.containerd.runc.v2";
/// The runtime under test.
pub const LAZARET: &str = "io.containerd.lazaret.v1";

/// A container to run: `ctr run` with its options.
#[derive(Debug, Clone)]
pub struct Run {
    id: String,
    image: String,
    runtime: String,
    options: Vec<String>,
    args: Vec<String>,
}

impl Run {
    /// The container `id` of `image`, under lazaret, with the image's entrypoint.
    #[must_use]
    pub fn new(id: &str, image: &str) -> Self {
        Self {
            id: id.to_owned(),
            image: image.to_owned(),
            runtime: LAZARET.to_owned(),
            options: Vec::new(),
            args: Vec::new(),
        }
    }

    /// The same with another id.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its image.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Its runtime.
    #[must_use]
    pub fn runtime_name(&self) -> &str {
        &self.runtime
    }

    /// Another runtime.
    #[must_use]
    pub fn runtime(mut self, runtime: &str) -> Self {
        runtime.clone_into(&mut self.runtime);
        self
    }

    /// Another command than the image's.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// A shell script as its command.
    #[must_use]
    pub fn sh(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// An option of `ctr run`, with its value.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// A fresh tmpfs.
    #[must_use]
    pub fn tmpfs(self, path: &str) -> Self {
        let mount = format!("type=tmpfs,src=tmpfs,dst={path},options=mode=1777");
        self.option("--mount", &mount)
    }

    /// A folder of the host.
    #[must_use]
    pub fn bind(self, from: &Path, to: &str) -> Self {
        let mount = format!("type=bind,src={},dst={to},options=rbind:rw", from.display());
        self.option("--mount", &mount)
    }

    /// Adds everything to a `ctr`; `flags` are those without a value, as `--rm`.
    pub(crate) fn command(&self, mut ctr: Command, fifos: &Path, flags: &[&str]) -> Command {
        ctr.arg("run").args(flags).arg("--fifo-dir").arg(fifos);
        ctr.args(["--runtime", &self.runtime]);
        ctr.args(&self.options)
            .args([&self.image, &self.id])
            .args(&self.args);
        ctr
    }
}
