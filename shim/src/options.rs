//! The runtime options of a container: `containerd.runc.v1.Options`.

use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::error::{Context, Error, Result};

/// The message that containerd sends, by its full name.
const TYPE: &str = "containerd.runc.v1.Options";

/// Where the `delete` action finds them again.
const FILE: &str = "options.json";

/// What is called when they name nothing else.
const DEFAULT_BINARY: &str = "runc";

/// Where runc's state goes when they name nothing else, as for all of containerd's
/// shims: below it there is one folder a namespace.
const DEFAULT_ROOT: &str = "/run/containerd/runc";

/// How the container's runtime is to be called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    /// The OCI runtime: a name in `PATH`, or a path; empty for the default.
    pub(crate) binary: String,
    /// Where the runtime keeps its state; empty for the default.
    pub(crate) root: String,
    pub(crate) systemd_cgroup: bool,
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    /// Who owns the container's pipes.
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
    /// The cgroup of the shim itself.
    pub(crate) shim_cgroup: String,
}

impl Options {
    /// Options as containerd sends them: none are the defaults, and others than
    /// runc's are refused, because ignoring them would run another container than
    /// the one that was asked for.
    pub(crate) fn from_any(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        // Go writes the bare name, protobuf puts a host before it.
        if any.type_url.rsplit('/').next() != Some(TYPE) {
            return Err(Error::invalid_argument(format!(
                "runtime options of type {:?} are not known; use {TYPE}",
                any.type_url
            )));
        }
        let sent = oci::Options::parse_from_bytes(&any.value)
            .map_err(|error| Error::invalid_argument(format!("runtime options are broken: {error}")))?;
        Self::from_message(sent)
    }

    fn from_message(sent: oci::Options) -> Result<Self> {
        for (name, value) in [
            ("CriuImagePath", &sent.criu_image_path),
            ("CriuWorkPath", &sent.criu_work_path),
            ("TaskApiAddress", &sent.task_api_address),
        ] {
            if !value.is_empty() {
                return Err(Error::unimplemented(format!(
                    "the runtime option {name} is not supported"
                )));
            }
        }
        Ok(Self {
            binary: sent.binary_name,
            root: sent.root,
            systemd_cgroup: sent.systemd_cgroup,
            no_pivot_root: sent.no_pivot_root,
            no_new_keyring: sent.no_new_keyring,
            io_uid: sent.io_uid,
            io_gid: sent.io_gid,
            shim_cgroup: sent.shim_cgroup,
        })
    }

    /// The program to call.
    pub(crate) fn binary(&self) -> &str {
        if self.binary.is_empty() {
            DEFAULT_BINARY
        } else {
            &self.binary
        }
    }

    /// The folder of the runtime's state for a namespace.
    pub(crate) fn root(&self, namespace: &str) -> PathBuf {
        Path::new(if self.root.is_empty() {
            DEFAULT_ROOT
        } else {
            &self.root
        })
        .join(namespace)
    }

    /// Leaves the options in the bundle, for the `delete` action after a crash.
    pub(crate) fn save(&self, bundle: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| "cannot write the runtime options")?;
        bundle::write(&bundle.join(FILE), &text)
    }

    /// What [`Options::save`] left; the defaults when Create did not come that far.
    pub(crate) fn load(bundle: &Path) -> Self {
        let saved = std::fs::read(bundle.join(FILE)).ok();
        saved
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn any(type_url: &str, message: &oci::Options) -> Any {
        Any {
            type_url: type_url.into(),
            value: message.write_to_bytes().unwrap(),
            ..Default::default()
        }
    }

    #[test]
    fn takes_runcs_options_by_either_name() {
        let message = oci::Options {
            binary_name: "crun".into(),
            systemd_cgroup: true,
            ..Default::default()
        };
        for type_url in [TYPE.to_owned(), format!("type.googleapis.com/{TYPE}")] {
            let options = Options::from_any(Some(&any(&type_url, &message))).unwrap();
            assert_eq!((options.binary.as_str(), options.systemd_cgroup), ("crun", true));
        }
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(Options::from_any(None).unwrap(), Options::default());
        assert_eq!(Options::from_any(Some(&Any::new())).unwrap(), Options::default());
    }

    #[test]
    fn refuses_what_it_would_ignore() {
        let criu = oci::Options {
            criu_work_path: "/w".into(),
            ..Default::default()
        };
        let errors = [
            Options::from_any(Some(&any("runtimeoptions.v1.Options", &oci::Options::new()))),
            Options::from_any(Some(&any(TYPE, &criu))),
            Options::from_any(Some(&Any {
                type_url: TYPE.into(),
                value: vec![0xff; 9],
                ..Default::default()
            })),
        ];
        for error in errors {
            assert!(error.is_err());
        }
    }

    #[test]
    fn are_found_again_in_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Options::load(dir.path()), Options::default());
        let options = Options {
            binary: "crun".into(),
            io_uid: 7,
            ..Options::default()
        };
        options.save(dir.path()).unwrap();
        assert_eq!(Options::load(dir.path()), options);
    }
}
