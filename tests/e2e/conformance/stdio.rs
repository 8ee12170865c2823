//! What goes into a process and comes out of it, without a terminal.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci;
use lazaret_tests::wait;

use super::{Side, Told};
use crate::by_hand::bundle::Spec;
use crate::by_hand::{Output, SOON, Stdio, code, expect, text};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::compared("conformance::stdio::fifos_of_init", fifos),
    Case::compared("conformance::stdio::fifos_of_an_exec", fifos_of_exec),
    Case::compared("conformance::stdio::only_standard_error", only_stderr),
    Case::compared("conformance::stdio::hundred_mebibytes_intact", large),
    Case::compared("conformance::stdio::slow_reader_loses_nothing", slow_reader),
    Case::compared("conformance::stdio::reader_that_goes_and_comes_back", reader_gone),
    Case::compared("conformance::stdio::input_ends_when_it_is_closed", close_stdin),
    Case::compared(
        "conformance::stdio::input_of_an_exec_ends_when_it_is_closed",
        close_stdin_of_exec,
    ),
    Case::compared("conformance::stdio::close_twice_and_without_input", close_twice),
    Case::compared("conformance::stdio::fifo_that_is_not_there", missing_fifo),
    Case::compared("conformance::stdio::pipes_belong_to_whom_the_options_say", owners),
    Case::compared("conformance::stdio::file_logger", file_logger),
    Case::compared("conformance::stdio::file_logger_adds_to_the_file", file_appends),
    Case::compared("conformance::stdio::file_logger_of_an_exec", file_of_exec),
    Case::compared("conformance::stdio::binary_logger", binary_logger),
    Case::compared("conformance::stdio::binary_logger_of_an_exec", binary_of_exec),
    Case::compared(
        "conformance::stdio::binary_logger_that_is_not_there",
        missing_logger,
    ),
    Case::compared(
        "conformance::stdio::binary_logger_gets_all_of_it",
        binary_gets_all,
    ),
    Case::compared("conformance::stdio::unknown_scheme", unknown_scheme),
];

/// What is written again and again.
const PATTERN: &[u8; 8] = b"lazaret\n";

fn fifos(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::fifos(&side.streams())?;
    let (out, err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), "read word; echo out $word; echo err >&2; exit 3");
    let shim = side.started_with(&spec, &stdio)?;
    let (out, err) = (out.collect()?, err.collect()?);
    stdio.open_stdin()?.write("harbour\n")?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    Ok(format!("{:?} {:?} exit {exit}", text(out), text(err)))
}

fn fifos_of_exec(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    let stdio = Stdio::fifos(&side.streams())?;
    let (out, err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let script = "read word; echo out $word; echo err >&2; exit 3";
    expect(shim.exec(spec.id(), "e", &["/bin/sh", "-c", script], &stdio)?)?;
    expect(shim.start_process(spec.id(), "e")?)?;
    let (out, err) = (out.collect()?, err.collect()?);
    stdio.open_stdin()?.write("harbour\n")?;
    let exit = expect(shim.wait(spec.id(), "e")?)?.exit_status;
    Ok(format!("{:?} {:?} exit {exit}", text(out), text(err)))
}

fn only_stderr(side: &Side<'_>) -> Result<String> {
    let mut stdio = Stdio::outputs(&side.streams())?;
    stdio.stdout.clear();
    let err = stdio.open_stderr()?;
    let spec = Spec::sh(&side.id(), "echo out; echo err >&2");
    let shim = side.shim(&spec)?;
    let created = shim.create(&spec, &stdio)?;
    if created.is_err() {
        return Ok(format!("create {}", code(&created)));
    }
    expect(shim.start_process(spec.id(), "")?)?;
    let err = err.collect()?;
    expect(shim.wait(spec.id(), "")?)?;
    Ok(format!("{:?}", text(err)))
}

/// Reads to the end; how many bytes came, or where they were wrong.
fn check_pattern(mut from: File, pause: impl Fn(usize) + Send + 'static) -> JoinHandle<Result<usize>> {
    thread::spawn(move || {
        let expected = PATTERN.repeat((64 << 10) / PATTERN.len() + 1);
        let (mut chunk, mut total) = (vec![0; 64 << 10], 0);
        loop {
            let length = from.read(&mut chunk)?;
            if length == 0 {
                return Ok(total);
            }
            let wanted = expected
                .get(total % PATTERN.len()..)
                .unwrap_or_default()
                .get(..length);
            ensure!(chunk.get(..length) == wanted, "changed after byte {total}");
            total += length;
            pause(total);
        }
    })
}

fn large(side: &Side<'_>) -> Result<String> {
    const MIB: usize = 1 << 20;
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), &format!("yes lazaret | head -c {}", 100 * MIB));
    let shim = side.started_with(&spec, &stdio)?;
    let reader = check_pattern(out.blocking()?, |_| {});
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    let read = reader.join().ok().context("the reader panicked")??;
    Ok(format!(
        "exit {exit}, {} MiB as they were",
        read as f64 / MIB as f64
    ))
}

fn slow_reader(side: &Side<'_>) -> Result<String> {
    const KIB: usize = 1 << 10;
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), &format!("yes lazaret | head -c {}", 512 * KIB));
    let shim = side.started_with(&spec, &stdio)?;
    // It takes longer than the container would.
    let reader = check_pattern(out.blocking()?, |_| thread::sleep(Duration::from_millis(30)));
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    let read = reader.join().ok().context("the reader panicked")??;
    Ok(format!("exit {exit}, {} KiB as they were", read / KIB))
}

fn reader_gone(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let script = "echo one; until [ -e /go ]; do sleep 0.05; done; echo two; sleep 0.3; echo three; exit 5";
    let spec = Spec::sh(&side.id(), script);
    let shim = side.started_with(&spec, &stdio)?;
    let mut first = out.blocking()?;
    let mut one = [0; 4];
    first.read_exact(&mut one)?;
    drop(first);
    let exit = shim.exec_to_end(spec.id(), "e", &["/bin/touch", "/go"])?;
    ensure!(exit == 0, "the container was not told to go on");
    thread::sleep(Duration::from_millis(100));
    let rest = Output::open(&stdio.stdout)?.collect()?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    Ok(format!("exit {exit}, then {:?}", text(rest)))
}

fn close_stdin(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::fifos(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), "cat; echo end");
    let shim = side.started_with(&spec, &stdio)?;
    let out = out.collect()?;
    let mut stdin = stdio.open_stdin()?;
    stdin.write("all of it\n")?;
    // The client goes, and says so.
    drop(stdin);
    let closed = shim.close_stdin(spec.id(), "")?;
    expect(shim.wait(spec.id(), "")?)?;
    Ok(format!("close {}, {:?}", code(&closed), text(out)))
}

fn close_stdin_of_exec(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    let stdio = Stdio::fifos(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    expect(shim.exec(spec.id(), "e", &["/bin/sh", "-c", "cat; echo end"], &stdio)?)?;
    expect(shim.start_process(spec.id(), "e")?)?;
    let out = out.collect()?;
    let mut stdin = stdio.open_stdin()?;
    stdin.write("all of it\n")?;
    drop(stdin);
    let closed = shim.close_stdin(spec.id(), "e")?;
    expect(shim.wait(spec.id(), "e")?)?;
    Ok(format!("close {}, {:?}", code(&closed), text(out)))
}

fn close_twice(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    let mut told = Told::new();
    told.answer("without an input", &shim.close_stdin(spec.id(), "")?);
    told.answer("again", &shim.close_stdin(spec.id(), "")?);
    told.done()
}

fn missing_fifo(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let created = shim.create(&spec, &Stdio::logged("/no/such/fifo"))?;
    Ok(format!("refused {}", created.is_err()))
}

fn owners(side: &Side<'_>) -> Result<String> {
    let stdio = Stdio::outputs(&side.streams())?;
    let (out, _err) = (stdio.open_stdout()?, stdio.open_stderr()?);
    let spec = Spec::sh(&side.id(), "stat -L -c %u:%g /proc/self/fd/1 /proc/self/fd/2");
    let shim = side.shim(&spec)?;
    let options = oci::Options {
        io_uid: 1000,
        io_gid: 1001,
        ..Default::default()
    };
    let options = Any {
        type_url: "containerd.runc.v1.Options".into(),
        value: options.write_to_bytes()?,
        ..Default::default()
    };
    expect(shim.create_as(&spec, &stdio, |request| request.options = Some(options).into())?)?;
    expect(shim.start_process(spec.id(), "")?)?;
    let out = out.collect()?;
    expect(shim.wait(spec.id(), "")?)?;
    Ok(text(out).split_whitespace().collect::<Vec<_>>().join(" "))
}

const BOTH: &str = "echo out; sleep 0.1; echo err >&2; sleep 0.1; echo end";

fn file_logger(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    let log = folder.join("deep/log");
    let spec = Spec::sh(&side.id(), BOTH);
    let shim = side.started_with(&spec, &Stdio::logged(&format!("file://{}", log.display())))?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    let mode = fs::metadata(&log)?.permissions().mode() & 0o777;
    Ok(format!(
        "exit {exit}, {:?}, mode {mode:o}",
        fs::read_to_string(&log)?
    ))
}

fn file_appends(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    fs::create_dir_all(&folder)?;
    let log = folder.join("log");
    fs::write(&log, "before\n")?;
    for word in ["one", "two"] {
        let spec = Spec::sh(&side.id(), &format!("echo {word}"));
        let shim = side.started_with(&spec, &Stdio::logged(&format!("file://{}", log.display())))?;
        expect(shim.wait(spec.id(), "")?)?;
        expect(shim.delete(spec.id(), "")?)?;
    }
    Ok(format!("{:?}", fs::read_to_string(&log)?))
}

fn file_of_exec(side: &Side<'_>) -> Result<String> {
    let log = side.streams().join("log");
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    let stdio = Stdio::logged(&format!("file://{}", log.display()));
    expect(shim.exec(spec.id(), "e", &["/bin/sh", "-c", BOTH], &stdio)?)?;
    expect(shim.start_process(spec.id(), "e")?)?;
    expect(shim.wait(spec.id(), "e")?)?;
    expect(shim.delete(spec.id(), "e")?)?;
    Ok(format!("{:?}", fs::read_to_string(&log)?))
}

/// A logger that writes down who it was called for and all that it gets.
fn logger(folder: &Path) -> Result<String> {
    fs::create_dir_all(folder)?;
    let (program, log) = (folder.join("logger"), folder.join("log"));
    // The descriptors: 3 and 4 to be read, 5 to be closed when it is ready. runc-v2 sends SIGTERM
    // as soon as the container is deleted, and a logger that cares for the rest goes on.
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\nexec >{log}.new\nset | grep -c '^CONTAINER_ID=' ; \
         echo \"$CONTAINER_ID\" > {log}.id; echo \"$CONTAINER_NAMESPACE\" > {log}.namespace; echo \"args $*\"\n\
         cat <&4 >{log}.err 5>&- &\nexec 5>&-\ncat <&3\nwait\nmv {log}.new {log}\n",
        log = log.display()
    );
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(format!("binary://{}?color=blue", program.display()))
}

/// What such a logger has written once it was done.
fn logged(side: &Side<'_>, folder: &Path, id: &str) -> Result<String> {
    let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    wait::until_true("the logger to end", SOON, || folder.join("log").exists())?;
    let namespace = side.node.scratch().places().name();
    Ok(format!(
        "{:?}, standard error {:?}, id {}, namespace {}",
        file("log"),
        file("log.err"),
        file("log.id").trim() == id,
        file("log.namespace").trim() == namespace
    ))
}

fn binary_logger(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    let spec = Spec::sh(&side.id(), BOTH);
    let shim = side.started_with(&spec, &Stdio::logged(&logger(&folder)?))?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    expect(shim.delete(spec.id(), "")?)?;
    Ok(format!("exit {exit}, {}", logged(side, &folder, spec.id())?))
}

fn binary_of_exec(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    let spec = Spec::new(&side.id(), &["/bin/sleep", "600"]);
    let shim = side.started(&spec)?;
    expect(shim.exec(
        spec.id(),
        "the-exec",
        &["/bin/sh", "-c", BOTH],
        &Stdio::logged(&logger(&folder)?),
    )?)?;
    expect(shim.start_process(spec.id(), "the-exec")?)?;
    expect(shim.wait(spec.id(), "the-exec")?)?;
    expect(shim.delete(spec.id(), "the-exec")?)?;
    logged(side, &folder, "the-exec")
}

fn missing_logger(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let created = shim.create(&spec, &Stdio::logged("binary:///no/such/logger"))?;
    let said = created
        .as_ref()
        .err()
        .map(|refusal| refusal.message.clone())
        .unwrap_or_default();
    Ok(format!(
        "create {}, names it {}",
        code(&created),
        said.contains("/no/such/logger")
    ))
}

fn binary_gets_all(side: &Side<'_>) -> Result<String> {
    let folder = side.streams();
    let spec = Spec::sh(&side.id(), "yes lazaret | head -c 8000000");
    let shim = side.started_with(&spec, &Stdio::logged(&logger(&folder)?))?;
    let exit = expect(shim.wait(spec.id(), "")?)?.exit_status;
    // Deleted at once, while the logger is still busy.
    expect(shim.delete(spec.id(), "")?)?;
    wait::until_true("the logger to end", SOON, || folder.join("log").exists())?;
    let size = fs::metadata(folder.join("log"))?.len();
    Ok(format!(
        "exit {exit}, {size} bytes, two lines of its own among them"
    ))
}

fn unknown_scheme(side: &Side<'_>) -> Result<String> {
    let spec = Spec::new(&side.id(), &["/bin/true"]);
    let shim = side.shim(&spec)?;
    let created = shim.create(&spec, &Stdio::logged("gopher:///log"))?;
    Ok(format!("refused {}", created.is_err()))
}
