//! The shim's log: the fifo `log` in the bundle, which containerd copies into its
//! own. Written by hand because a shim is per pod, and a registry of spans that it
//! never uses would cost it more memory than its containers do.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::OFlags;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The fifo's name in the bundle.
const FIFO: &str = "log";

/// Events as lines of `key=value`, the way containerd writes its own.
struct Log {
    fifo: File,
    level: Level,
    /// `namespace=… id=…` of the shim, the same on every line.
    origin: String,
}

/// Lets `tracing` write into the bundle's log fifo, if it has one.
pub(crate) fn start(bundle: &Path, debug: bool, namespace: &str, id: &str) {
    let Some(fifo) = open(&bundle.join(FIFO)) else {
        return;
    };
    let level = if debug { Level::DEBUG } else { Level::INFO };
    let log = Log {
        fifo,
        level,
        origin: format!(" namespace={namespace} shim={id}"),
    };
    if tracing::subscriber::set_global_default(log).is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    }
}

/// Opened for reading too, so that it outlives a restart of containerd, and
/// without blocking, so that a containerd that does not read never holds us up.
fn open(path: &Path) -> Option<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .ok()?;
    file.metadata()
        .is_ok_and(|meta| meta.file_type().is_fifo())
        .then_some(file)
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut line = Line {
            message: String::new(),
            fields: String::new(),
        };
        event.record(&mut line);
        let text = format!(
            "time=\"{:.9}\" level={level} msg={:?}{}{}\n",
            Timestamp::now(),
            line.message,
            self.origin,
            line.fields
        );
        // A full fifo means that nobody reads; the line is lost, the shim goes on.
        (&self.fifo).write_all(text.as_bytes()).ok();
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, &value);
    }
}

impl Line {
    fn add(&mut self, field: &Field, value: &dyn fmt::Display) {
        match field.name() {
            "message" => self.message = value.to_string(),
            // Quoted, so that no value can begin a line of its own.
            name => self.fields.push_str(&format!(" {name}={:?}", value.to_string())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn writes_one_line_an_event_whatever_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FIFO);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let log = Log {
            fifo: open(&path).unwrap(),
            level: Level::INFO,
            origin: " shim=a".into(),
        };
        let mut reader = log.fifo.try_clone().unwrap();
        tracing::subscriber::with_default(log, || {
            tracing::debug!("not told");
            tracing::warn!(name = "x\ny", number = 3, "two\nlines");
        });
        let mut text = [0; 1024];
        let length = reader.read(&mut text).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains(r#" level=warning msg="two\nlines" shim=a name="#),
            "{text}"
        );
    }

    #[test]
    fn is_no_fifo_no_log() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open(&dir.path().join(FIFO)).is_none());
        std::fs::write(dir.path().join(FIFO), "").unwrap();
        assert!(open(&dir.path().join(FIFO)).is_none());
    }
}
