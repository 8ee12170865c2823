//! What goes in comes out, and what is in the way keeps the file in its place.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{Timespec, Timestamps, XattrFlags};

use super::super::item::{Item, State};
use super::super::object::HEADER;
use super::*;

#[test]
fn a_file_is_moved_shown_exported_and_restored_as_it_was() {
    let bench = Bench::new();
    let path = Path::new(OsStr::from_bytes(b"/opt/\xff\x1b[2J bad"));
    let host = bench
        .folder
        .path()
        .join("root")
        .join(path.strip_prefix("/").unwrap());
    fs::write(&host, BAD).unwrap();
    let file = File::open(&host).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::fsetxattr(&file, "user.note", b"\0kept", XattrFlags::empty()).unwrap();
    let long_ago = Timespec {
        tv_sec: -5,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: long_ago,
        last_modification: long_ago,
    };
    rustix::fs::futimens(&file, &times).unwrap();
    let before = file.metadata().unwrap();

    let moved = bench.take(&file, path, BAD).unwrap().unwrap();
    assert!(moved.remains.is_none());
    assert_eq!(bench.names("root/opt"), [] as [&str; 0]);
    let item = bench.custody.store.get(moved.item.id).unwrap();
    assert_eq!(item, moved.item);
    assert_eq!(
        (item.path(), item.state, item.size),
        (path, State::Moved, BAD.len() as u64)
    );

    let (mut plain, mut masked) = (Vec::new(), Vec::new());
    bench.custody.export(item.id, true, &mut plain).unwrap();
    bench.custody.export(item.id, false, &mut masked).unwrap();
    assert_eq!(plain, BAD);
    assert_eq!(masked.len(), HEADER + BAD.len());
    assert!(!masked.windows(8).any(|seen| seen == &BAD[..8]));

    let allow = bench.allow();
    let root = root(bench.folder.path());
    bench
        .custody
        .restore(root.as_fd(), item, false, &allow, allowed())
        .unwrap();
    assert!(allow.allows(&sha256(BAD)));
    assert_eq!(fs::read(&host).unwrap(), BAD);
    let after = fs::metadata(&host).unwrap();
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (before.mode(), before.uid(), before.gid())
    );
    assert_eq!((after.mtime(), after.mtime_nsec()), (-5, 123_456_789));
    let mut note = [0; 5];
    rustix::fs::getxattr(&host, "user.note", &mut note).unwrap();
    assert_eq!(&note, b"\0kept");
    assert_eq!(bench.custody.store.ids(), []);
    assert_eq!(bench.names("quarantine/objects"), [] as [&str; 0]);
}

#[test]
fn one_content_is_kept_once_and_goes_with_its_last_item() {
    let bench = Bench::new();
    let items = ["/opt/a", "/opt/b"].map(|path| {
        let file = bench.drop_bad(path);
        bench.take(&file, path, BAD).unwrap().unwrap().item
    });
    assert_eq!(bench.custody.store.usage().used, (HEADER + BAD.len()) as u64);
    bench.custody.store.remove(items[0].id).unwrap();
    assert_eq!(bench.names("quarantine/objects").len(), 1);
    bench.custody.store.remove(items[1].id).unwrap();
    assert_eq!(bench.names("quarantine/objects").len(), 0);
    assert!(matches!(
        bench.custody.store.remove(items[1].id),
        Err(Refusal::NoItem(_))
    ));
}

#[test]
fn a_restore_overwrites_only_what_it_is_told_to() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    let item = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap().item;
    fs::write(bench.inside("/opt/bad"), "newer").unwrap();
    let (allow, root) = (bench.allow(), root(bench.folder.path()));
    let restore = |force| {
        bench
            .custody
            .restore(root.as_fd(), item.clone(), force, &allow, allowed())
    };
    assert!(matches!(restore(false), Err(Refusal::Occupied(path)) if path == "/opt/bad"));
    assert_eq!(fs::read(bench.inside("/opt/bad")).unwrap(), b"newer");
    assert!(!allow.allows(&sha256(BAD)));
    restore(true).unwrap();
    assert_eq!(fs::read(bench.inside("/opt/bad")).unwrap(), BAD);
    assert_eq!(bench.names("root/opt"), ["bad"]);
}

#[test]
fn the_original_comes_as_it_was_judged_and_the_item_stays() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    let item = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap().item;
    let (original, root) = (original(bench.folder.path()), root(bench.folder.path()));
    let put = |item: &Item, judged, force| {
        bench
            .custody
            .put_original(root.as_fd(), item.clone(), &original, judged, force)
    };
    // It was another one that was judged.
    assert!(matches!(put(&item, sha256(BAD), false), Err(Refusal::Changed)));
    assert_eq!(bench.names("root/opt"), [] as [&str; 0]);
    assert_eq!(bench.custody.store.get(item.id).unwrap(), item);

    assert_eq!(put(&item, sha256(GOOD), false).unwrap(), item);
    assert_eq!(fs::read(bench.inside("/opt/bad")).unwrap(), GOOD);
    assert_eq!(bench.custody.store.get(item.id).unwrap(), item);
    assert!(matches!(
        put(&item, sha256(GOOD), false),
        Err(Refusal::Occupied(_))
    ));
    fs::write(bench.inside("/opt/bad"), "newer").unwrap();
    put(&item, sha256(GOOD), true).unwrap();
    assert_eq!(fs::read(bench.inside("/opt/bad")).unwrap(), GOOD);
    assert_eq!(bench.names("root/opt"), ["bad"]);
}

#[test]
fn the_original_follows_no_link() {
    let bench = Bench::new();
    fs::create_dir(bench.inside("/opt/a")).unwrap();
    let file = bench.drop_bad("/opt/a/bad");
    let item = bench.take(&file, "/opt/a/bad", BAD).unwrap().unwrap().item;
    let (original, root) = (original(bench.folder.path()), root(bench.folder.path()));
    fs::remove_dir(bench.inside("/opt/a")).unwrap();
    fs::create_dir(bench.inside("/opt/b")).unwrap();
    for target in [bench.host("outside"), "../opt/b".into(), "b".into()] {
        symlink(target, bench.inside("/opt/a")).unwrap();
        for force in [false, true] {
            let refused = bench
                .custody
                .put_original(root.as_fd(), item.clone(), &original, sha256(GOOD), force)
                .unwrap_err();
            assert!(refused.to_string().contains("symbolic links"), "{refused}");
        }
        fs::remove_file(bench.inside("/opt/a")).unwrap();
    }
    assert_eq!(bench.names("outside"), ["original"]);
    assert_eq!(bench.names("root/opt/b"), [] as [&str; 0]);
}

#[test]
fn a_damaged_object_is_neither_exported_nor_restored() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    let item = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap().item;
    let object = bench.host("quarantine/objects").join(item.sha256.to_string());
    let mut bytes = fs::read(&object).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&object, bytes).unwrap();
    assert!(bench.custody.export(item.id, true, &mut Vec::new()).is_err());
    let (allow, root) = (bench.allow(), root(bench.folder.path()));
    let restored = bench
        .custody
        .restore(root.as_fd(), item.clone(), false, &allow, allowed());
    assert!(restored.is_err());
    assert_eq!(bench.names("root/opt"), [] as [&str; 0]);
    assert!(!allow.allows(&sha256(BAD)), "taken back");
    assert_eq!(bench.custody.store.get(item.id).unwrap(), item);
}

#[test]
fn a_full_store_leaves_the_file() {
    let small = Bounds {
        size: (HEADER + BAD.len()) as u64,
        items: 2,
    };
    let bench = Bench::with(small);
    let other = b"another bad one";
    fs::write(bench.inside("/opt/other"), other).unwrap();
    let take_other = || {
        bench.take(
            &File::open(bench.inside("/opt/other")).unwrap(),
            "/opt/other",
            other,
        )
    };
    for path in ["/opt/a", "/opt/b"] {
        let file = bench.drop_bad(path);
        bench.take(&file, path, BAD).unwrap().unwrap();
        let refused = take_other().unwrap_err();
        let full = matches!(refused, Refusal::Full { .. } | Refusal::TooMany(2));
        assert!(full, "{refused}");
        assert_eq!(fs::read(bench.inside("/opt/other")).unwrap(), other);
    }
    bench
        .custody
        .store
        .ids()
        .iter()
        .for_each(|id| bench.custody.store.remove(*id).unwrap());
    take_other().unwrap().unwrap();
    assert_eq!(bench.names("root/opt"), [] as [&str; 0]);
}

#[test]
fn a_full_disk_leaves_the_file() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: mounting a small tmpfs needs root");
        return;
    }
    let bench = Bench::new();
    let disk = bench.host("disk");
    fs::create_dir(&disk).unwrap();
    let _mounted = Mounted::tmpfs(&disk, "size=64k,mode=700");
    let custody = Custody::open(&disk.join("quarantine"), ROOMY).unwrap();
    let big = vec![7; 256 << 10];
    fs::write(bench.inside("/opt/big"), &big).unwrap();
    let file = File::open(bench.inside("/opt/big")).unwrap();
    let refused = take(&custody, bench.folder.path(), &file, Path::new("/opt/big"), &big).unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert_eq!(fs::read(bench.inside("/opt/big")).unwrap(), big);
    assert_eq!(custody.store.ids(), []);
    // Nothing half-written takes the room.
    let file = bench.drop_bad("/opt/bad");
    take(&custody, bench.folder.path(), &file, Path::new("/opt/bad"), BAD)
        .unwrap()
        .unwrap();
}

/// Mounted until dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(at: &'a Path, options: &str) -> Self {
        nix::mount::mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        Self(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn another_content_than_was_judged_is_refused() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    for changed in [
        &b"another"[..],
        b"",
        &[BAD, b"!"].concat(),
        &vec![b'x'; BAD.len()],
    ] {
        fs::write(bench.inside("/opt/bad"), changed).unwrap();
        assert!(matches!(
            bench.take(&file, "/opt/bad", BAD),
            Err(Refusal::Changed)
        ));
        assert_eq!(fs::read(bench.inside("/opt/bad")).unwrap(), changed);
        assert_eq!(bench.custody.store.ids(), []);
        assert_eq!(bench.names("quarantine/objects").len(), 0);
    }
    // The same, when the store has the content already.
    let twin = bench.drop_bad("/opt/twin");
    bench.take(&twin, "/opt/twin", BAD).unwrap().unwrap();
    assert!(matches!(
        bench.take(&file, "/opt/bad", BAD),
        Err(Refusal::Changed)
    ));
}

#[test]
fn only_the_file_that_was_judged_is_removed() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    fs::rename(bench.inside("/opt/bad"), bench.inside("/opt/moved")).unwrap();
    fs::write(bench.inside("/opt/bad"), BAD).unwrap();
    let first = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap();
    assert!(matches!(first.remains, Some(Refusal::Elsewhere)));
    assert_eq!(first.item.state, State::Held);
    assert_eq!(bench.names("root/opt"), ["bad", "moved"]);
    // Once more is the same item, not another one.
    let again = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap();
    assert_eq!(again.item.id, first.item.id);
    let moved = bench.take(&file, "/opt/moved", BAD).unwrap().unwrap();
    assert!(moved.remains.is_none());
    assert_eq!(bench.names("root/opt"), ["bad"]);
    // It has no name left: there is nothing to do.
    assert!(bench.take(&file, "/opt/moved", BAD).unwrap().is_none());
}

#[test]
fn a_link_does_not_lead_out_of_the_root() {
    let bench = Bench::new();
    fs::write(bench.host("outside/bad"), BAD).unwrap();
    symlink(bench.host("outside"), bench.inside("/out")).unwrap();
    symlink("../../../../outside", bench.inside("/opt/up")).unwrap();
    symlink(bench.host("outside/bad"), bench.inside("/opt/bad")).unwrap();
    let file = File::open(bench.host("outside/bad")).unwrap();
    for path in [
        "/out/bad",
        "/opt/up/bad",
        "/opt/bad",
        "/../outside/bad",
        "/opt/..",
        "/",
    ] {
        let refused = bench.take(&file, path, BAD).unwrap().unwrap();
        assert!(refused.remains.is_some(), "{path}");
    }
    assert_eq!(fs::read(bench.host("outside/bad")).unwrap(), BAD);
    assert_eq!(bench.names("root/opt"), ["bad", "up"]);
}

#[test]
fn what_is_no_file_or_cannot_be_removed_stays() {
    let bench = Bench::new();
    let folder = File::open(bench.inside("/opt")).unwrap();
    assert!(matches!(bench.take(&folder, "/opt", b""), Err(Refusal::NotAFile)));
    let file = bench.drop_bad("/opt/bad");
    fs::hard_link(bench.inside("/opt/bad"), bench.inside("/opt/twin")).unwrap();
    let moved = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap();
    assert_eq!(moved.item.links, 2);
    assert_eq!(bench.names("root/opt"), ["twin"]);
}

#[test]
fn a_record_that_cannot_be_read_stays_with_its_content() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    let item = bench.take(&file, "/opt/bad", BAD).unwrap().unwrap().item;
    let record = bench.host("quarantine/items").join(format!("{}.json", item.id));
    File::create(&record).unwrap().write_all(b"{").unwrap();
    let again = Custody::open(&bench.host("quarantine"), ROOMY).unwrap();
    assert_eq!(again.store.ids(), []);
    assert_eq!(again.store.usage().used, (HEADER + BAD.len()) as u64);
    assert!(record.exists());
}

#[test]
fn only_root_looks_into_the_store() {
    let bench = Bench::new();
    let file = bench.drop_bad("/opt/bad");
    bench.take(&file, "/opt/bad", BAD).unwrap().unwrap();
    for folder in ["quarantine", "quarantine/objects", "quarantine/items"] {
        assert_eq!(
            fs::metadata(bench.host(folder)).unwrap().mode() & 0o777,
            0o700,
            "{folder}"
        );
    }
    for folder in ["quarantine/objects", "quarantine/items"] {
        for name in bench.names(folder) {
            let path = bench.host(folder).join(name);
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        }
    }
}
