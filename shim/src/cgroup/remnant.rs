//! The cgroup of a container that the runtime does not know: when runc is killed
//! before it has written the container's state, nothing else remembers it.

use std::fs;
use std::io;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use super::mounted;

/// How long the processes of a killed runtime may take to die, and how often they
/// are looked after: version 1 tells nobody that a cgroup has become empty.
const DEATH: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// Removes a cgroup, and those below it, from every hierarchy. The kernel refuses
/// to remove one that has processes, so this takes nothing away from anybody.
pub(crate) async fn remove(cgroup: &Path) -> io::Result<()> {
    // runc lets a relative path, or one of systemd, begin elsewhere; systemd removes
    // its own.
    let Ok(inside) = cgroup.strip_prefix("/") else {
        return Ok(());
    };
    if inside == Path::new("")
        || !inside
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
    {
        return Ok(());
    }
    let deadline = Instant::now() + DEATH;
    for hierarchy in mounted::hierarchies()? {
        let dir = hierarchy.mount_point.join(inside);
        while let Err(error) = remove_tree(&dir) {
            if error.kind() != io::ErrorKind::ResourceBusy || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let children = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        children => children?,
    };
    for child in children {
        let child = child?;
        if child.file_type()?.is_dir() {
            remove_tree(&child.path())?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn leaves_what_is_not_the_containers() {
        for path in [
            "",
            "/",
            "relative/path",
            "system.slice:runc:c1",
            "/../etc",
            "/a/../../b",
        ] {
            remove(Path::new(path)).await.unwrap();
        }
        remove(Path::new("/no-such-cgroup/of-ours")).await.unwrap();
    }
}
