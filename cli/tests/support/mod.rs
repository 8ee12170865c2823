//! A daemon that says what a test wants, on a real socket; and the real command.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lazaret_api::control::v1::control_server::{Control, ControlServer};
use lazaret_api::control::v1::{
    AddAllowedRequest, AddAllowedResponse, Allowed, ExportQuarantinedRequest, ExportedChunk,
    ListAllowedRequest, ListQuarantineRequest, ListScansRequest, ListScansResponse, QuarantineItem,
    RemoveAllowedRequest, RemoveAllowedResponse, RemoveQuarantinedRequest, RemoveQuarantinedResponse,
    RestoreOriginalRequest, RestoreOriginalResponse, RestoreQuarantinedRequest, RestoreQuarantinedResponse,
};
use lazaret_api::control::v1::{
    AddSignatureRequest, AddSignatureResponse, Event, EventsRequest, GetStatusRequest, GetStatusResponse,
    GetVersionRequest, GetVersionResponse, ListSignaturesRequest, ReloadRulesRequest, ReloadRulesResponse,
    ScanEvent, ScanRequest, Signature,
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// What the daemon answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    pub status: GetStatusResponse,
    pub events: Vec<Event>,
    pub signatures: u32,
    pub scan: Vec<ScanEvent>,
    pub items: Vec<QuarantineItem>,
    pub content: Vec<u8>,
    pub allowed: Vec<Allowed>,
    pub refuse: Option<Status>,
    pub asked: Mutex<Vec<String>>,
}

struct Daemon(Arc<Script>);

type Stream<T> = ReceiverStream<Result<T, Status>>;

fn stream<T: Send + 'static>(items: impl Iterator<Item = T> + Send + 'static) -> Response<Stream<T>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for item in items {
            if sender.send(Ok(item)).await.is_err() {
                return;
            }
        }
    });
    Response::new(ReceiverStream::new(receiver))
}

/// What the commands about the quarantine and the allow-list meet.
fn refused<T>(script: &Script, asked: &impl std::fmt::Debug, answer: T) -> Result<Response<T>, Status> {
    script.asked.lock().unwrap().push(format!("{asked:?}"));
    script.refuse.clone().map_or(Ok(Response::new(answer)), Err)
}

#[tonic::async_trait]
impl Control for Daemon {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            daemon: "9.8.7".into(),
            api_major: 1,
            api_minor: 2,
            incident_schema: 3,
        }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(self.0.status.clone()))
    }

    type EventsStream = Stream<Event>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        self.0.asked.lock().unwrap().push(format!("{request:?}"));
        let events = self
            .0
            .events
            .clone()
            .into_iter()
            .filter(move |event| event.seq >= request.from_seq);
        Ok(stream(events))
    }

    async fn add_signature(
        &self,
        request: Request<AddSignatureRequest>,
    ) -> Result<Response<AddSignatureResponse>, Status> {
        self.0
            .asked
            .lock()
            .unwrap()
            .push(format!("{:?}", request.into_inner()));
        match &self.0.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(AddSignatureResponse {
                version: "0123456789ab".into(),
                known: false,
            })),
        }
    }

    type ListQuarantineStream = Stream<QuarantineItem>;

    async fn list_quarantine(
        &self,
        _: Request<ListQuarantineRequest>,
    ) -> Result<Response<Self::ListQuarantineStream>, Status> {
        Ok(stream(self.0.items.clone().into_iter()))
    }

    type ExportQuarantinedStream = Stream<ExportedChunk>;

    async fn export_quarantined(
        &self,
        request: Request<ExportQuarantinedRequest>,
    ) -> Result<Response<Self::ExportQuarantinedStream>, Status> {
        refused(&self.0, &request.into_inner(), ())?;
        let chunks = self.0.content.clone().into_iter();
        Ok(stream(chunks.map(|byte| ExportedChunk { bytes: vec![byte] })))
    }

    async fn restore_quarantined(
        &self,
        request: Request<RestoreQuarantinedRequest>,
    ) -> Result<Response<RestoreQuarantinedResponse>, Status> {
        let item = self.0.items.first().cloned();
        refused(
            &self.0,
            &request.into_inner(),
            RestoreQuarantinedResponse { item },
        )
    }

    async fn restore_original(
        &self,
        request: Request<RestoreOriginalRequest>,
    ) -> Result<Response<RestoreOriginalResponse>, Status> {
        let item = self.0.items.first().cloned();
        let sha256 = "0".repeat(64);
        refused(
            &self.0,
            &request.into_inner(),
            RestoreOriginalResponse { item, sha256 },
        )
    }

    async fn remove_quarantined(
        &self,
        request: Request<RemoveQuarantinedRequest>,
    ) -> Result<Response<RemoveQuarantinedResponse>, Status> {
        refused(&self.0, &request.into_inner(), RemoveQuarantinedResponse {})
    }

    async fn add_allowed(
        &self,
        request: Request<AddAllowedRequest>,
    ) -> Result<Response<AddAllowedResponse>, Status> {
        refused(
            &self.0,
            &request.into_inner(),
            AddAllowedResponse { known: false },
        )
    }

    type ListAllowedStream = Stream<Allowed>;

    async fn list_allowed(
        &self,
        _: Request<ListAllowedRequest>,
    ) -> Result<Response<Self::ListAllowedStream>, Status> {
        Ok(stream(self.0.allowed.clone().into_iter()))
    }

    async fn remove_allowed(
        &self,
        request: Request<RemoveAllowedRequest>,
    ) -> Result<Response<RemoveAllowedResponse>, Status> {
        let known = !self.0.allowed.is_empty();
        refused(&self.0, &request.into_inner(), RemoveAllowedResponse { known })
    }

    async fn reload_rules(
        &self,
        request: Request<ReloadRulesRequest>,
    ) -> Result<Response<ReloadRulesResponse>, Status> {
        refused(&self.0, &request.into_inner(), ReloadRulesResponse::default())
    }

    type ScanStream = Stream<ScanEvent>;

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        refused(&self.0, &request.into_inner(), ())?;
        Ok(stream(self.0.scan.clone().into_iter()))
    }

    async fn list_scans(&self, _: Request<ListScansRequest>) -> Result<Response<ListScansResponse>, Status> {
        Ok(Response::new(ListScansResponse::default()))
    }

    type ListSignaturesStream = Stream<Signature>;

    async fn list_signatures(
        &self,
        _: Request<ListSignaturesRequest>,
    ) -> Result<Response<Self::ListSignaturesStream>, Status> {
        Ok(stream((0..self.0.signatures).map(|n| Signature {
            sha256: format!("{n:064x}"),
            name: format!("name {n}\u{1b}[31m"),
            severity: 4,
        })))
    }
}

/// A folder with a configuration and, when one is started, a daemon.
pub struct Bench {
    pub folder: TempDir,
    daemon: Option<(Runtime, Arc<Script>)>,
}

impl Bench {
    pub fn without_daemon() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!("[node]\nrun_dir = '{}'\n", folder.path().display());
        std::fs::write(folder.path().join("lazaret.toml"), config).unwrap();
        Self { folder, daemon: None }
    }

    pub fn new(script: Script) -> Self {
        let mut bench = Self::without_daemon();
        bench.start(script);
        bench
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn start(&mut self, script: Script) {
        let runtime = Runtime::new().unwrap();
        let script = Arc::new(script);
        let service = ControlServer::new(Daemon(Arc::clone(&script)));
        let listener = runtime
            .block_on(async { UnixListener::bind(self.socket()) })
            .unwrap();
        let (sender, receiver) = mpsc::channel(1);
        runtime.spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                sender.send(Ok::<_, std::io::Error>(peer)).await.unwrap();
            }
        });
        let server = tonic::transport::Server::builder();
        runtime.spawn(server.serve_with_incoming(service, ReceiverStream::new(receiver)));
        self.daemon = Some((runtime, script));
    }

    /// Ends the daemon as a kill does: its connections break, its socket stays.
    pub fn kill(&mut self) {
        let (runtime, _) = self.daemon.take().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(1));
    }

    pub fn asked(&self) -> Vec<String> {
        self.daemon.as_ref().unwrap().1.asked.lock().unwrap().clone()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lazaret"));
        command
            .arg("--config")
            .arg(self.folder.path().join("lazaret.toml"))
            .args(args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for colour in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(colour);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().unwrap())
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Outcome {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
