#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use lazaret_api::containerd::containers_server::{Containers, ContainersServer};
use lazaret_api::containerd::{Container as Stored, GetContainerResponse};
use lazaret_types::{ContainerId, Layers, Role};
use tokio::net::UnixListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use super::*;

/// Answers as containerd does: by namespace and id. `hung` takes its time.
#[derive(Default)]
struct Containerd {
    asked: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Containers for Containerd {
    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let namespace = request
            .metadata()
            .get("containerd-namespace")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let id = request.into_inner().id;
        match id.as_str() {
            "hung" => std::future::pending().await,
            "absent" => Err(Status::not_found("no such container")),
            _ => {
                let image = format!("registry.example/{namespace}/{id}:1");
                let labels = HashMap::from([("io.kubernetes.container.name".into(), "web".into())]);
                Ok(Response::new(GetContainerResponse {
                    container: Some(Stored { id, labels, image }),
                }))
            }
        }
    }
}

/// Serves on a thread of its own until the process ends.
fn serve(socket: &Path) -> Arc<AtomicUsize> {
    let service = Containerd::default();
    let asked = Arc::clone(&service.asked);
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = UnixListener::from_std(listener).unwrap();
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                while let Ok((peer, _)) = listener.accept().await {
                    sender.send(Ok::<_, std::io::Error>(peer)).await.unwrap();
                }
            });
            let server = tonic::transport::Server::builder();
            server
                .serve_with_incoming(ContainersServer::new(service), ReceiverStream::new(receiver))
                .await
        })
    });
    asked
}

fn container(id: &str, socket: Option<&Path>) -> Arc<Container> {
    Arc::new(Container {
        namespace: "k8s.io".into(),
        id: ContainerId::new(id).unwrap(),
        image: None,
        pod: None,
        role: Role::Workload,
        annotations: BTreeMap::new(),
        bundle: "/run/bundle".into(),
        layers: Layers::default(),
        containerd: socket.map(Path::to_owned),
    })
}

#[test]
fn asks_once_for_each_container() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("containerd.sock");
    let asked = serve(&socket);
    let mut images = Images::new();
    let web = container("a", Some(&socket));
    let expected = Known {
        image: Some("registry.example/k8s.io/a:1".into()),
        name: Some("web".into()),
    };
    assert_eq!(images.known(&web), expected);
    assert_eq!(images.known(&web), expected);
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    // Another container that was given the same id.
    assert_eq!(images.known(&container("a", Some(&socket))), expected);
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    let absent = container("absent", Some(&socket));
    assert_eq!((images.known(&absent), images.known(&absent)), Default::default());
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn a_containerd_that_hangs_costs_one_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("containerd.sock");
    serve(&socket);
    let mut images = Images::new();
    let started = Instant::now();
    assert_eq!(images.known(&container("hung", Some(&socket))), Known::default());
    assert!(started.elapsed() >= DEADLINE);
    for n in 0..100 {
        assert_eq!(
            images.known(&container(&format!("c{n}"), Some(&socket))),
            Known::default()
        );
    }
    assert!(started.elapsed() < DEADLINE * 10, "{:?}", started.elapsed());
}

#[test]
fn something_that_only_listens_costs_one_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("containerd.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    assert_eq!(
        Images::new().known(&container("a", Some(&socket))),
        Known::default()
    );
    assert!(started.elapsed() < DEADLINE * 10, "{:?}", started.elapsed());
}

#[test]
fn nobody_to_ask_is_no_error() {
    let started = Instant::now();
    assert_eq!(Images::new().known(&container("a", None)), Known::default());
    let absent = Path::new("/nonexistent/containerd.sock");
    assert_eq!(
        Images::new().known(&container("a", Some(absent))),
        Known::default()
    );
    assert!(started.elapsed() < DEADLINE * 10, "{:?}", started.elapsed());
}
