//! `lazaret rules`
//!
//! Rules are read by the same program that judges with them, so that what is
//! listed and checked here is what lazaretd will make of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lazaret_api::control::v1::{ReloadRulesRequest, RuleProblem};
use lazaret_config::Config;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::failure::Failure;
use crate::print::{DIM, Printer, Styled};
use crate::text::Safe;

/// One line of `lazaret-scan-worker --list`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Rule {
        rule: String,
        file: String,
        severity: String,
        description: String,
        attack: String,
    },
    Warning(Problem),
    Error(Problem),
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    file: String,
    line: u32,
    column: u32,
    message: String,
}

/// Prints all rules of the configured folders.
pub(crate) fn list(config: &Config, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    if !json {
        printer.line(Styled(
            DIM,
            format_args!("{:8}  {:10}  {:32}  FILE", "SEVERITY", "ATT&CK", "RULE"),
        ))?;
    }
    read(config, &config.scan.rules, |line| match line {
        Line::Rule { .. } if json => to_json(&line, printer),
        Line::Rule {
            rule,
            file,
            severity,
            attack,
            ..
        } => printer.line(format_args!(
            "{:8}  {:10}  {:32}  {}",
            Safe(&severity),
            Safe(&attack),
            Safe(&rule),
            Safe(&file)
        )),
        Line::Warning(_) | Line::Error(_) => Ok(()),
    })
}

/// Says what is wrong with the rules of these folders, or of the configured ones.
pub(crate) fn check(
    config: &Config,
    folders: &[PathBuf],
    json: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let folders = if folders.is_empty() {
        &config.scan.rules
    } else {
        folders
    };
    let (mut rules, mut errors) = (0_usize, 0_usize);
    read(config, folders, |line| {
        rules += usize::from(matches!(line, Line::Rule { .. }));
        errors += usize::from(matches!(line, Line::Error(_)));
        match &line {
            Line::Rule { .. } => Ok(()),
            _ if json => to_json(&line, printer),
            Line::Warning(problem) => tell(printer, problem, "warning"),
            Line::Error(problem) => tell(printer, problem, "error"),
        }
    })?;
    if !json {
        printer.line(format_args!("{rules} rules, {errors} errors"))?;
    }
    if errors == 0 {
        Ok(())
    } else {
        Err(Failure::Rules { errors })
    }
}

/// Makes lazaretd read its rules again.
pub(crate) async fn reload(client: &Client, printer: &mut Printer) -> Result<(), Failure> {
    let loaded = client
        .connect()
        .await?
        .reload_rules(ReloadRulesRequest {})
        .await?
        .into_inner();
    for RuleProblem {
        file,
        line,
        column,
        message,
        warning,
    } in loaded.problems
    {
        let problem = Problem {
            file,
            line,
            column,
            message,
        };
        tell(printer, &problem, if warning { "warning" } else { "error" })?;
    }
    printer.line(format_args!(
        "{} rules judge now; version {}",
        loaded.rules,
        Safe(&loaded.version)
    ))
}

fn tell(printer: &mut Printer, problem: &Problem, kind: &str) -> Result<(), Failure> {
    let Problem {
        file,
        line,
        column,
        message,
    } = problem;
    printer.line(format_args!(
        "{}:{line}:{column}: {kind}: {}",
        Safe(file),
        Safe(message)
    ))
}

fn to_json(line: &Line, printer: &mut Printer) -> Result<(), Failure> {
    let json = serde_json::to_string(line).map_err(|error| Failure::Worker(error.to_string()))?;
    printer.raw(format!("{json}\n").as_bytes())
}

/// Runs the scan worker over the folders and gives each of its lines to `each`.
fn read(
    config: &Config,
    folders: &[PathBuf],
    mut each: impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let beside = std::env::current_exe().unwrap_or_default();
    let program = beside
        .parent()
        .unwrap_or(Path::new("/"))
        .join(&config.scan.worker);
    let failed = |error: &dyn std::fmt::Display| Failure::Worker(format!("{}: {error}", program.display()));
    let options = folders.iter().flat_map(|folder| [Path::new("--rules"), folder]);
    let mut child = Command::new(&program)
        .arg("--list")
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error))?;
    let lines = child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines);
    for line in lines {
        let line = line.map_err(|error| failed(&error))?;
        each(serde_json::from_str(&line).map_err(|error| failed(&error))?)?;
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(&status))
    }
}
