//! The digests of files that have not changed since they were read, by inode: of an image's files,
//! which only the host could change, and of files that nobody was writing to.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lazaret_types::Sha256;
use lru::LruCache;

use crate::origin::{Identity, Inode};

/// By what a digest is known, now or later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownAs {
    pub(crate) inode: Inode,
    /// It is a file of an image, as it is there.
    pub(crate) in_image: bool,
}

/// What was asked for longest ago is forgotten first.
#[derive(Debug)]
pub(crate) struct Digests(Mutex<LruCache<Inode, Digested>>);

#[derive(Debug, Clone, Copy)]
struct Digested {
    digest: Sha256,
    in_image: bool,
}

impl KnownAs {
    pub(crate) fn in_image(inode: Inode) -> Self {
        let in_image = true;
        Self { inode, in_image }
    }
}

impl Digests {
    pub(crate) fn new(entries: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(entries)))
    }

    pub(crate) fn get(&self, inode: Inode) -> Option<Sha256> {
        self.lock().get(&inode).map(|known| known.digest)
    }

    /// The digest of a file, if it is of an image.
    pub(crate) fn of_image(&self, inode: Inode) -> Option<Sha256> {
        let mut digests = self.lock();
        let known = digests.get(&inode).filter(|known| known.in_image);
        known.map(|known| known.digest)
    }

    /// Keeps the digest that was taken of a file, if it still is what it is to be known as.
    pub(crate) fn put(&self, known_as: KnownAs, file: BorrowedFd<'_>, digest: Sha256) {
        let KnownAs { inode, in_image } = known_as;
        if Identity::of(file).is_ok_and(|now| inode.is(&now)) {
            self.lock().put(inode, Digested { digest, in_image });
        }
    }

    pub(crate) fn forget(&self, inode: Inode) {
        self.lock().pop(&inode);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Inode, Digested>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_that_changed_while_it_was_read_is_not_known() {
        let digests = Digests::new(NonZeroUsize::new(10).unwrap());
        let file = tempfile::tempfile().unwrap();
        let inode = Inode::of(file.as_fd()).unwrap();
        let digest = Sha256::new([7; 32]);
        digests.put(KnownAs::in_image(inode), file.as_fd(), digest);
        assert_eq!(digests.of_image(inode), Some(digest));
        file.set_len(1).unwrap();
        let changed = Inode::of(file.as_fd()).unwrap();
        assert_eq!(digests.get(changed), None);
        digests.forget(inode);
        digests.put(KnownAs::in_image(inode), file.as_fd(), digest);
        assert_eq!(digests.get(inode), None);
    }
}
