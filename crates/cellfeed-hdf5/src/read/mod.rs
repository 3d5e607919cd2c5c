//! Rows to bytes and back: plans byte ranges, reads them through the byte source, decodes on every
//! core.

mod array;
mod chunks;
mod convert;
mod dense;
mod extras;
mod filters;
mod lzf;
mod mapped;
mod obs;
pub(crate) mod roofline;
mod sparse;
mod start;

pub(crate) use array::{Context, StoredArray};
pub(crate) use convert::Convert;
pub(crate) use dense::DenseMatrix;
pub(crate) use extras::{extra_names, read_extras};
pub(crate) use obs::{Column, ColumnData, Values, column_to_text, integers};
pub(crate) use sparse::{SparseMatrix, read_offsets};

/// A position within one read. Such fit the address space: the read's buffer was made before.
pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(crate) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
