//! Rows of a CSR matrix that is stored as it is wanted, as views of the mapped file: no copy before the
//! gather.

use super::array::Context;
use super::convert::Convert;
use super::sparse::SparseMatrix;
use super::{as_u64, index};
use arrow_buffer::ScalarBuffer;
use bytes::Bytes;
use cellfeed_core::io::{Access, MappedFile};
use cellfeed_core::spans::Origin;
use cellfeed_core::{Indices, Result, RowRanges, StoredRows, StoredSegment, Values, typed};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows of one segment at most. What crosses the border of a chunk is copied, and should be little.
pub(super) const SEGMENT_ROWS: u64 = 64;

/// Consecutive rows, and where in the file their elements lie.
struct Part {
    rows: Range<u64>,
    indptr: Vec<u64>,
    indices: Vec<Range<u64>>,
    data: Vec<Range<u64>>,
}

impl SparseMatrix {
    /// Rows as views of the map; none where they are not stored as they are wanted, or not in memory
    /// and the map is not insisted on.
    pub(super) async fn read_mapped(
        &self,
        context: &Context,
        access: Access,
        map: &MappedFile,
        rows: &RowRanges,
        elements: &[Range<u64>],
    ) -> Result<Option<StoredRows>> {
        let (indices, data) = (&self.indices, &self.data);
        if !indices.is_as_wanted(elements, Convert::Index)
            || !data.is_as_wanted(elements, Convert::Keep)
        {
            return Ok(None);
        }
        let wanted = [indices.stored_ranges(elements), data.stored_ranges(elements)];
        // Misaligned elements are copied, into memory that is fresh each time: of many, reads do better.
        let sizes = [4, as_u64(self.value_type.size())];
        let misaligned = |(ranges, size): (&Vec<Range<u64>>, u64)| {
            ranges.iter().filter(|r| r.start % size != 0).count() > ranges.len() / 8
        };
        if wanted.iter().zip(sizes).any(misaligned) {
            return Ok(None);
        }
        let wanted = wanted.concat();
        let (source, probed) = (Arc::clone(&context.source), wanted.clone());
        let resident = move || source.resident(&probed);
        if !access.by_map(&context.engine, resident).await? {
            return Ok(None);
        }
        let (map, parts) = (map.clone(), self.parts(rows)?);
        let (value_type, check) = (self.value_type, Arc::clone(&self.check));
        let path = indices.path().to_owned();
        let work = move || {
            map.check()?;
            let view = |ranges: &[Range<u64>]| {
                MappedFile::reading(std::slice::from_ref(&map), || view(&map, ranges))
            };
            let segment = |part: Part| {
                let indices = Indices::U32(typed::<u32>(view(&part.indices)?)?);
                let values = Values::from_bytes(value_type, view(&part.data)?)?;
                let indptr = ScalarBuffer::from(part.indptr);
                StoredSegment::unchecked(indptr, indices, values, &check)
                    .map_err(|e| RowRanges::single(part.rows).name_row(e))
            };
            let origin = Origin::here();
            let segments = parts
                .into_par_iter()
                .map_init(|| origin.decode(&path), |_, part| segment(part))
                .collect::<Result<Vec<_>>>()?;
            Ok(StoredRows::new(segments).within([map]))
        };
        let read = context.engine.compute(work).await;
        let read = read.map_err(|e| context.blame(e, indices.path()))?;
        context.engine.stats().add_mapped(&wanted);
        context.engine.stats().add_decoded(wanted.iter().map(|r| r.end - r.start).sum());
        Ok(Some(read))
    }

    fn parts(&self, rows: &RowRanges) -> Result<Vec<Part>> {
        let cut = |r: &Range<u64>| {
            let end = r.end;
            let starts = (r.start..end).step_by(index(SEGMENT_ROWS));
            starts.map(move |start| start..end.min(start + SEGMENT_ROWS))
        };
        let part = |rows: Range<u64>| {
            let elements = self.offsets.elements(rows.clone())?;
            let elements = std::slice::from_ref(&elements);
            Ok(Part {
                indptr: self.offsets.relative(&RowRanges::single(rows.clone()))?,
                rows,
                indices: self.indices.stored_ranges(elements),
                data: self.data.stored_ranges(elements),
            })
        };
        rows.as_slice().iter().flat_map(cut).map(part).collect()
    }
}

/// The bytes of ranges, end to end: of one range without a copy.
fn view(map: &MappedFile, ranges: &[Range<u64>]) -> Result<Bytes> {
    if let [range] = ranges {
        return map.slice(range);
    }
    let mut all = Vec::new();
    for range in ranges {
        all.extend_from_slice(&map.slice(range)?);
    }
    Ok(all.into())
}
