//! Chunks are decoded as far as needed once their checksums were found right, and never before.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cellfeed_core::io::{Engine, EngineOptions};
use cellfeed_core::{Backend, CsrRows, ErrorKind, MatrixKey, RowRanges};
use cellfeed_hdf5::{
    Compression, Frame, H5adWriter, Hdf5Backend, Hdf5Options, Strings, WriteOptions,
};
use futures::executor::block_on;
use std::path::Path;
use std::sync::Arc;

const ROWS: u32 = 4_000;
/// Elements of a chunk: some 190 rows.
const CHUNK: usize = 20_000;

/// Row `r` has genes and values that tell of the row, 100 and some of them.
fn row(r: u32) -> (Vec<u32>, Vec<f32>) {
    let genes: Vec<u32> = (0..100 + r % 11).map(|i| i * 7 + (r * 31 + i * i) % 7).collect();
    let values = genes.iter().map(|g| ((g ^ r) % 23 + 1) as f32).collect();
    (genes, values)
}

fn write(path: &Path) {
    let options = WriteOptions::default()
        .with_compression(Compression::gzip())
        .with_shuffle(false)
        .with_chunk_elements(CHUNK as u64)
        .with_overwrite(true);
    let mut writer = H5adWriter::create(path, 800, &options).unwrap();
    for r in 0..ROWS {
        let (genes, values) = row(r);
        writer.append(&[0, genes.len() as u64], &genes, &values).unwrap();
    }
    let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let (cells, genes) = (names(ROWS), names(800));
    writer.finish(&Frame::new(Strings::new(&cells)), &Frame::new(Strings::new(&genes))).unwrap();
}

fn open(path: &Path) -> (Arc<Engine>, Hdf5Backend) {
    let engine = Arc::new(Engine::new(EngineOptions::default().with_threads(2)));
    let backend = Hdf5Backend::open(path, Arc::clone(&engine), &Hdf5Options::default()).unwrap();
    (engine, backend)
}

fn read(backend: &Hdf5Backend, rows: &RowRanges) -> CsrRows {
    let answer = block_on(backend.read_rows(&MatrixKey::X, rows)).unwrap();
    for ((segment, span), r) in answer.spans().zip(rows.iter_rows()) {
        let (genes, values) = row(u32::try_from(r).unwrap());
        assert_eq!(segment.indices().to_u32_vec()[span.clone()], genes, "row {r}");
        assert_eq!(segment.values().as_slice::<f32>().unwrap()[span], values, "row {r}");
    }
    answer
}

#[test]
fn a_chunk_is_decoded_whole_once_and_then_as_far_as_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    write(&path);
    let (engine, backend) = open(&path);
    let decoded = |rows: &RowRanges| {
        let before = engine.stats().snapshot();
        read(&backend, rows);
        engine.stats().snapshot().since(&before).bytes_decoded
    };
    let whole = (2 * CHUNK * 4) as u64;
    let first_rows = RowRanges::single(0..8);
    assert_eq!(decoded(&first_rows), whole);
    // 8 rows of 100 to 108 elements, of two arrays, and a kilobyte more of each.
    let again = decoded(&first_rows);
    assert!((2 * 8 * 100 * 4..2 * (8 * 110 * 4 + 1024)).contains(&again), "{again}");
    // To the end of a chunk, which is all of it.
    assert_eq!(decoded(&RowRanges::single(188..189)), whole);
    // All sorts of blocks, twice and with many in a chunk; `read` looks at what comes.
    for step in [3usize, 7, 40, 301] {
        for _ in 0..2 {
            let blocks = (0..u64::from(ROWS) - 16).step_by(step * 16).map(|at| at..at + 13);
            read(&backend, &RowRanges::try_from_ranges(blocks).unwrap());
        }
    }
    read(&backend, &RowRanges::single(0..u64::from(ROWS)));
}

/// The checksum at the end of zlib data (RFC 1950).
fn adler32(bytes: &[u8]) -> [u8; 4] {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in bytes {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    ((b << 16) | a).to_be_bytes()
}

#[test]
fn a_chunk_whose_checksum_is_wrong_is_refused_however_little_of_it_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    write(&path);
    let values = (0..ROWS).flat_map(|r| row(r).1).skip(CHUNK).take(CHUNK);
    let sum = adler32(&values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|&i| bytes[i..i + 4] == sum).collect();
    assert_eq!(places.len(), 1, "the second chunk's checksum is in the file once");
    bytes[places[0]] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (_, backend) = open(&path);
    read(&backend, &RowRanges::single(0..8));
    // Its first rows, again and again: it never becomes one whose checksum was right.
    for _ in 0..3 {
        let answer = block_on(backend.read_rows(&MatrixKey::X, &RowRanges::single(192..194)));
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("X/data") && text.contains("x.h5ad"), "{text}");
    }
}
