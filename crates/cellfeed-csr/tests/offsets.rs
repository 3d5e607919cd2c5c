//! Row offsets that are looked up in their map: damage is refused by the reads that meet it, and by
//! whoever reads all.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use cellfeed_core::io::Engine;
use cellfeed_core::{
    Backend, ConcatBackend, ConcatOptions, Error, ErrorKind, Extras, Loader, LoaderOptions,
    MatrixKey, Plan, PlanOptions, RowRanges, Strategy, WriteOptions,
};
use cellfeed_csr::{Access, CsrBackend, CsrOptions};
use cellfeed_testkit::fixtures;
use cellfeed_testkit::writing::{batches, new_store};
use futures::executor::block_on;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: u64 = 3000;

fn store(folder: &Path, codec: &str) -> PathBuf {
    let path = folder.join(format!("{codec}.csr"));
    let oracle = fixtures::oracle(codec, ROWS, 23, 4);
    let new = new_store(&oracle, Extras::default()).unwrap();
    let options = WriteOptions::default().with_codec(codec);
    let mut writer = cellfeed_csr::create(&path, new.clone(), &options).unwrap();
    for batch in batches(&oracle, &new).unwrap() {
        writer.append(&batch).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn open(path: &Path, access: Access) -> Result<CsrBackend, Error> {
    let options = CsrOptions::default().with_access(access);
    CsrBackend::open(path, Arc::new(Engine::default()), &options)
}

fn entries(path: &Path) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<8>().0.iter().map(|e| u64::from_le_bytes(*e)).collect()
}

fn put(path: &Path, entries: &[u64]) {
    let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

fn names(error: &Error, file: &str, rows: [u64; 2]) {
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let context = |key: &str| error.context().find(|(k, _)| *k == key).map(|(_, v)| v.to_owned());
    assert!(context("file").is_some_and(|f| f.ends_with(file)), "{error}");
    assert_eq!(context("element").as_deref(), Some("X"), "{error}");
    let row = context("row").and_then(|r| r.parse().ok());
    assert!(row.is_some_and(|r: u64| rows.contains(&r)), "{error}");
}

#[test]
fn damage_in_the_middle_is_met_by_the_reads_that_touch_it_and_by_checksums() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, file) in [("plain", "X/indptr"), ("packed", "X/indptr"), ("packed", "X/offsets")] {
        let path = store(folder.path(), codec);
        let array = path.join(file);
        let sound = entries(&array);
        let whole = open(&path, Access::Read).unwrap();
        let at = 2001;
        for damaged in [0, sound[at] + 4000, sound[at - 1] - 1, u64::MAX, *sound.last().unwrap()] {
            let mut wrong = sound.clone();
            wrong[at] = damaged;
            put(&array, &wrong);
            for access in [Access::Auto, Access::Map] {
                let store = open(&path, access).unwrap();
                let read = |rows: &RowRanges| block_on(store.read_rows(&MatrixKey::X, rows));
                let far = [0..1, 17..700, 1998..1999, 2003..2004, 2500..ROWS];
                for rows in far.map(RowRanges::single) {
                    let want = block_on(whole.read_rows(&MatrixKey::X, &rows)).unwrap();
                    assert_eq!(read(&rows).unwrap().n_rows(), want.n_rows());
                    let values = |r: &cellfeed_core::CsrRows| -> Vec<u64> {
                        r.segments()
                            .iter()
                            .flat_map(|s| s.values().to_f64_vec())
                            .map(f64::to_bits)
                            .collect()
                    };
                    assert_eq!(values(&read(&rows).unwrap()), values(&want));
                    store.cost(&MatrixKey::X, &rows).unwrap();
                }
                let near = [2000..2001, 2001..2002, 1990..2010, 0..ROWS];
                for rows in near.map(RowRanges::single) {
                    let error = read(&rows).map(|_| ()).unwrap_err();
                    names(&error, file, [2000, 2001]);
                }
                for rows in [2000..2001, 2001..2002].map(RowRanges::single) {
                    names(&store.cost(&MatrixKey::X, &rows).unwrap_err(), file, [2000, 2001]);
                }
                let error = store.verify_checksums().unwrap_err();
                assert!(error.to_string().contains(file), "{error}");
            }
            // Without a map all of it is read, and refused, when the store is opened.
            let error = open(&path, Access::Read).map(|_| ()).unwrap_err();
            names(&error, file, [2000, 2001]);
        }
        put(&array, &sound);
        let store = open(&path, Access::Auto).unwrap();
        store.verify_checksums().unwrap();
        // The header may say that damage is what was written.
        let header = std::fs::read_to_string(path.join("header.json")).unwrap();
        drop(store);
        let mut wrong = sound.clone();
        wrong[at] = 0;
        put(&array, &wrong);
        let store = open(&path, Access::Auto).unwrap();
        let error = store.verify_checksums().unwrap_err().to_string();
        let found = error.split("checksum is ").nth(1).unwrap()[..16].to_owned();
        let said = error.split("header says ").nth(1).unwrap()[..16].to_owned();
        std::fs::write(path.join("header.json"), header.replace(&said, &found)).unwrap();
        let error = open(&path, Access::Auto).unwrap().verify_checksums().unwrap_err();
        names(&error, file, [2000, 2001]);
        std::fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_file_of_offsets_that_is_written_to_while_open_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["plain", "packed"] {
        let path = store(folder.path(), codec);
        let array = path.join("X/indptr");
        for access in [Access::Auto, Access::Map] {
            let store = open(&path, access).unwrap();
            let rows = RowRanges::single(5..50);
            let read = || block_on(store.read_rows(&MatrixKey::X, &rows)).map(|_| ());
            read().unwrap();
            let bytes = std::fs::read(&array).unwrap();
            std::fs::write(&array, &bytes[..16]).unwrap();
            assert_eq!(read().unwrap_err().kind(), ErrorKind::Changed);
            let error = store.cost(&MatrixKey::X, &rows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
            assert!(error.to_string().contains("X/indptr"), "{error}");
            std::fs::write(&array, bytes).unwrap();
        }
    }
}

#[test]
fn of_several_stores_the_one_that_is_damaged_is_named_with_its_own_row() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let paths = [0, 1].map(|i| store(folders[i].path(), "plain"));
    let indptr = entries(&paths[1].join("X/indptr"));
    let row = (1000..).find(|&row| indptr[row] < indptr[row + 1]).unwrap();
    let array = paths[1].join("X/indices");
    let mut indices = std::fs::read(&array).unwrap();
    let at = indptr[row] as usize * 2;
    indices[at..at + 2].fill(0xff);
    std::fs::write(&array, indices).unwrap();
    for access in [Access::Map, Access::Read] {
        let stores =
            paths.iter().map(|path| -> Arc<dyn Backend> { Arc::new(open(path, access).unwrap()) });
        let engine = Arc::new(Engine::default());
        let options = ConcatOptions::default();
        let both = ConcatBackend::try_new(stores.collect(), &options, engine).unwrap();
        let rows = RowRanges::try_from_ranges([5..7, 2990..ROWS + row as u64 + 3]).unwrap();
        let read = block_on(both.read_rows(&MatrixKey::X, &rows)).unwrap_err();
        let options = PlanOptions::default().with_batch_size(50).with_fetch_factor(4);
        let plan = Plan::new(2 * ROWS, Strategy::BlockShuffling { block_size: 8 }, &options);
        let both: Arc<dyn Backend> = Arc::new(both);
        let loader = Loader::new(both, plan.unwrap(), LoaderOptions::default()).unwrap();
        let loaded = loader.epoch(0).unwrap().find_map(Result::err).unwrap();
        for error in [read, loaded] {
            names(&error, "X/indices", [row as u64; 2]);
            let path = paths[1].to_str().unwrap();
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}
