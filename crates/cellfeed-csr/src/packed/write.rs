//! Packing a matrix, rows in parallel, as they come.

use super::row::{RowValues, encode, shrink};
use crate::columns::HashedFile;
use crate::header::FileEntry;
use cellfeed_core::{CsrSegment, Error, Indices, Result, ValueSpan, ValueType, Values};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// Rows that one task encodes.
const TASK_ROWS: usize = 64;

/// The files of a packed matrix under construction.
#[derive(Debug)]
pub(crate) struct PackedRows {
    offsets: HashedFile,
    rows: HashedFile,
    end: u64,
    span: ValueSpan,
}

impl PackedRows {
    pub(crate) fn create(folder: &Path, prefix: &str) -> Result<Self> {
        let file = |name: &str| HashedFile::create(folder, &format!("{prefix}/{name}"));
        let mut offsets = file("offsets")?;
        offsets.put(&0u64.to_le_bytes())?;
        let span = ValueSpan::default();
        Ok(Self { offsets, rows: file("rows")?, end: 0, span })
    }

    pub(crate) fn append(&mut self, segment: &CsrSegment) -> Result<()> {
        self.span.add(segment.values());
        let counts = segment.values().cast(ValueType::U32).ok();
        let starts: Vec<usize> = (0..segment.n_rows()).step_by(TASK_ROWS).collect();
        let parts = starts.into_par_iter().map(|start| {
            let rows = start..(start + TASK_ROWS).min(segment.n_rows());
            pack_rows(segment, counts.as_ref(), rows)
        });
        let parts: Vec<(Vec<u8>, Vec<u64>)> = parts.collect::<Result<_>>()?;
        for (bytes, lengths) in parts {
            let mut ends = Vec::with_capacity(lengths.len() * 8);
            for length in lengths {
                self.end += length;
                ends.extend_from_slice(&self.end.to_le_bytes());
            }
            self.offsets.put(&ends)?;
            self.rows.put(&bytes)?;
        }
        Ok(())
    }

    /// The type of the values, the offsets of the rows, the rows.
    pub(crate) fn finish(self) -> Result<(ValueType, FileEntry, FileEntry)> {
        Ok((self.span.smallest(), self.offsets.finish()?, self.rows.finish()?))
    }
}

fn pack_rows(
    segment: &CsrSegment,
    counts: Option<&Values>,
    rows: Range<usize>,
) -> Result<(Vec<u8>, Vec<u64>)> {
    let at = |row: usize| usize::try_from(segment.indptr()[row]).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity((at(rows.end) - at(rows.start)) * 2);
    let mut lengths = Vec::with_capacity(rows.len());
    for row in rows {
        let span = at(row)..at(row + 1);
        let before = bytes.len();
        let own;
        let values = match counts {
            Some(Values::U32(all)) => RowValues::Counts(&all[span.clone()]),
            _ => {
                let row = segment.values().slice(span.start, span.len());
                match row.cast(ValueType::U32) {
                    Ok(Values::U32(counts)) => {
                        own = counts;
                        RowValues::Counts(&own)
                    }
                    _ => RowValues::Raw(shrink(&row)?),
                }
            }
        };
        match segment.indices() {
            Indices::U16(b) => encode(b[span].iter().map(|&g| g.into()), &values, &mut bytes),
            Indices::U32(b) => encode(b[span].iter().copied(), &values, &mut bytes),
            _ => return Err(Error::internal("gene indices of an unknown type")),
        }
        lengths.push(u64::try_from(bytes.len() - before).unwrap_or(0));
    }
    Ok((bytes, lengths))
}
