//! Rows to segments: views of the map where the page cache holds the rows, else one buffer filled by
//! positional reads, many at once.

use crate::packed::PackedMatrix;
use arrow_buffer::ScalarBuffer;
use cellfeed_core::io::{Access, ByteSource, Engine, MappedFile};
use cellfeed_core::spans::Origin;
use cellfeed_core::{
    Error, Indices, ReadCost, Result, RowCheck, RowOffsets, RowRanges, StoredRows, StoredSegment,
    ValueType, Values, typed,
};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// A matrix that can be read, shared with the threads that read it.
#[derive(Debug)]
pub(crate) enum Matrix {
    Plain(Arc<PlainMatrix>),
    Packed(Arc<PackedMatrix>),
}

/// A file of elements.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    pub(crate) element: ValueType,
    pub(crate) file: Arc<dyn ByteSource>,
    /// None where it cannot be mapped.
    pub(crate) map: Option<MappedFile>,
}

/// Row offsets, indices and values, in files or in memory.
#[derive(Debug)]
pub(crate) struct PlainMatrix {
    pub(crate) offsets: RowOffsets,
    pub(crate) indices: Array,
    pub(crate) data: Array,
    /// What rows must be. Our own format forbids rows that are not sorted; others' are sorted.
    pub(crate) check: Arc<RowCheck>,
}

impl Array {
    fn size(&self) -> u64 {
        u64::try_from(self.element.size()).unwrap_or(8)
    }

    /// Byte ranges of element ranges.
    pub(crate) fn ranges(&self, elements: &[Range<u64>]) -> Vec<Range<u64>> {
        elements.iter().map(|r| r.start * self.size()..r.end * self.size()).collect()
    }

    /// A part of the map.
    fn slice(&self, elements: &Range<u64>) -> bytes::Bytes {
        let at = |e: u64| usize::try_from(e * self.size()).unwrap_or(usize::MAX);
        let map = self.map.as_ref().map(MappedFile::bytes);
        map.map_or_else(bytes::Bytes::new, |b| b.slice(at(elements.start)..at(elements.end)))
    }
}

fn indices_of(element: ValueType, bytes: bytes::Bytes) -> Result<Indices> {
    Ok(match element {
        ValueType::U16 => Indices::U16(typed::<u16>(bytes)?),
        ValueType::U32 => Indices::U32(typed::<u32>(bytes)?),
        // Columns of BioNeMo SCDL that are narrower or wider than ours: the one case of a copy.
        ValueType::U8 => {
            Indices::U16(bytes.iter().map(|&b| u16::from(b)).collect::<Vec<_>>().into())
        }
        ValueType::U64 => {
            let wide = typed::<u64>(bytes)?;
            let narrow = wide.iter().map(|&v| u32::try_from(v).unwrap_or(u32::MAX));
            Indices::U32(narrow.collect::<Vec<_>>().into())
        }
        other => return Err(Error::internal(format!("gene indices of type {other}"))),
    })
}

impl PlainMatrix {
    /// What reading costs; by the map less.
    pub(crate) fn cost(&self, rows: &RowRanges) -> Result<ReadCost> {
        let ranges = self.offsets.element_ranges(rows)?;
        let nnz: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        // Indices of 8 or 64 bits are converted.
        let converted = match self.indices.element {
            ValueType::U8 => 2,
            ValueType::U64 => 4,
            _ => 0,
        };
        let bytes = nnz * (self.indices.size() + self.data.size());
        let segments = u64::try_from(rows.as_slice().len()).unwrap_or(0);
        let kept = bytes + nnz * converted + (rows.n_rows() + segments + 1) * 8;
        Ok(ReadCost {
            bytes_read: bytes,
            bytes_decoded: 0,
            bytes_held: kept,
            bytes_kept: kept,
            exact: true,
        })
    }

    /// Tells the disk which bytes come next.
    pub(crate) async fn will_read(&self, engine: &Engine, rows: &RowRanges) {
        // What is wrong with the offsets the read will tell.
        let Ok(elements) = self.offsets.find(engine, rows).await else { return };
        for array in [&self.indices, &self.data] {
            array.file.will_need(array.ranges(&elements)).await;
        }
    }

    /// Reads rows, whose gene indices are not looked at yet.
    pub(crate) async fn read(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        access: Access,
        rows: &RowRanges,
    ) -> Result<StoredRows> {
        let (this, rows) = (Arc::clone(self), rows.clone());
        if rows.is_empty() {
            return Ok(StoredRows::default());
        }
        let elements = self.offsets.find(engine, &rows).await?;
        let (indices, data) = (self.indices.ranges(&elements), self.data.ranges(&elements));
        let wanted = (Arc::clone(self), indices.clone(), data.clone());
        let resident = move || {
            let (this, indices, data) = &wanted;
            this.indices.file.resident(indices) && this.data.file.resident(data)
        };
        let mapped = self.indices.map.is_some() && self.data.map.is_some();
        if mapped && access.by_map(engine, resident).await? {
            engine.stats().add_mapped(&indices);
            engine.stats().add_mapped(&data);
            return engine.compute(move || this.map_rows(&rows)).await;
        }
        let (indices, data) = futures::try_join!(
            self.indices.file.get_ranges(indices),
            self.data.file.get_ranges(data)
        )?;
        engine.compute(move || this.bytes_rows(&rows, indices, data)).await
    }

    /// A segment for each range of rows, all of them views of the map.
    fn map_rows(&self, rows: &RowRanges) -> Result<StoredRows> {
        self.offsets.check()?;
        let maps = [&self.indices, &self.data].into_iter().filter_map(|array| array.map.clone());
        let maps: Vec<_> = maps.collect();
        maps.iter().try_for_each(MappedFile::check)?;
        let origin = Origin::here();
        let segments = rows
            .as_slice()
            .par_iter()
            .map_init(
                || origin.decode(self.indices.file.location()),
                |_, range| {
                    let part = RowRanges::single(range.clone());
                    let elements = self.offsets.elements(range.clone())?;
                    let (indices, data) =
                        (self.indices.slice(&elements), self.data.slice(&elements));
                    MappedFile::reading(&maps, || self.segment(&part, indices, data))
                },
            )
            .collect::<Result<Vec<_>>>()?;
        Ok(StoredRows::new(segments).within(maps))
    }

    fn bytes_rows(
        &self,
        rows: &RowRanges,
        indices: bytes::Bytes,
        data: bytes::Bytes,
    ) -> Result<StoredRows> {
        self.offsets.check()?;
        Ok(StoredRows::new(vec![self.segment(rows, indices, data)?]))
    }

    fn segment(
        &self,
        rows: &RowRanges,
        indices: bytes::Bytes,
        data: bytes::Bytes,
    ) -> Result<StoredSegment> {
        let indptr = ScalarBuffer::from(self.offsets.relative(rows)?);
        let segment = || {
            let indices = indices_of(self.indices.element, indices)?;
            let values = Values::from_bytes(self.data.element, data)?;
            StoredSegment::unchecked(indptr, indices, values, &self.check)
        };
        segment().map_err(|e| rows.name_row(e).with_default("file", self.indices.file.location()))
    }
}
