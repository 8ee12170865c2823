//! Attacker and test agree on when what happens, by files in a folder that the host has, too: no
//! process has to be started and no file to be opened for it.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Tells the test that everything is ready, and waits until it may go on.
pub(super) fn ready_then_go(folder: &Path) -> Result<()> {
    File::create_new(folder.join("ready"))?;
    let (go, end) = (folder.join("go"), Instant::now() + LIMIT);
    while !go.exists() {
        ensure!(Instant::now() < end, "nobody said go");
        thread::sleep(PAUSE);
    }
    Ok(())
}
