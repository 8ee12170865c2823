//! The shim itself: a process per pod that serves containerd until the last
//! container has gone.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use std::{env, io, task};

use anyhow::Context;
use containerd_shim::Flags;
use containerd_shim_protos::shim_async::create_task;
use containerd_shim_protos::ttrpc::r#async::Server;
use containerd_shim_protos::ttrpc::r#async::transport::Listener;
use futures_core::Stream;
use lazaret_config::Config;
use nix::sys::prctl;
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::container::Shared;
use crate::events::Events;
use crate::reaper::Reaper;
use crate::task::Service;
use crate::{address, log};

/// containerd's ttrpc socket, which takes events; `start` has seen to it.
pub(crate) const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";

/// The two names of the same service, and the one that the generated code has.
const TASK_V3: &str = "containerd.task.v3.Task";
const TASK_V2: &str = "containerd.task.v2.Task";

/// Threads for what blocks (mounts, the guard): few, and gone when it is quiet.
const BLOCKING_THREADS: usize = 4;
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const STACK: usize = 512 << 10;

/// How long the last answers may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Runs the shim on the socket that `start` left on standard input.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let bundle = env::current_dir().context("no current folder")?;
    log::start(&bundle, flags.debug, &flags.namespace, &flags.id);
    let served = serve_socket(flags);
    if let Err(error) = &served {
        // Nobody sees our standard error.
        tracing::error!("the shim ends: {error:#}");
    }
    served
}

fn serve_socket(flags: &Flags) -> anyhow::Result<()> {
    let socket = take_socket().context("the shim is started by `start`, which gives it a socket")?;
    // Our bundle goes before we do, if it is not the last one of the pod.
    env::set_current_dir("/")?;
    prctl::set_child_subreaper(true).context("cannot become a subreaper")?;
    let config = Arc::new(Config::load(None)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP_ALIVE)
        .thread_stack_size(STACK)
        .build()?;
    runtime.block_on(serve(flags, config, socket))
}

/// Takes the listening socket off standard input, which is a descriptor that a
/// child can be given, and take, without any unsafe code.
fn take_socket() -> io::Result<StdListener> {
    let socket = StdListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.local_addr()?; // Fails unless it is one.
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

async fn serve(flags: &Flags, config: Arc<Config>, socket: StdListener) -> anyhow::Result<()> {
    let reaper = Reaper::start()?;
    let ttrpc = env::var(TTRPC_ADDRESS).with_context(|| format!("{TTRPC_ADDRESS} is not set"))?;
    let events = Events::start(&ttrpc, &flags.namespace);
    let shared = Arc::new(Shared {
        namespace: flags.namespace.clone(),
        containerd: Some(PathBuf::from(&flags.address)).filter(|path| path.is_absolute()),
        config,
        reaper,
        events: events.clone(),
    });

    let end = Arc::new(Notify::new());
    let path = address::of_listener(&socket);
    let mut server = server(socket, Service::new(shared, end.clone()))?;
    server.start().await?;
    tracing::debug!("the shim serves");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = end.notified() => tracing::debug!("the last container has gone"),
        _ = terminate.recv() => tracing::warn!("the shim was told to end by SIGTERM"),
    }

    // Whoever looks for the pod's shim from now on starts a new one.
    remove_socket(path.as_deref());
    let goodbye = async { tokio::time::timeout(GOODBYE, server.shutdown()).await.is_ok() };
    tokio::join!(events.drain(), goodbye);
    Ok(())
}

/// A server that knows the task service by both of its names.
fn server(socket: StdListener, service: Service) -> anyhow::Result<Server> {
    let service = Arc::new(service);
    let mut services = create_task(service.clone());
    if let Some(v2) = create_task(service).remove(TASK_V3) {
        services.insert(TASK_V2.to_owned(), v2);
    }
    socket.set_nonblocking(true)?;
    let peers = Peers(UnixListener::from_std(socket)?);
    Ok(Server::new()
        .add_listener(Listener::new(peers))
        .register_service(services))
}

fn remove_socket(path: Option<&Path>) {
    if let Some(path) = path
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!("the socket {} is left: {error}", path.display());
    }
}

/// Connections of our own user. The socket's mode says the same; this holds even
/// where a folder's mode was changed.
struct Peers(UnixListener);

impl Stream for Peers {
    type Item = io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (stream, _) = ready!(self.0.poll_accept(context))?;
            let user = stream.peer_cred()?.uid();
            if user == geteuid().as_raw() {
                return Poll::Ready(Some(Ok(stream)));
            }
            tracing::warn!(user, "a connection of another user was refused");
        }
    }
}
