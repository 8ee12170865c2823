//! The `start` action: finds the shim of a container's group or starts one, and
//! says where it listens.
//!
//! containerd's generations ask and want to be answered in different ways, and say
//! nothing that tells them apart but how they ask.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use anyhow::{Context, ensure};
use containerd_shim::Flags;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use lazaret_config::Config;

use crate::address::Address;
use crate::bundle::Bundle;
use crate::options::Options;
use crate::serve::TTRPC_ADDRESS;

/// containerd's gRPC socket; only 1.7 and later tell it.
const GRPC_ADDRESS: &str = "GRPC_ADDRESS";

/// The file in the bundle by which containerd 1.6 finds the shim after a restart;
/// later ones write their own, and still read it when they take over a task.
pub(crate) const ADDRESS_FILE: &str = "address";

/// The most that is read from standard input, as in containerd's own shim.
const MAX_INPUT: u64 = 10 << 20;

/// The worst score that there is.
const MAX_OOM_SCORE_ADJ: i32 = 1000;

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// 1.6: the bare address.
    Plain,
    /// 1.7 to 2.2: JSON. 1.7 refuses a shim that speaks version 3 of the task
    /// service. 2.0 would also take 3, and then connect a pod's later containers by
    /// itself; the price of 2 is one short call of this binary for each.
    Json,
    /// 2.3 and later, which send parameters and want a message back.
    Bootstrap,
}

/// What containerd asks for.
#[derive(Debug, PartialEq)]
struct Request {
    reply: Reply,
    ttrpc_address: String,
    address: String,
    socket_dir: Option<String>,
    debug: bool,
    options: Option<Any>,
}

/// The part of the environment that counts.
#[derive(Debug, Default)]
struct Environment {
    ttrpc_address: Option<String>,
    grpc_address: Option<String>,
}

/// Answers on standard output; what fails is said on standard error.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let environment = Environment {
        ttrpc_address: env::var(TTRPC_ADDRESS).ok(),
        grpc_address: env::var(GRPC_ADDRESS).ok(),
    };
    let request = Request::new(&read_stdin()?, flags, environment)?;
    // The shim itself reads it again; here a mistake in it can still be told.
    Config::load(None)?;

    let bundle = Bundle::read(&env::current_dir()?)?;
    let group = bundle.group().unwrap_or(&flags.id);
    let address = Address::new(
        &request.address,
        &flags.namespace,
        group,
        request.socket_dir.clone(),
    )?;
    if let Some(listener) = address.claim()? {
        let spawned = spawn(&request, flags, listener);
        if spawned.is_err() {
            address.remove_dead()?;
        }
        spawned.context("cannot start the shim")?;
    }
    fs::write(ADDRESS_FILE, address.url()).context("cannot write the address into the bundle")?;
    io::stdout()
        .write_all(&request.reply.to(&address.url())?)
        .context("cannot answer")
}

impl Request {
    fn new(input: &[u8], flags: &Flags, environment: Environment) -> anyhow::Result<Self> {
        let request = match bootstrap_params(input, flags) {
            Some(params) => Self::bootstrap(params, flags),
            None => Self::legacy(input, flags, environment),
        };
        ensure!(
            !request.ttrpc_address.is_empty(),
            "containerd names no socket for events ({TTRPC_ADDRESS})"
        );
        Ok(request)
    }

    fn bootstrap(params: BootstrapParams, flags: &Flags) -> Self {
        const DEBUG: i32 = -4;
        Self {
            reply: Reply::Bootstrap,
            debug: flags.debug || params.log_level.value() <= DEBUG,
            ttrpc_address: params.containerd_ttrpc_address,
            address: params.containerd_grpc_address,
            socket_dir: params.socket_dir.filter(|dir| !dir.is_empty()),
            options: params
                .extensions
                .into_iter()
                .filter_map(|extension| extension.value.into_option())
                .find(|any| Options::are_in(&any.type_url)),
        }
    }

    fn legacy(input: &[u8], flags: &Flags, environment: Environment) -> Self {
        let reply = if environment.grpc_address.is_some() {
            Reply::Json
        } else {
            Reply::Plain
        };
        let address = match flags.address.as_str() {
            "" => environment.grpc_address.unwrap_or_default(),
            address => address.to_owned(),
        };
        Self {
            reply,
            debug: flags.debug,
            ttrpc_address: environment.ttrpc_address.unwrap_or_default(),
            address,
            socket_dir: None,
            options: Any::parse_from_bytes(input).ok(),
        }
    }
}

/// What 2.3 sends. Runtime options, which others send, would parse as such too, but
/// have the name of a type where the id belongs.
fn bootstrap_params(input: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::parse_from_bytes(input).ok()?;
    (!flags.id.is_empty() && params.instance_id == flags.id).then_some(params)
}

impl Reply {
    fn to(self, address: &str) -> anyhow::Result<Vec<u8>> {
        Ok(match self {
            Self::Plain => address.as_bytes().to_vec(),
            Self::Json => serde_json::to_vec(
                &serde_json::json!({"version": 2, "address": address, "protocol": "ttrpc"}),
            )?,
            Self::Bootstrap => {
                let (address, protocol) = (address.to_owned(), "ttrpc".to_owned());
                BootstrapResult {
                    version: 3,
                    address,
                    protocol,
                    ..Default::default()
                }
                .write_to_bytes()?
            }
        })
    }
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut input = Vec::new();
    // By hand, there is nothing to read and nobody to end it.
    if !io::stdin().is_terminal() {
        io::stdin()
            .take(MAX_INPUT)
            .read_to_end(&mut input)
            .context("cannot read standard input")?;
    }
    Ok(input)
}

/// Starts this binary once more as the shim, in a process group of its own. It has
/// the socket from the beginning, so nobody needs to wait for it.
fn spawn(request: &Request, flags: &Flags, listener: UnixListener) -> anyhow::Result<()> {
    // What we set for ourselves here, the shim inherits.
    prefer_to_containerd().context("cannot set oom_score_adj")?;
    let cgroup = match &request.options {
        // Options of another type are Create's to refuse.
        Some(any) => Options::from_any(Some(any))
            .map(|options| options.shim_cgroup)
            .unwrap_or_default(),
        None => String::new(),
    };
    if !cgroup.is_empty() {
        containerd_shim::cgroup::add_task_to_cgroup(&cgroup, std::process::id())
            .with_context(|| format!("cannot join the cgroup {cgroup} of the option ShimCgroup"))?;
    }
    let mut command = Command::new(env::current_exe()?);
    command
        .args([
            "-namespace",
            &flags.namespace,
            "-id",
            &flags.id,
            "-address",
            &request.address,
        ])
        .env(TTRPC_ADDRESS, &request.ttrpc_address)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    if request.debug {
        command.arg("-debug");
    }
    command.spawn()?;
    Ok(())
}

/// When memory runs out, a shim goes before containerd does.
fn prefer_to_containerd() -> anyhow::Result<()> {
    let parent = fs::read_to_string(format!("/proc/{}/oom_score_adj", parent_id()))?;
    let score = (parent.trim().parse::<i32>()? + 1).min(MAX_OOM_SCORE_ADJ);
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        // In a user namespace nobody may lower it, and it stays what it is.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};

    use super::*;

    const URL: &str = "unix:///run/containerd/s/0ddf";

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "k8s.io".into(),
            address: "/run/c.sock".into(),
            ..Flags::default()
        }
    }

    fn environment(grpc: Option<&str>) -> Environment {
        Environment {
            ttrpc_address: Some("/run/c.sock.ttrpc".into()),
            grpc_address: grpc.map(Into::into),
        }
    }

    fn options() -> Any {
        Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![0x48, 1],
            ..Default::default()
        }
    }

    #[test]
    fn answers_1_6_with_the_bare_address() {
        let request = Request::new(&[], &flags(), environment(None)).unwrap();
        assert_eq!(
            (request.reply, request.ttrpc_address.as_str()),
            (Reply::Plain, "/run/c.sock.ttrpc")
        );
        assert_eq!(request.reply.to(URL).unwrap(), URL.as_bytes());
    }

    #[test]
    fn answers_1_7_to_2_2_with_json_that_names_version_2() {
        let input = options().write_to_bytes().unwrap();
        let request = Request::new(&input, &flags(), environment(Some("/run/c.sock"))).unwrap();
        assert_eq!((request.reply, request.options), (Reply::Json, Some(options())));
        let reply: serde_json::Value = serde_json::from_slice(&request.reply.to(URL).unwrap()).unwrap();
        assert_eq!(
            reply,
            serde_json::json!({"version": 2, "address": URL, "protocol": "ttrpc"})
        );
    }

    #[test]
    fn answers_2_3_with_a_message() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "unix:///t".into(),
            containerd_grpc_address: "/g".into(),
            socket_dir: Some("/run/s".into()),
            log_level: EnumOrUnknown::from_i32(-5),
            extensions: vec![Extension {
                value: MessageField::some(options()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let request = Request::new(
            &params.write_to_bytes().unwrap(),
            &flags(),
            environment(Some("/g")),
        )
        .unwrap();
        let wanted = Request {
            reply: Reply::Bootstrap,
            ttrpc_address: "unix:///t".into(),
            address: "/g".into(),
            socket_dir: Some("/run/s".into()),
            debug: true,
            options: Some(options()),
        };
        assert_eq!(request, wanted);
        let reply = BootstrapResult::parse_from_bytes(&request.reply.to(URL).unwrap()).unwrap();
        assert_eq!(
            (reply.version, reply.address.as_str(), reply.protocol.as_str()),
            (3, URL, "ttrpc")
        );
    }

    #[test]
    fn takes_rubbish_for_no_options() {
        let request = Request::new(&[0xff; 64], &flags(), environment(None)).unwrap();
        assert_eq!((request.reply, request.options), (Reply::Plain, None));
    }

    #[test]
    fn needs_to_know_where_events_go() {
        let error = Request::new(&[], &flags(), Environment::default()).unwrap_err();
        assert!(error.to_string().contains("TTRPC_ADDRESS"), "{error}");
    }
}
