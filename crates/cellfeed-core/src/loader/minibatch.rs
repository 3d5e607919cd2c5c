//! What the training step receives, and how its buffers are lent and given back.

use crate::csr::RowBuffer;
use crate::value::Value;
use crate::{Error, Result};
use arrow_array::ArrayRef;
use half::f16;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The value type of a minibatch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum OutputType {
    U8,
    U16,
    I32,
    I64,
    F16,
    #[default]
    F32,
    F64,
}

/// A type that minibatches can have. Sealed through [`Value`].
pub(super) trait Output: Value {
    /// Converts; the result is meaningful where [`holds`](Self::holds) is true.
    fn convert<S: Value>(value: S) -> Self;
    /// Whether the value can be had in this type: integers must be integers in range, floats may be
    /// rounded but must not become infinite.
    fn holds<S: Value>(value: S) -> bool;
    /// Whether every value of the source type can be had, so that nothing need be checked.
    fn holds_all<S: Value>() -> bool;
    /// The vector inside, if it is of this type.
    fn vec_of(data: Data) -> Option<Vec<Self>>;
    /// Wraps a vector.
    fn data(values: Vec<Self>) -> Data;
}

macro_rules! outputs {
    ($($variant:ident $ty:ty, $convert:expr, $holds:expr, $holds_all:expr;)*) => {
        /// The values of a minibatch.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        #[allow(missing_docs)]
        pub enum Data { $($variant(Vec<$ty>),)* }

        impl OutputType {
            /// Every output type.
            pub const ALL: [Self; 7] = [$(Self::$variant,)*];

            /// The short name: `f32`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => <$ty as Value>::TYPE.as_str(),)* }
            }

            pub(super) fn empty(self) -> Data {
                match self { $(Self::$variant => Data::$variant(Vec::new()),)* }
            }

            /// Bytes of one value.
            #[must_use]
            pub fn size(self) -> usize {
                match self { $(Self::$variant => size_of::<$ty>(),)* }
            }
        }

        impl Data {
            /// How many values.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len(),)* }
            }

            /// The type of the values.
            #[must_use]
            pub fn output_type(&self) -> OutputType {
                match self { $(Self::$variant(_) => OutputType::$variant,)* }
            }

            /// The sum of all values, in an order that is fixed but not that of the values: eight
            /// sums run side by side.
            #[must_use]
            pub fn sum_f64(&self) -> f64 {
                match self { $(Self::$variant(v) => sum(v),)* }
            }

            /// Calls `f` with every value, as `f32`, in order.
            pub fn for_each_f32(&self, mut f: impl FnMut(f32)) {
                match self { $(Self::$variant(v) => v.iter().for_each(|x| f(x.to_f32())),)* }
            }

            fn capacity(&self) -> usize {
                match self { $(Self::$variant(v) => v.capacity(),)* }
            }

            fn clear(&mut self) {
                match self { $(Self::$variant(v) => v.clear(),)* }
            }
        }

        $(impl Output for $ty {
            #[inline]
            fn convert<S: Value>(value: S) -> Self { $convert(value) }
            #[inline]
            fn holds<S: Value>(value: S) -> bool { $holds(value) }
            fn holds_all<S: Value>() -> bool { $holds_all(S::TYPE) }
            fn vec_of(data: Data) -> Option<Vec<Self>> {
                match data { Data::$variant(v) => Some(v), _ => None }
            }
            fn data(values: Vec<Self>) -> Data { Data::$variant(values) }
        })*
    };
}

fn integer<S: Value, T: TryFrom<i64> + Default>(value: S) -> T {
    value.as_integer().and_then(|v| T::try_from(v).ok()).unwrap_or_default()
}

fn is_integer<S: Value, T: TryFrom<i64>>(value: S) -> bool {
    value.as_integer().is_some_and(|v| T::try_from(v).is_ok())
}

use crate::value::ValueType as V;

outputs! {
    U8 u8, integer, is_integer::<S, u8>, |s| matches!(s, V::U8);
    U16 u16, integer, is_integer::<S, u16>, |s| matches!(s, V::U8 | V::U16);
    I32 i32, integer, is_integer::<S, i32>, |s| matches!(s, V::U8 | V::U16 | V::I8 | V::I16 | V::I32);
    I64 i64, integer, is_integer::<S, i64>,
        |s| matches!(s, V::U8 | V::U16 | V::U32 | V::I8 | V::I16 | V::I32 | V::I64);
    F16 f16, |v: S| f16::from_f32(v.to_f32()),
        |v: S| !v.to_f64().is_finite() || f16::from_f32(v.to_f32()).is_finite(),
        |s| matches!(s, V::U8 | V::I8 | V::I16 | V::F16);
    F32 f32, S::to_f32, |v: S| !v.to_f64().is_finite() || v.to_f32().is_finite(), |s| s != V::F64;
    F64 f64, S::to_f64, |_: S| true, |_| true;
}

fn sum<T: Value>(values: &[T]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for eight in eights {
        for (sum, v) in sums.iter_mut().zip(eight) {
            *sum += v.to_f64();
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|v| v.to_f64()).sum::<f64>()
}

impl Data {
    /// Whether there are no values.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, if they are `f32`, the default type.
    #[must_use]
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Self::F32(values) => Some(values),
            _ => None,
        }
    }
}

impl fmt::Display for OutputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OutputType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid_input(format!("minibatches cannot be of type {s:?}; there are {all}"))
        })
    }
}

/// Whether minibatches are sparse or dense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// Compressed sparse rows.
    #[default]
    Csr,
    /// Every value, row by row.
    Dense,
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "csr" => Ok(Self::Csr),
            "dense" => Ok(Self::Dense),
            _ => Err(Error::invalid_input(format!(
                "no layout is called {s:?}; there are csr, dense"
            ))),
        }
    }
}

/// The matrix of a minibatch, of shape (cells, `n_vars`).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum X {
    /// Compressed sparse rows with 32-bit indices, as SciPy and PyTorch take them.
    Csr {
        /// Row offsets, one more than there are cells.
        indptr: Vec<i32>,
        /// Gene indices, strictly ascending in each row.
        indices: Vec<i32>,
        /// Values.
        data: Data,
    },
    /// Every value, row-major.
    Dense {
        /// Values, cells x genes of them.
        data: Data,
    },
}

impl X {
    /// The values: non-zeros, or all.
    #[must_use]
    pub fn data(&self) -> &Data {
        match self {
            Self::Csr { data, .. } | Self::Dense { data } => data,
        }
    }
}

/// One minibatch. Its buffers go back to the loader when it is dropped; [`into_parts`](Self::into_parts)
/// keeps them.
#[derive(Debug)]
pub struct Minibatch {
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) n_vars: u64,
    pub(super) rows: Vec<u64>,
    pub(super) x: X,
    pub(super) obs: Vec<(Arc<str>, ArrayRef)>,
    pub(super) recycler: Arc<Recycler>,
}

/// What a [`Minibatch`] consists of.
#[derive(Debug)]
pub struct MinibatchParts {
    /// Row numbers in the store.
    pub rows: Vec<u64>,
    /// The matrix.
    pub x: X,
    /// Obs columns, in the order in which they were asked for.
    pub obs: Vec<(Arc<str>, ArrayRef)>,
}

impl Minibatch {
    /// The epoch it belongs to.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its number in the epoch.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many cells.
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.rows.len()
    }

    /// How many genes.
    #[must_use]
    pub fn n_vars(&self) -> u64 {
        self.n_vars
    }

    /// Row numbers in the store, one a cell.
    #[must_use]
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }

    /// The matrix.
    #[must_use]
    pub fn x(&self) -> &X {
        &self.x
    }

    /// Obs columns, in the order in which they were asked for. Categorical columns are Arrow
    /// dictionaries: their keys are the integer codes.
    #[must_use]
    pub fn obs(&self) -> &[(Arc<str>, ArrayRef)] {
        &self.obs
    }

    /// One obs column.
    #[must_use]
    pub fn obs_column(&self, name: &str) -> Option<&ArrayRef> {
        self.obs.iter().find(|(n, _)| &**n == name).map(|(_, array)| array)
    }

    /// Rows and matrix, to be changed in place. They still go back to the loader.
    pub fn buffers_mut(&mut self) -> (&mut [u64], &mut X) {
        (&mut self.rows, &mut self.x)
    }

    /// Takes the buffers out for good.
    #[must_use]
    pub fn into_parts(mut self) -> MinibatchParts {
        let empty = X::Dense { data: Data::F32(Vec::new()) };
        MinibatchParts {
            rows: std::mem::take(&mut self.rows),
            x: std::mem::replace(&mut self.x, empty),
            obs: std::mem::take(&mut self.obs),
        }
    }
}

impl Drop for Minibatch {
    fn drop(&mut self) {
        let empty = X::Dense { data: Data::F32(Vec::new()) };
        match std::mem::replace(&mut self.x, empty) {
            X::Csr { indptr, indices, data } => {
                self.recycler.put(Recycled {
                    rows: std::mem::take(&mut self.rows),
                    indptr,
                    indices,
                    data,
                });
            }
            X::Dense { data } if !data.is_empty() => self.recycler.put(Recycled {
                rows: std::mem::take(&mut self.rows),
                indptr: Vec::new(),
                indices: Vec::new(),
                data,
            }),
            X::Dense { .. } => {}
        }
    }
}

/// The vectors of one minibatch, empty but with their capacity.
#[derive(Debug)]
pub(super) struct Recycled {
    pub(super) rows: Vec<u64>,
    pub(super) indptr: Vec<i32>,
    pub(super) indices: Vec<i32>,
    pub(super) data: Data,
}

/// Vectors that consumers gave back, and what tasks put rows into.
#[derive(Debug)]
pub(super) struct Recycler {
    output: OutputType,
    keep_bytes: usize,
    free: Mutex<Free>,
    /// As many as tasks ran at once.
    rows: Mutex<Vec<RowBuffer>>,
}

#[derive(Debug, Default)]
struct Free {
    vectors: Vec<Recycled>,
    bytes: usize,
}

impl Recycled {
    fn capacity_bytes(&self) -> usize {
        let small = (self.indptr.capacity() + self.indices.capacity()) * 4;
        self.rows.capacity() * 8 + small + self.data.capacity() * self.data.output_type().size()
    }
}

impl Recycler {
    /// Keeps at most so many bytes: a consumer may give back at once what it has collected for long.
    pub(super) fn new(output: OutputType, keep_bytes: usize) -> Self {
        Self { output, keep_bytes, free: Mutex::default(), rows: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Recycled {
        let free = {
            let mut free = self.lock();
            let vectors = free.vectors.pop();
            free.bytes -= vectors.as_ref().map_or(0, Recycled::capacity_bytes);
            vectors
        };
        free.unwrap_or_else(|| Recycled {
            rows: Vec::new(),
            indptr: Vec::new(),
            indices: Vec::new(),
            data: self.output.empty(),
        })
    }

    pub(super) fn take_row(&self) -> RowBuffer {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.pop().unwrap_or_default()
    }

    pub(super) fn put_row(&self, row: RowBuffer) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    fn put(&self, mut vectors: Recycled) {
        vectors.rows.clear();
        vectors.indptr.clear();
        vectors.indices.clear();
        vectors.data.clear();
        let bytes = vectors.capacity_bytes();
        let mut free = self.lock();
        if free.bytes + bytes <= self.keep_bytes {
            free.bytes += bytes;
            free.vectors.push(vectors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_round_floats_and_refuse_what_an_integer_cannot_hold() {
        assert!((f32::convert(0.1f64) - 0.1).abs() < 1e-8);
        assert!(!f32::holds(1e300f64) && f32::holds(f64::NAN) && f32::holds(f64::INFINITY));
        assert!(!f16::holds(70_000f32) && f16::holds(60_000u16));
        assert!(u8::holds(255f32) && !u8::holds(256f32) && !u8::holds(0.5f64) && !u8::holds(-1i8));
        assert_eq!(u16::convert(65_535f32), 65_535);
        assert!(!i64::holds(9.3e18f64) && !i64::holds(u64::MAX) && !i64::holds(f32::NAN));
        assert!(f32::holds_all::<i64>() && !i32::holds_all::<f32>() && !f32::holds_all::<f64>());
        for t in OutputType::ALL {
            assert_eq!(t.as_str().parse::<OutputType>().unwrap(), t);
            assert_eq!(t.empty().output_type(), t);
        }
    }
}
