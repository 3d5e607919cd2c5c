//! Row offsets in both forms, sound and damaged.

use super::*;
use crate::ErrorKind;
use crate::io::LocalFile;
use futures::executor::block_on;
use proptest::prelude::*;
use std::io::Write;
use tempfile::NamedTempFile;

#[test]
fn offsets_equal_indptr() {
    // Row 300 is longer than 16 bits hold.
    let mut indptr = vec![0u64];
    for r in 0..1000u64 {
        let length = if r == 300 { 70_000 } else { r * 7 % 13 };
        indptr.push(indptr.last().unwrap() + length);
    }
    let mut builder = RowOffsets::builder();
    for part in indptr.chunks(17) {
        builder.extend(part.iter().copied()).unwrap();
    }
    let offsets = builder.finish();
    assert_eq!(offsets.n_rows(), 1000);
    for (row, &start) in indptr.iter().enumerate() {
        assert_eq!(offsets.elements(0..row as u64).unwrap(), 0..start);
    }
    let rows = RowRanges::try_from_ranges([0..1, 63..66, 290..310, 999..1000]).unwrap();
    let want: u64 = offsets.element_ranges(&rows).unwrap().iter().map(|r| r.end - r.start).sum();
    let relative = offsets.relative(&rows).unwrap();
    assert_eq!((relative.len() as u64, *relative.last().unwrap()), (rows.n_rows() + 1, want));
    assert_eq!(relative[5] - relative[4], indptr[291] - indptr[290]);
}

#[test]
fn bad_offsets_are_refused() {
    let build = |entries: &[u64]| RowOffsets::builder().extend(entries.iter().copied());
    assert!(build(&[1]).unwrap_err().to_string().contains("starts at 1"));
    let error = build(&[0, 5, 3]).unwrap_err().to_string();
    assert!(error.contains("falls from 5 to 3") && error.contains("row 1"), "{error}");
    assert!(build(&[0, 1 << 40]).is_err());
}

/// As many genes as there are in the stores below.
const LONGEST: u64 = 20_000;

fn file(entries: &[u64]) -> (NamedTempFile, Arc<dyn ByteSource>) {
    let mut temp = NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    temp.write_all(&bytes).unwrap();
    let file = LocalFile::open(temp.path(), Arc::new(Engine::default())).unwrap();
    (temp, Arc::new(file))
}

fn viewed(entries: &[u64]) -> Result<RowOffsets> {
    let (_temp, file) = file(entries);
    RowOffsets::viewed(&file, LONGEST).map(|found| found.expect("a local file is mapped"))
}

/// `indptr` of so many rows of 1 to 99 values.
fn indptr(rows: u64) -> Vec<u64> {
    (0..=rows).map(|row| row * 50 + row * row % 50).collect()
}

fn refused(found: Result<impl std::fmt::Debug>, row: usize) {
    let error = found.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let row = row.to_string();
    assert!(error.context().any(|(key, value)| key == "row" && value == row), "{row}: {error}");
    assert!(error.context().any(|(key, _)| key == "file"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_answer_the_same(
        lengths in proptest::collection::vec(0..LONGEST, 0..700),
        cuts in proptest::collection::btree_set(0u64..700, 0..40),
    ) {
        let sum = |end: &mut u64, length: &u64| { *end += length; Some(*end) };
        let entries: Vec<u64> =
            std::iter::once(0).chain(lengths.iter().scan(0, sum)).collect();
        let mut builder = RowOffsets::builder();
        builder.extend(entries.iter().copied()).unwrap();
        let (kept, viewed) = (builder.finish(), viewed(&entries).unwrap());
        prop_assert_eq!((kept.n_rows(), kept.nnz()), (viewed.n_rows(), viewed.nnz()));
        let cuts: Vec<u64> = cuts.into_iter().filter(|&c| c <= kept.n_rows()).collect();
        let ranges = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]);
        let rows = RowRanges::try_from_ranges(ranges).unwrap();
        let ranges = kept.element_ranges(&rows).unwrap();
        prop_assert_eq!(&ranges, &viewed.element_ranges(&rows).unwrap());
        prop_assert_eq!(&ranges, &block_on(viewed.find(&Engine::default(), &rows)).unwrap());
        prop_assert_eq!(kept.relative(&rows).unwrap(), viewed.relative(&rows).unwrap());
        for rows in rows.as_slice() {
            let (a, b) = (kept.elements(rows.clone()), viewed.elements(rows.clone()));
            prop_assert_eq!(a.unwrap(), b.unwrap());
        }
        viewed.check_all().unwrap();
        kept.check_all().unwrap();
    }

    #[test]
    fn whatever_is_in_the_file_is_an_answer_within_it_or_an_error(
        places in proptest::collection::vec((0usize..500, any::<u64>(), 0u32..64), 1..40),
        rows in proptest::collection::vec((0u64..500, 0u64..500), 20),
    ) {
        let mut entries = indptr(499);
        for (at, noise, shift) in places {
            entries[at] ^= noise >> shift;
        }
        let Ok(offsets) = viewed(&entries) else { return Ok(()) };
        for (start, length) in rows {
            let rows = RowRanges::single(start..(start + length).min(499).max(start));
            let elements = offsets.element_ranges(&rows);
            match (elements, offsets.relative(&rows)) {
                (Ok(found), Ok(relative)) => {
                    let found = found.first().cloned().unwrap_or(0..0);
                    prop_assert!(found.end <= offsets.nnz());
                    prop_assert_eq!(relative.last(), Some(&(found.end - found.start)));
                    prop_assert!(relative.windows(2).all(|w| w[0] <= w[1]));
                }
                (Err(e), _) | (_, Err(e)) => prop_assert_eq!(e.kind(), ErrorKind::Corrupt),
            }
        }
    }
}

#[test]
fn rows_that_are_not_there_are_refused_by_both_forms() {
    let entries = indptr(5);
    let mut builder = RowOffsets::builder();
    builder.extend(entries.iter().copied()).unwrap();
    for offsets in [builder.finish(), viewed(&entries).unwrap()] {
        for rows in [0..6, 6..7, 5..u64::MAX - 1] {
            let found = offsets.elements(rows.clone()).unwrap_err();
            assert_eq!(found.kind(), ErrorKind::OutOfBounds, "{found}");
            let rows = RowRanges::single(rows);
            assert_eq!(offsets.relative(&rows).unwrap_err().kind(), ErrorKind::OutOfBounds);
            assert_eq!(offsets.element_ranges(&rows).unwrap_err().kind(), ErrorKind::OutOfBounds);
        }
        assert_eq!(offsets.elements(5..5).unwrap(), entries[5]..entries[5]);
        assert_eq!(offsets.relative(&RowRanges::empty()).unwrap(), [0]);
    }
}

#[test]
fn what_opening_looks_at_is_refused_then() {
    for (entries, word) in [(&[][..], "empty"), (&[1, 2], "starts at 1"), (&[0, 9, 5], "falls")] {
        let error = viewed(entries).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(word) && error.to_string().contains("file"), "{error}");
    }
    let (temp, file) = file(&indptr(10));
    temp.as_file().set_len(83).unwrap();
    let error = RowOffsets::viewed(&file, LONGEST).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    let short = LocalFile::open(temp.path(), Arc::new(Engine::default())).unwrap();
    let short: Arc<dyn ByteSource> = Arc::new(short);
    let error = RowOffsets::viewed(&short, LONGEST).unwrap_err();
    assert!(error.to_string().contains("whole number"), "{error}");
    // More values than rows can have, wherever they are.
    refused(viewed(&[0, 5, LONGEST + 6]), 1);
    refused(viewed(&[0, 1 << 40, 1 << 41]), 0);
}

#[test]
fn a_damaged_entry_is_refused_where_it_is_used_and_only_there() {
    let sound = indptr(100_000);
    // Not one of those that opening looks at.
    let at = 77_777;
    let (start, last) = (sound[at], sound[100_000]);
    for damaged in [0, start - 500, start + 500, start + 30_000, last, last + 1, u64::MAX, 1 << 63]
    {
        let mut entries = sound.clone();
        entries[at] = damaged;
        let offsets = viewed(&entries).unwrap();
        let row = |row: usize| RowRanges::single(row as u64..row as u64 + 1);
        for far in [0, 5000, at - 3, at + 3, 99_999] {
            assert_eq!(
                offsets.elements(far as u64..far as u64 + 1).unwrap(),
                sound[far]..sound[far + 1]
            );
            assert_eq!(offsets.relative(&row(far)).unwrap(), [0, sound[far + 1] - sound[far]]);
        }
        for near in [at - 1, at] {
            let error = offsets.element_ranges(&row(near)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let named = error.context().find(|(key, _)| *key == "row").unwrap().1.to_owned();
            assert!([at - 1, at].map(|r| r.to_string()).contains(&named), "{damaged}: {error}");
            assert!(error.context().any(|(key, _)| key == "file"), "{error}");
            assert!(offsets.relative(&row(near)).is_err());
        }
        // Among others: their ends are sound, and so is the sum of them.
        let around = RowRanges::single(at as u64 - 100..at as u64 + 100);
        let elements = offsets.element_ranges(&around).unwrap();
        assert_eq!(elements, [sound[at - 100]..sound[at + 100]]);
        assert!(
            offsets.relative(&around).unwrap_err().to_string().contains(&format!("row {}", at - 1))
                || offsets
                    .relative(&around)
                    .unwrap_err()
                    .to_string()
                    .contains(&format!("row {at}"))
        );
        assert_eq!(offsets.check_all().unwrap_err().kind(), ErrorKind::Corrupt);
    }
    // A row of 2^32 values, whatever is said of the longest.
    let entries = [0, 7, 7 + (1 << 32), 9 + (1 << 32)];
    let (_temp, file) = file(&entries);
    refused(RowOffsets::viewed(&file, u64::MAX), 1);
}

#[test]
fn a_lost_page_is_not_rows_without_values() {
    let sound = indptr(100_000);
    for page in [8..512, 20 * 512..21 * 512, 150 * 512..160 * 512] {
        let mut entries = sound.clone();
        entries[page.clone()].fill(0);
        let Ok(offsets) = viewed(&entries) else { continue };
        for row in [page.start, page.start + 100, page.end - 2] {
            refused(offsets.elements(row as u64..row as u64 + 1), row);
        }
        refused(offsets.check_all(), page.start - 1);
    }
}

#[test]
fn a_file_that_was_written_to_is_refused_before_it_is_looked_at() {
    let (temp, file) = file(&indptr(1000));
    let offsets = RowOffsets::viewed(&file, LONGEST).unwrap().unwrap();
    let rows = RowRanges::single(3..5);
    offsets.element_ranges(&rows).unwrap();
    temp.as_file().set_len(16).unwrap();
    let refused = [
        offsets.check().unwrap_err(),
        offsets.element_ranges(&rows).unwrap_err(),
        block_on(offsets.find(&Engine::default(), &rows)).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    }
    assert!(offsets.check_all().is_err());
}
