//! A sparse matrix that is written as its rows come.

use super::bytes::{put_indices, put_values};
use super::codec::Codec;
use super::stream::{Items, Stream};
use super::tree::{Attributes, Tree, encoding};
use cellfeed_core::{CsrRows, CsrSegment, Error, Indices, NewMatrix, Result, ValueType};
use serde_json::json;
use std::ops::Range;

/// Rows of an inner chunk, about. On 1,350 values a row, blosc-lz4, warm, 64 rows, 16, 8 and 4 gave
/// 24, 43, 52 and 60 thousand cells a CPU second in blocks of 16 rows, the same within 4 % in file
/// order, and 97.0, 98.4, 98.9 and 99.9 MiB. Below 8 the shard indexes that readers keep in memory
/// grow past four bytes a row.
const CHUNK_ROWS: u64 = 8;

/// An inner chunk of fewer values costs more for its index and codec than it saves.
const LEAST_VALUES: u64 = 1024;

/// Bytes of an array that wait before they are compressed and written.
const BATCH: usize = 8 << 20;

/// Values that are taken from a batch before what is complete is written: batches may be large.
const PART: u64 = 1 << 20;

/// Offsets in an inner chunk of `indptr`.
const OFFSETS: u64 = 65_536;

/// `X`, a layer or `raw/X` in the making.
#[derive(Debug)]
pub(super) struct Matrix {
    path: String,
    value_type: ValueType,
    n_vars: u64,
    chunk_rows: Option<u64>,
    /// Values that are to come, and rows.
    expected: Option<(u64, u64)>,
    data: Stream,
    indices: Stream,
    indptr: Stream,
    rows: u64,
    nnz: u64,
}

impl Matrix {
    pub(super) fn new(
        new: &NewMatrix,
        n_obs: u64,
        chunk_rows: Option<u64>,
        codec: Codec,
    ) -> Result<Self> {
        let path = new.key.to_string();
        let n_vars = new.var.n_rows();
        if n_vars > 1 << 31 {
            return Err(Error::unsupported(format!(
                "{n_vars} genes are more than the 2^31 that indices of 32 bits have room for"
            ))
            .with("element", &path));
        }
        let array = |name: &str, items: Items, inner: u64, batch: usize| {
            Stream::new(format!("{path}/{name}"), items, &[], inner, batch, codec)
        };
        // SciPy has no sparse matrices of half floats, and anndata could not open the store.
        let value_type = match new.value_type {
            ValueType::F16 => ValueType::F32,
            other => other,
        };
        let values = Items::of(value_type).ok_or_else(|| {
            Error::unsupported(format!("Zarr has no values of type {value_type}"))
        })?;
        let mut indptr = array("indptr", Items::I64, OFFSETS, 1 << 20)?;
        indptr.grow(1).extend(0i64.to_le_bytes());
        Ok(Self {
            value_type,
            n_vars,
            chunk_rows,
            expected: new.expected_nnz.map(|nnz| (nnz, n_obs)),
            data: array("data", values, LEAST_VALUES, BATCH)?,
            // Not narrower where it would do: anndata hands the array to scipy as it is, and of
            // scipy and scikit-learn a part takes 32 and 64 bits alone.
            indices: array("indices", Items::I32, LEAST_VALUES, BATCH)?,
            indptr,
            rows: 0,
            nnz: 0,
            path,
        })
    }

    /// Appends rows.
    pub(super) fn append(&mut self, rows: &CsrRows, tree: &mut Tree) -> Result<()> {
        let path = self.path.clone();
        self.append_rows(rows, tree).map_err(|e| e.with_default("element", path))
    }

    fn append_rows(&mut self, rows: &CsrRows, tree: &mut Tree) -> Result<()> {
        for segment in rows.segments() {
            let most = match segment.indices() {
                Indices::U16(genes) => genes.iter().copied().max().map(u32::from),
                Indices::U32(genes) => genes.iter().copied().max(),
                _ => return Err(Error::internal("gene indices of an unknown width")),
            };
            if let Some(most) = most.filter(|&gene| u64::from(gene) >= self.n_vars) {
                return Err(Error::invalid_input(format!(
                    "the gene index {most} is not below the number of genes, {}",
                    self.n_vars
                )));
            }
            let indptr = segment.indptr();
            let mut start = 0;
            while start < segment.n_rows() {
                // At least a row, and as many as fit.
                let full = indptr[start].saturating_add(PART);
                let rows = indptr[start + 1..].partition_point(|&end| end <= full).max(1);
                self.append_part(segment, start..start + rows)?;
                self.write_ripe(tree)?;
                start += rows;
            }
        }
        Ok(())
    }

    fn append_part(&mut self, segment: &CsrSegment, rows: Range<usize>) -> Result<()> {
        let indptr = &segment.indptr()[rows.start..=rows.end];
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let first = indptr[0];
        let (start, n) = (at(first), at(indptr[rows.len()] - first));
        let values = segment.values().slice(start, n).cast(self.value_type)?;
        put_values(&values, self.data.grow(n))?;
        put_indices(&segment.indices().slice(start, n), self.indices.grow(n))?;
        let out = self.indptr.grow(rows.len());
        for end in &indptr[1..] {
            out.extend((self.nnz + (end - first)).to_le_bytes());
        }
        self.nnz += n as u64;
        self.rows += rows.len() as u64;
        Ok(())
    }

    fn write_ripe(&mut self, tree: &mut Tree) -> Result<()> {
        if self.data.is_ripe() || self.indices.is_ripe() {
            self.choose_chunks();
        }
        for array in [&mut self.data, &mut self.indices, &mut self.indptr] {
            if array.is_ripe() {
                array.write(tree)?;
            }
        }
        Ok(())
    }

    /// An inner chunk has a fixed number of values, that of so many rows of mean length. Of no effect
    /// once chunks are written.
    fn choose_chunks(&mut self) {
        if !(self.data.is_untouched() && self.indices.is_untouched()) {
            return;
        }
        let (nnz, rows) = self.expected.filter(|e| e.0 > 0).unwrap_or((self.nnz, self.rows));
        let chunk_rows = self.chunk_rows.unwrap_or(CHUNK_ROWS);
        let values = u128::from(nnz) * u128::from(chunk_rows) / u128::from(rows.max(1));
        let values = u64::try_from(values).unwrap_or(u64::MAX);
        let least = if self.chunk_rows.is_some() { 1 } else { LEAST_VALUES };
        for array in [&mut self.data, &mut self.indices] {
            array.set_inner(values.max(least));
        }
    }

    /// Writes the rest. Answers the number of values.
    pub(super) fn finish(mut self, tree: &mut Tree) -> Result<u64> {
        self.choose_chunks();
        let mut attributes = encoding("csr_matrix", "0.1.0");
        attributes.insert("shape".to_owned(), json!([self.rows, self.n_vars]));
        tree.group(&self.path, &attributes)?;
        for array in [self.data, self.indices, self.indptr] {
            array.finish(tree, &Attributes::new())?;
        }
        Ok(self.nnz)
    }
}
