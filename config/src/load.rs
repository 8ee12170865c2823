//! Where the configuration comes from.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use crate::{Config, keys};

/// Names another file than [`DEFAULT_PATH`].
pub const CONFIG_ENV: &str = "LAZARET_CONFIG";

/// Read when nothing else is named; it may be absent.
pub const DEFAULT_PATH: &str = "/etc/lazaret/lazaret.toml";

/// The configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("{path}: {message}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
}

impl Config {
    /// Reads `path`, else what [`CONFIG_ENV`] names, else [`DEFAULT_PATH`].
    ///
    /// # Errors
    /// When the file is invalid, or is named and cannot be read.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path
            .map(Path::to_owned)
            .or_else(|| std::env::var_os(CONFIG_ENV).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|message| ConfigError::Invalid { path, message }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// Reads the text of a `lazaret.toml`.
    ///
    /// # Errors
    /// Says where and what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        keys::check(text)?;
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lazaret_types::{Action, LossPolicy};

    use super::*;

    #[test]
    fn nothing_said_means_the_defaults() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn every_key_can_be_written_as_it_is_shown() {
        let shown = toml::to_string(&Config::default()).expect("serializes");
        assert_eq!(Config::parse(&shown), Ok(Config::default()), "{shown}");
    }

    #[test]
    fn the_shipped_file_shows_every_key_at_its_default() {
        let text = include_str!("../lazaret.toml");
        assert_eq!(Config::parse(text), Ok(Config::default()));
        let shown: toml::Table = toml::from_str(text).expect("parses");
        assert_eq!(
            shown.len(),
            toml::Table::try_from(Config::default())
                .expect("serializes")
                .len()
        );
        for (name, table) in toml::Table::try_from(Config::default()).expect("serializes") {
            let keys = |value: &toml::Value| value.as_table().map(toml::Table::len);
            assert_eq!(shown.get(&name).and_then(keys), keys(&table), "[{name}]");
        }
    }

    #[test]
    fn reads_values_with_units() {
        let config = Config::parse(
            "[guard]\non_daemon_loss = 'open'\nattach_timeout = '250ms'\n\
             [scan]\nmax_file_size = '1MiB'\non_unjudged = { open = 'deny' }",
        )
        .expect("valid");
        assert_eq!(config.guard.on_daemon_loss, LossPolicy::Open);
        assert_eq!(config.guard.attach_timeout, Duration::from_millis(250));
        assert_eq!(config.scan.max_file_size.as_u64(), 1 << 20);
        assert_eq!(config.scan.on_unjudged.open, Action::Deny);
        assert_eq!(config.scan.on_unjudged.exec, Action::Deny);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_right_one() {
        let error = Config::parse("[guard]\n\non_demon_loss = 'open'\n").expect_err("unknown");
        assert_eq!(
            error,
            "line 3, column 1: unknown key guard.on_demon_loss; did you mean guard.on_daemon_loss?"
        );
    }

    #[test]
    fn refuses_what_cannot_work() {
        for text in [
            "[scan]\ntimeout = '0s'",
            "[scan]\ntimeout = '9s'",
            "[scan]\non_unjudged = { exec = 'kill' }",
            "[scan]\non_unjudged = { open = 'quarantine' }",
            "[quarantine]\nmode = 'some'",
            "[node]\nrun_dir = 'here'",
            "[guard]\non_daemon_loss = 'ajar'",
            "[clamd]\nenabled = true\nsocket = 'clamd.ctl'",
            "[clamd]\nenabled = true\ntimeout = '2s'",
            "[clamd]\nenabled = true\nconnections = 0",
            "[clamd]\nenabled = true\nfailures = 0",
            "[clamd]\nenabled = true\npoll = '10ms'",
            "[clamd]\non_unavailable = 'deny'",
            "[[engines]]\ncommand = '/bin/true'",
            "[[engines]]\nname = 'a b'\ncommand = '/bin/true'",
            "[[engines]]\nname = 'a'\ncommand = 'true'",
            "[[engines]]\nname = 'a'\ncommand = '/bin/true'\npaths = ['usr']",
            "[[engines]]\nname = 'a'\ncommand = '/bin/true'\ntimeout = '2s'",
            "[[engines]]\nname = 'a'\ncommand = '/bin/true'\ncolour = 'red'",
            "[[engines]]\nname = 'a'\ncommand = '/bin/true'\n[[engines]]\nname = 'a'\ncommand = '/bin/true'",
            "[clamd]\nseverity = 'critical'",
            "[scan]\nmax_file_size = 'huge'",
            "scan = 3",
            "[scan",
        ] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Config::load(Some(Path::new("/nonexistent/lazaret.toml"))).expect_err("absent");
        assert!(error.to_string().contains("/nonexistent/lazaret.toml"), "{error}");
    }
}
