//! Writes what lazaretd sends to a new file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lazaret_api::control::v1::{ExportQuarantinedRequest, QuarantineItem};
use lazaret_types::Sha256;
use sha2::Digest;

use crate::client::Client;
use crate::failure::Failure;

/// Exports an item. The file is not there unless it is whole.
pub(super) async fn to_file(
    client: &Client,
    item: &QuarantineItem,
    path: &Path,
    plain: bool,
) -> Result<(), Failure> {
    let failed = |source| Failure::Export {
        path: path.to_owned(),
        source,
    };
    // Never one that exists, and never one that can be run.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    let received = receive(client, item, plain, &mut file).await;
    let whole = match received {
        Ok(Received::Failed(error)) => Err(failed(error)),
        Ok(Received::All(sha256)) if plain && sha256.to_string() != item.sha256 => {
            Err(Failure::OtherContent(item.id.clone()))
        }
        Ok(Received::All(_)) => file.sync_all().map_err(failed),
        Err(failure) => Err(failure),
    };
    if whole.is_err() {
        // Why it is not whole says more than why it cannot be removed.
        drop(fs::remove_file(path));
    }
    whole
}

enum Received {
    All(Sha256),
    /// The file did not take it.
    Failed(io::Error),
}

async fn receive(
    client: &Client,
    item: &QuarantineItem,
    plain: bool,
    file: &mut File,
) -> Result<Received, Failure> {
    let request = ExportQuarantinedRequest {
        id: item.id.clone(),
        plain,
    };
    let mut control = client.connect().await?;
    let mut chunks = control.export_quarantined(request).await?.into_inner();
    let mut hash = sha2::Sha256::new();
    while let Some(chunk) = chunks.message().await? {
        hash.update(&chunk.bytes);
        if let Err(error) = file.write_all(&chunk.bytes) {
            return Ok(Received::Failed(error));
        }
    }
    Ok(Received::All(Sha256::new(hash.finalize().into())))
}
