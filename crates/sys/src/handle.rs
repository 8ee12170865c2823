//! File handles: what a file system itself calls an inode (name_to_handle_at(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `MAX_HANDLE_SZ` (include/linux/exportfs.h).
const MAX: u32 = 128;

/// An inode of one file system, told apart from others that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// The format of the rest; the file system's own affair.
    pub kind: i32,
    /// The name itself.
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct Raw {
    length: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; MAX as usize],
}

/// The handle of an open file, `O_PATH` or not.
///
/// # Errors
/// As `name_to_handle_at(2)`: `EOPNOTSUPP` where the file system has none.
pub fn of(file: BorrowedFd<'_>) -> io::Result<FileHandle> {
    let mut raw = Raw {
        length: MAX,
        kind: 0,
        bytes: [0; MAX as usize],
    };
    let mut mount = 0;
    let handle = (&raw mut raw).cast::<libc::file_handle>();
    // SAFETY: the path is a C string, and the kernel writes no more than `length` bytes after the
    // two integers; Raw has the layout of struct file_handle.
    let made = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if made == -1 {
        return Err(io::Error::last_os_error());
    }
    let bytes = raw.bytes.get(..raw.length as usize).unwrap_or_default();
    Ok(FileHandle {
        kind: raw.kind,
        bytes: bytes.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn links_have_one_and_other_files_have_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name| folder.path().join(name);
        fs::write(path("a"), "").unwrap();
        fs::write(path("b"), "").unwrap();
        fs::hard_link(path("a"), path("c")).unwrap();
        let handle = |name| of(File::open(path(name)).unwrap().as_fd()).unwrap();
        assert_eq!(handle("a"), handle("c"));
        assert_ne!(handle("a"), handle("b"));
    }
}
