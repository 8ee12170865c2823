//! The files of a cgroup. What is not there reads as nothing: which files there are
//! depends on the kernel's version, its configuration, and its command line.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of a cgroup file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder(pub(super) PathBuf);

/// Lines of a name and a number.
pub(super) struct Keyed(String);

impl Folder {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A file with a name and a number on each line.
    pub(super) fn keyed(&self, name: &str) -> Keyed {
        Keyed(self.text(name))
    }

    /// A file with one number.
    pub(super) fn number(&self, name: &str) -> u64 {
        number(self.text(name).trim())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }
}

impl Keyed {
    pub(super) fn get(&self, key: &str) -> u64 {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(name, _)| *name == key)
            .map_or(0, |(_, value)| number(value))
    }
}

/// Copies numbers of a [`Keyed`] file into fields of a message. A field is called as its number is,
/// or names it.
macro_rules! copy {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($stat:ident => $message:ident { $($field:ident $(= $key:literal)?),* $(,)? }) => {
        $($message.$field = $stat.get(copy!(@key $field $($key)?));)*
    };
}
pub(super) use copy;

/// Without a limit it is the largest that there is. Counters that run in parallel may
/// make the kernel show a negative sum, which is none.
pub(super) fn number(text: &str) -> u64 {
    match text {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// Devices with their handles and objects: `DEVICE hca_handle=2 hca_object=max`.
pub(super) fn rdma(text: &str) -> impl Iterator<Item = (String, u32, u32)> {
    text.lines().filter_map(|line| {
        let (device, values) = line.split_once(' ')?;
        let values = Keyed(values.replace(' ', "\n").replace('=', " "));
        let value = |key| u32::try_from(values.get(key)).unwrap_or(u32::MAX);
        Some((device.to_owned(), value("hca_handle"), value("hca_object")))
    })
}

/// The sizes of huge pages, as the files of both versions have them in their names.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new("/sys/kernel/mm/hugepages")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| huge_page_size(entry.ok()?.file_name().to_str()?))
        .collect()
}

/// `hugepages-2048kB` is `2MB`.
fn huge_page_size(name: &str) -> Option<String> {
    const MB: u64 = 1 << 10;
    const GB: u64 = 1 << 20;
    let size: u64 = name
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    Some(match size {
        GB.. => format!("{}GB", size / GB),
        MB.. => format!("{}MB", size / MB),
        _ => format!("{size}KB"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files.
    pub(crate) fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let folder = Folder(dir.path().to_owned());
        (dir, folder)
    }

    #[test]
    fn what_is_missing_or_strange_is_nothing() {
        let (_dir, folder) = folder(&[
            ("a", "7\n"),
            ("b", "max\n"),
            ("c", "-1\n"),
            ("d", "x 1\ny 2\nz\n"),
        ]);
        let numbers = ["a", "b", "c", "d", "e"].map(|name| folder.number(name));
        assert_eq!(numbers, [7, u64::MAX, 0, 0, 0]);
        let keyed = folder.keyed("d");
        assert_eq!(["x", "y", "z", ""].map(|key| keyed.get(key)), [1, 2, 0, 0]);
    }

    #[test]
    fn names_the_sizes_of_huge_pages() {
        let names = [
            "hugepages-64kB",
            "hugepages-2048kB",
            "hugepages-1048576kB",
            "pages",
        ];
        let sizes = names.map(huge_page_size);
        assert_eq!(
            sizes,
            [Some("64KB".into()), Some("2MB".into()), Some("1GB".into()), None]
        );
    }
}
