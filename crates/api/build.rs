//! Generates Rust from the `.proto` files, without `protoc`.

use std::error::Error;

const PROTO_DIR: &str = "proto";

const FILES: [&str; 8] = [
    "lazaret/handover/v1/handover.proto",
    "lazaret/scan/v1/scan.proto",
    "lazaret/control/v1/control.proto",
    "containerd/services/containers/v1/containers.proto",
    "containerd/services/content/v1/content.proto",
    "containerd/services/images/v1/images.proto",
    "containerd/services/leases/v1/leases.proto",
    "containerd/services/snapshots/v1/snapshots.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    let descriptors = protox::compile(FILES, [PROTO_DIR])?;
    tonic_prost_build::configure()
        // How a client connects is the client's business: the generated
        // `connect` would pull tonic's transport into everything.
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}
