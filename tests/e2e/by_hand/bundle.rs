//! Bundles: an OCI configuration, and the layers of a root for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use containerd_shim_protos::api::Mount;
use lazaret_tests::node::Node;
use serde_json::{Value, json};

use crate::world::World;

/// A container that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    id: String,
    /// The text of `config.json`; none for none.
    config: Option<String>,
    /// Changes to what every container has, by JSON pointer.
    changes: Vec<(String, Value)>,
    args: Vec<String>,
}

impl Spec {
    /// A container that runs `args`.
    pub(crate) fn new(id: &str, args: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            config: None,
            changes: Vec::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        }
    }

    /// A container that runs a shell script.
    pub(crate) fn sh(id: &str, script: &str) -> Self {
        Self::new(id, &["/bin/sh", "-c", script])
    }

    /// A bundle with this `config.json`, or without one.
    pub(crate) fn broken(id: &str, config: Option<&str>) -> Self {
        Self {
            config: config.map(str::to_owned),
            ..Self::new(id, &[])
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Replaces what is at a JSON pointer, whose last part may be new.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        self.changes.push((pointer.to_owned(), value));
        self
    }

    pub(crate) fn terminal(self) -> Self {
        self.set("/process/terminal", json!(true))
    }

    pub(crate) fn annotation(self, key: &str, value: &str) -> Self {
        self.set(&format!("/annotations/{}", key.replace('/', "~1")), json!(value))
    }

    /// In the pid namespace of the host: its processes outlive its init.
    pub(crate) fn shared_pids(self) -> Self {
        let namespaces = json!([
            {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}
        ]);
        self.set("/linux/namespaces", namespaces)
    }

    /// Writes the bundle.
    pub(super) fn write(&self, node: &Node) -> Result<PathBuf> {
        let bundle = path(node, &self.id);
        fs::create_dir_all(bundle.join("rootfs"))?;
        let config = match (&self.config, self.args.is_empty()) {
            (Some(config), _) => config.clone(),
            (None, true) => return Ok(bundle),
            (None, false) => self.config(node)?.to_string(),
        };
        fs::write(bundle.join("config.json"), config)?;
        Ok(bundle)
    }

    /// What its root is mounted of: a layer that all share, and one of its own.
    pub(super) fn rootfs(&self, world: &World, node: &Node) -> Result<Vec<Mount>> {
        if self.args.is_empty() {
            return Ok(Vec::new());
        }
        let own = node.scratch().places().disk().join("by-hand").join(&self.id);
        let (upper, work) = (own.join("upper"), own.join("work"));
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        let lower = world.lower(node)?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        Ok(vec![Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                option("workdir", &work),
                option("upperdir", &upper),
                option("lowerdir", &lower),
            ],
            ..Default::default()
        }])
    }

    fn config(&self, node: &Node) -> Result<Value> {
        let name = node.scratch().places().name();
        let args: Vec<_> = self.args.iter().map(String::as_str).collect();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": process(&args, false),
            "root": {"path": "rootfs"},
            "hostname": "by-hand",
            "annotations": {},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                 "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                 "options": ["nosuid", "noexec", "nodev", "ro"]},
            ],
            "linux": {
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}
                ],
                "cgroupsPath": format!("/{name}/{}", self.id),
                "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            },
        });
        for (pointer, value) in &self.changes {
            let (parent, key) = pointer.rsplit_once('/').context("a pointer begins with /")?;
            let parent = config.pointer_mut(parent).and_then(Value::as_object_mut);
            let key = key.replace("~1", "/");
            parent
                .with_context(|| pointer.clone())?
                .insert(key, value.clone());
        }
        Ok(config)
    }
}

/// A process as OCI has it.
pub(crate) fn process(args: &[&str], terminal: bool) -> Value {
    let capabilities = json!([
        "CAP_KILL",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_SETUID",
        "CAP_SETGID"
    ]);
    json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin:/usr/bin"],
        "cwd": "/",
        "capabilities": {
            "bounding": capabilities.clone(), "effective": capabilities.clone(), "permitted": capabilities
        },
        "noNewPrivileges": true,
    })
}

/// Where the bundle of a container is.
pub(crate) fn path(node: &Node, id: &str) -> PathBuf {
    node.scratch().places().run().join("by-hand").join(id)
}
