//! Rows of a matrix on their way to pages of a fixed number of rows.

use super::file::{Compression, Content, EncodedPage, Field, RawPage, Shape};
use crate::footer::{Meaning, Physical};
use crate::header::{LayoutName, MatrixEntry};
use crate::hybrid::encode;
use cellfeed_core::{CsrSegment, Error, Indices, MatrixKey, NewMatrix, Result, ValueType};
use rayon::prelude::*;

/// A matrix under construction.
#[derive(Debug)]
pub(crate) struct MatrixWriter {
    pub(crate) key: MatrixKey,
    layout: LayoutName,
    columns: [String; 2],
    value_type: ValueType,
    index_type: ValueType,
    n_vars: u64,
    pub(crate) nnz: u64,
    page_rows: u32,
    /// The pages that are being filled, of indices and of data.
    open: [OpenPage; 2],
    /// Full ones, not yet compressed.
    full: [Vec<RawPage>; 2],
    /// Compressed ones of the row group, and their bytes.
    done: [Vec<EncodedPage>; 2],
    bytes: usize,
}

#[derive(Debug, Default)]
struct OpenPage {
    values: Vec<u8>,
    /// Values of each row, for lists.
    lengths: Vec<u32>,
    n_rows: u32,
}

impl MatrixWriter {
    pub(crate) fn new(
        matrix: &NewMatrix,
        columns: [String; 2],
        layout: LayoutName,
        page_rows: u32,
    ) -> Result<Self> {
        let n_vars = matrix.var.n_rows();
        if u32::try_from(n_vars).is_err() {
            return Err(Error::unsupported("2^32 genes and more"));
        }
        Ok(Self {
            key: matrix.key.clone(),
            layout,
            columns,
            value_type: matrix.value_type,
            index_type: if n_vars <= 1 << 16 { ValueType::U16 } else { ValueType::U32 },
            n_vars,
            nnz: 0,
            page_rows,
            open: Default::default(),
            full: Default::default(),
            done: Default::default(),
            bytes: 0,
        })
    }

    pub(crate) fn fields(&self) -> [Field; 2] {
        let mut kinds = [self.index_type, self.value_type].into_iter();
        self.columns.clone().map(|name| {
            let kind = kinds.next().unwrap_or(ValueType::U32);
            match self.layout {
                LayoutName::Blob => Field {
                    name,
                    shape: Shape::Required,
                    physical: Physical::Bytes,
                    meaning: Meaning::Plain,
                },
                LayoutName::List => {
                    let (physical, meaning) = stored(kind);
                    Field { name, shape: Shape::List, physical, meaning }
                }
            }
        })
    }

    pub(crate) fn entry(&self) -> MatrixEntry {
        let [indices, data] = self.columns.clone();
        MatrixEntry {
            key: self.key.to_string(),
            layout: self.layout,
            indices,
            data,
            n_vars: self.n_vars,
            nnz: self.nnz,
            index_type: self.index_type.as_str().to_owned(),
            value_type: self.value_type.as_str().to_owned(),
        }
    }

    pub(crate) fn append(&mut self, segment: &CsrSegment) -> Result<()> {
        let values = segment.values().cast(self.value_type)?;
        let (indptr, indices) = (segment.indptr().to_vec(), segment.indices().clone());
        let segment = CsrSegment::try_new(indptr.into(), indices, values, self.n_vars)
            .map_err(|e| Error::invalid_input(e.message().to_owned()))?;
        self.nnz += u64::try_from(segment.nnz()).unwrap_or(0);
        let genes = gene_bytes(segment.indices(), self.index_type)?;
        let data = segment.values().le_bytes();
        let blob = self.layout == LayoutName::Blob;
        let sides = [(&genes[..], self.index_type), (&data[..], self.value_type)];
        for (side, (bytes, kind)) in sides.into_iter().enumerate() {
            let width = kind.size();
            for ends in segment.indptr().windows(2) {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
                let row = &bytes[at(ends[0]) * width..at(ends[1]) * width];
                let n = u32::try_from(ends[1] - ends[0])
                    .map_err(|_| Error::invalid_input("a cell of 2^32 values and more"))?;
                let page = &mut self.open[side];
                if blob {
                    let len = u32::try_from(row.len())
                        .map_err(|_| Error::invalid_input("a cell of 4 GiB and more"))?;
                    page.values.extend_from_slice(&len.to_le_bytes());
                    page.values.extend_from_slice(row);
                } else {
                    widen(kind, row, &mut page.values);
                    page.lengths.push(n);
                }
                page.n_rows += 1;
                if page.n_rows == self.page_rows {
                    self.full[side].push(std::mem::take(page).close(blob));
                }
            }
        }
        Ok(())
    }

    /// Compresses full pages, in parallel, and answers the bytes of the row group so far.
    pub(crate) fn compress(&mut self, compression: Compression) -> Result<usize> {
        for (full, done) in self.full.iter_mut().zip(&mut self.done) {
            let pages = std::mem::take(full).into_par_iter();
            let pages = pages.map(|p| p.encode(compression)).collect::<Result<Vec<_>>>()?;
            self.bytes += pages.iter().map(|p| p.bytes.len()).sum::<usize>();
            done.extend(pages);
        }
        Ok(self.bytes)
    }

    /// The pages of the row group, up to the last row.
    pub(crate) fn pages(&mut self, compression: Compression) -> Result<[Vec<EncodedPage>; 2]> {
        let blob = self.layout == LayoutName::Blob;
        for (open, full) in self.open.iter_mut().zip(&mut self.full) {
            if open.n_rows > 0 {
                full.push(std::mem::take(open).close(blob));
            }
        }
        self.compress(compression)?;
        self.bytes = 0;
        Ok(std::mem::take(&mut self.done))
    }
}

impl OpenPage {
    fn close(self, blob: bool) -> RawPage {
        let (n_rows, content) = (self.n_rows, Content::Values);
        if blob {
            return RawPage { body: self.values, n_values: n_rows, n_rows, content };
        }
        // A row is a 0 and ones; an empty one is a 0 without an element.
        let (mut repetition, mut definition) = (Vec::new(), Vec::new());
        for &n in &self.lengths {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            repetition.push(0);
            repetition.extend(std::iter::repeat_n(1, n.saturating_sub(1)));
            definition.extend(std::iter::repeat_n(u32::from(n > 0), n.max(1)));
        }
        let n_values = u32::try_from(repetition.len()).unwrap_or(u32::MAX);
        let mut body = Vec::with_capacity(self.values.len() + 64);
        for levels in [repetition, definition] {
            let start = body.len();
            body.extend_from_slice(&[0; 4]);
            encode(&levels, 1, &mut body);
            let len = u32::try_from(body.len() - start - 4).unwrap_or(u32::MAX);
            body[start..start + 4].copy_from_slice(&len.to_le_bytes());
        }
        body.extend_from_slice(&self.values);
        RawPage { body, n_values, n_rows, content }
    }
}

/// How a number of a type is stored in a list.
fn stored(kind: ValueType) -> (Physical, Meaning) {
    let integer = |bits, signed| Meaning::Integer { bits, signed };
    match kind {
        ValueType::U8 => (Physical::Int32, integer(8, false)),
        ValueType::U16 => (Physical::Int32, integer(16, false)),
        ValueType::U32 => (Physical::Int32, integer(32, false)),
        ValueType::U64 => (Physical::Int64, integer(64, false)),
        ValueType::I8 => (Physical::Int32, integer(8, true)),
        ValueType::I16 => (Physical::Int32, integer(16, true)),
        ValueType::I64 => (Physical::Int64, integer(64, true)),
        ValueType::F16 => (Physical::Fixed(2), Meaning::Half),
        ValueType::F32 => (Physical::Float, Meaning::Plain),
        ValueType::F64 => (Physical::Double, Meaning::Plain),
        _ => (Physical::Int32, integer(32, true)),
    }
}

/// Numbers of 8 and 16 bits become ones of 32.
fn widen(kind: ValueType, row: &[u8], out: &mut Vec<u8>) {
    let (short, _) = row.as_chunks::<2>();
    match kind {
        ValueType::U8 => row.iter().for_each(|&v| out.extend(i32::from(v).to_le_bytes())),
        ValueType::I8 => {
            row.iter().for_each(|&v| out.extend(i32::from(v.cast_signed()).to_le_bytes()));
        }
        ValueType::U16 => {
            short.iter().for_each(|&v| out.extend(i32::from(u16::from_le_bytes(v)).to_le_bytes()));
        }
        ValueType::I16 => {
            short.iter().for_each(|&v| out.extend(i32::from(i16::from_le_bytes(v)).to_le_bytes()));
        }
        _ => out.extend_from_slice(row),
    }
}

/// Gene numbers little-endian, in the type they are stored in.
fn gene_bytes(indices: &Indices, kind: ValueType) -> Result<Vec<u8>> {
    // Below n_vars, which the type was chosen by.
    Ok(match (indices, kind) {
        (Indices::U16(b), ValueType::U16) => b.iter().flat_map(|g| g.to_le_bytes()).collect(),
        (Indices::U16(b), _) => b.iter().flat_map(|&g| u32::from(g).to_le_bytes()).collect(),
        (Indices::U32(b), ValueType::U16) => {
            let narrow = |&g: &u32| u16::try_from(g).unwrap_or(u16::MAX).to_le_bytes();
            b.iter().flat_map(narrow).collect()
        }
        (Indices::U32(b), _) => b.iter().flat_map(|g| g.to_le_bytes()).collect(),
        _ => return Err(Error::internal("gene indices of an unknown type")),
    })
}
