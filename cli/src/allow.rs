//! `lazaret allow`

use lazaret_api::control::v1::{AddAllowedRequest, Allowed, ListAllowedRequest, RemoveAllowedRequest};
use serde_json::json;

use crate::args::AllowCommand;
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{DIM, Printer, Styled};
use crate::signatures::identify;
use crate::text::Safe;

/// Runs one of the commands.
pub(crate) async fn run(
    client: &Client,
    command: &AllowCommand,
    printer: &mut Printer,
) -> Result<(), Failure> {
    match command {
        AllowCommand::Add {
            content,
            reason,
            lifetime,
            json,
        } => {
            let request = AddAllowedRequest {
                sha256: identify(content)?.0,
                reason: reason.clone(),
                // A fraction counts as one: 0 would mean for ever.
                lifetime_seconds: lifetime.map_or(0, |lifetime| lifetime.as_secs().max(1)),
            };
            add(client, request, *json, printer).await
        }
        AllowCommand::List { json } => list(client, *json, printer).await,
        AllowCommand::Rm { content, json } => remove(client, identify(content)?.0, *json, printer).await,
    }
}

async fn add(
    client: &Client,
    request: AddAllowedRequest,
    json: bool,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let sha256 = request.sha256.clone();
    let added = client.connect().await?.add_allowed(request).await?.into_inner();
    if json {
        return printer.json(&json!({ "sha256": sha256, "known": added.known }));
    }
    let how = if added.known {
        "was allowed already; reason and expiry are the new ones"
    } else {
        "allowed"
    };
    printer.line(format_args!("{sha256} {how}"))
}

async fn list(client: &Client, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let mut control = client.connect().await?;
    let mut entries = control.list_allowed(ListAllowedRequest {}).await?.into_inner();
    if !json {
        let title = format!(
            "{:64}  {:27}  {:27}  {:10}  REASON",
            "SHA256", "SINCE", "UNTIL", "BY"
        );
        printer.line(Styled(DIM, title))?;
    }
    while let Some(entry) = entries.message().await? {
        let Allowed {
            sha256,
            reason,
            by,
            time,
            expires,
        } = &entry;
        if json {
            let expires = Some(expires).filter(|text| !text.is_empty());
            printer.json(&json!({
                "sha256": sha256, "time": time, "expires": expires, "by": by, "reason": reason,
            }))?;
        } else {
            let expires = if expires.is_empty() {
                "revoked by hand"
            } else {
                expires
            };
            printer.line(format_args!(
                "{}  {}  {}  {}  {}",
                Safe(sha256),
                Safe(&format!("{time:27}")),
                Safe(&format!("{expires:27}")),
                Safe(&format!("{by:10}")),
                Safe(reason)
            ))?;
        }
    }
    Ok(())
}

async fn remove(client: &Client, sha256: String, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let request = RemoveAllowedRequest {
        sha256: sha256.clone(),
    };
    let removed = client
        .connect()
        .await?
        .remove_allowed(request)
        .await?
        .into_inner();
    if !removed.known {
        return Err(Failure::NotAllowListed(sha256));
    }
    if json {
        return printer.json(&json!({ "sha256": sha256, "removed": true }));
    }
    printer.line(format_args!("{sha256} is no longer allowed: engines decide"))
}
