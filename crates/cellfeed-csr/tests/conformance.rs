//! The eight laws on stores of our own writer, plain and packed, by the map and by reads; the writer
//! itself; stores that are damaged in every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, ErrorKind, Extras, MatrixKey, Result, WriteOptions};
use cellfeed_csr::{Access, CsrBackend, CsrOptions};
use cellfeed_testkit::writing::{Writing, batches, new_store};
use cellfeed_testkit::{Oracle, PeakAlloc, Subject, conformance, fixtures};
use std::path::Path;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn open_as(access: Access) -> impl Fn(&Path) -> Result<Arc<dyn Backend>> + Send + Sync + Clone {
    move |path| {
        let options = CsrOptions::default().with_access(access);
        Ok(Arc::new(CsrBackend::open(path, Arc::new(Engine::default()), &options)?))
    }
}

fn write(path: &Path, oracle: &Oracle, codec: &str) -> Result<()> {
    let new = new_store(oracle, Extras::default())?;
    let options = WriteOptions::default().with_codec(codec);
    let mut writer = cellfeed_csr::create(path, new.clone(), &options)?;
    for batch in batches(oracle, &new)? {
        writer.append(&batch)?;
    }
    writer.finish().map(|_| ())
}

/// The oracle as our stores have it: values in the smallest type.
fn shrunk(mut oracle: Oracle) -> Oracle {
    for matrix in &mut oracle.matrices {
        let mut span = cellfeed_core::ValueSpan::default();
        span.add(&matrix.values);
        matrix.values = matrix.values.cast(span.smallest()).unwrap();
        matrix.encoding = cellfeed_core::Encoding::Csr;
    }
    oracle
}

fn subjects(codec: &'static str, access: Access) -> Vec<Subject> {
    // Law 7 damages each some hundreds of times.
    let few = ["small", "every value type"];
    fixtures::oracles()
        .into_iter()
        .filter(|oracle| few.contains(&oracle.name.as_str()))
        .map(shrunk)
        .map(|oracle| {
            let store = Subject::written(
                "store.csr",
                oracle,
                move |path, oracle| write(path, oracle, codec),
                open_as(access),
            )
            .unwrap();
            if access == Access::Read { store } else { store.with_shared_memory() }
        })
        .collect()
}

fn plain_by_map() -> Vec<Subject> {
    subjects("plain", Access::Map)
}

fn plain_by_reads() -> Vec<Subject> {
    subjects("plain", Access::Read)
}

fn packed() -> Vec<Subject> {
    subjects("packed", Access::Auto)
}

conformance!(plain_mapped, plain_by_map);
conformance!(plain_read, plain_by_reads);
conformance!(packed_rows, packed);

#[test]
fn the_writer_keeps_everything_but_extras() {
    for codec in ["plain", "packed"] {
        let create = |path: &Path, new, options: &WriteOptions| {
            cellfeed_csr::create(path, new, &options.clone().with_codec(codec))
        };
        Writing::new("store.csr", create, open_as(Access::Auto))
            .may_drop("uns")
            .may_drop("obsm")
            .may_drop("varm")
            .may_drop("obsp")
            .may_drop("varp")
            .check()
            .unwrap_or_else(|e| panic!("{codec}: {e}"));
    }
}

#[test]
fn damage_that_reads_cannot_see_is_seen_by_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csr");
    write(&path, &fixtures::oracle("a", 37, 23, 4), "plain").unwrap();
    let open = || CsrBackend::open(&path, Arc::new(Engine::default()), &CsrOptions::default());
    open().unwrap().verify_checksums().unwrap();
    let data = path.join("X/data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&data, &bytes).unwrap();
    let error = open().unwrap().verify_checksums().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("X/data"), "{error}");
    let error = open().unwrap().verify_files(&mut |_, _| true).unwrap_err();
    assert!(error.to_string().contains("X/data"), "{error}");
    bytes[0] ^= 1;
    std::fs::write(&data, &bytes).unwrap();
    let mut last = (0, 0);
    let note = &mut |done, total| {
        last = (done, total);
        true
    };
    let checked = open().unwrap().verify_files(note).unwrap().unwrap();
    assert_eq!(last, (checked, checked));
    let stopped = open().unwrap().verify_files(&mut |_, _| false).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csr");
    write(&path, &fixtures::oracle("a", 37, 23, 4), "packed").unwrap();
    let open = || CsrBackend::open(&path, Arc::new(Engine::default()), &CsrOptions::default());
    let refused = |what: &str, kind: ErrorKind| {
        let error = open().map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let header = std::fs::read_to_string(path.join("header.json")).unwrap();
    let sum = header.split("\"xxh3\": \"").nth(3).unwrap()[..16].to_owned();
    for odd in ["zz", "", &sum.to_uppercase().replace('0', "G"), &sum[1..]] {
        std::fs::write(path.join("header.json"), header.replace(&sum, odd)).unwrap();
        refused("for the checksum of", ErrorKind::Corrupt);
    }
    let with = |from: &str, to: &str| {
        assert!(header.contains(from), "{from}");
        std::fs::write(path.join("header.json"), header.replacen(from, to, 1)).unwrap();
    };
    with("\"version\": 1", "\"version\": 2");
    refused("newer", ErrorKind::Unsupported);
    with("cellfeed-csr", "other");
    refused("format", ErrorKind::Unsupported);
    with("\"X/rows\"", "\"../rows\"");
    refused("header.json", ErrorKind::Corrupt);
    with("\"packed\"", "\"plain\"");
    refused("indices", ErrorKind::Corrupt);
    std::fs::write(path.join("header.json"), &header[..header.len() / 2]).unwrap();
    refused("damaged", ErrorKind::Corrupt);
    std::fs::write(path.join("header.json"), &header).unwrap();
    std::fs::File::options().append(true).open(path.join("X/rows")).unwrap().set_len(3).unwrap();
    refused("X/rows", ErrorKind::Corrupt);
    std::fs::remove_file(path.join("X/rows")).unwrap();
    refused("missing", ErrorKind::Corrupt);
    // A conversion that was ended before its header was written.
    std::fs::remove_file(path.join("header.json")).unwrap();
    assert!(!cellfeed_csr::looks_like(&path));
    refused("header.json", ErrorKind::NotFound);
}

#[test]
fn a_file_that_is_cut_short_while_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csr");
    let oracle = fixtures::oracle("a", 37, 23, 4);
    write(&path, &oracle, "plain").unwrap();
    for access in [Access::Map, Access::Read] {
        let store = open_as(access)(&path).unwrap();
        let rows = cellfeed_core::RowRanges::single(0..oracle.n_obs);
        let read = || futures::executor::block_on(store.read_rows(&MatrixKey::X, &rows));
        read().unwrap();
        let data = path.join("X/data");
        let bytes = std::fs::read(&data).unwrap();
        std::fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
        let error = read().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Changed | ErrorKind::Corrupt), "{error}");
        std::fs::write(&data, &bytes).unwrap();
    }
}
