//! Small OCI images, made from busybox-static and whatever files a test wants in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::command;
use crate::malware::sha256;

/// Where Debian's busybox-static puts its binary.
pub const BUSYBOX: &str = "/bin/busybox";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const FOLDERS: &[&str] = &[
    "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "var",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntester:x:1000:1000:tester:/home:/bin/sh\n";
const GROUP: &str = "root:x:0:\ntester:x:1000:\n";

enum Entry {
    Folder {
        mode: u32,
    },
    File {
        mode: u32,
        traits: Traits,
        content: Vec<u8>,
    },
    Link {
        target: String,
    },
}

/// What a file has besides its mode and content.
#[derive(Debug, Clone, Default)]
pub struct Traits {
    /// User and group id.
    pub owner: (u32, u32),
    /// Seconds since 1970.
    pub modified: u64,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(&'static str, Vec<u8>)>,
}

/// An image of one layer. The same calls give the same bytes.
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    env: Vec<String>,
    user: String,
    // Ordered by path: parents come before what is in them.
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl Image {
    /// Busybox with all its applets, accounts, `/tmp`; its entrypoint is a shell.
    ///
    /// # Errors
    /// When busybox is not installed.
    pub fn busybox(name: &str) -> Result<Self> {
        let mut image = Self {
            name: name.to_owned(),
            entrypoint: vec!["/bin/sh".to_owned()],
            env: vec!["PATH=/bin:/usr/bin".to_owned()],
            user: String::new(),
            entries: BTreeMap::new(),
        };
        for folder in FOLDERS {
            image.insert(folder, Entry::Folder { mode: 0o755 });
        }
        image.insert("tmp", Entry::Folder { mode: 0o1777 });
        let busybox = fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
        for applet in command::check(std::process::Command::new(BUSYBOX).arg("--list"))?.lines() {
            image.insert(
                format!("bin/{applet}"),
                Entry::Link {
                    target: "busybox".to_owned(),
                },
            );
        }
        Ok(image
            .file("bin/busybox", 0o755, busybox)
            .file("etc/passwd", 0o644, PASSWD)
            .file("etc/group", 0o644, GROUP))
    }

    /// The name it is imported under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a file, its folders too.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        self.file_with(path, mode, Traits::default(), content)
    }

    /// Adds a file that is not just anybody's.
    #[must_use]
    pub fn file_with(
        mut self,
        path: impl AsRef<[u8]>,
        mode: u32,
        traits: Traits,
        content: impl Into<Vec<u8>>,
    ) -> Self {
        let path = path.as_ref();
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for folder in slashes.filter_map(|(at, _)| path.get(..at)) {
            self.entries
                .entry(folder.to_owned())
                .or_insert(Entry::Folder { mode: 0o755 });
        }
        self.insert(
            path,
            Entry::File {
                mode,
                traits,
                content: content.into(),
            },
        );
        self
    }

    /// What runs when nobody says otherwise.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Who runs in it, as `UID:GID`; root without.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        user.clone_into(&mut self.user);
        self
    }

    /// Writes it as an OCI archive, as `ctr image import` takes it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = self.layer()?;
        let config = self.config(&sha256(&layer)).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut tar = Builder::new(fs::File::create(archive)?);
        put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put(
            &mut tar,
            "index.json",
            self.index(&manifest).to_string().as_bytes(),
        )?;
        for blob in [&config, &layer, &manifest] {
            put(&mut tar, &format!("blobs/sha256/{}", sha256(blob)), blob)?;
        }
        tar.into_inner()?;
        Ok(())
    }

    /// Unpacks its layer into a folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn unpack(&self, dir: &Path) -> Result<()> {
        let layer = self.layer()?;
        let mut archive = tar::Archive::new(layer.as_slice());
        archive.set_preserve_permissions(true);
        Ok(archive.unpack(dir)?)
    }

    fn insert(&mut self, path: impl AsRef<[u8]>, entry: Entry) {
        self.entries.insert(path.as_ref().to_owned(), entry);
    }

    fn layer(&self) -> Result<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            match entry {
                Entry::Folder { mode } => {
                    let mut header = header(EntryType::Directory, *mode, 0);
                    tar.append_data(&mut header, path, std::io::empty())?;
                }
                Entry::File {
                    mode,
                    traits,
                    content,
                } => {
                    // As GNU tar and Go have it.
                    let key = |name: &str| format!("SCHILY.xattr.{name}");
                    let keys: Vec<_> = traits.xattrs.iter().map(|(name, _)| key(name)).collect();
                    let values = traits.xattrs.iter().map(|(_, value)| value.as_slice());
                    tar.append_pax_extensions(keys.iter().map(String::as_str).zip(values))?;
                    let mut header = header(EntryType::Regular, *mode, content.len() as u64);
                    header.set_uid(traits.owner.0.into());
                    header.set_gid(traits.owner.1.into());
                    header.set_mtime(traits.modified);
                    tar.append_data(&mut header, path, content.as_slice())?;
                }
                Entry::Link { target } => {
                    let mut header = header(EntryType::Symlink, 0o777, 0);
                    tar.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(tar.into_inner()?)
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Env": self.env, "Entrypoint": self.entrypoint, "User": self.user },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        })
    }

    fn index(&self, manifest: &[u8]) -> Value {
        json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": format!("sha256:{}", sha256(manifest)),
                "size": manifest.len(),
                "platform": { "architecture": architecture(), "os": "linux" },
                "annotations": { "io.containerd.image.name": self.name },
            }],
        })
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": format!("sha256:{}", sha256(blob)),
        "size": blob.len(),
    })
}

fn put(tar: &mut Builder<fs::File>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    Ok(tar.append_data(&mut header, path, content)?)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// As Go, and therefore OCI, calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Image};
    use std::collections::BTreeMap;

    fn image() -> Image {
        let image = Image {
            name: "lazaret.test/unit:1".to_owned(),
            entrypoint: Vec::new(),
            env: Vec::new(),
            user: String::new(),
            entries: BTreeMap::new(),
        };
        image
            .file("opt/deep/file", 0o755, "content")
            .file(b"opt/\xff".as_slice(), 0o644, "bytes")
    }

    #[test]
    fn the_same_calls_give_the_same_bytes() -> anyhow::Result<()> {
        assert_eq!(image().layer()?, image().layer()?);
        Ok(())
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let image = image();
        let paths: Vec<_> = image
            .entries
            .keys()
            .map(|path| path.escape_ascii().to_string())
            .collect();
        assert_eq!(paths, ["opt", "opt/deep", "opt/deep/file", "opt/\\xff"]);
        assert!(matches!(
            image.entries.get(b"opt".as_slice()),
            Some(Entry::Folder { mode: 0o755 })
        ));
    }

    #[test]
    fn a_tar_reader_finds_the_files_again() -> anyhow::Result<()> {
        let layer = image().layer()?;
        let mut archive = tar::Archive::new(layer.as_slice());
        assert_eq!(archive.entries()?.count(), 4);
        Ok(())
    }
}
