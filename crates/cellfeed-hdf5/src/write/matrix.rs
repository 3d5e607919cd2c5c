//! A CSR matrix in the making: its arrays are written as rows come, those of several matrices side by
//! side in one file.

use super::chunked::{Packing, Stream, guess_chunk};
use super::elements::{Attribute, Elements};
use super::sink::Sink;
use super::value;
use cellfeed_core::{CsrSegment, Error, Indices, Result, Value, ValueType, Values, first_bad_row};

/// Elements that are taken over at a time.
const PART: usize = 1 << 20;

/// A matrix of which whole chunks are on disk.
#[derive(Debug)]
pub(super) struct CsrStream {
    n_vars: u32,
    nnz: u64,
    data: Stream,
    indices: Stream,
    /// Values of each row. The type of `indptr` depends on their sum, so it is written last.
    lengths: Vec<u32>,
    packing: Packing,
}

impl CsrStream {
    /// Begins a matrix of `n_vars` genes in chunks of `chunk` elements.
    pub(super) fn new(
        n_vars: u32,
        value_type: ValueType,
        index_type: ValueType,
        chunk: impl Fn(ValueType) -> u64,
        packing: Packing,
    ) -> Result<Self> {
        Ok(Self {
            n_vars,
            nnz: 0,
            data: Stream::new(value_type, chunk(value_type), packing)?,
            indices: Stream::new(index_type, chunk(index_type), packing)?,
            lengths: Vec::new(),
            packing,
        })
    }

    pub(super) fn n_rows(&self) -> u64 {
        self.lengths.len() as u64
    }

    pub(super) fn nnz(&self) -> u64 {
        self.nnz
    }

    /// Appends rows, after looking at all of them.
    pub(super) fn append<T: Value>(
        &mut self,
        indptr: &[u64],
        indices: &[u32],
        data: &[T],
        sink: &mut Sink,
    ) -> Result<()> {
        self.check(indptr, indices, data.len())?;
        let target = self.data.value_type();
        value::check(data, target)?;
        for (indices, data) in indices.chunks(PART).zip(data.chunks(PART)) {
            value::put_values(data, target, self.data.grow(data.len()));
            let index_type = self.indices.value_type();
            value::put_indices(indices, index_type, self.indices.grow(indices.len()));
            for stream in [&mut self.data, &mut self.indices] {
                if stream.is_ripe() {
                    stream.write_ripe(sink)?;
                }
            }
        }
        // Strictly ascending indices below n_vars: a row has at most that many.
        let length = |pair: &[u64]| u32::try_from(pair[1] - pair[0]).unwrap_or(self.n_vars);
        self.lengths.extend(indptr.windows(2).map(length));
        self.nnz += indices.len() as u64;
        Ok(())
    }

    /// Appends a segment, its values cast to the matrix's type.
    pub(super) fn append_segment(&mut self, segment: &CsrSegment, sink: &mut Sink) -> Result<()> {
        let wide;
        let indices: &[u32] = match segment.indices() {
            Indices::U32(indices) => indices,
            narrow => {
                wide = narrow.to_u32_vec();
                &wide
            }
        };
        let values = segment.values().cast(self.data.value_type())?;
        let indptr = segment.indptr();
        match &values {
            Values::U8(v) => self.append(indptr, indices, v, sink),
            Values::U16(v) => self.append(indptr, indices, v, sink),
            Values::U32(v) => self.append(indptr, indices, v, sink),
            Values::U64(v) => self.append(indptr, indices, v, sink),
            Values::I8(v) => self.append(indptr, indices, v, sink),
            Values::I16(v) => self.append(indptr, indices, v, sink),
            Values::I32(v) => self.append(indptr, indices, v, sink),
            Values::I64(v) => self.append(indptr, indices, v, sink),
            Values::F16(v) => self.append(indptr, indices, v, sink),
            Values::F32(v) => self.append(indptr, indices, v, sink),
            Values::F64(v) => self.append(indptr, indices, v, sink),
            other => {
                let kind = other.value_type();
                Err(Error::unsupported(format!("cannot write values of type {kind}")))
            }
        }
    }

    fn check(&self, indptr: &[u64], indices: &[u32], values: usize) -> Result<()> {
        let nnz = indices.len() as u64;
        if indptr.first() != Some(&0) || indptr.last() != Some(&nnz) || indices.len() != values {
            return Err(Error::invalid_input(format!(
                "indptr must go from 0 to the {nnz} indices and {values} values"
            )));
        }
        let falls = indptr.windows(2).position(|pair| pair[0] > pair[1] || pair[1] > nnz);
        let bad = falls.or_else(|| first_bad_row(indptr, indices, self.n_vars.into()));
        let Some(row) = bad else { return Ok(()) };
        let bounds = |at: usize| usize::try_from(indptr[at]).unwrap_or(usize::MAX);
        let wrong = match indices.get(bounds(row)..bounds(row + 1)) {
            None => "indptr falls or is past the end",
            Some(genes) if genes.windows(2).any(|g| g[0] >= g[1]) => {
                "indices do not strictly ascend"
            }
            Some(_) => "an index is not below n_vars",
        };
        Err(Error::invalid_input(wrong).with("row", self.n_rows() + row as u64))
    }

    /// Writes the rest and the group; returns the group's address.
    pub(super) fn finish(self, elements: &mut Elements<'_>) -> Result<u64> {
        let n_obs = i64::try_from(self.n_rows());
        let n_obs = n_obs.map_err(|_| Error::unsupported("too many cells"))?;
        let shape = [n_obs, i64::from(self.n_vars)];
        let narrow = self.indices.value_type() == ValueType::I32;
        let sink = &mut *elements.sink;
        let arrays = [
            ("data", self.data.finish(sink)?),
            ("indices", self.indices.finish(sink)?),
            ("indptr", write_indptr(&self.lengths, self.nnz, narrow, self.packing, sink)?),
        ];
        elements.group(("csr_matrix", "0.1.0"), &[("shape", Attribute::Integers(&shape))], &arrays)
    }
}

/// The bytes of values, little-endian as the file has them.
pub(super) fn value_bytes(values: &Values) -> Result<&[u8]> {
    if cfg!(target_endian = "big") {
        return Err(Error::unsupported("on machines of the other byte order nothing is written"));
    }
    Ok(match values {
        Values::U8(v) => v,
        Values::U16(v) => bytemuck::cast_slice(v),
        Values::U32(v) => bytemuck::cast_slice(v),
        Values::U64(v) => bytemuck::cast_slice(v),
        Values::I8(v) => bytemuck::cast_slice(v),
        Values::I16(v) => bytemuck::cast_slice(v),
        Values::I32(v) => bytemuck::cast_slice(v),
        Values::I64(v) => bytemuck::cast_slice(v),
        Values::F16(v) => bytemuck::cast_slice(v),
        Values::F32(v) => bytemuck::cast_slice(v),
        Values::F64(v) => bytemuck::cast_slice(v),
        other => {
            let kind = other.value_type();
            return Err(Error::unsupported(format!("cannot write values of type {kind}")));
        }
    })
}

/// Writes `indptr` in the type that scipy gives it: 32-bit while that holds the non-zeros and
/// `indices` is 32-bit too.
fn write_indptr(
    lengths: &[u32],
    nnz: u64,
    narrow: bool,
    packing: Packing,
    sink: &mut Sink,
) -> Result<u64> {
    /// Rows at a time.
    const PART: usize = 1 << 18;
    let narrow = narrow && i32::try_from(nnz).is_ok();
    let value_type = if narrow { ValueType::I32 } else { ValueType::I64 };
    let chunk_len = guess_chunk(lengths.len() as u64 + 1, value_type.size());
    let mut stream = Stream::new(value_type, chunk_len, packing)?;
    stream.grow(1);
    let mut end = 0u64;
    for part in lengths.chunks(PART) {
        let slots = stream.grow(part.len()).chunks_exact_mut(value_type.size());
        for (slot, &length) in slots.zip(part) {
            end += u64::from(length);
            // The low bytes of a small number are that number in a narrower type.
            slot.copy_from_slice(&end.to_le_bytes()[..slot.len()]);
        }
        if stream.is_ripe() {
            stream.write_ripe(sink)?;
        }
    }
    stream.finish(sink)
}
