//! What a bundle's `config.json` says about a container.
//!
//! Only what lazaret needs is read, in the types of `oci-spec`; all the rest is
//! runc's to judge, which knows newer versions of the specification than we do.
//! Nothing in the file is trusted: a pod's owner writes parts of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lazaret_types::{ANNOTATION_PREFIX, Container, ContainerId, Layers, Pod, Role};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// The OCI name of the file.
const CONFIG: &str = "config.json";

/// Kubernetes allows 256 KiB of annotations; a whole file of 4 MiB is no container.
const MAX_SIZE: u64 = 4 << 20;

/// Longest value that is passed on: image references and Kubernetes names are shorter.
const MAX_VALUE: usize = 1024;

/// Longest `lazaret.io/*` annotations, all together.
const MAX_ANNOTATIONS: usize = 64 << 10;

/// Containers with the same value share a shim; the first one that is there decides.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

#[derive(Debug, Default, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    namespaces: Option<Vec<LinuxNamespace>>,
    #[serde(default)]
    cgroups_path: Option<PathBuf>,
}

/// A bundle whose configuration has been read.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    annotations: HashMap<String, String>,
    namespaces: Vec<LinuxNamespace>,
    /// Where the runtime puts the container, if the bundle says so.
    pub(crate) cgroup: Option<PathBuf>,
}

impl Bundle {
    /// Reads the configuration of the bundle at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = path.join(CONFIG);
        let bad = |why: String| Error::invalid_argument(format!("cannot use {}: {why}", file.display()));
        let mut text = Vec::new();
        File::open(&file)
            .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text))
            .map_err(|error| bad(error.to_string()))?;
        if text.len() as u64 > MAX_SIZE {
            return Err(bad(format!("it is larger than {MAX_SIZE} bytes")));
        }
        Self::parse(path, &text).map_err(|error| bad(error.to_string()))
    }

    fn parse(path: &Path, text: &[u8]) -> serde_json::Result<Self> {
        let config: Config = serde_json::from_slice(text)?;
        let linux = config.linux.unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            annotations: config.annotations.unwrap_or_default(),
            namespaces: linux.namespaces.unwrap_or_default(),
            cgroup: linux.cgroups_path,
        })
    }

    /// What the container shares its shim by; none when it has one for itself.
    pub(crate) fn group(&self) -> Option<&str> {
        GROUPS
            .iter()
            .find_map(|key| self.annotations.get(*key))
            .map(String::as_str)
    }

    /// Whether processes of the container outlive its init: they do unless it has
    /// a pid namespace of its own, which the kernel empties.
    pub(crate) fn shares_pids(&self) -> bool {
        !self
            .namespaces
            .iter()
            .any(|ns| ns.typ() == LinuxNamespaceType::Pid && ns.path().is_none())
    }

    /// Who the container is.
    pub(crate) fn describe(
        self,
        namespace: &str,
        id: ContainerId,
        layers: Layers,
        containerd: Option<PathBuf>,
    ) -> Result<Container> {
        let role = match self.cri("container-type")? {
            Some(kind) if kind == "sandbox" => Role::Sandbox,
            _ => Role::Workload,
        };
        Ok(Container {
            namespace: namespace.to_owned(),
            id,
            image: self.cri("image-name")?,
            pod: self.pod()?,
            role,
            annotations: self.own_annotations()?,
            bundle: self.path,
            layers,
            containerd,
        })
    }

    fn pod(&self) -> Result<Option<Pod>> {
        let Some(sandbox_id) = self.cri("sandbox-id")? else {
            return Ok(None);
        };
        Ok(Some(Pod {
            name: self.cri("sandbox-name")?.unwrap_or_default(),
            namespace: self.cri("sandbox-namespace")?.unwrap_or_default(),
            uid: self.cri("sandbox-uid")?.unwrap_or_default(),
            sandbox_id,
        }))
    }

    fn cri(&self, name: &str) -> Result<Option<String>> {
        let key = format!("io.kubernetes.cri.{name}");
        match self.annotations.get(&key) {
            Some(value) if value.len() > MAX_VALUE => Err(self.too_long(&key, value.len(), MAX_VALUE)),
            value => Ok(value.cloned()),
        }
    }

    fn own_annotations(&self) -> Result<BTreeMap<String, String>> {
        let own = |key: &str| key.starts_with(ANNOTATION_PREFIX);
        let own: BTreeMap<_, _> = self
            .annotations
            .iter()
            .filter(|(key, _)| own(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let size = own.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MAX_ANNOTATIONS {
            return Err(self.too_long("lazaret.io/*", size, MAX_ANNOTATIONS));
        }
        Ok(own)
    }

    fn too_long(&self, key: &str, size: usize, max: usize) -> Error {
        Error::invalid_argument(format!(
            "annotation {key} in {} has {size} bytes, of which at most {max} are allowed",
            self.path.join(CONFIG).display()
        ))
    }
}

/// What the shim writes into a bundle for a later call of its own binary.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bundle(text: &str) -> Bundle {
        Bundle::parse(Path::new("/b"), text.as_bytes()).unwrap()
    }

    fn describe(text: &str) -> Result<Container> {
        bundle(text).describe("k8s.io", ContainerId::new("c1").unwrap(), Layers::default(), None)
    }

    #[test]
    fn reads_what_cri_says() {
        let container = describe(
            r#"{"ociVersion": "9.9", "annotations": {
                "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.image-name": "docker.io/library/nginx:1",
                "io.kubernetes.cri.sandbox-id": "s1",
                "io.kubernetes.cri.sandbox-name": "web",
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-uid": "u-1",
                "lazaret.io/policy": "strict",
                "example.com/other": "x"
            }, "process": {"capabilities": {"bounding": ["CAP_OF_THE_FUTURE"]}}}"#,
        )
        .unwrap();
        assert_eq!(container.image.as_deref(), Some("docker.io/library/nginx:1"));
        assert_eq!(container.role, Role::Workload);
        let pod = container.pod.unwrap();
        assert_eq!(
            (pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_str()),
            ("web", "shop", "u-1")
        );
        assert_eq!(pod.sandbox_id, "s1");
        assert_eq!(
            container.annotations,
            BTreeMap::from([("lazaret.io/policy".into(), "strict".into())])
        );
    }

    #[test]
    fn needs_nothing() {
        for text in [
            "{}",
            r#"{"annotations": null, "linux": null}"#,
            r#"{"linux": {"namespaces": null}}"#,
        ] {
            let container = describe(text).unwrap();
            assert_eq!((container.pod, container.role), (None, Role::Workload), "{text}");
            assert!(
                bundle(text).shares_pids() && bundle(text).group().is_none(),
                "{text}"
            );
        }
    }

    #[test]
    fn knows_a_sandbox() {
        let text = r#"{"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}"#;
        assert_eq!(describe(text).unwrap().role, Role::Sandbox);
    }

    #[test]
    fn groups_by_the_first_annotation() {
        let cri = r#""io.kubernetes.cri.sandbox-id": "s1""#;
        let both = format!(r#"{{"annotations": {{{cri}, "io.containerd.runc.v2.group": "g1"}}}}"#);
        assert_eq!(bundle(&both).group(), Some("g1"));
        assert_eq!(
            bundle(&format!(r#"{{"annotations": {{{cri}}}}}"#)).group(),
            Some("s1")
        );
    }

    #[test]
    fn only_an_own_pid_namespace_ends_all_processes() {
        let of = |namespace: &str| bundle(&format!(r#"{{"linux": {{"namespaces": [{namespace}]}}}}"#));
        assert!(!of(r#"{"type": "pid"}"#).shares_pids());
        assert!(of(r#"{"type": "pid", "path": "/proc/1/ns/pid"}"#).shares_pids());
        assert!(of(r#"{"type": "network"}"#).shares_pids());
    }

    #[test]
    fn refuses_what_is_too_long() {
        let long = "x".repeat(MAX_VALUE + 1);
        let error = describe(&format!(
            r#"{{"annotations": {{"io.kubernetes.cri.image-name": "{long}"}}}}"#
        ));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("io.kubernetes.cri.image-name")
        );
        let huge = "x".repeat(MAX_ANNOTATIONS);
        assert!(
            describe(&format!(
                r#"{{"annotations": {{"lazaret.io/policy": "{huge}"}}}}"#
            ))
            .is_err()
        );
    }

    #[test]
    fn says_which_file_is_broken_and_where() {
        let dir = tempfile::tempdir().unwrap();
        let read = || Bundle::read(dir.path()).unwrap_err().to_string();
        assert!(read().contains("config.json: No such file"), "{}", read());
        for text in [
            "",
            "{",
            "\u{0}",
            r#"{"annotations": {"a": 1}}"#,
            r#"{"annotations": "a"}"#,
        ] {
            std::fs::write(dir.path().join(CONFIG), text).unwrap();
            assert!(
                read().contains("config.json: ") && read().contains("line 1"),
                "{text}: {}",
                read()
            );
        }
        std::fs::write(dir.path().join(CONFIG), b"{\"annotations\": {\"\xff\": \"\"}}").unwrap();
        assert!(read().contains("config.json: "), "{}", read());
        std::fs::write(dir.path().join(CONFIG), " ".repeat(5 << 20)).unwrap();
        assert!(read().contains("larger than"), "{}", read());
        let deep = "[".repeat(1 << 20);
        std::fs::write(dir.path().join(CONFIG), format!(r#"{{"process": {deep}"#)).unwrap();
        assert!(read().contains("config.json: EOF"), "{}", read());
    }
}
