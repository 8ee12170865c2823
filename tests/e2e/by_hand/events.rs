//! The events of a shim, as containerd would get them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use containerd_shim_protos::events::task::{TaskExit, TaskStart};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::empty::Empty;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::ttrpc::{self, Server, TtrpcContext};
use containerd_shim_protos::{Events as Service, create_events};
use lazaret_tests::wait;

use super::SOON;

/// One event: its topic without the leading `/tasks/`, and what it holds.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) topic: String,
    pub(crate) content: Any,
}

/// A service that takes events, and all that it got.
pub(crate) struct Events {
    address: String,
    server: Option<Server>,
    got: Arc<Mutex<Vec<Event>>>,
}

struct Sink(Arc<Mutex<Vec<Event>>>);

impl Service for Sink {
    fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let topic = envelope.topic.trim_start_matches("/tasks/").to_owned();
        let content = envelope.event.unwrap_or_default();
        let mut got = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        got.push(Event { topic, content });
        Ok(Empty::new())
    }
}

impl Events {
    /// Listens on a socket beside the bundle.
    pub(crate) fn listen(bundle: &Path) -> Result<Self> {
        let socket = bundle.with_extension("events");
        let got = Arc::<Mutex<Vec<Event>>>::default();
        let mut server = Server::new()
            .bind(&format!("unix://{}", socket.display()))
            .context("a socket for events")?
            .register_service(create_events(Arc::new(Sink(Arc::clone(&got)))));
        server.start().context("a service for events")?;
        Ok(Self {
            address: socket.display().to_string(),
            server: Some(server),
            got,
        })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn all(&self) -> Vec<Event> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Their topics, in order.
    pub(crate) fn topics(&self) -> Vec<String> {
        self.all().into_iter().map(|event| event.topic).collect()
    }

    /// Waits until `count` events of this topic have come.
    pub(crate) fn wait_for(&self, topic: &str, count: usize) -> Result<()> {
        let reached = || self.topics().iter().filter(|it| *it == topic).count() >= count;
        wait::until_true(&format!("{count} events {topic}"), SOON, reached)
            .with_context(|| format!("{:?}", self.topics()))
    }

    /// What happened to processes, in order: `start`, `exit 7`, `exit 9 of EXEC`, and the other
    /// topics as they are.
    pub(crate) fn story(&self, id: &str) -> Result<String> {
        let told = |event: &Event| {
            Ok(match event.topic.as_str() {
                "exit" => {
                    let exit = TaskExit::parse_from_bytes(&event.content.value)?;
                    match exit.id == id {
                        true => format!("exit {}", exit.exit_status),
                        false => format!("exit {} of {}", exit.exit_status, exit.id),
                    }
                }
                "start" => {
                    let start = TaskStart::parse_from_bytes(&event.content.value)?;
                    if start.pid > 0 {
                        "start".to_owned()
                    } else {
                        "start of no pid".to_owned()
                    }
                }
                topic => topic.to_owned(),
            })
        };
        let all: Result<Vec<_>> = self.all().iter().map(told).collect();
        Ok(all?.join(", "))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown();
        }
    }
}
