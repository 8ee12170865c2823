//! `lazaret quarantine`

mod export;

use lazaret_api::control::v1::{
    ListQuarantineRequest, QuarantineItem, QuarantineState, RemoveQuarantinedRequest, RestoreOriginalRequest,
    RestoreQuarantinedRequest,
};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::args::QuarantineCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{BOLD, DIM, ODD, Printer, Styled};
use crate::signatures::severity_name;
use crate::text::{self, Safe};

/// Runs one of the commands.
pub(crate) async fn run(
    client: &Client,
    command: &QuarantineCommand,
    printer: &mut Printer,
) -> Result<(), Failure> {
    match command {
        QuarantineCommand::List { json } => list(client, *json, printer).await,
        QuarantineCommand::Show { id, json } => show(client, *id, *json, printer).await,
        QuarantineCommand::Export {
            id,
            file,
            plain,
            json,
        } => {
            let item = find(client, *id).await?;
            export::to_file(client, &item, file, *plain).await?;
            if *json {
                return printer
                    .json(&json!({ "id": item.id, "file": file.to_string_lossy(), "plain": plain }));
            }
            let what = if *plain { "the content itself" } else { "masked" };
            let file = file.to_string_lossy();
            printer.line(format_args!(
                "{} exported to {}, {what}",
                Safe(&item.id),
                Safe(&file)
            ))
        }
        QuarantineCommand::Restore {
            id,
            original: true,
            force,
            json,
        } => restore_original(client, *id, *force, *json, printer).await,
        QuarantineCommand::Restore {
            id,
            original: false,
            force,
            json,
        } => restore(client, *id, *force, *json, printer).await,
        QuarantineCommand::Rm { ids, json } => remove(client, ids, *json, printer).await,
    }
}

async fn list(client: &Client, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let mut control = client.connect().await?;
    let mut items = control
        .list_quarantine(ListQuarantineRequest {})
        .await?
        .into_inner();
    if !json {
        let title = format!(
            "{:26}  {:27}  {:>10}  RULE, CONTAINER AND PATH",
            "ITEM", "SINCE", "BYTES"
        );
        printer.line(Styled(DIM, title))?;
    }
    while let Some(item) = items.message().await? {
        if json {
            printer.json(&to_json(&item))?;
            continue;
        }
        printer.line(format_args!(
            "{}  {}  {:>10}  {}  {}/{}  {}{}",
            Safe(&item.id),
            Safe(&item.time),
            item.size,
            Safe(&item.rule),
            Safe(&item.container_namespace),
            Safe(&item.container_id),
            Safe(&text::path(&item.path)),
            Styled(ODD, remark(item.state()))
        ))?;
    }
    Ok(())
}

/// What is out of the ordinary.
fn remark(state: QuarantineState) -> &'static str {
    match state {
        QuarantineState::Moved => "",
        QuarantineState::Held => "  (may still be in its container)",
        QuarantineState::Restoring => "  (on its way back)",
        QuarantineState::Unspecified => "  (in an unknown state)",
    }
}

/// One item. There are few enough to look through all of them.
async fn find(client: &Client, id: Ulid) -> Result<QuarantineItem, Failure> {
    let mut control = client.connect().await?;
    let mut items = control
        .list_quarantine(ListQuarantineRequest {})
        .await?
        .into_inner();
    let wanted = id.to_string();
    while let Some(item) = items.message().await? {
        if item.id == wanted {
            return Ok(item);
        }
    }
    Err(Failure::NoItem(wanted))
}

async fn show(client: &Client, id: Ulid, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let item = find(client, id).await?;
    if json {
        return printer.json(&to_json(&item));
    }
    printer.line(format_args!(
        "{}{}",
        Styled(BOLD, Safe(&item.id)),
        Styled(ODD, remark(item.state()))
    ))?;
    let container = format!("{}/{}", item.container_namespace, item.container_id);
    let owner = format!("uid {}, gid {}, mode {:04o}", item.uid, item.gid, item.mode);
    let found = format!("{} ({})", item.rule, severity_name(item.severity()));
    let (path, host_path) = (text::path(&item.path), text::path(&item.host_path));
    let (size, links) = (format!("{} bytes", item.size), item.links.to_string());
    for (name, value) in [
        ("found", &found),
        ("path", &path),
        ("container", &container),
        ("image", &item.image),
        ("pod", &item.pod),
        ("on the host", &host_path),
        ("sha256", &item.sha256),
        ("size", &size),
        ("owner", &owner),
        ("hard links", &links),
        ("since", &item.time),
        ("by", &item.by),
    ] {
        if !value.is_empty() {
            printer.line(format_args!(
                "  {}  {}",
                Styled(DIM, format_args!("{name:11}")),
                Safe(value)
            ))?;
        }
    }
    Ok(())
}

async fn restore(
    client: &Client,
    id: Ulid,
    force: bool,
    json: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let request = RestoreQuarantinedRequest {
        id: id.to_string(),
        force,
    };
    let restored = client
        .connect()
        .await?
        .restore_quarantined(request)
        .await?
        .into_inner();
    let item = restored.item.unwrap_or_default();
    if json {
        return printer.json(&to_json(&item));
    }
    let path = text::path(&item.path);
    let (path, container, sha256) = (Safe(&path), Safe(&item.container_id), Safe(&item.sha256));
    printer.line(format_args!(
        "{id} is {path} of container {container} again, and {sha256} is allowed"
    ))
}

async fn restore_original(
    client: &Client,
    id: Ulid,
    force: bool,
    json: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let request = RestoreOriginalRequest {
        id: id.to_string(),
        force,
    };
    let restored = client
        .connect()
        .await?
        .restore_original(request)
        .await?
        .into_inner();
    let item = restored.item.unwrap_or_default();
    if json {
        let mut object = to_json(&item);
        if let Some(object) = object.as_object_mut() {
            object.insert("original_sha256".into(), restored.sha256.into());
        }
        return printer.json(&object);
    }
    let path = text::path(&item.path);
    let (path, container, sha256) = (Safe(&path), Safe(&item.container_id), Safe(&restored.sha256));
    printer.line(format_args!(
        "{path} of container {container} is as in its image again ({sha256}); {id} stays in the quarantine"
    ))
}

async fn remove(client: &Client, ids: &[Ulid], json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let mut control = client.connect().await?;
    for id in ids {
        let id = id.to_string();
        control
            .remove_quarantined(RemoveQuarantinedRequest { id: id.clone() })
            .await?;
        if json {
            printer.json(&json!({ "id": id, "removed": true }))?;
        } else {
            printer.line(format_args!("{id} removed"))?;
        }
    }
    Ok(())
}

/// An item for programs. Keys are only ever added. Paths that are not UTF-8 read
/// as everywhere in lazaret; `path_hex` is exact.
fn to_json(item: &QuarantineItem) -> Value {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    json!({
        "id": item.id,
        "state": match item.state() {
            QuarantineState::Held => "held",
            QuarantineState::Moved => "moved",
            QuarantineState::Restoring => "restoring",
            QuarantineState::Unspecified => "unknown",
        },
        "time": item.time,
        "by": item.by,
        "container": { "id": item.container_id, "namespace": item.container_namespace },
        "image": some(&item.image),
        "pod": some(&item.pod),
        "path": text::path(&item.path),
        "path_hex": item.path.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        "host_path": some(&text::path(&item.host_path)),
        "sha256": item.sha256,
        "size": item.size,
        "rule": item.rule,
        "severity": severity_name(item.severity()),
        "mode": format!("{:04o}", item.mode),
        "uid": item.uid,
        "gid": item.gid,
        "links": item.links,
    })
}
