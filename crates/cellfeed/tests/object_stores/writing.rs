//! Stores written to a bucket: whole, or not there.

use crate::requests::{digest, written};
use crate::server::{SECRET, Server, files, write};
use cellfeed::object::simulate::{Behaviour, Counts, Simulated};
use cellfeed::object::{Remote, RemoteOptions};
use cellfeed::{
    ConvertOptions, Converted, Error, ErrorKind, Format, OpenOptions, Result, Stage, Store,
    WriteOptions,
};
use cellfeed_testkit::fixtures;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Converts into a bucket, by way of a folder of its own.
struct Converter {
    staging: TempDir,
    remote: RemoteOptions,
    codec: Option<&'static str>,
    overwrite: bool,
}

impl Converter {
    fn new(remote: RemoteOptions) -> Self {
        Self { staging: TempDir::new().unwrap(), remote, codec: None, overwrite: false }
    }

    fn options(&self) -> ConvertOptions {
        let mut write = WriteOptions::default().with_overwrite(self.overwrite);
        if let Some(codec) = self.codec {
            write = write.with_codec(codec);
        }
        ConvertOptions::default()
            .with_write(write)
            .with_staging(self.staging.path())
            .with_remote(self.remote.clone())
    }

    fn convert(&self, source: &Store, url: &str) -> Result<Converted> {
        let converted = cellfeed::convert(source, url, &self.options(), &mut |_| true);
        // Whatever came of it.
        assert_eq!(std::fs::read_dir(self.staging.path()).unwrap().count(), 0, "staging stays");
        converted
    }
}

/// A client through a network as bad as one says.
fn through(remote: RemoteOptions, behaviour: Behaviour, counts: &Arc<Counts>) -> RemoteOptions {
    let (objects, parts) = (Arc::clone(counts), Arc::clone(counts));
    remote
        .with_wrapper(move |s| Arc::new(Simulated::new(s, behaviour, Arc::clone(&objects))))
        .with_parts_wrapper(move |s| Arc::new(Simulated::new(s, behaviour, Arc::clone(&parts))))
}

fn local(path: &Path) -> Store {
    cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap()
}

/// A store of a few cells; others of other seeds.
fn small(folder: &Path, format: Format, seed: u64) -> PathBuf {
    let mut oracle = fixtures::oracle("few", 40, 12, seed);
    oracle.matrices.truncate(1);
    let path = folder.join(format!("{seed}.{format}"));
    write(&path, &oracle, format, None).unwrap();
    path
}

fn upload(
    remote: RemoteOptions,
    from: &Path,
    url: &str,
    opener: Option<&'static str>,
    overwrite: bool,
) -> Result<()> {
    Remote::new(remote)?.destination(url, opener, overwrite)?.upload(from, &mut |_, _| true)
}

#[test]
fn every_format_is_the_same_as_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let mut converter = Converter::new(server.remote());
    let stores = written(&folder);
    let source = local(&stores[0].1);
    for (name, path) in &stores {
        converter.codec = name.rsplit_once(", ").map(|(_, codec)| codec);
        let url = format!("s3://stores/made/{}", path.file_name().unwrap().to_str().unwrap());
        let mut stages = Vec::new();
        let converted = cellfeed::convert(&source, &url, &converter.options(), &mut |progress| {
            stages.push(progress.stage);
            assert!(progress.cells <= progress.n_obs);
            true
        });
        let converted = converted.unwrap();
        assert_eq!((converted.written.n_obs, stages.last()), (3000, Some(&Stage::Uploading)));
        // From the same source to the disk: byte by byte the same.
        let again = folder.path().join(format!("again.{}", converted.format));
        let options = converter.options();
        cellfeed::convert(&source, &again, &options, &mut |_| true).unwrap();
        assert_eq!(files(&server.file(&url)), files(&again), "{name}");
        let remote = cellfeed::open(&url, &server.options()).unwrap();
        assert_eq!(digest(&remote), digest(&source), "{name}");
        assert!(cellfeed::verify(&source, &remote, &mut |_, _| true).unwrap().equal(), "{name}");
        if again.is_dir() {
            std::fs::remove_dir_all(again).unwrap();
        } else {
            std::fs::remove_file(again).unwrap();
        }
    }
    server.assert_no_uploads();
}

#[test]
fn a_long_file_goes_in_parts_and_comes_back() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let path = folder.path().join("long");
    // Two parts, and some of a third.
    let bytes: Vec<u8> =
        (0..(17u32 << 18)).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    std::fs::write(&path, &bytes).unwrap();
    let url = "s3://stores/long.h5ad";
    let counts = Arc::new(Counts::default());
    let remote = through(server.remote(), Behaviour::default(), &counts);
    let mut told = Vec::new();
    let to = Remote::new(remote).unwrap().destination(url, None, false).unwrap();
    // The probe: an upload of one byte, aborted.
    assert_eq!(counts.writes(), 3);
    server.assert_no_uploads();
    to.upload(&path, &mut |done, total| {
        told.push((done, total));
        true
    })
    .unwrap();
    // Begin, three parts, complete.
    assert_eq!(counts.writes(), 3 + 5);
    assert!(std::fs::read(server.file(url)).unwrap() == bytes);
    let all = u64::try_from(bytes.len()).unwrap();
    assert_eq!(told.last(), Some(&(all, all)));
    assert!(told.is_sorted());
    server.assert_no_uploads();
}

/// Opens what an upload has left. Requests that were cut off may arrive at the server even now: a folder
/// that was not there when it was listed is then asked for as a file, at which this server, unlike a real
/// one, fails; whoever opens again finds it.
fn settled(server: &Server, url: &str) -> Result<Store> {
    let mut again = 3;
    loop {
        server.prune();
        match cellfeed::open(url, &server.options()) {
            Err(e) if e.kind() == ErrorKind::Io && again > 0 => again -= 1,
            opened => return opened,
        }
    }
}

/// Lets the store fail for good at each of its steps, or at some, and looks at what is there then.
fn interrupted(from: &Path, old: Option<&Path>, opener: Option<&'static str>, stride: usize) {
    let new = digest(&local(from));
    let old_digest = old.map(|old| digest(&local(old)));
    let name = from.file_name().unwrap().to_str().unwrap();
    let (mut left, mut absent) = (0, 0);
    for lost in [false, true] {
        for step in (0..).step_by(stride) {
            let server = Server::start();
            let url = match old {
                Some(old) => server.put_as(old, name),
                None => format!("s3://stores/0/{name}"),
            };
            let behaviour = Behaviour { dead_after: Some(step), lost, ..Behaviour::default() };
            let counts = Arc::new(Counts::default());
            let remote = through(server.remote().with_attempts(1), behaviour, &counts);
            let done = upload(remote, from, &url, opener, old.is_some());
            let opened = settled(&server, &url);
            let found = match &opened {
                Ok(store) => Some(digest(store)),
                Err(e) => {
                    let known = [ErrorKind::NotFound, ErrorKind::Unsupported];
                    assert!(known.contains(&e.kind()), "{name}, step {step}: {e}");
                    absent += 1;
                    None
                }
            };
            if done.is_ok() {
                assert_eq!(found.as_deref(), Some(new.as_str()));
                assert_eq!(files(&server.file(&url)), files(from));
                assert!(step > 3 && counts.writes() + u64::try_from(stride).unwrap() > step);
                break;
            }
            // The old one, or the new one if the last answer alone was lost; never a mix.
            let whole = found.is_none()
                || found == old_digest
                || (lost && found.as_deref() == Some(new.as_str()));
            assert!(whole, "{name}, step {step}: neither the old store nor the new one");
            let text = done.unwrap_err().to_string();
            assert!(text.contains("connection refused") && text.contains(name), "{text}");
            // What is left does not hinder.
            left += usize::from(found.is_none() && !files(&server.file(&url)).is_empty());
            let again = old.is_some() || !files(&server.file(&url)).is_empty();
            upload(server.remote(), from, &url, opener, again).unwrap();
            let opened = cellfeed::open(&url, &server.options()).unwrap();
            assert_eq!(digest(&opened), new, "{name}, step {step}");
            assert_eq!(
                files(&server.file(&url)),
                files(from),
                "{name}, step {step}: more is there"
            );
        }
    }
    assert_eq!(left > 0, opener.is_some(), "{name}: {left}");
    assert_eq!(absent > 0, opener.is_some() || old.is_none());
}

#[test]
fn a_new_store_is_whole_or_does_not_open_wherever_it_breaks_off() {
    let folder = TempDir::new().unwrap();
    interrupted(&small(folder.path(), Format::Csr, 1), None, Some("header.json"), 1);
}

#[test]
fn an_old_store_is_whole_or_does_not_open_wherever_the_new_one_breaks_off() {
    let folder = TempDir::new().unwrap();
    let [new, old] = [1, 2].map(|seed| small(folder.path(), Format::Csr, seed));
    interrupted(&new, Some(&old), Some("header.json"), 1);
}

#[test]
fn a_zarr_store_is_whole_or_does_not_open_wherever_it_breaks_off() {
    let folder = TempDir::new().unwrap();
    let [new, old] = [1, 2].map(|seed| small(folder.path(), Format::Zarr, seed));
    // Of its many steps some: those of .csr are the same.
    interrupted(&new, Some(&old), Some("zarr.json"), 23);
}

#[test]
fn a_single_file_is_replaced_at_once_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    for format in [Format::Parquet, Format::H5ad] {
        let [new, old] = [1, 2].map(|seed| small(folder.path(), format, seed));
        interrupted(&new, None, None, 1);
        interrupted(&new, Some(&old), None, 1);
    }
}

#[test]
fn a_long_file_that_breaks_off_leaves_the_old_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("long.h5ad");
    std::fs::write(&path, vec![7; 17 << 20]).unwrap();
    let url = "s3://stores/long.h5ad";
    for lost in [false, true] {
        // The probe takes three requests; begin, three parts, complete.
        for step in 3..8 {
            let server = Server::start();
            std::fs::write(server.file(url), b"old").unwrap();
            let behaviour = Behaviour { dead_after: Some(step), lost, ..Behaviour::default() };
            let remote = through(server.remote().with_attempts(1), behaviour, &Arc::default());
            let error = upload(remote, &path, url, None, true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            let there = std::fs::read(server.file(url)).unwrap();
            let new = lost && step == 7;
            assert!(there.len() == if new { 17 << 20 } else { 3 }, "step {step}: {}", there.len());
        }
    }
}

#[test]
fn who_gives_up_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let source = local(&small(folder.path(), Format::H5ad, 1));
    let converter = Converter::new(server.remote());
    for (name, stage) in
        [("a.zarr", Stage::Writing), ("b.zarr", Stage::Uploading), ("c.h5ad", Stage::Uploading)]
    {
        let url = format!("s3://stores/{name}");
        // Slow enough to be given up in the middle.
        let slow =
            Behaviour { latency: std::time::Duration::from_millis(60), ..Behaviour::default() };
        let converter = Converter {
            remote: through(server.remote(), slow, &Arc::default()),
            staging: TempDir::new().unwrap(),
            ..converter
        };
        let mut go_on = |progress: cellfeed::Progress| progress.stage != stage;
        let error = cellfeed::convert(&source, &url, &converter.options(), &mut go_on).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert!(files(&server.file("s3://stores")).is_empty(), "{name}");
        assert_eq!(std::fs::read_dir(converter.staging.path()).unwrap().count(), 0);
        server.assert_no_uploads();
    }
}

#[test]
fn what_fails_here_is_taken_back_there() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let path = small(folder.path(), Format::Zarr, 1);
    // A file that cannot be read.
    std::os::unix::fs::symlink("nowhere", path.join("broken")).unwrap();
    let error =
        upload(server.remote(), &path, "s3://stores/x.zarr", Some("zarr.json"), false).unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    assert!(files(&server.file("s3://stores")).is_empty());
    server.assert_no_uploads();
}

#[test]
fn faults_do_not_show_in_what_is_written() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let stores = written(&folder);
    let source = local(&stores[0].1);
    let expected = digest(&source);
    let counts = Arc::new(Counts::default());
    for (throttled, reset, seed) in [(5, 5, 1), (50, 50, 2)] {
        for format in [Format::Zarr, Format::Csr, Format::Parquet] {
            let url = format!("s3://stores/{seed}/x.{format}");
            let behaviour = Behaviour { throttled, reset, seed, ..Behaviour::default() };
            let remote = through(server.remote().with_attempts(12), behaviour, &counts);
            Converter::new(remote).convert(&source, &url).unwrap();
            let store = cellfeed::open(&url, &server.options()).unwrap();
            assert_eq!(digest(&store), expected, "{url}");
        }
    }
    assert!(counts.faults() > 0, "nothing failed");
    // Parts, and requests whose answer is lost.
    let path = folder.path().join("long");
    std::fs::write(&path, vec![9; 17 << 20]).unwrap();
    for seed in 0..4 {
        let url = format!("s3://stores/{seed}/long.h5ad");
        let behaviour = Behaviour { throttled: 100, reset: 300, seed, ..Behaviour::default() };
        let remote = through(server.remote().with_attempts(12), behaviour, &counts);
        upload(remote, &path, &url, None, false).unwrap();
        assert!(std::fs::read(server.file(&url)).unwrap() == vec![9; 17 << 20]);
    }
}

#[test]
fn an_old_store_of_another_kind_is_replaced_as_a_whole() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/zarr");
    let url = server.put_as(&data.join("anndata-0.10.9-v2.zarr"), "x.zarr");
    let source = local(&small(folder.path(), Format::Zarr, 1));
    let mut converter = Converter::new(server.remote());
    let error = converter.convert(&source, &url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("exists already"), "{error}");
    converter.overwrite = true;
    converter.convert(&source, &url).unwrap();
    assert_eq!(files(&server.file(&url)), files(&folder.path().join("1.zarr")));
    assert_eq!(digest(&cellfeed::open(&url, &server.options()).unwrap()), digest(&source));
}

#[test]
fn what_may_not_be_written_is_said_before_the_work() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    let path = small(folder.path(), Format::Zarr, 1);
    let source = local(&path);
    let there = server.put_as(&path, "there.zarr");
    let other = server.put_as(&path, "other.zarr");
    std::fs::write(server.file(&other).join("notes.txt"), b"mine").unwrap();
    let remote_source = cellfeed::open(&there, &server.options()).unwrap();
    let check = |source: &Store, url: &str, remote: RemoteOptions, kind, word: &str| {
        let converter = Converter { overwrite: true, ..Converter::new(remote) };
        let options = converter.options().with_format(if url.contains("h5ad") {
            Format::H5ad
        } else {
            Format::Zarr
        });
        let none = &mut |_| panic!("work has begun");
        let error: Error = cellfeed::convert(source, url, &options, none).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(error.kind() == kind && text.contains(word), "{url}: {kind:?}, {word}: {text}");
        assert!(!text.contains(SECRET) && !text.contains("other-secret"), "{text}");
        assert_eq!(std::fs::read_dir(converter.staging.path()).unwrap().count(), 0);
    };
    let remote = || server.remote();
    let new = "s3://stores/new.zarr";
    check(&source, "http://127.0.0.1:9/x.zarr", remote(), ErrorKind::Unsupported, "web server");
    check(&source, "ftp://h/x.zarr", remote(), ErrorKind::Unsupported, "ftp://");
    check(&source, "s3://stores", remote(), ErrorKind::InvalidInput, "nothing in it");
    check(&source, "s3://stores/x.h5ad/", remote(), ErrorKind::InvalidInput, "single file");
    check(&source, "s3://stores/x.zarr#X", remote(), ErrorKind::InvalidInput, "#");
    check(&source, "s3://no-such-bucket/x.zarr", remote(), ErrorKind::NotFound, "no such bucket");
    check(&source, &other, remote(), ErrorKind::InvalidInput, "notes.txt");
    check(&remote_source, &there, remote(), ErrorKind::InvalidInput, "is the source");
    check(
        &remote_source,
        &format!("{there}/X/inner.zarr"),
        remote(),
        ErrorKind::InvalidInput,
        "is the source",
    );
    let wrong = remote().with_setting("secret_access_key", "other-secret");
    check(&source, new, wrong, ErrorKind::Io, "credentials");
    let anonymous = remote().with_setting("skip_signature", "true");
    check(&source, new, anonymous, ErrorKind::Io, "credentials");
    let silent = remote().with_setting("endpoint", "http://127.0.0.1:9").with_attempts(2);
    check(&source, new, silent, ErrorKind::Io, "2 attempts");
    // May read, and not write: the first request that writes fails.
    let dead = Behaviour { dead_after: Some(0), ..Behaviour::default() };
    let dead = through(remote().with_attempts(1), dead, &Arc::default());
    check(&source, new, dead, ErrorKind::Io, "connection refused");
    assert_eq!(files(&server.file(&there)), files(&path));
    server.assert_no_uploads();
}

#[test]
fn what_is_incomplete_is_said_to_be_so() {
    let folder = TempDir::new().unwrap();
    let server = Server::start();
    for (format, opener) in [(Format::Zarr, "zarr.json"), (Format::Csr, "header.json")] {
        let url = server.put(&small(folder.path(), format, 1));
        std::fs::remove_file(server.file(&url).join(opener)).unwrap();
        let error = cellfeed::open(&url, &server.options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("incomplete"), "{error}");
    }
}
