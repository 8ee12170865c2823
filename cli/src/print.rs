//! Writes to the terminal, or to whatever stands in for it.

use std::fmt;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::failure::Failure;
use crate::text::{Safe, safe_json};

/// What is less important.
pub(crate) const DIM: Style = Style::new().dimmed();

/// What names the rest.
pub(crate) const BOLD: Style = Style::new().bold();

/// As it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();

/// Worth a look.
pub(crate) const ODD: Style = AnsiColor::Yellow.on_default();

/// Worth a closer look.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// The standard output. Styles only reach a terminal, and not when `NO_COLOR` is set.
pub(crate) struct Printer {
    styled: anstream::AutoStream<io::Stdout>,
}

/// Text in a style.
pub(crate) struct Styled<T>(pub(crate) Style, pub(crate) T);

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The width pads the text, not the invisible style around it.
        let Self(style, text) = self;
        write!(f, "{style}")?;
        text.fmt(f)?;
        write!(f, "{style:#}")
    }
}

impl Printer {
    pub(crate) fn new() -> Self {
        Self {
            styled: anstream::AutoStream::auto(io::stdout()),
        }
    }

    /// One line. Everything in it that others chose must be [`Safe`].
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.styled, "{text}")?;
        Ok(())
    }

    /// One JSON object in a line, for programs.
    pub(crate) fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.raw((safe_json(&value.to_string()) + "\n").as_bytes())
    }

    /// What programs read.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(())
    }
}

/// Tells why the command failed.
pub(crate) fn complain(failure: &Failure) {
    let mut stderr = anstream::stderr();
    let text = failure.to_string();
    // Without anybody to tell there is nothing left to do.
    drop(writeln!(stderr, "{}: {}", Styled(BAD, "error"), Safe(&text)));
}

/// Tells something beside the output, which a program may be reading.
pub(crate) fn remark(text: &str) {
    let mut stderr = anstream::stderr();
    drop(writeln!(stderr, "{}", Styled(ODD, Safe(text))));
}
