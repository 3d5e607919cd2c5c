//! A network that fails: epochs complete all the same, or end with an error that says why.

use crate::requests::{digest, written};
use crate::server::Server;
use cellfeed::object::RemoteOptions;
use cellfeed::object::simulate::{Behaviour, Counts, Simulated};
use cellfeed::{ErrorKind, MatrixKey, OpenOptions, RowRanges};
use futures::executor::block_on;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn simulated(remote: RemoteOptions, behaviour: Behaviour, counts: &Arc<Counts>) -> OpenOptions {
    let counts = Arc::clone(counts);
    let remote = remote
        .with_wrapper(move |store| Arc::new(Simulated::new(store, behaviour, Arc::clone(&counts))));
    OpenOptions::default().with_remote(remote)
}

#[test]
fn an_epoch_survives_faults_unchanged() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    for (name, path) in written(&folder) {
        let local = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let expected = digest(&local);
        let url = server.put(&path);
        let counts = Arc::new(Counts::default());
        // One request in a hundred as on a bad day, then far more.
        for (throttled, reset, truncated, seed) in [(5, 5, 10, 1), (30, 30, 40, 2)] {
            let behaviour = Behaviour { throttled, reset, truncated, seed, ..Behaviour::default() };
            // Small requests, so that there are many; no head start for what comes with the opening.
            let remote = server.remote().with_request_bytes(32 << 10).with_gap(0).with_attempts(12);
            let store = cellfeed::open(&url, &simulated(remote, behaviour, &counts)).unwrap();
            assert_eq!(digest(&store), expected, "{name}, seed {seed}");
        }
        assert!(counts.faults() > 0, "{name}: nothing failed");
    }
}

#[test]
fn attempts_end_with_the_object_their_number_and_the_cause() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let (_, path) = written(&folder).remove(0);
    let url = server.put(&path);
    for (behaviour, cause) in [
        (Behaviour { throttled: 1000, ..Behaviour::default() }, "SlowDown"),
        (Behaviour { reset: 1000, ..Behaviour::default() }, "connection reset"),
        (Behaviour { truncated: 1000, ..Behaviour::default() }, "cut short"),
    ] {
        let remote = server.remote().with_attempts(3);
        let start = Instant::now();
        let error =
            cellfeed::open(&url, &simulated(remote, behaviour, &Arc::default())).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Io, "{text}");
        assert!(
            text.contains(&url) && text.contains("3 attempts") && text.contains(cause),
            "{text}"
        );
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn an_object_that_is_replaced_is_an_error() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let mut stores = written(&folder);
    let (_, csr) = stores.remove(2);
    let url = server.put(&csr);
    let store = cellfeed::open(&url, &server.options()).unwrap();
    let rows = RowRanges::single(10..20);
    block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap();
    let mut data: Vec<_> = std::fs::read_dir(server.file(&url).join("X")).unwrap().collect();
    assert!(!data.is_empty());
    // The same length, other bytes, a later time: by its tag it is another object.
    for entry in data.drain(..) {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.reverse();
        std::fs::write(&path, bytes).unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
    }
    let error = block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    // Shorter than it was.
    for entry in std::fs::read_dir(server.file(&url).join("X")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"x").unwrap();
    }
    let error = block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    // Gone.
    std::fs::remove_dir_all(server.file(&url)).unwrap();
    let error = block_on(store.backend().read_rows(&MatrixKey::X, &rows)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
}
