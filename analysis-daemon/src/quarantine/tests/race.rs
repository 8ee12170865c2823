//! A container that moves everything while its files are taken.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// Each race is run for at least this long.
const TIME: Duration = Duration::from_secs(2);

/// Within this time both outcomes must have been seen, however slow the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often `act` is called at a stretch.
const STORM: u32 = 50;

/// What the races came to.
#[derive(Default)]
struct Outcomes {
    removed: u32,
    remained: u32,
}

/// Takes bad files at `/opt/d/bad` over and over while `act` runs in a thread of its own, until
/// files were removed as well as not.
///
/// `act` comes in storms, with calms between them that grow until a whole removal fits in: how
/// long one takes is up to the disk.
fn race(bench: &Bench, prepare: impl Fn(), act: impl Fn() + Send + Sync) {
    let over = AtomicBool::new(false);
    let outcomes = thread::scope(|scope| {
        scope.spawn(|| {
            for calm in (0..10)
                .cycle()
                .map(|doublings| Duration::from_millis(1 << doublings))
            {
                (0..STORM).for_each(|_| act());
                thread::sleep(calm);
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let outcomes = take_until_both(bench, prepare);
        over.store(true, Ordering::Relaxed);
        outcomes
    });
    let Outcomes { removed, remained } = outcomes;
    assert!(
        removed > 0 && remained > 0,
        "no race: {removed} removed, {remained} not"
    );
}

fn take_until_both(bench: &Bench, prepare: impl Fn()) -> Outcomes {
    let mut seen = Outcomes::default();
    let begin = Instant::now();
    while begin.elapsed() < TIME || (begin.elapsed() < DEADLINE && (seen.removed == 0 || seen.remained == 0))
    {
        prepare();
        let Ok(file) = File::open(bench.inside("/opt/d/bad")) else {
            continue;
        };
        match bench.take(&file, "/opt/d/bad", BAD) {
            Ok(Some(Moved { remains: None, item })) => {
                seen.removed += 1;
                bench.custody.store.remove(item.id).unwrap();
            }
            Ok(None) | Ok(Some(_)) | Err(_) => seen.remained += 1,
        }
    }
    seen
}

#[test]
fn a_folder_that_turns_into_a_link_never_leads_outside() {
    let bench = Bench::new();
    fs::create_dir(bench.inside("/opt/real")).unwrap();
    fs::write(bench.host("outside/bad"), BAD).unwrap();
    fs::write(bench.host("outside/other"), "other").unwrap();
    symlink("real", bench.inside("/opt/d")).unwrap();
    let links = ["real".into(), bench.host("outside"), "../../outside".into()];
    let prepare = || drop(fs::write(bench.inside("/opt/real/bad"), BAD));
    race(&bench, prepare, || {
        for link in &links {
            // As `ln -sfn` does: there always is a link, now to this, now to that.
            symlink(link, bench.inside("/opt/next")).unwrap();
            fs::rename(bench.inside("/opt/next"), bench.inside("/opt/d")).unwrap();
        }
    });
    assert_eq!(bench.names("outside"), ["bad", "other"]);
    assert_eq!(fs::read(bench.host("outside/bad")).unwrap(), BAD);
}

#[test]
fn a_name_that_changes_its_file_never_costs_another() {
    let bench = Bench::new();
    fs::create_dir(bench.inside("/opt/d")).unwrap();
    fs::write(bench.inside("/opt/good"), "good").unwrap();
    let prepare = || {
        fs::write(bench.inside("/opt/fresh"), BAD).unwrap();
        // Never over the good file.
        drop(fs::hard_link(
            bench.inside("/opt/fresh"),
            bench.inside("/opt/d/bad"),
        ));
        drop(fs::remove_file(bench.inside("/opt/fresh")));
    };
    race(&bench, prepare, || {
        // The good file comes and goes under the bad one's name, now and then
        // after having displaced it.
        let (good, bad) = (bench.inside("/opt/good"), bench.inside("/opt/d/bad"));
        drop(fs::rename(&good, &bad));
        let is_good = || fs::read(&bad).is_ok_and(|content| content == b"good");
        while is_good() && fs::rename(&bad, &good).is_err() {}
        if !good.exists() {
            wait_for(&bad, &good);
        }
    });
    let good = |folder| {
        let paths = bench
            .names(folder)
            .into_iter()
            .map(|name| bench.host(folder).join(name));
        paths
            .filter(|path| fs::read(path).is_ok_and(|content| content == b"good"))
            .count()
    };
    assert_eq!(
        good("root/opt") + good("root/opt/d"),
        1,
        "the good file is lost or doubled"
    );
}

/// The good file was taken for the bad one: it must come back.
fn wait_for(bad: &Path, good: &Path) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        if fs::read(bad).is_ok_and(|content| content == b"good") && fs::rename(bad, good).is_ok() {
            return;
        }
    }
}

#[test]
fn a_writer_never_gets_another_content_under_a_digest() {
    let bench = Bench::new();
    fs::create_dir(bench.inside("/opt/d")).unwrap();
    let other = vec![b'x'; BAD.len()];
    let prepare = || fs::write(bench.inside("/opt/d/bad"), BAD).unwrap();
    let digest = sha256(BAD).to_string();
    let object = bench.host("quarantine/objects").join(&digest);
    race(&bench, prepare, || {
        if let Ok(file) = File::options().write(true).open(bench.inside("/opt/d/bad")) {
            let write = |content: &[u8]| std::os::unix::fs::FileExt::write_all_at(&file, content, 0);
            write(&other).unwrap();
            write(BAD).unwrap();
        }
        if let Ok(stored) = File::open(&object) {
            let mut plain = Vec::new();
            super::super::object::decode(stored, &mut plain).unwrap();
            assert_eq!(plain, BAD);
        }
    });
}
