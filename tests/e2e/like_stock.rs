//! What is clean behaves as under the stock runtime: both are run, and compared.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lazaret_tests::command::{LIMIT, Outcome, Running};
use lazaret_tests::image::BUSYBOX;
use lazaret_tests::node::Node;
use lazaret_tests::run::{LAZARET, Run, STOCK};
use lazaret_tests::wait;

use crate::case::Case;
use crate::world::{IMAGE, USER_IMAGE, World};

pub(crate) const CASES: &[Case] = &[
    Case::shared("like_stock::output_and_exit_codes", exit_codes),
    Case::shared("like_stock::killed_by_a_signal", killed),
    Case::shared("like_stock::large_output_intact", large_output),
    Case::shared("like_stock::stdin_reaches_its_end", stdin),
    Case::shared("like_stock::stdin_of_an_exec_reaches_its_end", stdin_of_exec),
    Case::shared("like_stock::environment_folder_user", settings),
    Case::shared("like_stock::what_a_container_sees_of_itself", view),
    Case::shared("like_stock::missing_program", missing_program),
];

/// Runs the same under both, and gives lazaret's outcome when they are equal.
fn same(node: &Node, describe: impl Fn(Run) -> Run) -> Result<Outcome> {
    let run = |runtime| node.run(&describe(Run::new(&node.id("same"), IMAGE).runtime(runtime)));
    let (ours, stock) = (run(LAZARET)?, run(STOCK)?);
    ensure!(
        (ours.code, &ours.stdout, &ours.stderr) == (stock.code, &stock.stdout, &stock.stderr),
        "not as under the stock runtime:\n{ours:?}\n{stock:?}"
    );
    Ok(ours)
}

fn exit_codes(world: &World) -> Result<()> {
    let node = world.node()?;
    for code in [0, 1, 7, 255] {
        let outcome = same(&node, |run| {
            run.sh(&format!("echo out; echo err >&2; exit {code}"))
        })?;
        ensure!(outcome.code == code, "{outcome:?}");
        ensure!(outcome.out() == "out" && outcome.err() == "err", "{outcome:?}");
    }
    let outcome = same(&node, |run| run.sh("sh -c 'kill -9 $$'; exit $?"))?;
    ensure!(outcome.code == 128 + 9, "{outcome:?}");
    Ok(())
}

fn killed(world: &World) -> Result<()> {
    let node = world.node()?;
    let wait = "touch /ready; while :; do sleep 0.1; done";
    let trap = format!("trap 'exit 5' TERM; {wait}");
    for (signal, script, expected) in [("SIGKILL", wait, 137), ("SIGTERM", &trap, 5)] {
        let codes = [LAZARET, STOCK].map(|runtime| killed_by(&node, runtime, signal, script));
        let [Ok(ours), Ok(stock)] = codes else {
            bail!("{signal}: {codes:?}")
        };
        ensure!(
            ours == expected && stock == expected,
            "{signal}: {ours} and {stock}"
        );
    }
    Ok(())
}

fn killed_by(node: &Node, runtime: &str, signal: &str, script: &str) -> Result<i32> {
    let id = node.id("killed");
    let running = node.spawn(&Run::new(&id, IMAGE).runtime(runtime).sh(script))?;
    // RUNNING is too early: the shell may not have set its trap yet.
    wait::until_true("the script to be ready", Duration::from_secs(20), || {
        let ready = node.exec(&id, &["/bin/test", "-e", "/ready"]);
        ready.is_ok_and(|outcome| outcome.code == 0)
    })?;
    node.ctr(&["task", "kill", "--signal", signal, &id])?.ok()?;
    Ok(running.wait(LIMIT)?.code)
}

fn large_output(world: &World) -> Result<()> {
    let node = world.node()?;
    let outcome = same(&node, |run| run.sh("cat /bin/busybox; seq 1 50000 >&2"))?;
    ensure!(
        outcome.stdout == fs::read(BUSYBOX)?,
        "2 MB of binary output came changed"
    );
    ensure!(outcome.err().lines().count() == 50_000, "lines were lost");
    Ok(())
}

fn stdin(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let run = Run::new(&node.id("stdin"), IMAGE)
            .runtime(runtime)
            .sh("cat; echo end");
        let mut command = node.run_command(&run, &["--rm"]);
        let outcome = Running::start_with(&mut command, vec![b'x'; 300_000])?.wait(LIMIT)?;
        ensure!(
            outcome.code == 0 && outcome.out().ends_with("xend"),
            "{runtime}: code {}",
            outcome.code
        );
        ensure!(
            outcome.out().len() == 300_003,
            "{runtime}: {} bytes",
            outcome.out().len()
        );
    }
    Ok(())
}

fn stdin_of_exec(world: &World) -> Result<()> {
    let node = world.node()?;
    for runtime in [LAZARET, STOCK] {
        let id = node.id("stdin");
        let run = Run::new(&id, IMAGE).runtime(runtime);
        node.detach(&run.args(&["/bin/sleep", "600"]))?;
        let mut command = node.exec_command(&node.id("exec"), &id, &["/bin/sh", "-c", "cat; echo end"]);
        let outcome = Running::start_with(&mut command, vec![b'x'; 300_000])?.wait(LIMIT)?;
        let out = outcome.out();
        ensure!(
            outcome.code == 0 && out.len() == 300_003 && out.ends_with("xend"),
            "{runtime}: code {}, {} bytes",
            outcome.code,
            out.len()
        );
        node.remove(&id)?;
    }
    Ok(())
}

fn settings(world: &World) -> Result<()> {
    let node = world.node()?;
    let shown = |runtime| {
        let run = Run::new(&node.id("settings"), USER_IMAGE).runtime(runtime);
        let run = run.option("--env", "HARBOUR=quarantine").option("--cwd", "/var");
        node.run(&run.sh("echo $HARBOUR; pwd; id"))?.ok()
    };
    let (ours, stock) = (shown(LAZARET)?, shown(STOCK)?);
    ensure!(ours == stock, "{ours}\n{stock}");
    ensure!(ours.starts_with("quarantine\n/var\nuid=1000(tester)"), "{ours}");
    Ok(())
}

fn view(world: &World) -> Result<()> {
    let node = world.node()?;
    let shown = [
        "grep -E '^(Cap|Seccomp|NoNewPrivs|Sig[^Q]|Uid|Gid|Groups)' /proc/self/status",
        "cat /proc/self/oom_score_adj /proc/self/limits",
        "ls /proc/self/fd /dev",
        "cut -d' ' -f4-9 /proc/self/mountinfo | grep -v ' / '",
        "ps -o user,args | tail -n +2 | head -1",
        "umask; env | grep -v HOSTNAME",
    ];
    same(&node, |run| run.sh(&shown.join("; ")))?;
    Ok(())
}

fn missing_program(world: &World) -> Result<()> {
    let node = world.node()?;
    let said = |runtime| {
        node.run(
            &Run::new(&node.id("missing"), IMAGE)
                .runtime(runtime)
                .args(&["/bin/nothing-there"]),
        )
    };
    let (ours, stock) = (said(LAZARET)?, said(STOCK)?);
    ensure!(ours.code == stock.code, "{ours:?}\n{stock:?}");
    let names =
        |outcome: &Outcome| outcome.err().contains("nothing-there") && outcome.err().contains("no such file");
    ensure!(names(&ours) && names(&stock), "{ours:?}\n{stock:?}");
    Ok(())
}
