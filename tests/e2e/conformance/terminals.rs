//! Processes on a terminal.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context as _, Result};
use lazaret_tests::wait;

use super::{Side, Told};
use crate::by_hand::bundle::Spec;
use crate::by_hand::{Output, SOON, Stdio, code, expect, text};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::terminals::output_to_its_end", output),
    Case::compared("conformance::terminals::size", size),
    Case::compared("conformance::terminals::keys_and_interrupt", keys),
    Case::compared("conformance::terminals::of_an_exec", of_exec),
    Case::compared("conformance::terminals::hang_up_when_it_is_deleted", hang_up),
    Case::compared("conformance::terminals::size_without_a_terminal", no_terminal),
    Case::compared("conformance::terminals::left_and_taken_up_again", taken_up),
];

/// What is shown, as it comes.
struct Screen {
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Screen {
    fn on(mut file: File) -> Self {
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let shows = Arc::clone(&shown);
        let reader = spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = file.read(&mut chunk) {
                let mut shown = shows.lock().unwrap_or_else(PoisonError::into_inner);
                shown.extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        });
        Self { shown, reader }
    }

    fn text(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).replace('\r', "")
    }

    fn wait_shown(&self, what: &str) -> Result<()> {
        wait::until_true(what, SOON, || self.text().contains(what)).with_context(|| self.text())
    }

    fn end(self) -> String {
        self.reader.join().unwrap_or_default();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).replace('\r', "")
    }
}

fn output(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    let spec = Spec::sh(
        &side.id(),
        "tty; test -t 2 && echo three; seq 20000; echo done; exit 6",
    )
    .terminal();
    let shim = side.started_with(&spec, &stdio)?;
    let out = out.collect()?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    let text = text(out);
    let lines: Vec<_> = text.lines().collect();
    Ok(format!(
        "exit {exit}, {} lines, from {:?} to {:?}",
        lines.len(),
        lines.first(),
        lines.last()
    ))
}

fn size(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let spec = Spec::sh(&side.id(), script).terminal();
    let shim = side.started_with(&spec, &stdio)?;
    let screen = Screen::on(out.blocking()?);
    screen.wait_shown("ready")?;
    let mut told = Told::new();
    told.answer("resize", &shim.resize(spec.id(), "", (101, 37))?);
    screen.wait_shown("37 101")?;
    shim.end(spec.id())?;
    told.answer("after the exit", &shim.resize(spec.id(), "", (80, 24))?);
    expect(shim.delete(spec.id(), "")?)?;
    told.say(format!(
        "{:?}",
        screen.end().split_whitespace().collect::<Vec<_>>().join(" ")
    ));
    told.done()
}

fn keys(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    let script = "trap 'echo stopped; exit 3' INT; stty -echo; read word; echo got $word; while :; do sleep 0.05; done";
    let spec = Spec::sh(&side.id(), script).terminal();
    let shim = side.started_with(&spec, &stdio)?;
    let screen = Screen::on(out.blocking()?);
    let mut keyboard = stdio.open_stdin()?;
    // A line typed before it reads is echoed by the terminal, which is chance.
    wait::until_true("echo to be off", SOON, || {
        shim.exec_to_end(
            spec.id(),
            &side.id(),
            &["/bin/sh", "-c", "stty -a -F /dev/pts/0 | grep -q -- '-echo '"],
        )
        .is_ok_and(|code| code == 0)
    })?;
    keyboard.write("typed\r")?;
    screen.wait_shown("got typed")?;
    keyboard.write("\u{3}")?;
    screen.wait_shown("stopped")?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    Ok(format!(
        "exit {exit}, {:?}",
        screen.end().split_whitespace().collect::<Vec<_>>().join(" ")
    ))
}

fn of_exec(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    expect(shim.exec(
        spec.id(),
        "e",
        &["/bin/sh", "-c", "tty; read word; stty size; exit 8"],
        &stdio,
    )?)?;
    expect(shim.start_process(spec.id(), "e")?)?;
    let screen = Screen::on(out.blocking()?);
    screen.wait_shown("/dev/pts/0")?;
    expect(shim.resize(spec.id(), "e", (90, 30))?)?;
    stdio.open_stdin()?.write("go\r")?;
    let exit = expect(shim.wait(spec.id(), "e")?)?.exit_status;
    expect(shim.delete(spec.id(), "e")?)?;
    Ok(format!(
        "exit {exit}, {:?}",
        screen.end().split_whitespace().collect::<Vec<_>>().join(" ")
    ))
}

fn hang_up(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    let spec = Spec::sh(&side.id(), "echo up; sleep 600").terminal();
    let shim = side.started_with(&spec, &stdio)?;
    let screen = Screen::on(out.blocking()?);
    screen.wait_shown("up")?;
    let exit = shim.end(spec.id())?;
    let deleted = shim.delete(spec.id(), "")?;
    Ok(format!(
        "exit {exit}, delete {}, the client sees the end of {:?}",
        code(&deleted),
        screen.end().trim()
    ))
}

fn no_terminal(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    Ok(code(&shim.resize(spec.id(), "", (80, 24))?).to_owned())
}

fn taken_up(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::terminal(&side.streams())?;
    let out = stdio.open_stdout()?;
    let spec = Spec::sh(
        &side.id(),
        "stty -echo; echo up; while read word; do echo got $word; done",
    )
    .terminal();
    let shim = side.started_with(&spec, &stdio)?;
    let mut first = out.blocking()?;
    let mut keyboard = stdio.open_stdin()?;
    let mut up = [0; 2];
    first.read_exact(&mut up)?;
    // Both ends go, as with a window that is closed.
    drop(keyboard);
    drop(first);
    let screen = Screen::on(Output::open(&stdio.stdout)?.blocking()?);
    keyboard = stdio.open_stdin()?;
    keyboard.write("again\r")?;
    screen.wait_shown("got again")?;
    let state = expect(shim.state(spec.id(), "")?)?;
    Ok(format!("got again, {:?}", state.status()))
}
