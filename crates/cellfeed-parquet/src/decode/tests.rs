//! Lists in pages that begin and end anywhere.

use super::*;
use crate::codec::Codec;
use crate::files::Group;
use crate::footer::Meaning;
use crate::hybrid::encode;
use crate::thrift::Writer;
use cellfeed_core::ErrorKind;
use cellfeed_core::io::FileSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

const ROWS: [&[i32]; 7] = [&[1, 2, 3], &[4], &[], &[5, 6, 7, 8, 9, 10], &[], &[11], &[12, 13]];

/// A page of some slots: (repetition level, definition level, value).
fn page(slots: &[(u32, u32, i32)]) -> Vec<u8> {
    let mut body = Vec::new();
    let levels = |level: fn(&(u32, u32, i32)) -> u32| slots.iter().map(level).collect();
    for levels in [levels(|s| s.0), levels(|s| s.1)] {
        let levels: Vec<u32> = levels;
        let mut runs = Vec::new();
        encode(&levels, 1, &mut runs);
        body.extend((runs.len() as u32).to_le_bytes());
        body.extend(runs);
    }
    slots.iter().filter(|s| s.1 == 1).for_each(|s| body.extend(s.2.to_le_bytes()));
    let mut header = Writer::default();
    header.i32(1, 0);
    header.i32(2, body.len() as i32);
    header.i32(3, body.len() as i32);
    header.structure(5, |w| {
        w.i32(1, slots.len() as i32);
        w.i32(2, 0);
        w.i32(3, 3);
        w.i32(4, 3);
    });
    [header.finish(), body].concat()
}

/// The rows in pages of so many slots, whatever row these are of; the store of that column; and whether
/// each page begins with a row.
fn chunk(slots_in_page: usize) -> (Files, Bytes, bool) {
    let mut slots = Vec::new();
    for row in ROWS {
        let values = row.iter().enumerate().map(|(i, &v)| (u32::from(i > 0), 1, v));
        slots.extend(values);
        if row.is_empty() {
            slots.push((0, 0, 0));
        }
    }
    let bytes: Vec<u8> = slots.chunks(slots_in_page).flat_map(page).collect();
    let len = bytes.len() as u64;
    let chunk = Chunk {
        start: 4,
        len,
        plain: len,
        n_values: slots.len() as u64,
        codec: Codec::Plain,
        pages: OnceLock::new(),
    };
    let leaf = Leaf {
        name: "lists".to_owned(),
        siblings: 1,
        physical: Physical::Int32,
        meaning: Meaning::Plain,
        max_def: 1,
        max_rep: 1,
        list_def: 1,
    };
    let files = Files {
        set: Arc::new(FileSet::new(Path::new("folder"), Arc::default())),
        names: vec!["file".to_owned()],
        leaves: vec![leaf],
        groups: vec![Group { shard: 0, first_row: 100, n_rows: ROWS.len() as u32 }],
        chunks: vec![chunk],
        n_rows: 107,
    };
    let whole = slots.chunks(slots_in_page).all(|page| page[0].0 == 0);
    (files, bytes.into(), whole)
}

fn read(files: &Files, bytes: &Bytes, rows: &[Range<u32>]) -> Result<(Vec<u32>, Vec<i32>)> {
    let want = Want { group: 0, rows: rows.to_vec() };
    let chunk = &files.chunks[0];
    let plan = chunk.plan(rows);
    let at = |n: u64| (n - chunk.start) as usize;
    let pieces: Vec<Bytes> = plan.ranges().map(|r| bytes.slice(at(r.start)..at(r.end))).collect();
    let piece = Piece { want: &want, plan: &plan, bytes: &pieces };
    let form = Form::List(Convert::<i32>::values(&files.leaves[0])?);
    let pool = BufferPool::new(0);
    let got = column(files, 0, &form, &[piece], &mut Scratch::default(), &pool)?;
    Ok((got.lengths, bytemuck::pod_collect_to_vec(&got.bytes)))
}

#[test]
fn rows_that_go_on_in_the_next_page_are_whole() {
    let n = ROWS.len() as u32;
    for slots in 1..20 {
        for start in 0..n {
            for end in start + 1..=n {
                // Anew each time: what is learned must not be needed.
                let (files, bytes, whole) = chunk(slots);
                let rows = [start..end - 1, end - 1..end];
                for _ in 0..2 {
                    let (lengths, values) = read(&files, &bytes, &rows).unwrap();
                    let want = &ROWS[start as usize..end as usize];
                    let sizes: Vec<u32> = want.iter().map(|r| r.len() as u32).collect();
                    assert_eq!((lengths, values), (sizes, want.concat()), "{slots}: {rows:?}");
                }
                // Only pages that begin with rows are known from then on.
                assert_eq!(files.chunks[0].pages.get().is_some(), whole, "{slots}");
            }
        }
    }
}

#[test]
fn a_chunk_that_ends_too_early_is_an_error() {
    let (mut files, bytes, _) = chunk(3);
    files.groups[0].n_rows = 9;
    let error = read(&files, &bytes, &[6..8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    files.chunks[0].n_values += 1;
    let error = read(&files, &bytes, &[0..1]).unwrap_err();
    assert!(error.to_string().contains("values"), "{error}");
}
