//! `cargo xtask test [SUITE]`: runs suites and ends in one line with the sum.

use std::env;
use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;
use clap::ValueEnum;
use lazaret_tests::binaries::Binaries;
use lazaret_tests::{interrupt, ui};

use crate::elevate;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this suite; all of them without it
    suite: Option<Suite>,
    /// Passed on to the tests, as a part of a test's name
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    /// What needs no privilege, in every crate
    Unit,
    /// Real containers under a private containerd
    E2e,
    /// Attacks from within such containers
    Attacks,
    /// The part of the end-to-end tests that compares with the stock shim, which writes docs/conformance.md
    Conformance,
}

/// Conformance is a part of the end-to-end tests.
const ALL: &[Suite] = &[Suite::Unit, Suite::E2e, Suite::Attacks];

impl Args {
    pub(crate) fn all() -> Self {
        Self {
            suite: None,
            args: Vec::new(),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let one = args.suite.map(|suite| vec![suite]);
    let suites = one.unwrap_or_else(|| ALL.to_vec());
    let mut sum = Sum::default();
    for suite in suites {
        let result = match suite {
            Suite::Unit => unit(&args.args, &mut sum),
            Suite::E2e => privileged("e2e", &args.args, &mut sum),
            Suite::Attacks => privileged("attacks", &args.args, &mut sum),
            Suite::Conformance if args.args.is_empty() => {
                privileged("e2e", &["conformance::".to_owned()], &mut sum)
            }
            Suite::Conformance => privileged("e2e", &args.args, &mut sum),
        };
        interrupt::yield_to_cleanup();
        if let Err(error) = result {
            // A suite that could not run has failed: the other ones still count.
            anstream::eprintln!("{bad}error:{bad:#} {error:#}", bad = ui::BAD);
            sum.failed += 1;
        }
    }
    println!("{}", sum.line());
    Ok(if sum.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything but the targets that need privileges: these are suites of their own.
fn unit(args: &[String], sum: &mut Sum) -> Result<()> {
    for selection in [
        &["--workspace", "--exclude", "lazaret-tests"][..],
        &["--package", "lazaret-tests", "--lib"][..],
    ] {
        let mut command = cargo();
        command.arg("test").args(selection);
        sum.add(command.args(["--quiet", "--no-fail-fast", "--"]).args(args))?;
    }
    Ok(())
}

/// A target of `lazaret-tests` that runs containers.
fn privileged(target: &str, args: &[String], sum: &mut Sum) -> Result<()> {
    let binaries = Binaries::build()?;
    let tests = ui::step(&format!("building the tests {target}"), || build(target))?;
    let mut command = elevate::as_root(&tests, &binaries)?;
    if std::io::stdout().is_terminal() {
        command.arg("--color=always");
    }
    sum.add(command.args(args))
}

fn build(target: &str) -> Result<PathBuf> {
    let output = cargo()
        .args([
            "test",
            "-p",
            "lazaret-tests",
            "--test",
            target,
            "--no-run",
            "--quiet",
        ])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    let messages = Message::parse_stream(output.stdout.as_slice()).flatten();
    let found = messages.filter_map(|message| match message {
        Message::CompilerArtifact(artifact) if artifact.target.name == target => artifact.executable,
        _ => None,
    });
    Ok(found
        .last()
        .with_context(|| format!("cargo built no tests {target}"))?
        .into_std_path_buf())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[derive(Default)]
struct Sum {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Sum {
    /// Runs `command`, shows its output, and adds the summaries in it.
    fn add(&mut self, command: &mut Command) -> Result<()> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the tests")?;
        let stdout = child.stdout.take().context("the tests' output")?;
        let failed_before = self.failed;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            self.add_line(&anstream::adapter::strip_str(&line).to_string());
        }
        // A crash or a failed build leaves no summary.
        if !child.wait()?.success() && self.failed == failed_before {
            bail!("the tests ended early");
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str) {
        let Some(summary) = line.strip_prefix("test result: ") else {
            return;
        };
        let words: Vec<_> = summary.split([' ', ';']).collect();
        for pair in words.windows(2) {
            let [count, what] = pair else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match *what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }

    fn line(&self) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    #[test]
    fn sums_summaries_and_nothing_else() {
        let mut sum = Sum::default();
        sum.add_line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out");
        sum.add_line("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured");
        sum.add_line("9 passed in conversation");
        assert_eq!(sum.line(), "4 passed, 2 failed, 1 skipped");
    }
}
