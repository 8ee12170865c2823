//! `lazaret scan` and `lazaret scans`

mod json;
mod show;

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use lazaret_api::control::v1::scan_event::Event;
use lazaret_api::control::v1::scan_request::{ContainerTarget, ImageTarget, Target};
use lazaret_api::control::v1::{ListScansRequest, Scan, ScanEvent, ScanRequest, ScanState};
use tonic::{Code, Streaming};

use crate::args;
use crate::client::Client;
use crate::failure::Failure;
use crate::print::{Printer, remark};
use show::Show;

/// How often a daemon that is gone is looked for.
const RETRY: Duration = Duration::from_secs(1);

/// A scan that has begun and not ended yet.
struct Open {
    id: String,
    target: String,
    /// Findings that were shown.
    findings: usize,
}

/// What came of all scans.
#[derive(Default)]
struct Sum {
    found: bool,
    unjudged: bool,
    failed: Option<String>,
}

/// Scans, and shows it until the end; over restarts of the daemon too.
pub(crate) async fn run(client: &Client, wanted: &args::Scan, printer: &mut Printer) -> Result<(), Failure> {
    let mut show = Show::new(printer, wanted.json);
    let mut stream = client.connect().await?.scan(request(wanted)?).await?.into_inner();
    let (mut open, mut sum) = (Vec::new(), Sum::default());
    if wanted.detach {
        return detached(&mut stream, &mut show).await;
    }
    read(&mut stream, &mut open, &mut sum, &mut show).await?;
    while !open.is_empty() {
        // The daemon stopped. The scan outlives it, and we know its id.
        show.pause();
        remark("lazaretd has stopped; waiting for it to come back");
        while let Some(id) = open.first().map(|scan| scan.id.clone()) {
            tokio::time::sleep(RETRY).await;
            match rejoin(client, id).await {
                Ok(mut stream) => read(&mut stream, &mut open, &mut sum, &mut show).await?,
                Err(failure) if is_absence(&failure) => {}
                Err(failure) => return Err(failure),
            }
        }
    }
    show.finish();
    sum.verdict()
}

async fn rejoin(client: &Client, id: String) -> Result<Streaming<ScanEvent>, Failure> {
    let request = ScanRequest {
        target: Some(Target::ScanId(id)),
        ..ScanRequest::default()
    };
    Ok(client.connect().await?.scan(request).await?.into_inner())
}

/// Whether the daemon merely is not there yet.
fn is_absence(failure: &Failure) -> bool {
    match failure {
        Failure::NotRunning(_) | Failure::Connect { .. } => true,
        Failure::Refused(status) => status.code() == Code::Unavailable,
        _ => false,
    }
}

fn request(wanted: &args::Scan) -> Result<ScanRequest, Failure> {
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    let args::ScanTarget {
        path,
        container,
        image,
        join,
        ..
    } = &wanted.target;
    let target = if let Some(path) = path {
        // The daemon has another working folder.
        let path = std::path::absolute(path).map_err(|source| Failure::File {
            path: path.clone(),
            source,
        })?;
        Target::Path(path.as_os_str().as_bytes().to_vec())
    } else if let Some(id) = container {
        Target::Container(ContainerTarget {
            id: id.clone(),
            namespace: named(&wanted.namespace),
        })
    } else if let Some(reference) = image {
        Target::Image(ImageTarget {
            reference: reference.clone(),
            namespace: named(&wanted.namespace),
            containerd: named(&wanted.containerd),
            snapshotter: named(&wanted.snapshotter),
        })
    } else if let Some(id) = join {
        Target::ScanId(id.clone())
    } else {
        Target::All(true)
    };
    Ok(ScanRequest {
        target: Some(target),
        force: wanted.force,
        detach: wanted.detach,
    })
}

/// Shows which scans have begun, and leaves.
async fn detached(stream: &mut Streaming<ScanEvent>, show: &mut Show<'_>) -> Result<(), Failure> {
    while let Some(ScanEvent { scan_id, event }) = stream.message().await? {
        let Some(Event::Begun(begun)) = event else {
            return Ok(());
        };
        show.detached(&scan_id, &begun.target)?;
    }
    Ok(())
}

/// Shows a stream to its end; the scans that are still open then have not ended.
async fn read(
    stream: &mut Streaming<ScanEvent>,
    open: &mut Vec<Open>,
    sum: &mut Sum,
    show: &mut Show<'_>,
) -> Result<(), Failure> {
    let mut repeated = 0;
    loop {
        let ScanEvent { scan_id, event } = match stream.message().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            // Made by our end of the connection: the daemon was killed.
            Err(status) if std::error::Error::source(&status).is_some() => return Ok(()),
            Err(status) => return Err(status.into()),
        };
        let at = open.iter().position(|scan| scan.id == scan_id);
        let scan = at.and_then(|at| open.get_mut(at));
        match (event, scan) {
            (Some(Event::Begun(begun)), None) => {
                show.begun(&scan_id, &begun.target)?;
                open.push(Open {
                    id: scan_id,
                    target: begun.target,
                    findings: 0,
                });
            }
            // Joined again: what comes first was shown.
            (Some(Event::Begun(_)), Some(_)) => repeated = 0,
            (Some(Event::Progress(progress)), Some(scan)) => show.progress(&scan.target, &progress)?,
            (Some(Event::Finding(finding)), Some(scan)) => {
                repeated += 1;
                if repeated > scan.findings {
                    scan.findings = repeated;
                    show.finding(&scan.id, &finding)?;
                }
            }
            (Some(Event::Ended(ended)), Some(scan)) => {
                show.ended(&scan.id, &ended)?;
                sum.add(&ended);
                open.retain(|scan| scan.id != scan_id);
                repeated = 0;
            }
            _ => {}
        }
    }
}

impl Sum {
    fn add(&mut self, scan: &Scan) {
        self.found |= scan.findings > 0;
        self.unjudged |= scan.unjudged > 0;
        match scan.state() {
            ScanState::Failed => self.failed = Some(format!("{}: {}", scan.target, scan.error)),
            ScanState::Cancelled => self.failed = Some(format!("{}: it was cancelled", scan.target)),
            _ => {}
        }
    }

    /// The worst of what came of them.
    fn verdict(self) -> Result<(), Failure> {
        match self {
            Self { found: true, .. } => Err(Failure::Found),
            Self {
                failed: Some(why), ..
            } => Err(Failure::Scan(why)),
            Self { unjudged: true, .. } => Err(Failure::Incomplete),
            _ => Ok(()),
        }
    }
}

/// Prints all scans that are known.
pub(crate) async fn list(client: &Client, json: bool, printer: &mut Printer) -> Result<(), Failure> {
    let mut control = client.connect().await?;
    let scans = control.list_scans(ListScansRequest {}).await?.into_inner().scans;
    for scan in &scans {
        if json {
            printer.json(&json::of_scan(scan))?;
        } else {
            show::line(scan, printer)?;
        }
    }
    Ok(())
}
