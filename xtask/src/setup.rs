//! `cargo xtask setup`: everything that the other tasks would fetch or build on their way.

use std::process::ExitCode;

use anyhow::Result;
use lazaret_tests::packages::{self, RELEASES};
use lazaret_tests::{clamav, ui};

use crate::elevate;

pub(crate) fn run() -> Result<ExitCode> {
    elevate::with_root(|_| {
        packages::runc_bin()?;
        for release in RELEASES {
            release.bin()?;
        }
        clamav::install()?;
        ui::note("all set");
        Ok(ExitCode::SUCCESS)
    })
}
