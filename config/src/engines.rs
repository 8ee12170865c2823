//! `[[engines]]`: engines that lazaret does not know.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::OnUnavailable;

/// Engines at most: every new content is judged by each of them in turn.
const MOST: usize = 8;

/// Longest name, in bytes.
const LONGEST_NAME: usize = 32;

/// A program that judges contents, in a sandbox: `docs/engines.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// What it is called in incidents: small letters, digits and hyphens.
    pub name: String,
    /// The program.
    pub command: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Files and folders that it may read, and programs in them that it may run.
    #[serde(default = "system")]
    pub paths: Vec<PathBuf>,
    /// How long it may take for one file. Shorter than `scan.timeout`.
    #[serde(with = "humantime_serde", default = "one_second")]
    pub timeout: Duration,
    /// Memory that one of its processes may use.
    #[serde(default = "half_a_gibibyte")]
    pub memory: ByteSize,
    /// What becomes of a file that it fails at.
    #[serde(default = "unjudged")]
    pub on_failure: OnUnavailable,
}

/// Where the system's programs and libraries are.
fn system() -> Vec<PathBuf> {
    ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
        .map(PathBuf::from)
        .to_vec()
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn half_a_gibibyte() -> ByteSize {
    ByteSize::mib(512)
}

fn unjudged() -> OnUnavailable {
    OnUnavailable::Unjudged
}

/// What the types cannot express; `patience` is `scan.timeout`.
pub(crate) fn check(engines: &[Engine], patience: Duration) -> Result<(), String> {
    if engines.len() > MOST {
        return Err(format!("there may be {MOST} engines at most"));
    }
    let mut names = HashSet::new();
    for engine in engines {
        let name = &engine.name;
        if !is_name(name) || !names.insert(name) {
            return Err(format!(
                "engines: {name:?} is not a name of its own of small letters, digits and hyphens"
            ));
        }
        if let Some(path) = std::iter::once(&engine.command)
            .chain(&engine.paths)
            .find(|path| !path.is_absolute())
        {
            return Err(format!(
                "engine {name}: {} is not an absolute path",
                path.display()
            ));
        }
        if engine.timeout.is_zero() || engine.timeout >= patience {
            return Err(format!(
                "engine {name}: its timeout must be longer than 0s and shorter than scan.timeout"
            ));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(fits)
}
