//! The runtime options of a container.
//!
//! containerd's clients send those of runc, `containerd.runc.v1.Options`. For CRI they
//! are runc's alone: to any other runtime it sends the table `options` of its
//! configuration as text, or, if it is 1.6, nothing. Clients of 1.x send their older form,
//! `containerd.linux.runc.CreateOptions`, to any runtime whose name does not begin like
//! that of runc's.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, UnknownValueRef};
use containerd_shim_protos::shim::oci;
use serde::{Deserialize, Serialize};

use crate::bundle;
use crate::error::{Context, Error, Result};

/// The messages that are known, by their full names.
const RUNC: &str = "containerd.runc.v1.Options";
const GENERIC: &str = "runtimeoptions.v1.Options";
const OLD: &str = "containerd.linux.runc.CreateOptions";

/// A longer table is no table of options.
const MAX_BODY: usize = 64 << 10;

/// Where the `delete` action finds them again.
const FILE: &str = "options.json";

/// `criu_path` in the options of containerd 1.x; 2.0 took it away.
const CRIU_PATH: u32 = 8;

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
    /// Whether systemd makes the cgroup; none when nobody has said so.
    pub(crate) systemd_cgroup: Option<bool>,
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
    /// Who owns the container's pipes.
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
    /// The cgroup of the shim itself.
    pub(crate) shim_cgroup: String,
    /// Where criu works and logs; empty for the bundle.
    pub(crate) criu_work_path: String,
    /// The folder of the criu to use; empty for the one in `PATH`.
    pub(crate) criu_folder: String,
}

/// `runtimeoptions.v1.Options`; its first field names what the rest is for.
#[derive(Clone, PartialEq, prost::Message)]
struct Generic {
    #[prost(string, tag = "2")]
    config_path: String,
    /// The TOML of containerd's table `options`.
    #[prost(bytes = "vec", tag = "3")]
    config_body: Vec<u8>,
}

/// `containerd.linux.runc.CreateOptions`: what of it is not for checkpoints.
#[derive(Clone, PartialEq, prost::Message)]
struct Old {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    no_new_keyring: bool,
    #[prost(string, tag = "9")]
    shim_cgroup: String,
    #[prost(uint32, tag = "10")]
    io_uid: u32,
    #[prost(uint32, tag = "11")]
    io_gid: u32,
    #[prost(string, tag = "12")]
    criu_work_path: String,
}

/// The table, with the names that it has for runc. An unknown one is a mistake, or
/// newer than we are, and ignoring it would run another container than was meant.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "PascalCase")]
struct Table {
    binary_name: String,
    root: String,
    systemd_cgroup: Option<bool>,
    no_pivot_root: bool,
    no_new_keyring: bool,
    io_uid: u32,
    io_gid: u32,
    shim_cgroup: String,
    criu_work_path: String,
}

impl Options {
    /// Whether a message of this type holds options for us. Go writes the bare name,
    /// protobuf puts a host before it.
    pub(crate) fn are_in(type_url: &str) -> bool {
        matches!(type_url.rsplit('/').next(), Some(RUNC | GENERIC | OLD))
    }

    /// Options as containerd sends them: none are the defaults, and unknown ones are
    /// refused, because ignoring them would run another container than the one that
    /// was asked for.
    pub(crate) fn from_any(any: Option<&Any>) -> Result<Self> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
            return Ok(Self::default());
        };
        let broken =
            |error: &dyn Display| Error::invalid_argument(format!("runtime options are broken: {error}"));
        match any.type_url.rsplit('/').next() {
            Some(RUNC) => {
                Self::from_message(Message::parse_from_bytes(&any.value).map_err(|error| broken(&error))?)
            }
            Some(GENERIC) => Self::from_generic(
                &<Generic as prost::Message>::decode(any.value.as_slice()).map_err(|error| broken(&error))?,
            ),
            Some(OLD) => Ok(Self::from_old(
                <Old as prost::Message>::decode(any.value.as_slice()).map_err(|error| broken(&error))?,
            )),
            _ => Err(Error::invalid_argument(format!(
                "runtime options of type {:?} are not known; use {RUNC}",
                any.type_url
            ))),
        }
    }

    fn from_generic(sent: &Generic) -> Result<Self> {
        let refused = |why: &dyn Display| {
            Error::invalid_argument(format!(
                "the table `options` of the runtime in containerd's configuration cannot be used: {why}"
            ))
        };
        if !sent.config_path.is_empty() {
            return Err(refused(&"instead of a ConfigPath, write the options themselves"));
        }
        if sent.config_body.len() > MAX_BODY {
            return Err(refused(&format!("it is larger than {MAX_BODY} bytes")));
        }
        let table: Table = toml::from_slice(&sent.config_body).map_err(|error| refused(&error))?;
        Ok(Self {
            binary: table.binary_name,
            root: table.root,
            systemd_cgroup: table.systemd_cgroup,
            no_pivot_root: table.no_pivot_root,
            no_new_keyring: table.no_new_keyring,
            io_uid: table.io_uid,
            io_gid: table.io_gid,
            shim_cgroup: table.shim_cgroup,
            criu_work_path: table.criu_work_path,
            criu_folder: String::new(),
        })
    }

    fn from_old(sent: Old) -> Self {
        Self {
            no_pivot_root: sent.no_pivot_root,
            no_new_keyring: sent.no_new_keyring,
            io_uid: sent.io_uid,
            io_gid: sent.io_gid,
            shim_cgroup: sent.shim_cgroup,
            criu_work_path: sent.criu_work_path,
            ..Self::default()
        }
    }

    /// Decides, when nobody has, whether systemd makes the cgroup: `SLICE:PREFIX:NAME`
    /// is how its cgroups are named, and the kubelet names them so only for it.
    pub(crate) fn for_cgroup(mut self, cgroup: Option<&Path>) -> Self {
        let of_systemd = || {
            let mut parts = cgroup?.to_str()?.split(':');
            let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
            let is_slice = slice.ends_with(".slice") && !slice.contains('/');
            Some(is_slice && !prefix.is_empty() && !name.is_empty() && parts.next().is_none())
        };
        self.systemd_cgroup
            .get_or_insert_with(|| of_systemd().unwrap_or(false));
        self
    }

    fn from_message(sent: oci::Options) -> Result<Self> {
        for (name, value) in [
            ("CriuImagePath", &sent.criu_image_path),
            ("TaskApiAddress", &sent.task_api_address),
        ] {
            if !value.is_empty() {
                return Err(Error::unimplemented(format!(
                    "the runtime option {name} is not supported"
                )));
            }
        }
        let criu_folder = criu_folder(&sent)?;
        Ok(Self {
            binary: sent.binary_name,
            root: sent.root,
            systemd_cgroup: Some(sent.systemd_cgroup),
            no_pivot_root: sent.no_pivot_root,
            no_new_keyring: sent.no_new_keyring,
            io_uid: sent.io_uid,
            io_gid: sent.io_gid,
            shim_cgroup: sent.shim_cgroup,
            criu_folder,
            criu_work_path: sent.criu_work_path,
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

/// Newer runtimes take whatever is called `criu` in their `PATH`, and no other name.
fn criu_folder(sent: &oci::Options) -> Result<String> {
    let Some(UnknownValueRef::LengthDelimited(path)) = sent.special_fields.unknown_fields().get(CRIU_PATH)
    else {
        return Ok(String::new());
    };
    let path = Path::new(OsStr::from_bytes(path));
    let folder = path.parent().and_then(Path::to_str);
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) if path.is_absolute() && name == "criu" => Ok(folder.to_owned()),
        _ if path.as_os_str().is_empty() => Ok(String::new()),
        _ => Err(Error::invalid_argument(format!(
            "the runtime option CriuPath is {path:?}; it must be the absolute path of a program called criu"
        ))),
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
        for type_url in [RUNC.to_owned(), format!("type.googleapis.com/{RUNC}")] {
            let options = Options::from_any(Some(&any(&type_url, &message))).unwrap();
            assert_eq!(
                (options.binary.as_str(), options.systemd_cgroup),
                ("crun", Some(true))
            );
        }
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(Options::from_any(None).unwrap(), Options::default());
        assert_eq!(Options::from_any(Some(&Any::new())).unwrap(), Options::default());
    }

    #[test]
    fn finds_the_criu_of_containerd_1() {
        let with = |path: &str| {
            let mut message = oci::Options::new();
            let fields = message.special_fields.mut_unknown_fields();
            fields.add_length_delimited(CRIU_PATH, path.as_bytes().to_vec());
            Options::from_any(Some(&any(RUNC, &message)))
        };
        assert_eq!(with("/opt/bin/criu").unwrap().criu_folder, "/opt/bin");
        assert_eq!(with("").unwrap().criu_folder, "");
        assert!(with("/opt/bin/criu-4").is_err() && with("criu").is_err());
    }

    #[test]
    fn takes_the_older_form() {
        let old = Old {
            no_new_keyring: true,
            io_uid: 100_000,
            ..Old::default()
        };
        let sent = Any {
            type_url: OLD.into(),
            value: prost::Message::encode_to_vec(&old),
            ..Default::default()
        };
        let options = Options::from_any(Some(&sent)).unwrap();
        assert_eq!(
            (options.no_new_keyring, options.io_uid, options.systemd_cgroup),
            (true, 100_000, None)
        );
    }

    #[test]
    fn refuses_what_it_would_ignore() {
        let criu = oci::Options {
            criu_image_path: "/w".into(),
            ..Default::default()
        };
        let errors = [
            Options::from_any(Some(&any("runhcs.v1.Options", &oci::Options::new()))),
            Options::from_any(Some(&any(RUNC, &criu))),
            Options::from_any(Some(&Any {
                type_url: RUNC.into(),
                value: vec![0xff; 9],
                ..Default::default()
            })),
        ];
        for error in errors {
            assert!(error.is_err());
        }
    }

    fn generic(config_path: &str, config_body: impl Into<Vec<u8>>) -> Result<Options> {
        let message = Generic {
            config_path: config_path.into(),
            config_body: config_body.into(),
        };
        Options::from_any(Some(&Any {
            type_url: GENERIC.into(),
            value: prost::Message::encode_to_vec(&message),
            ..Default::default()
        }))
    }

    #[test]
    fn takes_the_table_that_cri_sends() {
        let options = generic(
            "",
            "BinaryName = '/usr/bin/crun'\nIoUid = 7\nNoPivotRoot = true\nSystemdCgroup = true\n",
        )
        .unwrap();
        assert_eq!((options.binary(), options.io_uid), ("/usr/bin/crun", 7));
        assert_eq!(
            (options.no_pivot_root, options.systemd_cgroup),
            (true, Some(true))
        );
        assert_eq!(generic("", "").unwrap(), Options::default());
    }

    #[test]
    fn says_what_it_does_not_take_in_the_table() {
        for (path, body, why) in [
            (
                "",
                "BinaryNam = 'crun'",
                "unknown field `BinaryNam`, expected one of `BinaryName`",
            ),
            ("", "IoUid = -1", "IoUid"),
            ("", "= \u{0}", "TOML parse error"),
            ("", "SystemdCgroup = 'yes'", "expected a boolean"),
            ("/etc/lazaret.toml", "", "ConfigPath"),
        ] {
            let error = generic(path, body).unwrap_err().to_string();
            assert!(error.contains("`options`") && error.contains(why), "{error}");
        }
        assert!(
            generic("", " ".repeat(MAX_BODY + 1))
                .unwrap_err()
                .to_string()
                .contains("larger")
        );
        assert!(generic("", b"\xff".as_slice()).is_err());
    }

    #[test]
    fn knows_a_cgroup_of_systemd_by_its_name() {
        let decided = |said, path: &str| {
            let options = Options {
                systemd_cgroup: said,
                ..Options::default()
            };
            options.for_cgroup(Some(Path::new(path))).systemd_cgroup.unwrap()
        };
        assert!(decided(None, "kubepods-burstable-pod12.slice:cri-containerd:c1"));
        for other in [
            "/kubepods/burstable/pod12/c1",
            "/a.slice:cri-containerd:c1",
            "kubepods.slice",
            "kubepods.slice:cri-containerd",
            "kubepods.slice::c1",
            "kubepods.slice:a:b:c",
            "",
        ] {
            assert!(!decided(None, other), "{other}");
        }
        assert!(
            !decided(Some(false), "a.slice:cri-containerd:c1"),
            "what was said counts"
        );
        assert!(decided(Some(true), "/a"));
        assert_eq!(Options::default().for_cgroup(None).systemd_cgroup, Some(false));
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
