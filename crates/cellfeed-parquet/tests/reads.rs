//! What is read of a store and what is not; and that no flipped bit becomes a wrong number.
#![allow(clippy::unwrap_used, clippy::panic, clippy::single_range_in_vec_init)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, ErrorKind, Extras, MatrixKey, RowRanges, WriteOptions};
use cellfeed_parquet::{ParquetBackend, ParquetOptions, create};
use cellfeed_testkit::writing::{batches, new_store};
use cellfeed_testkit::{Oracle, fixtures};
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;

fn write(path: &Path, oracle: &Oracle, options: &WriteOptions) {
    let new = new_store(oracle, Extras::default()).unwrap();
    let mut writer = create(path, new.clone(), options).unwrap();
    for batch in batches(oracle, &new).unwrap() {
        writer.append(&batch).unwrap();
    }
    writer.finish().unwrap();
}

fn open(path: &Path) -> (cellfeed_core::Result<ParquetBackend>, Arc<Engine>) {
    let engine = Arc::new(Engine::default());
    let store = ParquetBackend::open(path, Arc::clone(&engine), &ParquetOptions::default());
    (store, engine)
}

#[test]
fn pages_without_wanted_rows_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = fixtures::oracle("pages", 4000, 200, 31);
    for codec in ["blob-none", "blob-lz4", "list-zstd"] {
        let path = folder.path().join(format!("{codec}.parquet"));
        write(&path, &oracle, &WriteOptions::default().with_codec(codec));
        let (store, engine) = open(&path);
        let store = store.unwrap();
        assert_eq!(engine.stats().snapshot().bytes_read, 0, "opening reads no data");
        let wanted = |rows: &[std::ops::Range<u64>]| {
            let rows = RowRanges::try_from_ranges(rows.to_vec()).unwrap();
            let cost = store.cost(&MatrixKey::X, &rows).unwrap();
            let before = engine.stats().snapshot();
            let answer = block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap();
            let read = engine.stats().snapshot().since(&before);
            assert_eq!(read.bytes_wanted, cost.bytes_read, "{codec}");
            let kept = u64::try_from(answer.n_bytes()).unwrap();
            assert!(cost.bytes_kept >= kept / 2 && cost.bytes_held >= kept, "{codec}: {cost:?}");
            read.bytes_wanted
        };
        let whole = wanted(&[0..4000]);
        // A block that is a page is one of 250; one across two pages is two.
        let one = wanted(&[160..176]);
        assert!(one * 100 < whole && one > 0, "{codec}: {one} of {whole}");
        assert_eq!(wanted(&[165..166, 170..172]), one, "{codec}: a page is read once");
        assert!(wanted(&[168..184]) > one, "{codec}");
        let apart = wanted(&[160..176, 3200..3216]);
        assert_eq!(apart, one + wanted(&[3200..3216]), "{codec}");
        // All rows as many ranges are the same pages.
        let odd: Vec<_> = (0..4000).step_by(2).map(|row| row..row + 1).collect();
        assert_eq!(wanted(&odd), whole, "{codec}");
    }
}

#[test]
fn columns_nobody_asked_for_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let oracle = fixtures::oracle("columns", 9000, 5, 32);
    write(&path, &oracle, &WriteOptions::default());
    let (store, engine) = open(&path);
    let store = store.unwrap();
    let wanted = |columns: &[&str], rows: std::ops::Range<u64>| {
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let before = engine.stats().snapshot();
        block_on(store.read_obs(&columns, &RowRanges::single(rows))).unwrap();
        engine.stats().snapshot().since(&before).bytes_wanted
    };
    let (stage, count) = (wanted(&["stage"], 0..9000), wanted(&["count"], 0..9000));
    assert_eq!(wanted(&["count", "stage", "count"], 0..9000), stage + count);
    assert_eq!(wanted(&[], 0..9000), 0);
    assert!(wanted(&["count"], 5000..5016) * 3 < count);
}

#[test]
fn pages_are_learned_where_there_is_no_index() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet");
    for name in ["own-blobs-no-index", "tahoe-small-pages"] {
        let (store, engine) = open(&path.join(format!("{name}.parquet")));
        let store = store.unwrap();
        let wanted = |rows: std::ops::Range<u64>| {
            let before = engine.stats().snapshot();
            block_on(store.read_rows(&MatrixKey::X, &RowRanges::single(rows))).unwrap();
            engine.stats().snapshot().since(&before).bytes_wanted
        };
        let (first, second) = (wanted(2..3), wanted(2..3));
        assert!(second * 3 < first, "{name}: {first}, then {second} bytes");
    }
}

#[test]
fn bare_limits_are_of_the_same_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let oracle = fixtures::oracle("limits", 400, 50, 35);
    write(&path, &oracle, &WriteOptions::default());
    let store = open(&path).0.unwrap();
    let fetches = [RowRanges::single(0..32), RowRanges::single(100..300)];
    let limits = store.roofline(&MatrixKey::X, &fetches, 2).unwrap();
    let cost = |rows| store.cost(&MatrixKey::X, rows).unwrap().bytes_read;
    assert_eq!(limits.bytes_read, fetches.iter().map(cost).sum::<u64>());
    assert!(limits.bytes_decoded > 0 && limits.bytes_gathered > 0 && limits.decode_seconds > 0.0);
    let past = [RowRanges::single(0..401)];
    assert!(store.roofline(&MatrixKey::X, &past, 2).is_err());
}

#[test]
fn a_file_that_changes_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let oracle = fixtures::oracle("changes", 40, 23, 34);
    write(&path, &oracle, &WriteOptions::default());
    let store = open(&path).0.unwrap();
    let rows = RowRanges::single(0..oracle.n_obs);
    let read = || block_on(store.read_rows(&MatrixKey::X, &rows));
    read().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for damaged in [&bytes[..bytes.len() / 2], &[&bytes[..], b"more"].concat()[..]] {
        std::fs::write(&path, damaged).unwrap();
        let error = read().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Changed | ErrorKind::Corrupt), "{error}");
        assert!(error.to_string().contains("a.parquet"), "{error}");
    }
    let error = open(Path::new("/no such folder/a.parquet")).0.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn no_flipped_bit_becomes_a_wrong_number() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = fixtures::oracle("flips", 40, 23, 33);
    let columns: Vec<String> = oracle.obs.iter().map(|c| c.name.clone()).collect();
    let rows = RowRanges::single(0..oracle.n_obs);
    for codec in ["blob-none", "list-lz4"] {
        let path = folder.path().join("a.parquet");
        write(&path, &oracle, &WriteOptions::default().with_codec(codec).with_overwrite(true));
        let bytes = std::fs::read(&path).unwrap();
        let answers = |store: &ParquetBackend| {
            let matrices = oracle.matrices.iter().map(|m| {
                let read = block_on(store.read_rows(&m.key, &rows)).ok()?;
                let parts = read.segments().iter().map(|s| {
                    let indices = s.indices().to_u32_vec();
                    format!("{:?} {indices:?} {:?}", s.indptr(), s.values().as_bytes())
                });
                Some(parts.collect::<String>())
            });
            let obs = columns.iter().map(|c| {
                let read = block_on(store.read_obs(std::slice::from_ref(c), &rows)).ok()?;
                Some(format!("{read:?}"))
            });
            let var = block_on(store.read_var(&MatrixKey::X)).ok().map(|t| format!("{t:?}"));
            matrices.chain(obs).chain([var]).collect::<Vec<Option<String>>>()
        };
        let want = answers(&open(&path).0.unwrap());
        assert!(want.iter().all(Option::is_some));
        let (mut refused, mut n) = (0, 0);
        for at in (0..bytes.len()).step_by(11) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).unwrap();
            n += 1;
            let Ok(store) = open(&path).0 else {
                refused += 1;
                continue;
            };
            let got = answers(&store);
            refused += usize::from(got.iter().any(Option::is_none));
            for (k, (got, want)) in got.iter().zip(&want).enumerate() {
                assert!(
                    got.is_none() || got == want,
                    "{codec}: answer {k} differs after a flip in byte {at} of {}",
                    bytes.len()
                );
            }
        }
        assert!(refused * 10 > n * 8, "{codec}: {refused} of {n}");
    }
}
