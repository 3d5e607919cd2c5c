//! What is said when an address, a setting or a store is wrong.

use crate::requests::written;
use crate::server::{KEY, SECRET, Server};
use cellfeed::object::RemoteOptions;
use cellfeed::{Error, ErrorKind, OpenOptions};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn open(url: &str, remote: RemoteOptions) -> Error {
    let start = Instant::now();
    let error = cellfeed::open(url, &OpenOptions::default().with_remote(remote)).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{text}");
    assert!(!text.contains(SECRET) && !text.contains("other-secret"), "{text}");
    error
}

#[test]
fn what_is_not_there_or_not_allowed_is_said() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    let (_, path) = written(&folder).remove(0);
    let url = server.put(&path);
    let bucket = url.rsplit_once('/').unwrap().0;
    let check = |url: &str, remote, kind, words: &[&str]| {
        let error = open(url, remote);
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    };
    let missing = format!("{bucket}/none.h5ad");
    check(&missing, server.remote(), ErrorKind::NotFound, &["no such object", &missing]);
    check(&format!("{bucket}/none.zarr"), server.remote(), ErrorKind::NotFound, &["none.zarr"]);
    check(&format!("{bucket}/none/"), server.remote(), ErrorKind::NotFound, &["none"]);
    let nowhere = "s3://no-such-bucket/x.h5ad";
    check(nowhere, server.remote(), ErrorKind::NotFound, &["no-such-bucket"]);
    let wrong = server.remote().with_setting("secret_access_key", "other-secret");
    check(&url, wrong, ErrorKind::Io, &["credentials", "SignatureDoesNotMatch"]);
    let unknown = server.remote().with_setting("access_key_id", "other");
    check(&url, unknown, ErrorKind::Io, &["credentials"]);
    let anonymous = server.remote().with_setting("skip_signature", "true");
    check(&url, anonymous, ErrorKind::Io, &["credentials", "AccessDenied"]);
    let option = server.remote().with_setting("colour", SECRET);
    check(&url, option, ErrorKind::InvalidInput, &["colour"]);
    check("ftp://h/x", RemoteOptions::default(), ErrorKind::Unsupported, &["ftp://"]);
    check("s3://", RemoteOptions::default(), ErrorKind::InvalidInput, &["bucket"]);
    // Nobody listens there.
    let silent = server.remote().with_setting("endpoint", "http://127.0.0.1:9").with_attempts(2);
    check(&url, silent, ErrorKind::Io, &["2 attempts", &url]);
    // Neither what was opened nor how shows secrets.
    let store = cellfeed::open(&url, &server.options()).unwrap();
    let shown = format!("{store:?} {:?} {:?}", server.remote(), server.options());
    assert!(shown.contains(&url) && !shown.contains(KEY) && !shown.contains(SECRET), "{shown}");
}

#[test]
fn an_object_that_is_no_store_is_said() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    for (name, bytes, word) in [
        ("a.h5ad", &b"PK\x03\x04...."[..], "zip"),
        ("b.h5ad", b"", "empty"),
        ("c.h5ad", b"no HDF5 file at all, not even a short one", "HDF5"),
        ("d.parquet", b"PAR1PAR1PAR1", "footer"),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = open(&server.put(&path), server.remote()).to_string();
        assert!(text.contains(word) && text.contains(name), "{text}");
    }
    let path = folder.path().join("folder");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("x.txt"), b"text").unwrap();
    let text = open(&server.put(&path), server.remote()).to_string();
    assert!(text.contains("no known format"), "{text}");
}

#[test]
fn an_object_shorter_than_its_metadata_says_is_said() {
    let server = Server::start();
    let folder = TempDir::new().unwrap();
    for (name, path) in written(&folder) {
        let url = server.put(&path);
        let mut file = server.file(&url);
        if file.is_dir() {
            // The largest: values, or a shard of them.
            let mut files = Vec::new();
            walk(&file, &mut files);
            file = files.into_iter().max_by_key(|f| f.metadata().unwrap().len()).unwrap();
        }
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() * 2 / 3]).unwrap();
        match cellfeed::open(&url, &server.options()) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}"),
            Ok(store) => {
                let rows = cellfeed::RowRanges::single(0..store.n_obs());
                let read = store.backend().read_rows(&cellfeed::MatrixKey::X, &rows);
                let error = futures::executor::block_on(read).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            }
        }
    }
}

fn walk(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}
