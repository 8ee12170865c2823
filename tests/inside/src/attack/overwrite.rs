//! A file that was judged and found clean becomes another one, by every way there is to change
//! what is in a file or behind a name.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, fallocate};
use nix::libc;
use nix::sys::uio::pwritev;
use serde_json::{Value, json};

use super::program::{EVIL, Flavour, PAGE, Program, Tally};
use super::raw::{self, Mapping};
use super::{signals, uring};

/// How often the file is run before, and after.
const RUNS: u32 = 5;

/// After this, a file without change is known by its inode.
const SETTLED: Duration = Duration::from_secs(4);

/// The file, and what it is to become.
struct Target<'a> {
    file: &'a Path,
    program: &'a Program,
}

/// Makes `file` unless the image has it, runs it, lets the test look, overwrites it as `how` says,
/// and runs it again.
pub(super) fn run(how: &str, file: &Path, signals: &Path) -> Result<Value> {
    let program = Program::own()?;
    if !file.exists() {
        program.put(file, Flavour::Good)?;
    }
    let target = Target {
        file,
        program: &program,
    };
    let (prelude, how) = how.split_once('+').unwrap_or(("", how));
    target.prepare(prelude)?;
    // Made now, its descriptor closed; stored to after the judgement.
    let mapping = (how == "kept-mapping").then(|| target.map()).transpose()?;
    let before = Tally::of(file, RUNS);
    signals::ready_then_go(signals)?;
    match &mapping {
        Some(mapping) => mapping.store(program.at, EVIL),
        None => target.change(how)?,
    }
    let after = Tally::of(file, RUNS);
    Ok(json!({ "before": before, "after": after }))
}

impl Target<'_> {
    /// What happens before the first judgement.
    fn prepare(&self, prelude: &str) -> Result<()> {
        match prelude {
            "" => {}
            "chmod" => fs::set_permissions(self.file, fs::Permissions::from_mode(0o711))?,
            "touch" => self.writable()?.set_modified(SystemTime::now())?,
            "append" => {
                let mut file = OpenOptions::new().append(true).open(self.file)?;
                file.write_all(EVIL)?;
                file.set_len(self.program.good.len() as u64)?;
            }
            "signals" => raw::exhaust_signals()?,
            "settled" => thread::sleep(SETTLED),
            other => bail!("{other} is no prelude"),
        }
        Ok(())
    }

    fn change(&self, how: &str) -> Result<()> {
        match how {
            "write" => self.writable()?.write_all(&self.program.evil)?,
            "pwritev" => {
                pwritev(self.writable()?, &[IoSlice::new(EVIL)], self.offset()?)?;
            }
            "mmap" => self.map()?.store(self.program.at, EVIL),
            "aio" => raw::aio_write(&self.writable()?, self.program.at, EVIL)?,
            "io_uring" => uring::write(&self.writable()?, self.program.at, EVIL)?,
            "splice" => raw::splice_from_pipe(&self.writable()?, self.program.at, EVIL)?,
            "sendfile" => raw::send_file(&self.evil_tail()?, &self.writable()?, self.program.at)?,
            "copy_file_range" => raw::copy_range(&self.evil_tail()?, &self.writable()?, self.program.at)?,
            "punch" => self.punch()?,
            "truncate" => self.rewrite()?,
            "nonblock" => self
                .open_impatiently()?
                .write_all_at(EVIL, self.program.at as u64)?,
            "hardlink" => self.write_through_link()?,
            "rename" => {
                let coming = self.beside("coming");
                self.program.put(&coming, Flavour::Evil)?;
                fs::rename(coming, self.file)?;
            }
            "tmpfile" => self.link_nameless()?,
            other => bail!("{other} is no way to overwrite a file"),
        }
        Ok(())
    }

    fn writable(&self) -> Result<File> {
        Ok(OpenOptions::new().read(true).write(true).open(self.file)?)
    }

    fn map(&self) -> Result<Mapping> {
        Mapping::shared(&self.writable()?, self.program.good.len())
    }

    fn offset(&self) -> Result<i64> {
        Ok(i64::try_from(self.program.at)?)
    }

    /// A name in the same folder.
    fn beside(&self, extension: &str) -> PathBuf {
        self.file.with_extension(extension)
    }

    /// A file with nothing but what makes the difference.
    fn evil_tail(&self) -> Result<File> {
        let path = self.beside("tail");
        fs::write(&path, EVIL)?;
        Ok(File::open(path)?)
    }

    fn punch(&self) -> Result<()> {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (page, length) = (i64::try_from(self.program.page)?, i64::try_from(PAGE)?);
        Ok(fallocate(self.writable()?, hole, page, length)?)
    }

    fn rewrite(&self) -> Result<()> {
        // By its name: no descriptor is involved.
        nix::unistd::truncate(self.file, 0)?;
        Ok(self.writable()?.write_all(&self.program.evil)?)
    }

    fn open_impatiently(&self) -> Result<File> {
        loop {
            let mut options = OpenOptions::new();
            match options.write(true).custom_flags(libc::O_NONBLOCK).open(self.file) {
                Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return Ok(opened?),
            }
        }
    }

    fn write_through_link(&self) -> Result<()> {
        let link = self.beside("link");
        fs::hard_link(self.file, &link)?;
        let file = OpenOptions::new().write(true).open(link)?;
        Ok(file.write_all_at(EVIL, self.program.at as u64)?)
    }

    fn link_nameless(&self) -> Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("/"));
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_TMPFILE).mode(0o755);
        let mut file = options.open(folder)?;
        file.write_all(&self.program.evil)?;
        fs::remove_file(self.file)?;
        let nameless = raw::proc_path(&file);
        Ok(nix::unistd::linkat(
            AT_FDCWD,
            &nameless,
            AT_FDCWD,
            self.file,
            AtFlags::AT_SYMLINK_FOLLOW,
        )?)
    }
}
