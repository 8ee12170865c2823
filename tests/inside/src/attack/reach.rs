//! Ways to run a program other than by its path.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{chroot, execveat};

use super::program::{EVIL, EVIL_RAN, Flavour, Program, Tally};
use super::raw;

/// The kernel did not let it run.
const DENIED: u8 = 13;

/// What a program is reached by: a path, from an open folder or file if need be.
struct Reached {
    from: Option<OwnedFd>,
    path: CString,
}

/// Makes an evil program `file`, and becomes it. Returns only when that was denied.
pub(super) fn run(way: &str, file: &Path) -> Result<ExitCode> {
    let program = Program::own()?;
    fs::create_dir_all(folder_of(file)?)?;
    program.put(file, Flavour::Evil)?;
    if way == "mapping" {
        return map(file, &program);
    }
    if way == "old-descriptor" {
        return map_old(file, &program);
    }
    if let Some(flags) = memory_flags(way) {
        return memory_file(&program, flags);
    }
    let reached = reach(way, file, &program).with_context(|| format!("reaching it by {way}"))?;
    match reached.execute() {
        Err(Errno::EPERM) => Ok(ExitCode::from(DENIED)),
        other => bail!("it was neither run nor denied: {other:?}"),
    }
}

/// As a library is loaded.
fn map(file: &Path, program: &Program) -> Result<ExitCode> {
    match File::open(file) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(ExitCode::from(DENIED)),
        opened => run_mapped(&opened?, program),
    }
}

/// It was good when it was opened, and is evil when it is mapped.
fn map_old(file: &Path, program: &Program) -> Result<ExitCode> {
    fs::remove_file(file)?;
    program.put(file, Flavour::Good)?;
    let opened = File::open(file)?;
    nix::unistd::truncate(file, 0)?;
    program.put(file, Flavour::Evil)?;
    run_mapped(&opened, program)
}

fn run_mapped(file: &File, program: &Program) -> Result<ExitCode> {
    let code = raw::executable_bytes(file, program.at, EVIL.len())?;
    ensure!(code == EVIL, "neither denied nor evil");
    Ok(ExitCode::from(EVIL_RAN))
}

impl Reached {
    fn by_path(path: &Path) -> Result<Self> {
        Ok(Self {
            from: None,
            path: c_path(path)?,
        })
    }

    fn by_descriptor(file: OwnedFd) -> Self {
        Self {
            from: Some(file),
            path: CString::default(),
        }
    }

    fn execute(&self) -> nix::Result<Infallible> {
        let from = self.from.as_ref().map_or(AT_FDCWD, |from| from.as_fd());
        let words = [c"program", c"attack", c"ran"];
        let flags = match self.path.is_empty() {
            true => AtFlags::AT_EMPTY_PATH,
            false => AtFlags::empty(),
        };
        execveat(from, &self.path, &words, &[] as &[&CStr], flags)
    }
}

fn reach(way: &str, file: &Path, program: &Program) -> Result<Reached> {
    match way {
        "path" => Reached::by_path(file),
        "proc-path" => {
            let opened = by_inode(file)?;
            let path = c_path(&raw::proc_path(&opened))?;
            let from = Some(opened);
            Ok(Reached { from, path })
        }
        "descriptor" => Ok(Reached::by_descriptor(by_inode(file)?)),
        "folder" => {
            let from = Some(File::open(folder_of(file)?)?.into());
            let path = c_path(Path::new(name_of(file)?))?;
            Ok(Reached { from, path })
        }
        "deleted" => {
            let opened = by_inode(file)?;
            fs::remove_file(file)?;
            Ok(Reached::by_descriptor(opened))
        }
        "nameless" => nameless(file, program),
        "script" => script_of_script(file),
        "chroot" => {
            chroot(folder_of(file)?)?;
            std::env::set_current_dir("/")?;
            Reached::by_path(&Path::new("/").join(name_of(file)?))
        }
        "namespace" => {
            unshare_mounts()?;
            Reached::by_path(file)
        }
        "bind" => over_a_judged_one(file, program),
        "tree" => {
            unshare_mounts()?;
            Ok(Reached::by_descriptor(raw::clone_tree(&c_path(file)?)?))
        }
        "moved-tree" => moved_tree(file),
        "new-tmpfs" => new_tmpfs(file, program),
        "new-overlay" => Reached::by_path(&through_overlay(file)?),
        other => bail!("{other} is no way to reach a file"),
    }
}

fn folder_of(file: &Path) -> Result<&Path> {
    file.parent().context("it is in no folder")
}

fn name_of(file: &Path) -> Result<&OsStr> {
    file.file_name().context("it has no name")
}

fn c_path(path: &Path) -> Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Whoever opens a file so reads nothing, and nobody is asked.
fn by_inode(file: &Path) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    Ok(options.read(true).custom_flags(libc::O_PATH).open(file)?.into())
}

fn nameless(beside: &Path, program: &Program) -> Result<Reached> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE).mode(0o755);
    let mut writer = options.open(folder_of(beside)?)?;
    writer.write_all(&program.evil)?;
    Ok(Reached::by_descriptor(by_inode(&raw::proc_path(&writer))?))
}

fn memory_flags(way: &str) -> Option<MFdFlags> {
    match way {
        "memory-file" => Some(MFdFlags::MFD_CLOEXEC),
        // Since Linux 6.3; before, all were so.
        "executable-memory-file" => Some(MFdFlags::from_bits_retain(libc::MFD_EXEC)),
        _ => None,
    }
}

/// The kernel refuses it by itself, with another error than we do.
fn memory_file(program: &Program, flags: MFdFlags) -> Result<ExitCode> {
    let run = || -> Result<Infallible> {
        let mut file = File::from(memfd_create("program", flags)?);
        file.write_all(&program.evil)?;
        Ok(Reached::by_descriptor(file.into()).execute()?)
    };
    match run().map_err(anyhow::Error::downcast::<Errno>) {
        Err(Ok(Errno::EACCES)) => Ok(ExitCode::from(DENIED)),
        other => bail!("it was neither run nor denied: {other:?}"),
    }
}

/// A script whose interpreter is a script whose interpreter is `file`.
fn script_of_script(file: &Path) -> Result<Reached> {
    let (inner, outer) = (file.with_extension("inner"), file.with_extension("outer"));
    // A script passes its interpreter one word and its own path: neither says `attack ran`.
    for (script, interpreter) in [(&inner, file), (&outer, inner.as_path())] {
        fs::write(script, format!("#!{} attack\n", interpreter.display()))?;
        fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    }
    Reached::by_path(&outer)
}

/// Namespaces of its own, in which this process may mount.
fn unshare_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    // Root stays root: files are made by somebody whom the new namespace knows.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", "0 0 1")?;
    Ok(fs::write("/proc/self/uid_map", "0 0 1")?)
}

/// Mounted over a program that anybody may run unasked.
fn over_a_judged_one(file: &Path, program: &Program) -> Result<Reached> {
    const RUNS: u32 = 5;
    let judged = file.with_extension("judged");
    program.put(&judged, Flavour::Good)?;
    let runs = Tally::of(&judged, RUNS);
    ensure!(runs.good == RUNS, "what is good did not run");
    unshare_mounts()?;
    mount(Some(file), &judged, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Reached::by_path(&judged)
}

fn moved_tree(file: &Path) -> Result<Reached> {
    unshare_mounts()?;
    let tree = raw::clone_tree(&c_path(folder_of(file)?)?)?;
    let folder = mount_point(file)?;
    raw::mount_tree(&tree, &c_path(&folder)?)?;
    Reached::by_path(&folder.join(name_of(file)?))
}

fn new_tmpfs(file: &Path, program: &Program) -> Result<Reached> {
    unshare_mounts()?;
    let folder = mount_point(file)?;
    mount(
        Some("tmpfs"),
        &folder,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    let copy = folder.join("program");
    program.put(&copy, Flavour::Evil)?;
    Reached::by_path(&copy)
}

/// The same file through a file system that shows what lies below.
pub(super) fn through_overlay(file: &Path) -> Result<PathBuf> {
    unshare_mounts()?;
    let (folder, below) = (mount_point(file)?, folder_of(file)?);
    // Without an upper folder it takes two lower ones.
    let other = Path::new("/mounts/other");
    fs::create_dir_all(other)?;
    let options = format!("lowerdir={}:{},userxattr", below.display(), other.display());
    let kind = Some("overlay");
    mount(kind, &folder, kind, MsFlags::empty(), Some(options.as_str()))?;
    Ok(folder.join(name_of(file)?))
}

/// An empty folder, elsewhere than `file`.
fn mount_point(file: &Path) -> Result<PathBuf> {
    let name = name_of(file)?.display().to_string();
    let folder = Path::new("/mounts").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
