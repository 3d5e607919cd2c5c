//! The eight laws, on files of Python anndata and on files of our own writer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, BackendExt, Error, ErrorKind, MatrixKey, Result};
use cellfeed_hdf5::{Access, Hdf5Backend, Hdf5Options};
use cellfeed_testkit::{Oracle, PeakAlloc, Subject, check_oracle, conformance};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    open_at(path, "")
}

fn open_at(path: &Path, root: &str) -> Result<Arc<dyn Backend>> {
    open_by(path, root, Access::Read)
}

fn open_by(path: &Path, root: &str, access: Access) -> Result<Arc<dyn Backend>> {
    let options = Hdf5Options::default().with_root(root).with_access(access);
    Ok(Arc::new(Hdf5Backend::open(path, Arc::new(Engine::default()), &options)?))
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/h5ad")
}

fn subject(stem: &str) -> Subject {
    let oracle = Oracle::load(&data().join(format!("{stem}.oracle.json"))).unwrap();
    Subject::on_disk(&data().join(format!("{stem}.h5ad")), oracle, open).unwrap()
}

/// Files of different ages and storage: law 7 opens each some hundreds of times.
fn by_anndata() -> Vec<Subject> {
    ["anndata-0.6.22", "anndata-0.7.8", "anndata-0.8.0", "anndata-0.13.4"].map(subject).into()
}

fn by_hand() -> Vec<Subject> {
    [
        "store-csr-gzip-shuffle-fletcher32",
        "store-csr-chunks-7",
        "store-dense-gzip",
        "x-csr-unsorted-rows",
        "index-fixed-array-gzip",
        "index-extensible-array-gzip",
    ]
    .map(subject)
    .into()
}

/// Views of the map: of one run of bytes, of rows across the borders of chunks, and the reads that stand
/// in where elements are misaligned.
fn by_map() -> Vec<Subject> {
    let subject = |stem| {
        let oracle = Oracle::load(&data().join(format!("{stem}.oracle.json"))).unwrap();
        let open = |path: &Path| open_by(path, "", Access::Map);
        let file = Subject::on_disk(&data().join(format!("{stem}.h5ad")), oracle, open).unwrap();
        file.with_shared_memory()
    };
    ["anndata-0.13.4", "index-extensible-array", "x-csr-unsorted-rows"].map(subject).into()
}

conformance!(files_of_anndata, by_anndata);
conformance!(files_by_hand, by_hand);
conformance!(files_mapped, by_map);

/// The file and the group inside it that an oracle speaks of.
fn file_of(stem: &Path) -> Option<(PathBuf, String)> {
    let name = stem.file_name()?.to_str()?;
    for extension in ["h5ad", "h5"] {
        let path = stem.with_file_name(format!("{name}.{extension}"));
        if path.exists() {
            return Some((path, String::new()));
        }
    }
    // NAME.MEMBER.oracle.json speaks of a member of NAME.
    let (name, member) = name.rsplit_once('.')?;
    let mudata = stem.with_file_name(format!("{name}.h5mu"));
    if mudata.exists() {
        return Some((mudata, format!("mod/{member}")));
    }
    let tenx = stem.with_file_name(format!("{name}.h5"));
    tenx.exists().then(|| (tenx, member.to_owned()))
}

/// Stores whose X lies beyond the pure-Rust reader: a word of the reason that must be given.
const BEYOND: [(&str, &str); 7] = [
    ("store-csr-bitshuffle", "bitshuffle"),
    ("store-csr-blosc", "blosc"),
    ("store-csr-blosc2", "blosc2"),
    ("store-csr-bzip2", "bzip2"),
    ("index-btree2", "libhdf5"),
    ("index-btree2-gzip", "libhdf5"),
    ("container-libver-v200", "libhdf5"),
];

#[test]
fn every_store_of_testdata_agrees_with_its_oracle() {
    let mut problems = String::new();
    let mut agree = 0;
    for (stem, oracle) in Oracle::load_below(&data()).unwrap() {
        let stem = Path::new(&stem);
        let Some((path, root)) = file_of(stem) else {
            problems += &format!("\n{}: no file", stem.display());
            continue;
        };
        let name = stem.file_name().unwrap().to_str().unwrap();
        let opened = open_at(&path, &root);
        if let Some((_, word)) = BEYOND.iter().find(|(n, _)| *n == name) {
            let error =
                opened.and_then(|b| b.schema().matrix(&MatrixKey::X).map(|_| ())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
            assert!(error.to_string().contains(word), "{name}: {error}");
            continue;
        }
        // By reads and by the map, which not every store allows.
        for opened in [opened, open_by(&path, &root, Access::Map)] {
            match opened.map(|b| check_oracle(b.as_ref(), &oracle)) {
                Ok(Ok(())) => agree += 1,
                Ok(Err(v)) => problems += &format!("\n{}: {v}", path.display()),
                Err(e) => problems += &format!("\n{}: {e}", path.display()),
            }
        }
    }
    assert!(problems.is_empty(), "{problems}");
    assert!(agree >= 170, "only {agree} agree");
}

/// What is wrong with each file of `bad/`, and the latest moment at which that must be noticed.
#[test]
fn every_bad_file_is_refused_in_time() {
    let text = std::fs::read_to_string(data().join("bad/expected.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    // Read all the same, by intent: the index is found under its usual name.
    let lenient = ["obs-index-unnamed.h5ad"];
    let mut accepted = Vec::new();
    for (name, expected) in &expected {
        let path = data().join("bad").join(name);
        let refusal = refusal(&path, expected["when"].as_str().unwrap());
        match refusal {
            None if lenient.contains(&name.as_str()) => {}
            None => accepted.push(format!("{name}: {}", expected["what"])),
            Some(error) => {
                let text = error.to_string();
                assert!(text.contains(name.as_str()), "{name}: the file is not named: {text}");
                assert_ne!(error.kind(), ErrorKind::Internal, "{name}: {text}");
            }
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}

/// The error at or before `when`: opening the file, finding a matrix, reading all of `X`, or reading
/// every column.
fn refusal(path: &Path, when: &str) -> Option<Error> {
    let backend = match open(path) {
        Ok(backend) => backend,
        Err(e) => return Some(e),
    };
    let schema = backend.schema();
    let mut matrices: Vec<MatrixKey> = schema.matrices.iter().map(|m| m.key.clone()).collect();
    matrices.insert(0, MatrixKey::X);
    if let Some(error) = matrices.iter().find_map(|key| schema.matrix(key).err()) {
        return Some(error);
    }
    match when {
        "open" => None,
        "read" => block_on(backend.read_all_rows(&MatrixKey::X)).err(),
        _ => schema.obs.iter().find_map(|c| block_on(backend.read_obs_column(&c.name)).err()),
    }
}

#[test]
fn what_is_stored_as_it_is_wanted_is_not_copied() {
    let path = data().join("anndata-0.13.4.h5ad");
    // By `Auto` for whoever copies rows at once, as the loader does, and not for who keeps them.
    for (access, views) in [(Access::Read, false), (Access::Map, true), (Access::Auto, false)] {
        let backend = open_by(&path, "", access).unwrap();
        let rows = cellfeed_core::RowRanges::single(0..backend.schema().n_obs);
        let of = || block_on(backend.read_rows(&MatrixKey::X, &rows)).unwrap();
        let at = |read: &cellfeed_core::CsrRows| read.segments()[0].values().as_bytes().as_ptr();
        let (first, second) = (of(), of());
        // Two reads have two buffers; two views are of the same bytes.
        assert_eq!(at(&first) == at(&second), views, "{access:?}");
    }
}
