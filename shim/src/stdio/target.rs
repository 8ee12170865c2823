//! What the path of an output may be instead of a fifo's: `file://` adds both outputs to a
//! file, `binary://` hands them to a program. containerd's own shim knows the same two.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use super::Request;
use crate::error::{Error, Result};

/// Where both outputs of a process go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To a fifo each, or nowhere.
    Fifos,
    /// To the end of one file.
    File(PathBuf),
    /// To a program, with these arguments.
    Binary {
        program: PathBuf,
        arguments: Vec<String>,
    },
}

impl Target {
    /// Reads it off what the client wants of standard output.
    pub(super) fn of(request: &Request) -> Result<Self> {
        let Some((scheme, rest)) = request.stdout.split_once("://") else {
            return Ok(Self::Fifos);
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = || match path.starts_with('/') {
            true => Ok(PathBuf::from(
                percent_decode_str(path).decode_utf8_lossy().into_owned(),
            )),
            false => Err(Error::invalid_argument(format!(
                "the path in {} is not absolute",
                request.stdout
            ))),
        };
        match scheme {
            "file" => path().map(Self::File),
            "binary" => Ok(Self::Binary {
                program: path()?,
                arguments: arguments(query),
            }),
            "fifo" => Err(Error::invalid_argument("a fifo is named by its path alone")),
            _ => Err(Error::invalid_argument(format!(
                "{scheme}:// is nowhere to write to; use a fifo, file:// or binary://"
            ))),
        }
    }
}

/// Names and values, one after the other; of a name that comes twice, the first one.
fn arguments(query: &str) -> Vec<String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if pairs.iter().all(|(known, _)| *known != name) {
            pairs.push((name.into_owned(), value.into_owned()));
        }
    }
    pairs
        .into_iter()
        .flat_map(|(name, value)| [name, value])
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(stdout: &str) -> Result<Target> {
        Target::of(&Request {
            stdout: stdout.into(),
            ..Request::default()
        })
    }

    #[test]
    fn tells_fifos_files_and_programs() {
        assert_eq!(of("").unwrap(), Target::Fifos);
        assert_eq!(of("/run/fifo").unwrap(), Target::Fifos);
        assert_eq!(
            of("file:///var/log/a%20b").unwrap(),
            Target::File("/var/log/a b".into())
        );
        let binary = of("binary:///bin/logger?key=a%26b&flag&key=c").unwrap();
        let wanted = Target::Binary {
            program: "/bin/logger".into(),
            arguments: ["key", "a&b", "flag", ""].map(String::from).to_vec(),
        };
        assert_eq!(binary, wanted);
    }

    #[test]
    fn refuses_what_it_cannot_write_to() {
        for bad in [
            "gopher:///x",
            "file://relative/log",
            "binary://",
            "fifo:///run/fifo",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
