//! lazaret's wire formats: the `.proto` files under `proto/` and what is
//! generated from them, nothing else.
//!
//! Read the `.proto` files: they are the reference, and say what each field means.

#![forbid(unsafe_code)]

/// Includes what the build script generated for a package.
macro_rules! generated {
    ($package:literal) => {
        #[allow(
            missing_docs,
            clippy::all,
            clippy::pedantic,
            let_underscore_drop,
            unused_qualifications,
            reason = "generated; the documentation is the .proto file's, and the style is the generator's"
        )]
        mod generated {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        }
        pub use generated::*;
    };
}

/// Who reads a container's fanotify group: shim and hooks to lazaretd.
pub mod handover {
    /// Version 1.
    pub mod v1 {
        generated!("lazaret.handover.v1");
    }
}

/// Judging a file's content: lazaretd to its sandboxed workers.
pub mod scan {
    /// Version 1.
    pub mod v1 {
        generated!("lazaret.scan.v1");
    }
}

/// What an administrator asks of lazaretd.
#[cfg(feature = "grpc")]
pub mod control {
    /// Version 1.
    pub mod v1 {
        generated!("lazaret.control.v1");
    }
}

/// The parts of containerd's API that lazaret uses.
#[cfg(feature = "grpc")]
pub mod containerd {
    generated!("containerd.services.containers.v1");

    /// Images by name.
    pub mod images {
        generated!("containerd.services.images.v1");
    }

    /// Blobs by digest.
    pub mod content {
        generated!("containerd.services.content.v1");
    }

    /// Unpacked images.
    pub mod snapshots {
        generated!("containerd.services.snapshots.v1");
    }

    /// What the garbage collector leaves alone.
    pub mod leases {
        generated!("containerd.services.leases.v1");
    }
}
