//! `lazaret signatures`

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lazaret_api::control::v1::{AddSignatureRequest, ListSignaturesRequest, Severity, Signature};
use lazaret_types::Sha256;
use nix::fcntl::OFlag;
use sha2::Digest;

use crate::args::{self, Content, NewSignature};
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{DIM, Printer, Styled};
use crate::text::{Safe, safe_json};

/// Read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Adds a content to the list.
pub(crate) async fn add(client: &Client, new: &NewSignature, printer: &mut Printer) -> Result<(), Failure> {
    let (sha256, file_name) = identify(&new.content)?;
    let name = new.name.clone().or(file_name).unwrap_or_default();
    let request = AddSignatureRequest {
        sha256: sha256.clone(),
        name,
        severity: match new.severity {
            args::Severity::Notice => Severity::Notice,
            args::Severity::Warning => Severity::Warning,
            args::Severity::Error => Severity::Error,
            args::Severity::Critical => Severity::Critical,
        }
        .into(),
    };
    let added = client.connect().await?.add_signature(request).await?.into_inner();
    let how = if added.known { "was known already" } else { "added" };
    printer.line(format_args!(
        "{sha256} {how}; signature set {}",
        Safe(&added.version)
    ))
}

/// Prints all signatures, as they come.
pub(crate) async fn list(client: &Client, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let mut control = client.connect().await?;
    let mut signatures = control
        .list_signatures(ListSignaturesRequest {})
        .await?
        .into_inner();
    if !json {
        printer.line(Styled(
            DIM,
            format_args!("{:64}  {:8}  NAME", "SHA256", "SEVERITY"),
        ))?;
    }
    while let Some(signature) = signatures.message().await? {
        if json {
            printer.raw(to_json(&signature).as_bytes())?;
        } else {
            let Signature { sha256, name, .. } = &signature;
            let severity = severity_name(signature.severity());
            printer.line(format_args!("{}  {severity:8}  {}", Safe(sha256), Safe(name)))?;
        }
    }
    Ok(())
}

fn to_json(signature: &Signature) -> String {
    let json = serde_json::json!({
        "sha256": signature.sha256,
        "severity": severity_name(signature.severity()),
        "name": signature.name,
    });
    safe_json(&json.to_string()) + "\n"
}

pub(crate) fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Unspecified => "unknown",
        Severity::Notice => "notice",
        Severity::Warning => "warning",
        Severity::Error => "error",
        Severity::Critical => "critical",
    }
}

/// The digest, and the name of the file that it was made from.
pub(crate) fn identify(content: &Content) -> Result<(String, Option<String>), Failure> {
    let Some(path) = &content.file else {
        return Ok((
            content
                .sha256
                .map(|sha256| sha256.to_string())
                .unwrap_or_default(),
            None,
        ));
    };
    let sha256 = hash(path).map_err(|source| Failure::File {
        path: path.clone(),
        source,
    })?;
    let name = path
        .file_name()
        .map(|name| Safe(&name.to_string_lossy()).to_string());
    Ok((sha256.to_string(), name))
}

fn hash(path: &Path) -> io::Result<Sha256> {
    // A FIFO would make us wait for somebody to write.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Sha256::new(hash.finalize().into())),
            Ok(read) => hash.update(chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
