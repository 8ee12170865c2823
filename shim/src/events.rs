//! Events on their way to containerd: in the order in which they happened, kept
//! while containerd is away, and delivered before the shim ends.

use std::time::{Duration, SystemTime};

use containerd_shim::event::Event;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::{self, context};
use tokio::sync::{mpsc, oneshot};

/// Events kept while containerd is away. It asks for the state of every task when
/// it comes back, so what does not fit any more is a loss for watchers only.
const KEPT: usize = 1024;

/// How long containerd may take for one event.
const FORWARD: Duration = Duration::from_secs(5);

/// The pause after a failed attempt: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// How long the end of the shim waits for its last events.
const DRAIN: Duration = Duration::from_secs(3);

/// Where events are put.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    namespace: String,
    queue: mpsc::Sender<Item>,
}

#[derive(Debug)]
enum Item {
    Event(Box<Envelope>),
    /// All before it is delivered.
    Mark(oneshot::Sender<()>),
}

impl Events {
    /// Starts to deliver to containerd's ttrpc socket.
    pub(crate) fn start(address: &str, namespace: &str) -> Self {
        let (queue, items) = mpsc::channel(KEPT);
        let address = match address.contains("://") {
            true => address.to_owned(),
            false => format!("unix://{address}"),
        };
        tokio::spawn(
            Publisher {
                address,
                client: None,
            }
            .run(items),
        );
        Self {
            namespace: namespace.to_owned(),
            queue,
        }
    }

    /// Queues an event; those of one task are delivered in the order of the calls.
    pub(crate) fn publish<E: Event + Message>(&self, event: &E) {
        let topic = event.topic();
        let Ok(value) = event.write_to_bytes() else { return };
        let envelope = Envelope {
            timestamp: timestamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            event: MessageField::some(Any {
                type_url: format!("containerd.events.{}", E::NAME),
                value,
                ..Default::default()
            }),
            topic,
            ..Default::default()
        };
        if self.queue.try_send(Item::Event(Box::new(envelope))).is_err() {
            tracing::error!(
                topic = event.topic(),
                "containerd has been away for too long; an event is lost"
            );
        }
    }

    /// Waits, within reason, until all events so far are delivered.
    pub(crate) async fn drain(&self) {
        let (tell, done) = oneshot::channel();
        let delivered = async { self.queue.send(Item::Mark(tell)).await.is_ok() && done.await.is_ok() };
        if tokio::time::timeout(DRAIN, delivered).await != Ok(true) {
            tracing::warn!("the shim ends before containerd took all of its events");
        }
    }
}

/// A point in time as containerd writes it; none before the epoch.
pub(crate) fn timestamp(at: SystemTime) -> MessageField<Timestamp> {
    let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else {
        return MessageField::none();
    };
    let seconds = since.as_secs().cast_signed();
    let nanos = since.subsec_nanos().cast_signed();
    MessageField::some(Timestamp {
        seconds,
        nanos,
        ..Default::default()
    })
}

/// The other end of the queue.
struct Publisher {
    address: String,
    client: Option<EventsClient>,
}

impl Publisher {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) {
        while let Some(item) = items.recv().await {
            match item {
                Item::Event(envelope) => self.deliver(*envelope).await,
                // Whoever asked may have stopped waiting.
                Item::Mark(tell) => drop(tell.send(())),
            }
        }
    }

    /// Tries until it is delivered or refused; those behind it wait.
    async fn deliver(&mut self, envelope: Envelope) {
        let topic = envelope.topic.clone();
        let request = ForwardRequest {
            envelope: MessageField::some(envelope),
            ..Default::default()
        };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.forward(&request).await {
                Ok(()) => return,
                Err(ttrpc::Error::RpcStatus(status)) => {
                    tracing::error!(topic, "containerd refused an event: {}", status.message);
                    return;
                }
                Err(error) => tracing::debug!(topic, "containerd is not there: {error}"),
            }
            self.client = None;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn forward(&mut self, request: &ForwardRequest) -> ttrpc::Result<()> {
        let client = match &self.client {
            Some(client) => client,
            None => self
                .client
                .insert(EventsClient::new(Client::connect(&self.address).await?)),
        };
        client
            .forward(context::with_duration(FORWARD), request)
            .await
            .map(|_empty| ())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::events::task::{TaskExit, TaskStart};
    use containerd_shim_protos::shim_async::{Events as EventsService, create_events};
    use ttrpc::r#async::{Server, TtrpcContext};

    use super::*;
    use crate::sync::lock;

    #[derive(Clone, Default)]
    struct Containerd(Arc<Mutex<Vec<Envelope>>>);

    #[async_trait]
    impl EventsService for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            lock(&self.0).push(request.envelope.unwrap());
            Ok(Empty::new())
        }
    }

    impl Containerd {
        async fn serve(&self, address: &str) -> Server {
            let service = create_events(Arc::new(self.clone()));
            let mut server = Server::new().bind(address).unwrap().register_service(service);
            server.start().await.unwrap();
            server
        }
    }

    fn start(pid: u32) -> TaskStart {
        TaskStart {
            container_id: "c".into(),
            pid,
            ..Default::default()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn arrive_in_order_although_containerd_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ttrpc").to_str().unwrap().to_owned();
        let events = Events::start(&path, "k8s.io");
        (0..50).for_each(|pid| events.publish(&start(pid)));
        events.publish(&TaskExit {
            exit_status: 137,
            ..Default::default()
        });

        let containerd = Containerd::default();
        let mut server = containerd.serve(&format!("unix://{path}")).await;
        events.drain().await;
        let got = std::mem::take(&mut *lock(&containerd.0));
        assert_eq!(got.len(), 51);
        for (n, envelope) in got.iter().take(50).enumerate() {
            assert_eq!(
                (envelope.namespace.as_str(), envelope.topic.as_str()),
                ("k8s.io", "/tasks/start")
            );
            assert_eq!(envelope.event.type_url, "containerd.events.TaskStart");
            assert_eq!(
                TaskStart::parse_from_bytes(&envelope.event.value).unwrap().pid as usize,
                n
            );
        }
        assert_eq!(got[50].event.type_url, "containerd.events.TaskExit");

        // containerd restarts.
        server.shutdown().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        events.publish(&start(99));
        let _server = containerd.serve(&format!("unix://{path}")).await;
        events.drain().await;
        assert_eq!(lock(&containerd.0).len(), 1);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_end_does_not_wait_for_ever() {
        let events = Events::start("/nonexistent/ttrpc", "default");
        events.publish(&start(1));
        events.drain().await;
    }
}
