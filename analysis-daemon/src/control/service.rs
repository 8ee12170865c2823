//! What each call does.

use std::sync::Arc;

use lazaret_api::control::v1 as api;
use lazaret_api::control::v1::control_server::Control;
use lazaret_api::control::v1::{
    AddSignatureRequest, AddSignatureResponse, Event, EventsRequest, GetStatusRequest, GetStatusResponse,
    GetVersionRequest, GetVersionResponse, ListSignaturesRequest, Signature as ApiSignature,
};
use lazaret_types::{INCIDENT_SCHEMA, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{State, allow, convert, events, quarantine, scan};
use crate::signatures::{Signature, SignaturesError};

/// The `v1` of the package.
const API_MAJOR: u32 = 1;

/// Grows with each addition to `control.proto`.
const API_MINOR: u32 = 3;

/// Messages that wait for a slow reader, a stream.
const BACKLOG: usize = 64;

pub(super) struct Service(Arc<State>);

impl Service {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(state))
    }
}

type Stream<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Control for Service {
    async fn get_version(
        &self,
        _: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        Ok(Response::new(GetVersionResponse {
            daemon: convert::DAEMON_VERSION.into(),
            api_major: API_MAJOR,
            api_minor: API_MINOR,
            incident_schema: INCIDENT_SCHEMA,
        }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(convert::status(&self.0)))
    }

    type EventsStream = Stream<Event>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let permit = self.stream_permit()?;
        let request = request.into_inner();
        let span = events::begin(&self.0, &request).await?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let stopped = self.0.stopped.clone();
        tokio::spawn(async move {
            let _permit = permit;
            events::send(span, &request.container_id, &sender, stopped).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn add_signature(
        &self,
        request: Request<AddSignatureRequest>,
    ) -> Result<Response<AddSignatureResponse>, Status> {
        let signature = requested(&request.into_inner())?;
        let state = Arc::clone(&self.0);
        let added = tokio::task::spawn_blocking(move || state.signatures.add(&signature));
        let added = added
            .await
            .map_err(|_panic| Status::internal("adding the signature was cut short"))?;
        let added = added.map_err(|error| match error {
            SignaturesError::Full { .. } => Status::resource_exhausted(error.to_string()),
            SignaturesError::Io { .. } => Status::unavailable(error.to_string()),
        })?;
        Ok(Response::new(AddSignatureResponse {
            version: added.set.version().to_string(),
            known: added.known,
        }))
    }

    async fn reload_rules(
        &self,
        _: Request<api::ReloadRulesRequest>,
    ) -> Result<Response<api::ReloadRulesResponse>, Status> {
        let reload = Arc::clone(&self.0.reload_rules);
        let reloaded = tokio::task::spawn_blocking(move || reload()).await;
        let rules = reloaded
            .map_err(|_panic| Status::internal("reading the rules was cut short"))?
            .map_err(|error| Status::unavailable(format!("{error}; the old rules stay")))?;
        Ok(Response::new(convert::rules(&rules)))
    }

    type ListSignaturesStream = Stream<ApiSignature>;

    async fn list_signatures(
        &self,
        _: Request<ListSignaturesRequest>,
    ) -> Result<Response<Self::ListSignaturesStream>, Status> {
        let permit = self.stream_permit()?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let set = self.0.signatures.current();
        tokio::spawn(async move {
            let _permit = permit;
            for signature in set.iter() {
                if sender.send(Ok(convert::signature(signature))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    type ScanStream = Stream<api::ScanEvent>;

    async fn scan(&self, request: Request<api::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let permit = self.stream_permit()?;
        let watched = scan::begin(&self.0, request.into_inner()).await?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let stopped = self.0.stopped.clone();
        tokio::spawn(async move {
            let _permit = permit;
            scan::send(watched, &sender, stopped).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn list_scans(
        &self,
        _: Request<api::ListScansRequest>,
    ) -> Result<Response<api::ListScansResponse>, Status> {
        let scans = scan::list(&self.0).await?;
        Ok(Response::new(api::ListScansResponse { scans }))
    }

    type ListQuarantineStream = Stream<api::QuarantineItem>;

    async fn list_quarantine(
        &self,
        _: Request<api::ListQuarantineRequest>,
    ) -> Result<Response<Self::ListQuarantineStream>, Status> {
        self.stream_blocking(quarantine::list)
    }

    type ExportQuarantinedStream = Stream<api::ExportedChunk>;

    async fn export_quarantined(
        &self,
        request: Request<api::ExportQuarantinedRequest>,
    ) -> Result<Response<Self::ExportQuarantinedStream>, Status> {
        let request = request.into_inner();
        let id = quarantine::id(&request.id)?;
        self.stream_blocking(move |state, sender| quarantine::export(state, id, request.plain, sender))
    }

    async fn restore_quarantined(
        &self,
        request: Request<api::RestoreQuarantinedRequest>,
    ) -> Result<Response<api::RestoreQuarantinedResponse>, Status> {
        let by = allow::caller(&request);
        let request = request.into_inner();
        let id = quarantine::id(&request.id)?;
        let restore = move |state: &State| quarantine::restore(state, id, request.force, &by);
        let item = quarantine::blocking(&self.0, restore).await?;
        Ok(Response::new(api::RestoreQuarantinedResponse {
            item: Some(quarantine::to_api(item)),
        }))
    }

    async fn restore_original(
        &self,
        request: Request<api::RestoreOriginalRequest>,
    ) -> Result<Response<api::RestoreOriginalResponse>, Status> {
        let by = allow::caller(&request);
        let request = request.into_inner();
        let id = quarantine::id(&request.id)?;
        let restore = move |state: &State| quarantine::restore_original(state, id, request.force, &by);
        let (item, sha256) = quarantine::blocking(&self.0, restore).await?;
        Ok(Response::new(api::RestoreOriginalResponse {
            item: Some(quarantine::to_api(item)),
            sha256: sha256.to_string(),
        }))
    }

    async fn remove_quarantined(
        &self,
        request: Request<api::RemoveQuarantinedRequest>,
    ) -> Result<Response<api::RemoveQuarantinedResponse>, Status> {
        let id = quarantine::id(&request.into_inner().id)?;
        quarantine::blocking(&self.0, move |state| state.quarantine.remove(id)).await?;
        Ok(Response::new(api::RemoveQuarantinedResponse {}))
    }

    async fn add_allowed(
        &self,
        request: Request<api::AddAllowedRequest>,
    ) -> Result<Response<api::AddAllowedResponse>, Status> {
        let by = allow::caller(&request);
        let known = allow::add(&self.0, request.into_inner(), by).await?;
        Ok(Response::new(api::AddAllowedResponse { known }))
    }

    type ListAllowedStream = Stream<api::Allowed>;

    async fn list_allowed(
        &self,
        _: Request<api::ListAllowedRequest>,
    ) -> Result<Response<Self::ListAllowedStream>, Status> {
        self.stream_blocking(|state, sender| {
            let mut entries = state.allow.list().into_iter();
            // Who has gone needs nothing more.
            entries.all(|entry| sender.blocking_send(Ok(allow::to_api(entry))).is_ok());
        })
    }

    async fn remove_allowed(
        &self,
        request: Request<api::RemoveAllowedRequest>,
    ) -> Result<Response<api::RemoveAllowedResponse>, Status> {
        let known = allow::remove(&self.0, &request.into_inner()).await?;
        Ok(Response::new(api::RemoveAllowedResponse { known }))
    }
}

impl Service {
    /// A stream of what `send` finds, on a thread that may block.
    fn stream_blocking<T: Send + 'static>(
        &self,
        send: impl FnOnce(&State, &mpsc::Sender<Result<T, Status>>) + Send + 'static,
    ) -> Result<Response<Stream<T>>, Status> {
        let permit = self.stream_permit()?;
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let state = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            send(&state, &sender);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    fn stream_permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        Arc::clone(&self.0.streams).try_acquire_owned().map_err(|_none| {
            Status::resource_exhausted(format!("{} streams are open already", super::MAX_STREAMS))
        })
    }
}

fn requested(request: &AddSignatureRequest) -> Result<Signature, Status> {
    let sha256: Sha256 = request
        .sha256
        .parse()
        .map_err(|error| Status::invalid_argument(format!("sha256: {error}")))?;
    let severity = lazaret_api::control::v1::Severity::try_from(request.severity).map_err(|_unknown| {
        Status::invalid_argument(format!("severity: {} is not known", request.severity))
    })?;
    Signature::new(sha256, &request.name, convert::severity(severity))
        .map_err(|reason| Status::invalid_argument(format!("name: {reason}")))
}
