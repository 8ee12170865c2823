//! `lazaret status`

mod engines;
mod json;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lazaret_api::control::v1::{Container, Gap, GetStatusRequest, GetStatusResponse, GuardState, Superblock};

use crate::client::Client;
use crate::failure::Failure;
use crate::print::{BAD, BOLD, DIM, GOOD, ODD, Printer, Styled};
use crate::text::{self, Safe, count};

/// Prints who is guarded, and how it goes.
pub(crate) async fn show(client: &Client, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let status = client
        .connect()
        .await?
        .get_status(GetStatusRequest {})
        .await?
        .into_inner();
    if json {
        return printer.raw(json::of(&status).as_bytes());
    }
    node(&status, printer)?;
    containers(&status.containers, printer)
}

fn node(status: &GetStatusResponse, printer: &mut Printer) -> Result<(), Failure> {
    printer.line(format_args!(
        "{} {}, up {}, node {}",
        Styled(BOLD, "lazaretd"),
        Safe(&status.daemon_version),
        text::duration(status.uptime_seconds),
        Safe(&status.node_id)
    ))?;
    if let Some(signatures) = &status.signatures {
        let count = count(signatures.count, "signature");
        printer.line(format_args!("  {count}, set {}", Safe(&signatures.version)))?;
        for problem in &signatures.problems {
            printer.line(format_args!("    {} {}", Styled(ODD, "skipped"), Safe(problem)))?;
        }
        let untold = signatures
            .problem_count
            .saturating_sub(signatures.problems.len() as u64);
        if untold > 0 {
            printer.line(format_args!("    {} {untold} more lines", Styled(ODD, "skipped")))?;
        }
    }
    let counter = |name: &str| status.counters.get(name).copied().unwrap_or_default();
    printer.line(format_args!(
        "  {} judged: {} allowed, {} denied, {} unjudged",
        count(counter("events"), "open"),
        counter("allowed"),
        counter("denied"),
        counter("unjudged")
    ))?;
    if let Some(usage) = status.quarantine.filter(|usage| usage.items > 0) {
        let items = count(usage.items, "file");
        printer.line(format_args!("  {items} in quarantine, {} bytes", usage.used))?;
    }
    engines::show(&status.engines, printer)?;
    incidents(status, counter("incidents_suppressed"), printer)
}

fn incidents(status: &GetStatusResponse, suppressed: u64, printer: &mut Printer) -> Result<(), Failure> {
    let Some(incidents) = &status.incidents else {
        return Ok(());
    };
    printer.line(format_args!(
        "  {} recorded",
        count(incidents.last_seq, "incident")
    ))?;
    if incidents.lost > 0 {
        printer.line(format_args!(
            "    {} {} could not be written",
            Styled(BAD, "lost"),
            incidents.lost
        ))?;
    }
    if suppressed > 0 {
        let why = "more than their container may report";
        printer.line(format_args!(
            "    {} {suppressed}: {why}",
            Styled(ODD, "left out")
        ))?;
    }
    if !incidents.trouble.is_empty() {
        let trouble = Safe(&incidents.trouble);
        printer.line(format_args!(
            "    {} {trouble}",
            Styled(BAD, "cannot be written now:")
        ))?;
    }
    Ok(())
}

fn containers(containers: &[Container], printer: &mut Printer) -> Result<(), Failure> {
    printer.line("")?;
    if containers.is_empty() {
        return printer.line("No container runs under lazaret.");
    }
    let names: Vec<_> = containers
        .iter()
        .map(|container| Safe(&full_id(container)).to_string())
        .collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or_default();
    let title = format!(
        "{:width$}  {:11}  {:>12}  {:>8}  {:>9}  {:>7}  {:>8}  {:>7}",
        "CONTAINER", "STATE", "FOR", "PID", "OPENS", "DENIED", "UNJUDGED", "SEALED"
    );
    printer.line(Styled(DIM, title))?;
    for (container, name) in containers.iter().zip(&names) {
        let Container {
            init_pid,
            events,
            denied,
            unjudged,
            sealed,
            ..
        } = container;
        let (style, state) = state(container);
        let age = text::duration(age(container).as_secs());
        printer.line(format_args!(
            "{name:width$}  {}  {age:>12}  {init_pid:>8}  {events:>9}  {}  {}  {sealed:>7}",
            Styled(style, format_args!("{state:11}")),
            Styled(alarming(*denied, BAD), format_args!("{denied:>7}")),
            Styled(alarming(*unjudged, ODD), format_args!("{unjudged:>8}")),
        ))?;
        details(container, printer)?;
    }
    Ok(())
}

fn details(container: &Container, printer: &mut Printer) -> Result<(), Failure> {
    if !container.image.is_empty() {
        printer.line(format_args!("    image       {}", Safe(&container.image)))?;
    }
    if !container.pod.is_empty() {
        let role = if container.sandbox { " (its sandbox)" } else { "" };
        printer.line(format_args!("    pod         {}{role}", Safe(&container.pod)))?;
    }
    printer.line(format_args!(
        "    guarded     {}",
        superblocks(&container.guarded)
    ))?;
    if !container.node_guarded.is_empty() {
        let shared = superblocks(&container.node_guarded);
        printer.line(format_args!("                {shared}, shared with the host"))?;
    }
    for superblock in &container.shared {
        let what = superblocks(std::slice::from_ref(superblock));
        let why = match superblock.reason.as_str() {
            "" => "shared with the host",
            reason => reason,
        };
        let unguarded = Styled(ODD, "not guarded");
        printer.line(format_args!("    {unguarded} {what}: {}", Safe(why)))?;
    }
    if let Some(Gap {
        lasted_ms,
        allowed,
        denied,
    }) = container.gap
    {
        let opens = count(allowed, "open");
        printer.line(format_args!(
            "    {}         {lasted_ms} ms without a judge: {opens} let through, {denied} refused",
            Styled(alarming(allowed, BAD), "gap")
        ))?;
    }
    Ok(())
}

fn full_id(container: &Container) -> String {
    format!("{}/{}", container.namespace, container.id)
}

fn state(container: &Container) -> (anstyle::Style, &'static str) {
    match container.state() {
        GuardState::Guarded => (GOOD, "guarded"),
        GuardState::CatchingUp => (ODD, "catching up"),
        GuardState::Unspecified => (BAD, "unknown"),
    }
}

fn age(container: &Container) -> Duration {
    let since = UNIX_EPOCH.checked_add(Duration::from_millis(container.attached_at_unix_ms));
    since
        .and_then(|since| SystemTime::now().duration_since(since).ok())
        .unwrap_or_default()
}

fn alarming(n: u64, style: anstyle::Style) -> anstyle::Style {
    if n > 0 { style } else { anstyle::Style::new() }
}

fn superblocks(superblocks: &[Superblock]) -> String {
    if superblocks.is_empty() {
        return "nothing".into();
    }
    let each = superblocks.iter().map(|superblock| {
        let path = text::path(&superblock.mount_point);
        format!("{} ({})", Safe(&path), Safe(&superblock.fs_type))
    });
    each.collect::<Vec<_>>().join(", ")
}
