//! The container's rootfs: mounted from what containerd asks for, and undone.

use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use lazaret_types::Layers;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Context, Error, Result};

/// The folder's name in a bundle.
const ROOTFS: &str = "rootfs";

/// mount(2) takes one page of options; longer ones are cut off silently.
const MAX_OPTIONS: usize = 4095;

/// Options that are flags of mount(2): their names, the flag, and whether it is set.
const FLAGS: [(&str, MsFlags, bool); 22] = [
    ("async", MsFlags::MS_SYNCHRONOUS, false),
    ("atime", MsFlags::MS_NOATIME, false),
    ("bind", MsFlags::MS_BIND, true),
    ("defaults", MsFlags::empty(), true),
    ("dev", MsFlags::MS_NODEV, false),
    ("diratime", MsFlags::MS_NODIRATIME, false),
    ("dirsync", MsFlags::MS_DIRSYNC, true),
    ("exec", MsFlags::MS_NOEXEC, false),
    ("noatime", MsFlags::MS_NOATIME, true),
    ("nodev", MsFlags::MS_NODEV, true),
    ("nodiratime", MsFlags::MS_NODIRATIME, true),
    ("noexec", MsFlags::MS_NOEXEC, true),
    ("norelatime", MsFlags::MS_RELATIME, false),
    ("nostrictatime", MsFlags::MS_STRICTATIME, false),
    ("nosuid", MsFlags::MS_NOSUID, true),
    ("rbind", MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
    ("relatime", MsFlags::MS_RELATIME, true),
    ("ro", MsFlags::MS_RDONLY, true),
    ("rw", MsFlags::MS_RDONLY, false),
    ("strictatime", MsFlags::MS_STRICTATIME, true),
    ("suid", MsFlags::MS_NOSUID, false),
    ("sync", MsFlags::MS_SYNCHRONOUS, true),
];

/// One call of mount(2).
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    flags: MsFlags,
    options: String,
    /// Where relative paths in `options` begin.
    base: Option<&'a str>,
}

/// The rootfs of a bundle.
#[derive(Debug, Clone)]
pub(crate) struct Rootfs(PathBuf);

impl Rootfs {
    pub(crate) fn of(bundle: &Path) -> Self {
        Self(bundle.join(ROOTFS))
    }

    /// Mounts all of `mounts` over each other, or nothing.
    pub(crate) async fn mount(&self, mounts: Vec<Mount>) -> Result<()> {
        if mounts.is_empty() {
            return Ok(()); // The rootfs is a plain folder of the bundle.
        }
        let this = self.clone();
        blocking(move || {
            match std::fs::create_dir(&this.0) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
            .context(|| format!("cannot make {}", this.0.display()))?;
            let done = mounts.iter().try_for_each(|mount| mount_one(mount, &this.0));
            if done.is_err() {
                this.unmount_all()?;
            }
            done
        })
        .await
    }

    /// Unmounts whatever is mounted there, if anything is.
    pub(crate) async fn unmount(&self) -> Result<()> {
        let this = self.clone();
        blocking(move || this.unmount_all()).await
    }

    fn unmount_all(&self) -> Result<()> {
        loop {
            match umount2(&self.0, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                // Not a mount point (any more), or not there at all.
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(Errno::EBUSY) => self.detach()?,
                Err(error) => return Err(error).context(|| format!("cannot unmount {}", self.0.display())),
            }
        }
    }

    /// The last resort: gone from the tree now, from the kernel when its last user
    /// lets go. It takes mounts below with it.
    fn detach(&self) -> Result<()> {
        tracing::warn!(rootfs = ?self.0, "something still uses the rootfs; it is detached");
        umount2(&self.0, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
            .context(|| format!("cannot detach {}", self.0.display()))
    }
}

/// Mounting may wait for a disk, so it never runs on the thread that serves.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context(|| "mounting was interrupted")?
}

fn mount_one(request: &Mount, target: &Path) -> Result<()> {
    let say = |error: &dyn std::fmt::Display| {
        let Mount { type_, source, .. } = request;
        Error::internal(format!(
            "cannot mount {type_} {source} on {}: {error}",
            target.display()
        ))
    };
    let call = Call::of(request)?;
    let source = Some(request.source.as_str()).filter(|source| !source.is_empty());
    let kind = Some(request.type_.as_str()).filter(|kind| !kind.is_empty());
    let options = Some(call.options.as_str()).filter(|options| !options.is_empty());
    let make = || mount(source, target, kind, call.flags, options);
    match call.base {
        None => make(),
        Some(base) => in_folder(base, make),
    }
    .map_err(|error| say(&error))?;

    // A bind mount ignores all flags but its own until it is mounted again.
    let read_only_bind = MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    if call.flags.contains(read_only_bind) {
        let again = call.flags | MsFlags::MS_REMOUNT;
        mount(None::<&str>, target, None::<&str>, again, None::<&str>).map_err(|error| say(&error))?;
    }
    Ok(())
}

impl<'a> Call<'a> {
    fn of(request: &'a Mount) -> Result<Self> {
        if !request.target.is_empty() {
            return Err(Error::unimplemented(format!(
                "a mount below the rootfs: {}",
                request.target
            )));
        }
        let mut flags = MsFlags::empty();
        let mut options = Vec::new();
        for option in &request.options {
            match FLAGS.iter().find(|(name, ..)| name == option) {
                Some((_, flag, set)) => flags.set(*flag, *set),
                None if option == "loop" || option.starts_with("X-containerd.") => {
                    return Err(Error::unimplemented(format!(
                        "the mount option {option} is not supported"
                    )));
                }
                None => options.push(option.as_str()),
            }
        }
        let joined = options.join(",");
        if joined.len() <= MAX_OPTIONS {
            return Ok(Self {
                flags,
                options: joined,
                base: None,
            });
        }
        let (base, options) = shorten(&options).unwrap_or((None, joined));
        if options.len() > MAX_OPTIONS {
            return Err(Error::invalid_argument(format!(
                "the rootfs has more layers than the kernel can mount: {} bytes of options, {MAX_OPTIONS} allowed",
                options.len()
            )));
        }
        Ok(Self { flags, options, base })
    }
}

/// Makes the lower layers relative to the folder that they all lie in.
fn shorten<'a>(options: &[&'a str]) -> Option<(Option<&'a str>, String)> {
    let lower = options
        .iter()
        .find_map(|option| option.strip_prefix("lowerdir="))?;
    let mut base = lower.split(':').next()?;
    while !lower
        .split(':')
        .all(|layer| layer.strip_prefix(base).is_some_and(|rest| rest.starts_with('/')))
    {
        base = base.get(..base.rfind('/')?)?;
    }
    let relative: Vec<_> = lower
        .split(':')
        .filter_map(|layer| layer.get(base.len() + 1..))
        .collect();
    let lower = format!("lowerdir={}", relative.join(":"));
    let keep = |option: &&'a str| {
        if option.starts_with("lowerdir=") {
            lower.clone()
        } else {
            (*option).into()
        }
    };
    Some((Some(base), options.iter().map(keep).collect::<Vec<_>>().join(",")))
}

/// Calls `make` in a thread that has a current folder of its own.
fn in_folder(folder: &str, make: impl FnOnce() -> nix::Result<()> + Send) -> nix::Result<()> {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(folder)?;
            make()
        });
        worker.join().unwrap_or(Err(Errno::EIO))
    })
}

/// The folders of the host that the rootfs is made of, if it is an overlay.
pub(crate) fn layers(mounts: &[Mount]) -> Layers {
    let overlay = mounts.iter().find(|mount| mount.type_ == "overlay");
    let option = |name: &str| {
        overlay?
            .options
            .iter()
            .find_map(|option| option.strip_prefix(name))
    };
    Layers {
        upper: option("upperdir=").map(PathBuf::from),
        lower: option("lowerdir=")
            .map(|lower| lower.split(':').map(PathBuf::from).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request(kind: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(ToString::to_string).collect();
        Mount {
            type_: kind.into(),
            source: "src".into(),
            options,
            ..Default::default()
        }
    }

    #[test]
    fn tells_flags_from_options() {
        let request = request(
            "overlay",
            &[
                "nosuid",
                "suid",
                "ro",
                "index=off",
                "upperdir=/u",
                "lowerdir=/a:/b",
            ],
        );
        let call = Call::of(&request).unwrap();
        assert_eq!(call.flags, MsFlags::MS_RDONLY);
        assert_eq!(
            (call.options.as_str(), call.base),
            ("index=off,upperdir=/u,lowerdir=/a:/b", None)
        );
    }

    #[test]
    fn shortens_only_what_is_too_long() {
        let folder = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
        let lower: Vec<_> = (100..228).map(|n| format!("{folder}/{n}/fs")).collect();
        let lower = format!("lowerdir={}", lower.join(":"));
        let request = request("overlay", &["upperdir=/u", &lower, "workdir=/w"]);
        let call = Call::of(&request).unwrap();
        assert_eq!(call.base, Some(folder));
        assert!(
            call.options.starts_with("upperdir=/u,lowerdir=100/fs:101/fs:"),
            "{}",
            call.options
        );
        assert!(call.options.ends_with(":227/fs,workdir=/w"), "{}", call.options);
    }

    #[test]
    fn refuses_what_the_kernel_would_cut_off() {
        let many = format!("lowerdir={}", vec!["/a/b"; 3000].join(":"));
        let far = format!("lowerdir=/a/{0}:/b/{0}", "x".repeat(3000));
        for options in [many, far, format!("upperdir={}", "x".repeat(5000))] {
            assert!(Call::of(&request("overlay", &[&options])).is_err());
        }
    }

    #[test]
    fn refuses_what_it_would_ignore() {
        assert!(Call::of(&request("ext4", &["loop"])).is_err());
        assert!(Call::of(&request("overlay", &["X-containerd.uidmap=0:1:2"])).is_err());
        let below = Mount {
            target: "sub".into(),
            ..request("bind", &["rbind"])
        };
        assert!(Call::of(&below).is_err());
    }

    #[test]
    fn finds_the_layers_of_an_overlay() {
        let overlay = request("overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/top:/bottom"]);
        let layers_of = layers(&[overlay]);
        assert_eq!(layers_of.upper, Some("/u".into()));
        assert_eq!(layers_of.lower, [PathBuf::from("/top"), PathBuf::from("/bottom")]);
        assert_eq!(layers(&[request("bind", &["rbind", "ro"])]), Layers::default());
    }
}
