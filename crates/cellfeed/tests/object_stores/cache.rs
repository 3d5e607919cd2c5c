//! The cache of ranges: a second epoch asks the store for nothing, and whatever happens to the cache, the
//! minibatches are those of the store.

use crate::requests::{digest, written};
use crate::server::{KEY, SECRET, Server};
use cellfeed::object::RemoteOptions;
use cellfeed::object::simulate::{Behaviour, Counts, Simulated};
use cellfeed::{ErrorKind, OpenOptions, Store};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

const PLENTY: u64 = 1 << 30;

fn counted(remote: RemoteOptions, behaviour: Behaviour, counts: &Arc<Counts>) -> OpenOptions {
    let counts = Arc::clone(counts);
    let remote = remote
        .with_wrapper(move |store| Arc::new(Simulated::new(store, behaviour, Arc::clone(&counts))));
    OpenOptions::default().with_remote(remote)
}

/// Options with a cache, and what is asked of the store.
fn cached(server: &Server, dir: &Path, bytes: u64) -> (OpenOptions, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let remote = server.remote().with_cache(dir, bytes);
    (counted(remote, Behaviour::default(), &counts), counts)
}

/// Puts a store that was written an hour ago: what is as new as this second is not cached where, as in
/// lists of this server, there are no tags.
fn put(server: &Server, path: &Path) -> String {
    let url = server.put(path);
    age(&server.file(&url), 3600);
    url
}

pub(crate) fn age(path: &Path, seconds: u64) {
    for file in files(path) {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        std::fs::File::options().append(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let mut found = Vec::new();
    // Names under which files are begun come and go.
    let Ok(entries) = std::fs::read_dir(path) else { return found };
    for entry in entries {
        found.extend(files(&entry.unwrap().path()));
    }
    found
}

/// Files of objects in a cache.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found = files(dir);
    found.retain(|p| p.parent() != Some(dir) && p.file_name().unwrap() != "store");
    found
}

fn taken(dir: &Path) -> u64 {
    objects(dir).iter().map(|f| f.metadata().unwrap().blocks() * 512).sum()
}

fn local(path: &Path) -> String {
    digest(&cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap())
}

fn bytes_cached(store: &Store) -> u64 {
    store.engine().stats().snapshot().bytes_cached
}

#[test]
fn a_second_epoch_asks_the_store_for_nothing() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    for (name, path) in written(&folder) {
        let dir = folder.path().join(format!("cache of {name}"));
        let (url, expected) = (put(&server, &path), local(&path));
        let (options, counts) = cached(&server, &dir, PLENTY);
        let store = cellfeed::open(&url, &options).unwrap();
        assert_eq!(digest(&store), expected, "{name}");
        assert!(counts.gets() > 0);
        counts.reset();
        assert_eq!(digest(&store), expected, "{name}, again");
        assert_eq!((counts.lists(), counts.gets()), (0, 0), "{name}");
        // Another process asks what is there, and no more: a list, or what the one file is.
        drop(store);
        let (options, counts) = cached(&server, &dir, PLENTY);
        let store = cellfeed::open(&url, &options).unwrap();
        assert_eq!(digest(&store), expected, "{name}, by another");
        assert_eq!(counts.lists() + counts.gets(), 1, "{name}, by another");
        assert!(bytes_cached(&store) > 0);
        assert!(store.engine().stats().take_warnings().is_empty());
        for file in files(&dir) {
            let bytes = std::fs::read(&file).unwrap();
            for secret in [KEY, SECRET] {
                let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!found, "{} has {secret:?} in it", file.display());
            }
        }
    }
}

#[test]
fn whatever_happens_to_its_files_the_minibatches_are_right() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    type Damage = fn(&std::fs::File, u64);
    let damages: [(&str, Damage); 7] = [
        ("a byte of each block", |f, n| {
            let mut byte = [0];
            for at in (4096..n).step_by(4096) {
                f.read_exact_at(&mut byte, at).unwrap();
                f.write_all_at(&[byte[0] ^ 1], at).unwrap();
            }
        }),
        ("the last block", |f, n| f.write_all_at(&[7; 100], n.saturating_sub(100)).unwrap()),
        ("checksums", |f, _| f.write_all_at(&[0x5a; 400], 32).unwrap()),
        ("the header", |f, _| f.write_all_at(b"nonsense", 8).unwrap()),
        ("the second half", |f, n| f.set_len(n / 2).unwrap()),
        ("all of it", |f, _| f.set_len(0).unwrap()),
        ("too much", |f, n| f.set_len(n * 3).unwrap()),
    ];
    for (name, path) in written(&folder) {
        let dir = folder.path().join(format!("cache of {name}"));
        let (url, expected) = (put(&server, &path), local(&path));
        let open = || cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
        assert_eq!(digest(&open()), expected, "{name}");
        for (what, damage) in damages {
            for file in objects(&dir) {
                let length = file.metadata().unwrap().len();
                let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
                damage(&file, length);
            }
            std::fs::write(dir.join("space"), b"xyz").unwrap();
            let store = open();
            assert_eq!(digest(&store), expected, "{name}, {what} damaged");
            // And it is mended.
            let before = store.engine().stats().snapshot();
            assert_eq!(digest(&store), expected, "{name}, {what} damaged, again");
            assert_eq!(store.engine().stats().snapshot().since(&before).reads, 0, "{name}, {what}");
        }
        // While it is in use.
        let store = open();
        for file in objects(&dir) {
            std::fs::File::options().write(true).open(file).unwrap().set_len(5000).unwrap();
        }
        assert_eq!(digest(&store), expected, "{name}, cut under it");
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(digest(&store), expected, "{name}, gone under it");
    }
}

#[test]
fn a_changed_object_is_read_anew() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let (dir, others) = (folder.path().join("cache"), TempDir::new().unwrap());
    for ((name, path), (_, other)) in
        written(&folder).into_iter().zip(crate::requests::others(&others))
    {
        let url = put(&server, &path);
        let (expected, changed) = (local(&path), local(&other));
        assert_ne!(expected, changed);
        let open = || cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
        assert_eq!(digest(&open()), expected, "{name}");
        server.replace(&url, &other);
        age(&server.file(&url), 1800);
        assert_eq!(digest(&open()), changed, "{name}, changed");
        // As it was: of the same length and tag, but not all of what was kept of it is there still.
        server.replace(&url, &path);
        age(&server.file(&url), 900);
        assert_eq!(digest(&open()), expected, "{name}, changed back");
    }
}

#[test]
fn what_was_changed_a_moment_ago_is_not_kept_unless_it_has_a_tag() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let dir = folder.path().join("cache");
    // Of a folder, whose list has no tags.
    let (name, path) = written(&folder).remove(1);
    let url = server.put(&path);
    let store = cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
    assert_eq!(digest(&store), local(&path), "{name}");
    assert_eq!((bytes_cached(&store), objects(&dir).len()), (0, 0), "{name}");
}

#[test]
fn the_limit_is_kept_and_what_is_in_use_stays() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let dir = folder.path().join("cache");
    // What a file system takes beside the blocks.
    let slack = 16 << 10;
    for (name, path) in written(&folder) {
        let (url, expected) = (put(&server, &path), local(&path));
        let whole = TempDir::new().unwrap();
        let open =
            |dir: &Path, limit| cellfeed::open(&url, &cached(&server, dir, limit).0).unwrap();
        assert_eq!(digest(&open(whole.path(), PLENTY)), expected, "{name}");
        // What another store left in it makes room for this one.
        let limit = taken(whole.path()) * 3 / 4;
        let store = open(&dir, limit);
        assert_eq!(digest(&store), expected, "{name}");
        assert!(taken(&dir) <= limit + slack, "{name}: {} bytes", taken(&dir));
        let before = store.engine().stats().snapshot();
        assert_eq!(digest(&store), expected, "{name}");
        let epoch = store.engine().stats().snapshot().since(&before);
        assert!(epoch.bytes_cached > 0 && epoch.reads > 0, "{name}: {epoch:?}");
        assert!(taken(&dir) <= limit + slack, "{name}: {} bytes", taken(&dir));
    }
    // A smaller limit is kept from the beginning.
    let folder = TempDir::new().unwrap();
    let (name, path) = written(&folder).remove(0);
    let small = 40 << 10;
    let (options, _) = cached(&server, &dir, small);
    let store = cellfeed::open(&put(&server, &path), &options).unwrap();
    assert!(taken(&dir) <= small, "{} bytes", taken(&dir));
    assert_eq!(digest(&store), local(&path), "{name}");
    assert!(taken(&dir) <= small + slack, "{} bytes", taken(&dir));
}

#[test]
fn faults_of_the_network_do_not_reach_the_cache() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let behaviour =
        Behaviour { throttled: 30, reset: 30, truncated: 40, seed: 3, ..Behaviour::default() };
    for (name, path) in written(&folder) {
        let dir = folder.path().join(format!("cache of {name}"));
        let (url, expected) = (put(&server, &path), local(&path));
        let counts = Arc::new(Counts::default());
        let remote = server.remote().with_request_bytes(32 << 10).with_gap(0).with_attempts(12);
        let options = counted(remote.with_cache(&dir, PLENTY), behaviour, &counts);
        let store = cellfeed::open(&url, &options).unwrap();
        assert_eq!(digest(&store), expected, "{name}");
        counts.reset();
        assert_eq!(digest(&store), expected, "{name}");
        assert_eq!(counts.gets(), 0, "{name}");
    }
}

#[test]
fn a_folder_that_is_no_cache_is_refused() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let url = put(&server, &written(&folder).remove(0).1);
    let refused = |dir: &Path, word: &str| {
        let error = cellfeed::open(&url, &cached(&server, dir, PLENTY).0).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        assert!(text.contains(word) && text.contains(dir.to_str().unwrap()), "{text}");
    };
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("thesis.txt"), "text").unwrap();
    refused(&data, "holds other files");
    assert_eq!(files(&data), [data.join("thesis.txt")]);
    refused(&data.join("thesis.txt"), "cannot be made");
    let newer = folder.path().join("newer");
    std::fs::create_dir(&newer).unwrap();
    std::fs::write(newer.join("cellfeed-cache"), "a cache of Cellfeed, version 2\n").unwrap();
    refused(&newer, "another version");
    // An empty one is taken, also one that has what a disk has.
    let empty = folder.path().join("empty");
    std::fs::create_dir_all(empty.join("lost+found")).unwrap();
    cellfeed::open(&url, &cached(&server, &empty, PLENTY).0).unwrap();
    assert!(!objects(&empty).is_empty());
}

#[test]
fn a_cache_that_can_no_longer_be_written_is_said_once_and_fails_nothing() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    // Of many objects, of which some are opened only now.
    let (name, path) = written(&folder).remove(1);
    let (url, expected) = (put(&server, &path), local(&path));
    let dir = folder.path().join("cache");
    let store = cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    for _ in 0..2 {
        assert_eq!(digest(&store), expected, "{name}");
    }
    let warnings = store.engine().stats().take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(dir.to_str().unwrap()), "{warnings:?}");
    // Files may not grow, as on a disk that is full: each write fails.
    let dir = folder.path().join("full");
    let told = reader("ulimit -f 8; trap '' XFSZ; exec", &server, &url, &dir).wait_with_output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    assert!(told.contains(&format!("digest {expected}")), "{told}");
    assert_eq!(told.matches("takes nothing more").count(), 1, "{told}");
}

#[test]
fn processes_share_it_and_one_that_is_killed_leaves_nothing_wrong() {
    let (folder, server) = (TempDir::new().unwrap(), Server::start());
    let stores = written(&folder);
    for (name, path) in [&stores[0], &stores[3]] {
        let dir = folder.path().join(format!("cache of {name}"));
        let (url, expected) = (put(&server, path), local(path));
        // Killed as soon as it has stored something, then a little later.
        for pause in [0, 5, 20] {
            let mut child = reader("exec", &server, &url, &dir);
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20)
                && !(dir.is_dir()
                    && files(&dir).iter().any(|f| f.metadata().is_ok_and(|m| m.blocks() > 40)))
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(pause));
            child.kill().unwrap();
            child.wait().unwrap();
            let store = cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
            assert_eq!(digest(&store), expected, "{name}, killed after {pause} ms");
            std::fs::remove_dir_all(&dir).unwrap();
        }
        // Several at once, from nothing: in processes, and in clients of this one.
        let children: Vec<Child> = (0..3).map(|_| reader("exec", &server, &url, &dir)).collect();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let store = cellfeed::open(&url, &cached(&server, &dir, PLENTY).0).unwrap();
                    assert_eq!(digest(&store), expected, "{name}");
                });
            }
        });
        for child in children {
            let told = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            assert!(told.contains(&format!("digest {expected}")), "{name}: {told}");
        }
        let (options, counts) = cached(&server, &dir, PLENTY);
        assert_eq!(digest(&cellfeed::open(&url, &options).unwrap()), expected, "{name}");
        assert_eq!(counts.lists() + counts.gets(), 1, "{name}: all of it is there");
    }
}

const ASKED: &str = "CELLFEED_TEST_READER";

/// Another process that reads epochs through a cache: this test program, asked for the test below alone.
fn reader(how: &str, server: &Server, url: &str, dir: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    let line = format!("{how} \"$0\" --exact cache::reads_for_another_test --ignored --nocapture");
    let asked = [&server.endpoint(), url, dir.to_str().unwrap()].join("\n");
    Command::new("sh")
        .args(["-c", &line])
        .arg(program)
        .env(ASKED, asked)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "other tests start it, in a process of its own"]
fn reads_for_another_test() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let [endpoint, url, dir] = asked.split('\n').collect::<Vec<_>>()[..] else { panic!("{asked}") };
    let remote = crate::server::remote(endpoint).with_cache(dir, PLENTY);
    let options = OpenOptions::default().with_remote(remote);
    let store = cellfeed::open(url, &options).unwrap();
    println!("digest {}", digest(&store));
    for warning in store.engine().stats().take_warnings() {
        println!("{warning}");
    }
}
