//! `-info`: what containerd may rely on. It refuses pods that need a feature (user
//! namespaces, recursive read-only mounts) which the runtime does not report.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::options::Options;

/// How containerd's configuration names this runtime.
const NAME: &str = "io.containerd.lazaret.v1";

/// The type by which containerd knows the JSON of `runc features`.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The most that is read from standard input.
const MAX_INPUT: u64 = 1 << 20;

/// Answers on standard output; the runtime options come on standard input.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut input = Vec::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin()
            .take(MAX_INPUT)
            .read_to_end(&mut input)
            .context("cannot read standard input")?;
    }
    let any = Any::parse_from_bytes(&input).context("standard input holds no runtime options")?;
    let options = Options::from_any(Some(&any))?;
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }),
        options: (!any.type_url.is_empty()).then_some(any).into(),
        features: MessageField::some(features(&options)?),
        ..Default::default()
    };
    std::io::stdout()
        .write_all(&info.write_to_bytes()?)
        .context("cannot answer")
}

fn features(options: &Options) -> anyhow::Result<Any> {
    let binary = options.binary();
    let output = Command::new(binary)
        .arg("features")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot call the OCI runtime {binary}"))?;
    ensure!(output.status.success(), "{binary} features: {}", output.status);
    Ok(Any {
        type_url: FEATURES.to_owned(),
        value: output.stdout,
        ..Default::default()
    })
}
