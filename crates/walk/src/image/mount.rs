//! A mount that nobody else sees and that nothing outlives.
//!
//! It is made in a mount namespace of a thread of its own, which ends at once. The
//! namespace ends with the thread; what stays is the mount that our descriptor
//! holds, and it goes when the descriptor is closed, also by `kill -9`.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use lazaret_api::containerd::snapshots::Mount;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Covered in the private namespace: a folder that exists everywhere and that no
/// snapshot lies in.
const TARGET: &str = "/proc";

/// Nothing in an image is run, and no device in it is a device.
const FLAGS: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME);

/// Longest option string of mount(2), in bytes: a page with its final zero.
const MAX_OPTIONS: usize = 4095;

/// Mounts what a snapshotter says and gives the root of it, `O_PATH`.
pub(super) fn privately(mounts: Vec<Mount>) -> io::Result<OwnedFd> {
    let mounter = thread::Builder::new().name("image-mount".into());
    let mounted = mounter.spawn(move || mount_here(&mounts))?.join();
    mounted.map_err(|_panic| io::Error::other("mounting was cut short"))?
}

fn mount_here(mounts: &[Mount]) -> io::Result<OwnedFd> {
    let [mount] = mounts else {
        return Err(unsupported(format!("{} mounts instead of one", mounts.len())));
    };
    // The current folder becomes this thread's own with it.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    match mount.r#type.as_str() {
        "bind" | "rbind" => bind(&mount.source)?,
        "overlay" => overlay(&mount.options)?,
        other => return Err(unsupported(format!("its file system {other:?} is not supported"))),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(TARGET, flags, Mode::empty())?)
}

fn unsupported(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// A single layer.
fn bind(source: &str) -> io::Result<()> {
    rustix::mount::mount_bind(source, TARGET)?;
    Ok(rustix::mount::mount_remount(
        TARGET,
        FLAGS | MountFlags::BIND,
        c"",
    )?)
}

fn overlay(options: &[String]) -> io::Result<()> {
    let mut data = Vec::new();
    for option in options {
        match option.strip_prefix("lowerdir=") {
            // It would make the view writable, and is the snapshotter's mistake.
            _ if option.starts_with("upperdir=") || option.starts_with("workdir=") => {
                return Err(unsupported(format!("a view with {option:?}")));
            }
            Some(lower) => data.push(format!("lowerdir={}", enter_common(lower)?)),
            None if ["ro", "rw"].contains(&option.as_str()) => {}
            None => data.push(option.clone()),
        }
    }
    let data = data.join(",");
    if data.len() > MAX_OPTIONS {
        return Err(unsupported(format!(
            "it has too many layers: {} bytes of options",
            data.len()
        )));
    }
    let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
    Ok(rustix::mount::mount("overlay", TARGET, "overlay", FLAGS, &*data)?)
}

/// Enters the folder that all layers lie in and gives their paths from there:
/// many absolute ones do not fit in a page.
fn enter_common(lower: &str) -> io::Result<String> {
    let (folder, relative) = shorten(lower);
    if let Some(folder) = folder {
        std::env::set_current_dir(folder)?;
    }
    Ok(relative)
}

fn shorten(lower: &str) -> (Option<PathBuf>, String) {
    let unchanged = (None, lower.to_owned());
    // A backslash escapes a colon.
    if lower.contains('\\') {
        return unchanged;
    }
    let layers: Vec<_> = lower.split(':').map(Path::new).collect();
    let common = layers.first().and_then(|first| {
        let mut folders = first.ancestors().skip(1);
        folders.find(|folder| layers.iter().all(|layer| layer.starts_with(folder)))
    });
    let Some(common) = common.filter(|common| common.is_absolute()) else {
        return unchanged;
    };
    let relative: Vec<_> = layers
        .iter()
        .filter_map(|layer| layer.strip_prefix(common).ok()?.to_str())
        .collect();
    (Some(common.to_owned()), relative.join(":"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed test is a panic")]
mod tests {
    use std::fs;

    use rustix::io::Errno;

    use super::*;

    fn mount(kind: &str, source: &str, options: &[String]) -> Mount {
        Mount {
            r#type: kind.into(),
            source: source.into(),
            target: String::new(),
            options: options.to_vec(),
        }
    }

    #[test]
    fn layers_lie_above_each_other_where_nobody_sees_them() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str| folder.path().join(name).display().to_string();
        for (name, file) in [("1", "below"), ("1", "covered"), ("2", "covered")] {
            fs::create_dir_all(layer(name)).unwrap();
            fs::write(Path::new(&layer(name)).join(file), name).unwrap();
        }
        let options = [
            "index=off".into(),
            format!("lowerdir={}:{}", layer("2"), layer("1")),
        ];
        for (mount, covered) in [
            (mount("overlay", "overlay", &options), "2"),
            (mount("bind", &layer("1"), &["ro".into(), "rbind".into()]), "1"),
        ] {
            let root = match privately(vec![mount]) {
                Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
                    eprintln!("not run: mounting needs root");
                    return;
                }
                root => root.unwrap(),
            };
            let path = lazaret_sys::fd_path(&root);
            assert_eq!(fs::read_to_string(path.join("covered")).unwrap(), covered);
            assert_eq!(fs::read_to_string(path.join("below")).unwrap(), "1");
            let written = fs::write(path.join("new"), "");
            assert_eq!(written.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        // Others mount things meanwhile; ours would name the folder.
        let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!seen.contains(folder.path().to_str().unwrap()), "{seen}");
    }

    #[test]
    fn what_a_later_layer_hides_is_not_in_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let [below, above] = ["below", "above"].map(|name| folder.path().join(name));
        for layer in [&below, &above] {
            fs::create_dir_all(layer.join("opaque")).unwrap();
        }
        for file in ["kept", "covered", "gone", "opaque/hidden"] {
            fs::write(below.join(file), "below").unwrap();
        }
        fs::write(above.join("covered"), "above").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let opaque = rustix::fs::setxattr(above.join("opaque"), "trusted.overlay.opaque", b"y", flags);
        let kind = rustix::fs::FileType::CharacterDevice;
        let whiteout = rustix::fs::mknodat(rustix::fs::CWD, above.join("gone"), kind, Mode::empty(), 0);
        if [opaque, whiteout].contains(&Err(Errno::PERM)) {
            eprintln!("not run: layers need root");
            return;
        }
        let root = super::super::merged(&[above, below]).unwrap();
        let read = |file: &str| fs::read_to_string(lazaret_sys::fd_path(&root).join(file)).ok();
        assert_eq!(read("kept").as_deref(), Some("below"));
        assert_eq!(read("covered").as_deref(), Some("above"));
        assert_eq!((read("gone"), read("opaque/hidden")), (None, None));
        assert!(super::super::merged(&[]).is_err());
    }

    #[test]
    fn other_mounts_are_refused() {
        for mounts in [
            vec![],
            vec![mount("ext4", "/dev/loop0", &[])],
            vec![mount("overlay", "overlay", &["upperdir=/tmp".into()])],
        ] {
            assert!(privately(mounts).is_err());
        }
    }

    #[test]
    fn layers_share_the_path_to_their_folder() {
        let (folder, relative) = shorten("/var/s/3/fs:/var/s/22/fs:/var/s/1/fs");
        assert_eq!(folder.as_deref(), Some(Path::new("/var/s")));
        assert_eq!(relative, "3/fs:22/fs:1/fs");
    }

    #[test]
    fn paths_that_are_escaped_or_relative_stay() {
        for lower in ["/a\\:b/1:/a\\:b/2", "1/fs:2/fs"] {
            assert_eq!(shorten(lower), (None, lower.to_owned()));
        }
    }
}
