//! What is inside a content: zip (jar, war), tar, gzip, xz and zstd, in each other.
//!
//! In memory, never on disk, and always within a [`Budget`]: whoever packs decides how
//! large and how deep. What is corrupt is read as far as it can be, because other
//! programs do the same.

mod budget;
mod path;
mod stream;
mod tape;
mod zip;

pub use budget::{Budget, Limits};

use budget::Spent;
use path::MemberPath;

/// Who is told what is inside.
pub trait Visitor {
    /// A content inside the one that was entered last and not yet left. `path` leads to it.
    fn enter(&mut self, path: &str, content: &[u8]);

    /// Something in the content that was entered last cannot be read: told once for each
    /// archive and reason, with the path of the first.
    fn unreadable(&mut self, path: &str, why: Unreadable);

    /// Nothing more is in the content that was entered last.
    fn leave(&mut self);
}

/// Why a member has no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// Whoever opens it needs a password.
    Encrypted,
    /// A compression that we do not know.
    Method,
}

/// A form that holds other contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Zip, and what is built on it: jar, war, apk, office documents.
    Zip,
    /// POSIX, GNU and old tar.
    Tar,
    /// RFC 1952.
    Gzip,
    /// LZMA2 in its container.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Form {
    /// The form of a content, by its first bytes. Only zip may begin with something else, as
    /// zipped programs do: its last bytes count, too.
    #[must_use]
    pub fn of(content: &[u8]) -> Option<Self> {
        match content {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ if zip::ends(content) => Some(Self::Zip),
            _ if tape::begins(content) => Some(Self::Tar),
            _ => None,
        }
    }
}

/// Tells a visitor of all that is inside `content`, as far as the budget goes: what it
/// stopped at is in [`Budget::limit`].
pub fn walk(content: &[u8], budget: &mut Budget, visitor: &mut dyn Visitor) {
    let Some(form) = Form::of(content) else {
        return;
    };
    let mut walk = Walk {
        budget,
        visitor,
        path: MemberPath::default(),
        depth: 0,
    };
    // What is spent is in the budget already.
    let _spent = walk.open(form, content).is_err();
}

/// One content that is being walked.
struct Walk<'a> {
    budget: &'a mut Budget,
    visitor: &'a mut dyn Visitor,
    path: MemberPath,
    depth: u32,
}

impl Walk<'_> {
    fn open(&mut self, form: Form, content: &[u8]) -> Result<(), Spent> {
        if !self.budget.allows_depth(self.depth + 1) {
            return Ok(());
        }
        self.depth += 1;
        let read = match form {
            Form::Zip => zip::read(content, self),
            Form::Tar => tape::read(content, self),
            Form::Gzip | Form::Xz | Form::Zstd => stream::read(form, content, self),
        };
        self.depth -= 1;
        read
    }

    /// A member that is there as it is.
    fn member(&mut self, name: &[u8], content: &[u8]) -> Result<(), Spent> {
        self.budget.begin_member()?;
        self.budget.take(content.len())?;
        self.visit(name, content)
    }

    /// A member that unpacks from `packed` bytes.
    fn packed(&mut self, name: &[u8], packed: usize, reader: impl std::io::Read) -> Result<(), Spent> {
        self.budget.begin_member()?;
        let (content, left) = self.budget.unpack(packed, reader);
        // What was unpacked when the budget ended is judged all the same.
        self.visit(name, &content)?;
        left
    }

    fn visit(&mut self, name: &[u8], content: &[u8]) -> Result<(), Spent> {
        let outside = self.path.push(name);
        self.visitor.enter(self.path.as_str(), content);
        let read = match Form::of(content) {
            Some(form) => self.open(form, content),
            None => Ok(()),
        };
        self.visitor.leave();
        self.path.truncate(outside);
        read
    }

    fn unreadable(&mut self, name: &[u8], why: Unreadable) {
        let outside = self.path.push(name);
        self.visitor.unreadable(self.path.as_str(), why);
        self.path.truncate(outside);
    }
}

#[cfg(test)]
mod tests;
