//! A program that is good, then bad, then good again, while somebody runs it all the time.

use std::env;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use serde::Serialize;
use serde_json::Value;

/// Says which program runs, from its own memory: what the kernel mapped is what ran. The host
/// lists the program that ends in `EVIL` here.
#[used]
static FLAVOUR: [u8; 20] = *b"lazaret-flavour:good";
const EVIL: &[u8] = b"evil";

/// By these exit codes a program tells what it is.
const GOOD_RAN: u8 = 42;
const EVIL_RAN: u8 = 66;

/// How often each outcome is wanted: to be good and run, to be bad and denied.
const ENOUGH: u32 = 200;

#[derive(Default, Serialize)]
struct Tally {
    good: u32,
    evil: u32,
    denied: u32,
    /// Nothing ran: it was empty, or open for writing.
    idle: u32,
    failed: Vec<String>,
}

/// What this program is.
pub(crate) fn flavour() -> ExitCode {
    let evil = black_box(&FLAVOUR).ends_with(EVIL);
    ExitCode::from(if evil { EVIL_RAN } else { GOOD_RAN })
}

/// Runs `file` again and again while another process flips it as `how` says, until both outcomes
/// were seen often enough or the time is over.
pub(crate) fn run(how: &str, file: &Path, time: Duration) -> Result<Value> {
    Flip::new(how, file)?.to_good()?;
    let mut writer = spawn_writer(how, file)?;
    let end = Instant::now() + time;
    let mut tally = Tally::default();
    while Instant::now() < end && tally.good.min(tally.denied) < ENOUGH {
        tally.add(file);
        if let Some(status) = writer.try_wait()? {
            bail!("the writer ended: {status}");
        }
    }
    writer.kill()?;
    writer.wait()?;
    tally.failed.truncate(5);
    Ok(serde_json::to_value(tally)?)
}

/// A process of its own: a child that is forked here would for a moment hold the writer's
/// descriptor, too, and keep the file from being run.
fn spawn_writer(how: &str, file: &Path) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    Ok(command.args(["flip-writer", how]).arg(file).spawn()?)
}

/// Flips `file` until it is killed.
pub(crate) fn write(how: &str, file: &Path) -> Result<Value> {
    let flip = Flip::new(how, file)?;
    for round in 0_u64.. {
        // At another moment of the judgement each time, and now and then long enough after it.
        let pause = Duration::from_micros(round * 237 % 20_000);
        flip.to_evil(pause)?;
        thread::sleep(pause);
        flip.to_good()?;
        thread::sleep(pause);
    }
    bail!("it never ends")
}

struct Flip<'a> {
    file: &'a Path,
    /// The name goes to another file each time; otherwise the file itself is written to.
    rename: bool,
    good: Vec<u8>,
    evil: Vec<u8>,
    /// Where the two differ.
    at: usize,
}

impl<'a> Flip<'a> {
    fn new(how: &str, file: &'a Path) -> Result<Self> {
        let good = fs::read(env::current_exe()?)?;
        let flavour = black_box(&FLAVOUR);
        let at = good.windows(flavour.len()).position(|bytes| bytes == flavour);
        let at = at.context("this program has no flavour")? + flavour.len() - EVIL.len();
        let mut evil = good.clone();
        evil.splice(at..at + EVIL.len(), EVIL.iter().copied());
        let rename = how == "rename";
        Ok(Self {
            file,
            rename,
            good,
            evil,
            at,
        })
    }

    fn to_good(&self) -> Result<()> {
        if self.rename || !self.file.exists() {
            return self.put(&self.good);
        }
        // By its name: while it is bad, nobody may open it.
        when_idle(|| Ok(nix::unistd::truncate(self.file, 0)?))?;
        Ok(self.open()?.write_all(&self.good)?)
    }

    fn to_evil(&self, pause: Duration) -> Result<()> {
        if self.rename {
            return self.put(&self.evil);
        }
        let file = self.open()?;
        // Somebody may be having it judged.
        thread::sleep(pause);
        Ok(file.write_all_at(EVIL, self.at as u64)?)
    }

    fn put(&self, content: &[u8]) -> Result<()> {
        let coming = self.file.with_extension("coming");
        fs::write(&coming, content)?;
        fs::set_permissions(&coming, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(coming, self.file)?)
    }

    fn open(&self) -> io::Result<File> {
        when_idle(|| File::options().write(true).open(self.file))
    }
}

/// The kernel lets nobody write to a program that runs, nor run one that is open for writing.
fn when_idle<T>(act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            done => return done,
        }
    }
}

impl Tally {
    fn add(&mut self, file: &Path) {
        match Command::new(file).arg("flavour").status() {
            Ok(status) if status.code() == Some(GOOD_RAN.into()) => self.good += 1,
            Ok(status) if status.code() == Some(EVIL_RAN.into()) => self.evil += 1,
            Ok(status) => self.failed.push(status.to_string()),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EPERM) => self.denied += 1,
                Some(Errno::ETXTBSY | Errno::ENOEXEC) => self.idle += 1,
                _ => self.failed.push(error.to_string()),
            },
        }
    }
}
