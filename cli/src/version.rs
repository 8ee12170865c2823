//! `lazaret version`

use lazaret_api::control::v1::GetVersionRequest;

use crate::client::Client;
use crate::failure::Failure;
use crate::print::Printer;
use crate::text::Safe;

/// Prints our version, and the daemon's when there is one: asking for a version
/// does not fail because of a daemon that is not there.
pub(crate) async fn show(client: &Client, printer: &mut Printer) -> Result<(), Failure> {
    printer.line(format_args!("lazaret  {}", env!("CARGO_PKG_VERSION")))?;
    let mut control = match client.connect().await {
        Ok(control) => control,
        Err(failure @ (Failure::NotRunning(_) | Failure::NotAllowed(_))) => {
            return printer.line(format_args!("lazaretd unknown: {}", Safe(&failure.to_string())));
        }
        Err(failure) => return Err(failure),
    };
    let version = control.get_version(GetVersionRequest {}).await?.into_inner();
    printer.line(format_args!(
        "lazaretd {} (control API {}.{}, incident schema {})",
        Safe(&version.daemon),
        version.api_major,
        version.api_minor,
        version.incident_schema
    ))
}
