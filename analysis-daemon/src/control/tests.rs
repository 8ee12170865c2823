#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

use std::collections::BTreeMap;
use std::path::Path;

use lazaret_api::control::v1 as api;
use lazaret_api::control::v1::control_client::ControlClient;
use lazaret_types::{
    Action, CgroupId, Container, ContainerId, Engine, Finding, Gap, Layers, Role, Severity, Sha256,
    Superblock,
};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::incidents::Draft;
use crate::judge::Verdict;
use crate::registry::GuardState;
use crate::scan::Means;
use crate::session::Session;

/// An engine of others that is not there.
fn away() -> crate::engine::Status {
    crate::engine::Status {
        name: Engine::Clamd.to_string(),
        version: "ClamAV 1.4.3".into(),
        away: Some((
            std::time::UNIX_EPOCH + Duration::from_millis(1234),
            "stopped".into(),
        )),
        asked: 0,
        found: 0,
        failed: 0,
        left_out: 3,
        lost: 1,
    }
}

/// A served API with one guarded container.
struct Bench {
    folder: TempDir,
    incidents: Arc<IncidentLog>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<Result<(), ControlError>>,
    client: ControlClient<Channel>,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signatures = Arc::new(Signatures::open(folder.path().join("signatures")).unwrap());
        let config = lazaret_config::Incidents::default();
        let incidents = folder.path().join("incidents");
        let incidents = Arc::new(
            IncidentLog::open(
                incidents,
                &config,
                ulid::Ulid::generate(),
                Arc::clone(&signatures),
            )
            .unwrap(),
        );
        let allow = Arc::new(AllowList::open(folder.path().join("allow")).unwrap());
        let quarantine = Quarantine::start(
            &folder.path().join("quarantine"),
            &lazaret_config::Quarantine::default(),
            Arc::clone(&allow),
            Arc::clone(&incidents),
            Arc::default(),
        );
        let (stop, stopped) = watch::channel(false);
        let state = State {
            node: "node".into(),
            started_at: SystemTime::now(),
            containers: Box::new(|| vec![guarded()]),
            counters: Arc::new(Counters::default()),
            incidents: Arc::clone(&incidents),
            signatures,
            reload_rules: Arc::new(|| Ok(Arc::default())),
            engines: Box::new(|| vec![away()]),
            scans: scans(folder.path(), &incidents, &allow),
            allow,
            quarantine: quarantine.unwrap(),
            containerd: "/nonexistent/containerd.sock".into(),
            session: Box::new(|_, _| None),
            judge: Box::new(|_| unreachable!("no container, no image")),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            stopped,
        };
        state.counters.denied.add(3);
        let socket = folder.path().join("control.sock");
        let served = tokio::spawn(serve_state(socket.clone(), state));
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        while !socket.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let client = ControlClient::new(endpoint.connect().await.unwrap());
        Self {
            folder,
            incidents,
            stop,
            served,
            client,
        }
    }

    fn report(&self, rules: &[&str]) {
        for rule in rules {
            self.incidents.report(draft(rule));
        }
        while !self.incidents.flush() {}
    }

    async fn events(&mut self, from_seq: u64, follow: bool, container: &str) -> tonic::Streaming<api::Event> {
        let request = api::EventsRequest {
            from_seq,
            follow,
            container_id: container.into(),
        };
        self.client.events(request).await.unwrap().into_inner()
    }

    async fn add(&mut self, sha256: &str, name: &str) -> Result<api::AddSignatureResponse, tonic::Status> {
        let request = api::AddSignatureRequest {
            sha256: sha256.into(),
            name: name.into(),
            ..Default::default()
        };
        Ok(self.client.add_signature(request).await?.into_inner())
    }
}

/// Scans that find every file of one byte bad.
fn scans(state: &Path, incidents: &Arc<IncidentLog>, allow: &Arc<AllowList>) -> Arc<Scans> {
    let judge = |file: BorrowedFd<'_>, _: Option<&Arc<Session>>, _: Instant| {
        let size = rustix::fs::fstat(file).unwrap().st_size;
        let finding = Finding {
            severity: Severity::Critical,
            rule: "One".into(),
            engine: Engine::HashList,
        };
        Outcome::Judged {
            digest: Sha256::new([0; 32]),
            verdict: if size == 1 {
                Verdict::Bad(finding)
            } else {
                Verdict::Clean
            },
            set: "set".into(),
            known: false,
        }
    };
    let means = Means {
        judge: Box::new(judge),
        quarantine: Box::new(|_, _, _| {}),
        is_sealed: Box::new(|_, _| false),
        set: Box::new(|| "set".into()),
        allow: Arc::clone(allow),
        incidents: Arc::clone(incidents),
        counters: Arc::default(),
        registry: Arc::default(),
    };
    Scans::open(state.join("scans"), &lazaret_config::Scan::default(), means).unwrap()
}

fn draft(rule: &str) -> Draft {
    Draft::new(rule, Severity::Critical, Action::Deny, "Something bad was denied")
}

fn container(id: &str) -> Arc<Container> {
    Arc::new(Container {
        namespace: "default".into(),
        id: ContainerId::new(id).unwrap(),
        image: None,
        pod: None,
        role: Role::Workload,
        annotations: BTreeMap::new(),
        bundle: "/run/bundle".into(),
        layers: Layers::default(),
        containerd: None,
    })
}

fn guarded() -> ContainerStatus {
    let superblock = |path: &str, fs_type: &str| Superblock {
        mount_point: path.into(),
        fs_type: fs_type.into(),
    };
    ContainerStatus {
        container: container("web"),
        state: GuardState::CatchingUp,
        attached_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1234),
        guarded: vec![superblock("/", "overlay")],
        node_guarded: vec![superblock("/data", "ext4")],
        unguarded: vec![(superblock("/mnt", "nfs4"), "its server is elsewhere".into())],
        events: 5,
        denied: 2,
        unjudged: 1,
        sealed: 2,
        gap: Some(Gap {
            lasted_ms: 7,
            allowed: 1,
            denied: 0,
        }),
        init_pid: 42,
        cgroup: Some(CgroupId(99)),
    }
}

fn digest(n: u8) -> String {
    Sha256::new([n; 32]).to_string()
}

async fn seqs(mut events: tonic::Streaming<api::Event>) -> Vec<u64> {
    let mut seqs = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        seqs.push(event.seq);
    }
    seqs
}

#[tokio::test]
async fn tells_status_and_version() {
    let mut bench = Bench::new().await;
    bench.report(&["one"]);
    std::fs::write(bench.folder.path().join("signatures/bad.sha256"), "x\n").unwrap();
    bench.add(&digest(1), "").await.unwrap();

    let version = bench
        .client
        .get_version(api::GetVersionRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((version.api_major, version.incident_schema), (1, 1));
    let status = bench
        .client
        .get_status(api::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.node_id.as_str(), status.daemon_version),
        ("node", version.daemon)
    );
    assert_eq!(status.counters["denied"], 3);
    let signatures = status.signatures.unwrap();
    assert_eq!(
        (
            signatures.count,
            signatures.problem_count,
            signatures.problems.len()
        ),
        (1, 1, 1)
    );
    assert_eq!(status.incidents.unwrap().last_seq, 1);
    let [clamd] = status.engines.try_into().unwrap();
    assert_eq!(
        (clamd.name.as_str(), clamd.trouble.as_str()),
        ("clamd", "stopped")
    );
    assert_eq!((clamd.away_since_unix_ms, clamd.left_out), (1234, 3));

    let [web] = status.containers.try_into().unwrap();
    assert_eq!(
        (web.id.as_str(), web.state()),
        ("web", api::GuardState::CatchingUp)
    );
    assert_eq!(
        (web.attached_at_unix_ms, web.cgroup, web.init_pid),
        (1234, Some(99), 42)
    );
    assert_eq!(web.shared[0].mount_point, b"/mnt");
    assert_eq!(web.shared[0].reason, "its server is elsewhere");
    assert_eq!(web.node_guarded[0].mount_point, b"/data");
    assert_eq!(web.gap.unwrap().lasted_ms, 7);
}

#[tokio::test]
async fn a_signature_is_added_before_the_answer_and_listed() {
    let mut bench = Bench::new().await;
    assert!(!bench.add(&digest(2), "two").await.unwrap().known);
    assert!(bench.add(&digest(2), "two").await.unwrap().known);
    let added = bench.add(&digest(1), "").await.unwrap();
    let again = Signatures::open(bench.folder.path().join("signatures")).unwrap();
    assert_eq!(*again.current().version(), added.version);

    let list = bench
        .client
        .list_signatures(api::ListSignaturesRequest {})
        .await
        .unwrap();
    let mut list = list.into_inner();
    let mut names = Vec::new();
    while let Some(signature) = list.message().await.unwrap() {
        assert_eq!(signature.severity(), api::Severity::Critical);
        names.push(signature.name);
    }
    assert_eq!(names, ["Known bad file", "two"]);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let mut bench = Bench::new().await;
    for (sha256, name) in [("abc", ""), (digest(1).as_str(), "two\nlines"), ("", "")] {
        let status = bench.add(sha256, name).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let status = bench.add(&digest(1), &"x".repeat(MAX_REQUEST)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    let request = api::AddSignatureRequest {
        sha256: digest(1),
        severity: 77,
        ..Default::default()
    };
    assert_eq!(
        bench.client.add_signature(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn events_begin_where_asked_and_end_where_the_log_did() {
    let mut bench = Bench::new().await;
    assert_eq!(seqs(bench.events(0, false, "").await).await, [0; 0]);
    bench.report(&["one", "two", "three"]);
    assert_eq!(seqs(bench.events(0, false, "").await).await, [1, 2, 3]);
    assert_eq!(seqs(bench.events(3, false, "").await).await, [3]);
    assert_eq!(seqs(bench.events(4, false, "").await).await, [0; 0]);
    let ahead = api::EventsRequest {
        from_seq: 5,
        follow: true,
        container_id: String::new(),
    };
    assert_eq!(
        bench.client.events(ahead).await.unwrap_err().code(),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn a_follower_gets_what_was_and_what_comes() {
    let mut bench = Bench::new().await;
    bench.report(&["one"]);
    let mut events = bench.events(0, true, "").await;
    assert_eq!(events.message().await.unwrap().unwrap().seq, 1);
    bench.report(&["two"]);
    let event = events.message().await.unwrap().unwrap();
    let incident: lazaret_types::Incident = serde_json::from_str(&event.json).unwrap();
    assert_eq!((event.seq, incident.seq, incident.rule.as_str()), (2, 2, "two"));
}

#[tokio::test]
async fn a_filter_shows_one_container() {
    let mut bench = Bench::new().await;
    for id in ["a", "b", "a"] {
        bench.incidents.report(Draft {
            container: Some(container(id)),
            ..draft("x")
        });
    }
    bench.report(&["of the node"]);
    assert_eq!(seqs(bench.events(0, false, "a").await).await, [1, 3]);
}

#[tokio::test]
async fn a_reader_that_stops_reading_holds_nobody_up() {
    let mut bench = Bench::new().await;
    let stuck = bench.events(0, true, "").await;
    let padding = "x".repeat(4000);
    for _ in 0..1000 {
        bench.report(&[&padding]);
    }
    assert_eq!(bench.incidents.lost(), 0);
    // The stuck stream takes its window of the connection, not all of it.
    bench.client.get_version(api::GetVersionRequest {}).await.unwrap();
    assert_eq!(seqs(bench.events(1000, false, "").await).await, [1000]);
    drop(stuck);
}

#[tokio::test]
async fn streams_are_bounded() {
    let mut bench = Bench::new().await;
    let mut others = Vec::new();
    // As many connections as it takes: one carries MAX_CALLS.
    for _ in 0..MAX_STREAMS {
        let socket = bench.folder.path().join("control.sock");
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
        let mut client = ControlClient::new(endpoint.connect().await.unwrap());
        let request = api::EventsRequest {
            follow: true,
            ..Default::default()
        };
        others.push(client.events(request).await.unwrap().into_inner());
    }
    let request = api::EventsRequest::default();
    assert_eq!(
        bench.client.events(request.clone()).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    others.clear();
    while bench.client.events(request.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stop_ends_streams_and_then_the_server() {
    let mut bench = Bench::new().await;
    let mut events = bench.events(0, true, "").await;
    bench.stop.send_replace(true);
    assert_eq!(events.message().await.unwrap(), None);
    tokio::time::timeout(FAREWELL * 30, bench.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_scan_begins_finds_and_ends_and_can_be_joined_afterwards() {
    use api::scan_event::Event;
    let mut bench = Bench::new().await;
    let tree = bench.folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("bad"), "1").unwrap();
    std::fs::write(tree.join("good"), "").unwrap();
    let path = tree.to_str().unwrap().as_bytes().to_vec();
    let mut target = api::scan_request::Target::Path(path);
    for _ in 0..2 {
        let request = api::ScanRequest {
            target: Some(target),
            ..Default::default()
        };
        let mut events = bench.client.scan(request).await.unwrap().into_inner();
        let (mut begun, mut found, mut end) = (0, Vec::new(), None);
        let mut id = String::new();
        while let Some(event) = events.message().await.unwrap() {
            id = event.scan_id;
            match event.event.unwrap() {
                Event::Begun(_) => begun += 1,
                Event::Finding(finding) => found.push(finding.rule),
                Event::Progress(_) => {}
                Event::Ended(ended) => end = Some(ended),
            }
        }
        let end = end.unwrap();
        assert_eq!(
            (begun, found, end.state()),
            (1, vec!["One".to_owned()], api::ScanState::Done)
        );
        assert_eq!((end.files, end.findings, end.unjudged), (2, 1, 0));
        target = api::scan_request::Target::ScanId(id);
    }
    let listed = bench.client.list_scans(api::ListScansRequest {}).await.unwrap();
    assert_eq!(listed.into_inner().scans.len(), 1);
}

#[tokio::test]
async fn scans_of_nothing_are_refused() {
    use api::scan_request::{ContainerTarget, ImageTarget, Target};
    let mut bench = Bench::new().await;
    let container = ContainerTarget {
        id: "absent".into(),
        namespace: String::new(),
    };
    for (target, code) in [
        (None, Code::InvalidArgument),
        (Some(Target::Path(b"srv".to_vec())), Code::InvalidArgument),
        (Some(Target::All(false)), Code::InvalidArgument),
        (Some(Target::Image(ImageTarget::default())), Code::InvalidArgument),
        (Some(Target::Container(container)), Code::NotFound),
        (Some(Target::ScanId("absent".into())), Code::NotFound),
    ] {
        let request = api::ScanRequest {
            target,
            ..Default::default()
        };
        assert_eq!(bench.client.scan(request).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn an_allowed_content_is_listed_with_who_and_revoked() {
    let mut bench = Bench::new().await;
    let request = api::AddAllowedRequest {
        sha256: "ab".repeat(32),
        reason: "ours".into(),
        lifetime_seconds: 60,
    };
    let added = bench.client.add_allowed(request.clone()).await.unwrap();
    assert!(!added.into_inner().known);
    assert!(
        bench
            .client
            .add_allowed(request)
            .await
            .unwrap()
            .into_inner()
            .known
    );
    let listed = bench.client.list_allowed(api::ListAllowedRequest {}).await;
    let entry = listed.unwrap().into_inner().message().await.unwrap().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!((entry.reason, entry.by), ("ours".into(), format!("uid {uid}")));
    assert!(entry.expires > entry.time, "{}", entry.expires);
    let request = api::RemoveAllowedRequest {
        sha256: "AB".repeat(32),
    };
    assert!(
        bench
            .client
            .remove_allowed(request.clone())
            .await
            .unwrap()
            .into_inner()
            .known
    );
    assert!(
        !bench
            .client
            .remove_allowed(request)
            .await
            .unwrap()
            .into_inner()
            .known
    );
}

#[tokio::test]
async fn an_item_that_is_not_there_is_told() {
    let mut bench = Bench::new().await;
    let listed = bench.client.list_quarantine(api::ListQuarantineRequest {}).await;
    assert!(listed.unwrap().into_inner().message().await.unwrap().is_none());
    for (id, code) in [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Code::NotFound),
        ("../x", Code::InvalidArgument),
    ] {
        let id = id.to_owned();
        let request = api::RemoveQuarantinedRequest { id: id.clone() };
        assert_eq!(
            bench.client.remove_quarantined(request).await.unwrap_err().code(),
            code
        );
        let request = api::RestoreQuarantinedRequest { id, force: true };
        assert_eq!(
            bench
                .client
                .restore_quarantined(request)
                .await
                .unwrap_err()
                .code(),
            code
        );
    }
    let request = api::ExportQuarantinedRequest {
        id: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        plain: true,
    };
    let mut stream = bench
        .client
        .export_quarantined(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::NotFound);
}
