//! A program that is good while it is judged and evil when it is run, if the writer is quick
//! enough, or whoever runs it slow.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::program::{EVIL, Flavour, GOOD, Program, Tally};
use super::raw::{self, Mapping};
use super::{burst, reach};

/// How often each outcome is wanted.
const ENOUGH: u32 = 300;

/// How much longer one may take in which nobody was denied anything yet.
const PATIENCE: u32 = 4;

/// Runs `file` again and again while another process changes it as `how` says, until it ran as
/// evil, or both outcomes were seen often enough, or the time is over.
pub(super) fn run(how: &str, reach: &str, file: &Path, time: Duration) -> Result<Value> {
    let program = Program::own()?;
    if !file.exists() {
        program.put(file, Flavour::Good)?;
    }
    let reached = Reached::by(reach, file)?;
    let mut others = Others::default();
    others.start(&["race-writer", how, &text(&reached.written)])?;
    if reach == "starved" {
        burst::pin()?;
        others.start(&["bursts"])?;
        raw::be_idle()?;
    }
    let started = Instant::now();
    let mut tally = Tally::default();
    while !tally.is_decided(started.elapsed(), time) {
        if reach == "starved" {
            burst::wait_for_next(tally.runs());
        }
        tally.run(&reached.path);
        others.all_run()?;
    }
    Ok(serde_json::to_value(tally)?)
}

impl Tally {
    fn is_decided(&self, spent: Duration, time: Duration) -> bool {
        let seen = self.good.min(self.denied) >= ENOUGH;
        let late = spent > time && (self.denied > 0 || spent > time * PATIENCE);
        self.evil > 0 || seen || late
    }
}

/// A file under the names by which it is run and written.
struct Reached {
    path: PathBuf,
    written: PathBuf,
    /// Keeps a file alive that has no name.
    _file: Option<File>,
}

impl Reached {
    fn by(reach: &str, file: &Path) -> Result<Self> {
        match reach {
            "path" | "starved" => Ok(Self::by_path(file.to_owned())),
            "deleted" => {
                let opened = File::open(file)?;
                fs::remove_file(file)?;
                Ok(Self::without_name(opened))
            }
            "nameless" => Ok(Self::without_name(nameless(file)?)),
            "bound" => {
                unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
                let path = file.with_extension("bound");
                File::create(&path)?;
                mount(Some(file), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
                Ok(Self::by_path(path))
            }
            "overlay" => Ok(Self {
                path: reach::through_overlay(file)?,
                ..Self::by_path(file.to_owned())
            }),
            other => bail!("{other} is no way to reach a file"),
        }
    }

    fn without_name(file: File) -> Self {
        // Not of `self`: others are to reach it, too.
        let path = text(&raw::proc_path(&file)).replace("self", &std::process::id().to_string());
        Self {
            _file: Some(file),
            ..Self::by_path(path.into())
        }
    }

    fn by_path(path: PathBuf) -> Self {
        Self {
            written: path.clone(),
            path,
            _file: None,
        }
    }
}

/// The program in a file that never had a name, open for reading.
fn nameless(beside: &Path) -> Result<File> {
    let folder = beside.parent().unwrap_or(Path::new("/"));
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_TMPFILE).mode(0o755);
    let mut writer = options.open(folder)?;
    writer.write_all(&Program::own()?.good)?;
    Ok(File::open(raw::proc_path(&writer))?)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Processes that end with this one.
#[derive(Default)]
struct Others(Vec<Child>);

impl Others {
    /// Processes of their own: a child that is forked here would for a moment hold the writer's
    /// descriptors, too, and keep the file from being run.
    fn start(&mut self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(env::current_exe()?);
        self.0.push(command.arg("attack").args(words).spawn()?);
        Ok(())
    }

    fn all_run(&mut self) -> Result<()> {
        for other in &mut self.0 {
            if let Some(status) = other.try_wait()? {
                bail!("the writer ended: {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for other in &mut self.0 {
            // It may have ended by itself, which `all_run` has told.
            other.kill().unwrap_or_default();
            drop(other.wait());
        }
    }
}

/// Changes `file` for ever.
pub(super) fn write(how: &str, file: &Path) -> Result<Value> {
    let program = Program::own()?;
    let mapping = (how == "mapping").then(|| map(file, &program)).transpose()?;
    for round in 0_u64.. {
        // At another moment of the judgement each time, and now and then long enough after it.
        let pause = Duration::from_micros(round * 137 % 12_000);
        match (&mapping, how) {
            (Some(mapping), _) => flip(mapping, &program, pause),
            (None, "write") => rewrite(file, &program, pause)?,
            (None, "remap") => flip(&map(file, &program)?, &program, pause),
            (None, "strike") => strike(file, &program, u32::try_from(round)?)?,
            (None, other) => bail!("{other} is no way to write"),
        }
    }
    bail!("it never ends")
}

/// A mapping whose descriptor is closed.
fn map(file: &Path, program: &Program) -> Result<Mapping> {
    let file = when_idle(|| OpenOptions::new().read(true).write(true).open(file))?;
    Mapping::shared(&file, program.good.len())
}

fn flip(mapping: &Mapping, program: &Program, pause: Duration) {
    thread::sleep(pause);
    mapping.store(program.at, EVIL);
    thread::sleep(pause);
    mapping.store(program.at, GOOD);
}

/// Evil as early in a burst as somebody lets us write, and good again when it is over.
fn strike(file: &Path, program: &Program, round: u32) -> Result<()> {
    burst::wait_for_next(0);
    // At another moment of the judgement each time.
    thread::sleep(Duration::from_micros(u64::from(round) * 1_037 % 12_000));
    let opened = when_idle(|| OpenOptions::new().write(true).open(file))?;
    opened.write_all_at(EVIL, program.at as u64)?;
    drop(opened);
    burst::wait_for_end();
    when_idle(|| Ok(nix::unistd::truncate(file, 0)?))?;
    when_idle(|| OpenOptions::new().write(true).open(file))?.write_all(&program.good)?;
    Ok(())
}

fn rewrite(file: &Path, program: &Program, pause: Duration) -> Result<()> {
    let open = || when_idle(|| OpenOptions::new().write(true).open(file));
    let opened = open()?;
    thread::sleep(pause);
    opened.write_all_at(EVIL, program.at as u64)?;
    drop(opened);
    thread::sleep(pause);
    // By its name, because nobody may open it while it is evil.
    when_idle(|| Ok(nix::unistd::truncate(file, 0)?))?;
    open()?.write_all(&program.good)?;
    thread::sleep(pause);
    Ok(())
}

/// The kernel lets nobody write to a program that runs.
fn when_idle<T>(act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match act() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            done => return done,
        }
    }
}
