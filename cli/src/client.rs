//! The way to lazaretd.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use lazaret_api::control::v1::control_client::ControlClient;
use tonic::transport::{Channel, Endpoint};

use crate::failure::Failure;

/// For an answer, or the beginning of a stream.
const DEADLINE: Duration = Duration::from_secs(15);

/// A daemon that shows no sign of life for this long is hanging.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Largest answer, in bytes: a status of 10,000 containers.
const MAX_ANSWER: usize = 64 << 20;

pub(crate) type Control = ControlClient<Channel>;

/// Knows where lazaretd listens.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) async fn connect(&self) -> Result<Control, Failure> {
        let endpoint = Endpoint::try_from(format!("unix://{}", self.socket.display()))
            .map_err(|error| self.failure(&error))?
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE);
        let channel = endpoint.connect().await.map_err(|error| self.failure(&error))?;
        Ok(ControlClient::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    fn failure(&self, error: &(dyn Error + 'static)) -> Failure {
        let socket = self.socket.clone();
        match io_error_in(error).map(io::Error::kind) {
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Failure::NotRunning(socket),
            Some(io::ErrorKind::PermissionDenied) => Failure::NotAllowed(socket),
            _ => Failure::Connect {
                socket,
                why: innermost(error).to_string(),
            },
        }
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

fn io_error_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}
