//! The mount table, as far as a clean-up needs it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

/// Mount points at or below `dir`, the newest first.
#[must_use]
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    points.reverse();
    points
}

/// Detaches every mount at or below `dir`.
pub fn detach_below(dir: &Path) {
    for point in below(dir) {
        // Nothing better can be done about a mount that stays; removing the folder will say so.
        umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).unwrap_or_default();
    }
}

/// The kernel writes blanks, tabs, newlines and backslashes as octal escapes.
fn unescape(field: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let plain = escapes
        .iter()
        .fold(field.to_owned(), |text, (from, to)| text.replace(from, to));
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(super::unescape(r"/a\040b\134c"), Path::new(r"/a b\c"));
    }
}
