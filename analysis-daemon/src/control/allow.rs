//! The calls about contents that are clean by decision.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lazaret_api::control::v1 as api;
use lazaret_types::Sha256;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use super::State;
use crate::allow::{AllowError, Allowed};
use crate::incidents::rfc3339;

/// Adds one; true when it counted before.
pub(super) async fn add(
    state: &Arc<State>,
    request: api::AddAllowedRequest,
    by: String,
) -> Result<bool, Status> {
    let lifetime = Some(request.lifetime_seconds).filter(|seconds| *seconds > 0);
    let entry = Allowed::new(digest(&request.sha256)?, request.reason, by, lifetime);
    let known = blocking(state, move |state| state.allow.add(entry)).await?;
    Ok(known.is_some())
}

/// Removes one; true when it was there.
pub(super) async fn remove(state: &Arc<State>, request: &api::RemoveAllowedRequest) -> Result<bool, Status> {
    let sha256 = digest(&request.sha256)?;
    let known = blocking(state, move |state| state.allow.remove(&sha256)).await?;
    Ok(known.is_some())
}

pub(super) fn to_api(allowed: Allowed) -> api::Allowed {
    let time = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(rfc3339);
    api::Allowed {
        sha256: allowed.sha256.to_string(),
        reason: allowed.reason,
        by: allowed.by,
        time: allowed.time,
        expires: allowed.expires.and_then(time).unwrap_or_default(),
    }
}

/// Who asks, as the kernel says: not what a caller claims to be.
pub(super) fn caller<T>(request: &Request<T>) -> String {
    let info = request.extensions().get::<UdsConnectInfo>();
    let uid = info
        .and_then(|info| info.peer_cred)
        .map(|credentials| credentials.uid());
    uid.map_or_else(|| "somebody".into(), |uid| format!("uid {uid}"))
}

async fn blocking<T: Send + 'static>(
    state: &Arc<State>,
    work: impl FnOnce(&State) -> Result<T, AllowError> + Send + 'static,
) -> Result<T, Status> {
    let state = Arc::clone(state);
    tokio::task::spawn_blocking(move || work(&state))
        .await
        .map_err(|_panic| Status::internal("changing the allow-list was cut short"))?
        .map_err(|error| match error {
            AllowError::Full => Status::resource_exhausted(error.to_string()),
            AllowError::Reason => Status::invalid_argument(error.to_string()),
            AllowError::Io { .. } => Status::unavailable(error.to_string()),
        })
}

fn digest(text: &str) -> Result<Sha256, Status> {
    let parsed: Result<Sha256, _> = text.parse();
    parsed.map_err(|error| Status::invalid_argument(format!("sha256: {error}")))
}
