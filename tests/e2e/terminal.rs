//! Containers on a terminal, as a person at a keyboard has them.
//!
//! They end only when all is shown: `ctr` may lose the last of it on a busy machine, under either
//! runtime, although the shim has passed on every byte.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lazaret_tests::malware::EFFECT;
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::wait;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::case::Case;
use crate::world::{EVIL, IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("terminal::output_and_exit_codes", output),
    Case::shared("terminal::keys_and_interrupt", typed),
    Case::shared("terminal::window_size", window_size),
    Case::shared("terminal::exec", exec),
    Case::shared("terminal::left_and_taken_up_again", attach),
    Case::shared("terminal::guarded_like_any_other", guarded),
];

const LIMIT: Duration = Duration::from_secs(60);

/// A `ctr` on a terminal of ours.
pub(crate) struct Session {
    ctr: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Session {
    /// Starts a command on a terminal of 24 rows and 80 columns.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let pty = openpty(None, None)?;
        tcsetwinsize(&pty.master, size(24, 80))?;
        let end = |fd: &OwnedFd| fd.try_clone();
        command.stdin(end(&pty.slave)?).stdout(end(&pty.slave)?);
        let ctr = command.stderr(pty.slave).spawn()?;
        // What it was given would keep the terminal open.
        command.stdin(File::open("/dev/null")?);
        command
            .stdout(File::open("/dev/null")?)
            .stderr(File::open("/dev/null")?);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut screen, shows) = (File::from(pty.master.try_clone()?), Arc::clone(&shown));
        let reader = spawn(move || {
            let mut chunk = [0; 4096];
            // EIO is the end of a terminal.
            while let Ok(length @ 1..) = screen.read(&mut chunk) {
                let mut shown = shows.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        });
        Ok(Self {
            ctr,
            keyboard: pty.master.into(),
            shown,
            reader,
        })
    }

    fn text(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    fn wait_shown(&self, text: &str) -> Result<()> {
        wait::until_true(text, LIMIT, || self.text().contains(text)).with_context(|| self.text())
    }

    fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        tcsetwinsize(&self.keyboard, size(rows, columns))?;
        // It would come from the kernel if this were its controlling terminal.
        kill(Pid::from_raw(self.ctr.id().cast_signed()), Signal::SIGWINCH)?;
        Ok(())
    }

    /// Changes the size until `text` is shown: `ctr` begins to listen for that only some time after
    /// it has started the process.
    fn resize_until(&self, rows: u16, columns: u16, text: &str) -> Result<()> {
        wait::until_true(text, LIMIT, || {
            // Only a change is passed on.
            let changed = self
                .resize(rows, columns + 1)
                .and_then(|()| self.resize(rows, columns));
            std::thread::sleep(Duration::from_millis(500));
            changed.is_ok() && self.text().contains(text)
        })
        .with_context(|| self.text())
    }

    /// Its exit code, and all that was shown.
    pub(crate) fn end(mut self) -> Result<(i32, String)> {
        let status = wait::until("ctr to end", LIMIT, || self.ctr.try_wait().ok().flatten());
        if status.is_err() {
            self.ctr.kill()?;
            self.ctr.wait()?;
        }
        let status = status.with_context(|| self.text())?;
        self.reader.join().unwrap_or_default();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&shown).into_owned();
        Ok((
            status.code().unwrap_or(128 + status.signal().unwrap_or_default()),
            text,
        ))
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Both terminals, the container's and ours, put a carriage return before a line's end.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.trim_end_matches('\r')).collect()
}

fn script(node: &Node, runtime: &str, script: &str) -> Result<Session> {
    let run = Run::new(&node.id("terminal"), IMAGE).runtime(runtime).sh(script);
    Session::start(&mut node.run_command(&run, &["--rm", "--tty"]))
}

fn output(world: &World) -> Result<()> {
    const ALL: &str = "stty -echo; tty; test -t 0 && test -t 1 && test -t 2 && echo all three; \
        id >&2; seq 1 20000; echo done; read end; exit 7";
    let node = world.node()?;
    let shown = |runtime| {
        let mut session = script(&node, runtime, ALL)?;
        session.wait_shown("done")?;
        session.type_in("\r")?;
        session.end()
    };
    let (ours, stock) = (shown(LAZARET)?, shown(STOCK)?);
    for (runtime, (code, text)) in [(LAZARET, &ours), (STOCK, &stock)] {
        let lines = lines(text);
        let ends = (lines.first(), lines.last(), lines.len());
        ensure!(
            *code == 7 && lines.starts_with(&["/dev/pts/0", "all three"]),
            "{runtime}: {ends:?}"
        );
        ensure!(
            lines.len() == 20_004 && lines.last() == Some(&"done"),
            "{runtime}: output was lost: {ends:?}"
        );
    }
    let differ = ours
        .1
        .lines()
        .zip(stock.1.lines())
        .find(|(ours, stock)| ours != stock);
    ensure!(ours == stock, "not as under the stock runtime: {differ:?}");
    Ok(())
}

fn typed(world: &World) -> Result<()> {
    const CONTROL_C: &str = "\u{3}";
    const ALL: &str = "trap stopped=yes INT; read word; echo got $word; \
        until [ $stopped ]; do sleep 0.1; done; echo stopped; read end; exit 3";
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let mut session = script(&node, runtime, ALL)?;
        session.type_in("typed\r")?;
        session.wait_shown("got typed")?;
        session.type_in(CONTROL_C)?;
        session.wait_shown("stopped")?;
        session.type_in("\r")?;
        let (code, text) = session.end()?;
        ensure!(code == 3, "{runtime}: {code} {text}");
    }
    Ok(())
}

fn window_size(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let until = |size: &str| {
            format!("until [ \"$(stty size 2>&-)\" = '{size}' ]; do sleep 0.1; done; echo saw {size};")
        };
        let both = until("24 80") + &until("37 101") + "read end";
        let mut session = script(&node, runtime, &both)?;
        session.wait_shown("saw 24 80").context(runtime)?;
        session.resize_until(37, 101, "saw 37 101").context(runtime)?;
        session.type_in("\r")?;
        ensure!(session.end()?.0 == 0);
    }
    Ok(())
}

fn attach(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let id = node.id("terminal");
        let run = Run::new(&id, IMAGE).runtime(runtime).args(&["/bin/sh"]);
        let detached = Session::start(&mut node.run_command(&run, &["--detach", "--tty"]))?.end()?;
        ensure!(detached.0 == 0, "{runtime}: {detached:?}");
        for number in ["one", "two"] {
            let mut attach = node.containerd().ctr();
            let mut session = Session::start(attach.args(["task", "attach", &id]))?;
            session.type_in(&format!("echo typed ''{number}\r"))?;
            session.wait_shown(&format!("typed {number}")).context(runtime)?;
            // As when its window is closed.
            session.ctr.kill()?;
            session.end()?;
        }
        node.remove(&id)?;
    }
    Ok(())
}

fn exec(world: &World) -> Result<()> {
    const ALL: &str = "stty -echo; tty; until [ \"$(stty size 2>&-)\" = '37 101' ]; do sleep 0.1; done; \
        echo sized; read word; echo got $word; read end; exit 9";
    let node = world.node()?;
    let shown = |runtime| {
        let id = node.id("terminal");
        let run = Run::new(&id, IMAGE).runtime(runtime);
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        let mut session = Session::start(&mut exec_on_terminal(&node, &id, &["/bin/sh", "-c", ALL]))?;
        session.wait_shown("/dev/pts/0")?;
        session.resize_until(37, 101, "sized")?;
        session.type_in("typed\r")?;
        session.wait_shown("got typed")?;
        session.type_in("\r")?;
        let shown = session.end()?;
        node.remove(&id)?;
        anyhow::Ok(shown)
    };
    let (ours, stock) = (shown(LAZARET)?, shown(STOCK)?);
    let wanted = ["/dev/pts/0", "sized", "got typed"];
    ensure!(ours.0 == 9 && lines(&ours.1) == wanted, "{ours:?}\n{stock:?}");
    ensure!(ours == stock, "{ours:?}\n{stock:?}");
    Ok(())
}

fn exec_on_terminal(node: &Node, id: &str, args: &[&str]) -> Command {
    let mut ctr = node.containerd().ctr();
    ctr.args([
        "task",
        "exec",
        "--tty",
        "--exec-id",
        &node.id("exec"),
        "--fifo-dir",
    ]);
    ctr.arg(node.scratch().places().fifos()).arg(id).args(args);
    ctr
}

fn guarded(world: &World) -> Result<()> {
    let node = world.node()?;
    let id = node.id("terminal");
    let evil = [EVIL, "-c", &format!("echo {EFFECT}")];
    node.detach(&Run::new(&id, IMAGE).args(&["/bin/sleep", "600"]))?;
    let (code, text) = Session::start(&mut exec_on_terminal(&node, &id, &evil))?.end()?;
    ensure!(code != 0 && !text.contains(EFFECT), "{code} {text}");
    node.remove(&id)?;
    let run = Run::new(&node.id("terminal"), IMAGE).args(&evil);
    let (code, text) = Session::start(&mut node.run_command(&run, &["--rm", "--tty"]))?.end()?;
    ensure!(code != 0 && !text.contains(EFFECT), "{code} {text}");
    Ok(())
}
