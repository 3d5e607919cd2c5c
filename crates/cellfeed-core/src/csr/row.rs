//! A single row on its way to where it is copied: a view of a segment, or of a buffer into which it was
//! decoded or sorted.

use super::CsrSegment;
use crate::value::{Indices, Value, ValueType};
use std::ops::Range;

/// The genes of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Genes<'a> {
    U16(&'a [u16]),
    U32(&'a [u32]),
}

/// A row in canonical form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) genes: Genes<'a>,
    pub(crate) value_type: ValueType,
    /// The values as they lie in memory.
    pub(crate) bytes: &'a [u8],
}

/// Runs an expression with the values of a [`Row`], as a slice of their type, bound to a name.
macro_rules! with_row_values {
    ($row:expr, $slice:ident => $body:expr) => {
        $crate::csr::with_row_values!($row, $slice => $body;
            U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64,
            F16 ::half::f16, F32 f32, F64 f64)
    };
    ($row:expr, $slice:ident => $body:expr; $($variant:ident $ty:ty),*) => {
        match $row.value_type {
            $($crate::value::ValueType::$variant => {
                let $slice: &[$ty] = bytemuck::cast_slice($row.bytes);
                $body
            })*
        }
    };
}
pub(crate) use with_row_values;

impl Row<'_> {
    /// How many non-zeros.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self.genes {
            Genes::U16(genes) => genes.len(),
            Genes::U32(genes) => genes.len(),
        }
    }
}

impl CsrSegment {
    /// The row whose elements are these.
    #[inline]
    pub(super) fn row(&self, span: Range<usize>) -> Row<'_> {
        let value_type = self.values.value_type();
        let size = value_type.size();
        Row {
            value_type,
            bytes: &self.values.as_bytes()[span.start * size..span.end * size],
            genes: match &self.indices {
                Indices::U16(b) => Genes::U16(&b[span]),
                Indices::U32(b) => Genes::U32(&b[span]),
            },
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
}

/// What gene indices of a row can be: `u16` or `u32`.
pub trait GeneIndex: bytemuck::Pod + sealed::Sealed {}

impl GeneIndex for u16 {}
impl GeneIndex for u32 {}

/// Memory for one row, used again for the next.
#[derive(Debug)]
pub struct RowBuffer {
    /// Words, of which rows take what they need, whatever the types.
    genes: Vec<u32>,
    values: Vec<u64>,
    n: usize,
    narrow: bool,
    value_type: ValueType,
}

impl Default for RowBuffer {
    fn default() -> Self {
        let value_type = ValueType::F32;
        Self { genes: Vec::new(), values: Vec::new(), n: 0, narrow: false, value_type }
    }
}

/// The first `n` items in as many words as they need. Words are never given up: they would have to be
/// zeroed again for the next longer row.
fn items<W: bytemuck::Pod, T: bytemuck::Pod>(words: &mut Vec<W>, n: usize) -> &mut [T] {
    let needed = (n * size_of::<T>()).div_ceil(size_of::<W>());
    if words.len() < needed {
        words.resize(needed, W::zeroed());
    }
    &mut bytemuck::cast_slice_mut(words)[..n]
}

impl RowBuffer {
    /// Places for the genes and values of a row of `n` non-zeros. What they hold is unspecified, and all
    /// of them are to be filled.
    pub fn places<G: GeneIndex, T: Value>(&mut self, n: usize) -> (&mut [G], &mut [T]) {
        (self.n, self.narrow, self.value_type) = (n, size_of::<G>() == 2, T::TYPE);
        (items(&mut self.genes, n), items(&mut self.values, n))
    }

    /// Takes a row over.
    pub(super) fn fill(&mut self, row: Row<'_>) {
        (self.n, self.narrow, self.value_type) = (row.len(), false, row.value_type);
        let genes = items::<_, u32>(&mut self.genes, self.n);
        match row.genes {
            Genes::U16(from) => genes.iter_mut().zip(from).for_each(|(to, &g)| *to = g.into()),
            Genes::U32(from) => genes.copy_from_slice(from),
        }
        items::<_, u8>(&mut self.values, row.bytes.len()).copy_from_slice(row.bytes);
    }

    /// The row that it holds.
    #[inline]
    pub(super) fn row(&self) -> Row<'_> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.values);
        Row {
            genes: if self.narrow {
                Genes::U16(&bytemuck::cast_slice(&self.genes)[..self.n])
            } else {
                Genes::U32(&self.genes[..self.n])
            },
            value_type: self.value_type,
            bytes: &bytes[..self.n * self.value_type.size()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_rows_of_any_type_one_after_the_other() {
        let mut buffer = RowBuffer::default();
        let (genes, values) = buffer.places::<u32, f64>(3);
        genes.copy_from_slice(&[1, 2, 9]);
        values.copy_from_slice(&[0.5, -1.0, 2.0]);
        let row = buffer.row();
        assert!(matches!(row.genes, Genes::U32([1, 2, 9])));
        assert_eq!(bytemuck::cast_slice::<u8, f64>(row.bytes), [0.5, -1.0, 2.0]);
        let (genes, values) = buffer.places::<u16, u8>(1);
        (genes[0], values[0]) = (4, 7);
        assert!(matches!(buffer.row().genes, Genes::U16([4])));
        assert_eq!((buffer.row().value_type, buffer.row().bytes), (ValueType::U8, &[7u8][..]));
        let sums = with_row_values!(buffer.row(), values => {
            values.iter().map(|v| v.to_f64()).sum::<f64>()
        });
        assert!((sums - 7.0).abs() < 1e-12);
        buffer.places::<u16, f32>(0);
        assert!(buffer.row().bytes.is_empty());
    }
}
