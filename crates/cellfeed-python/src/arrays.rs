//! Vectors and columns as NumPy arrays.
//!
//! The vectors of a minibatch are lent: arrays point into them, and each holds the [`Buffers`] that
//! own them. When the last array is gone the vectors go back to the loader. This is the one file of
//! the crate with `unsafe`.

use crate::errors::raise;
use crate::process::Owned;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use cellfeed::{CsrRows, Data, Error, Indices, Minibatch, ValueType, Values, X};
use half::f16;
use numpy::ndarray::{ArrayViewMut1, ArrayViewMut2};
use numpy::{Element, PyArray1, PyArray2};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

/// Owns what arrays point into.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Buffers {
    _minibatch: Owned<Minibatch>,
}

/// Where a vector lies.
struct Span<T> {
    start: *mut T,
    len: usize,
}

impl<T> Span<T> {
    fn of(vector: &mut [T]) -> Self {
        Self { start: vector.as_mut_ptr(), len: vector.len() }
    }
}

impl<T: Element> Span<T> {
    /// An array of the vector.
    ///
    /// # Safety
    /// `owner` owns the vector, and neither moves, changes nor reads it while it lives.
    unsafe fn lend<'py>(self, owner: &Bound<'py, Buffers>) -> Bound<'py, PyAny> {
        // SAFETY: the vector has `len` values from `start` on, and by the caller's word they stay.
        let array = unsafe {
            let view = ArrayViewMut1::from_shape_ptr(self.len, self.start);
            PyArray1::borrow_from_array(&view, owner.clone().into_any())
        };
        array.into_any()
    }

    /// An array of the vector, which has a row a cell.
    ///
    /// # Safety
    /// As [`lend`](Self::lend).
    unsafe fn lend_rows<'py>(self, n: usize, owner: &Bound<'py, Buffers>) -> Bound<'py, PyAny> {
        let shape = (n, self.len.checked_div(n).unwrap_or(0));
        // SAFETY: the vector has `len` values, which are at least those of the shape.
        let array = unsafe {
            let view = ArrayViewMut2::from_shape_ptr(shape, self.start);
            PyArray2::borrow_from_array(&view, owner.clone().into_any())
        };
        array.into_any()
    }
}

/// Where the values lie, of one of the types that minibatches have.
macro_rules! span_of_data {
    ($($variant:ident $ty:ty),*) => {
        enum DataSpan { $($variant(Span<$ty>),)* }

        impl DataSpan {
            fn of(data: &mut Data) -> PyResult<Self> {
                Ok(match data {
                    $(Data::$variant(v) => Self::$variant(Span::of(v)),)*
                    other => {
                        let t = other.output_type();
                        return Err(raise(Error::internal(format!("values of type {t} are new"))));
                    }
                })
            }

            /// # Safety
            /// As [`Span::lend`].
            unsafe fn lend<'py>(
                self,
                rows: Option<usize>,
                owner: &Bound<'py, Buffers>,
            ) -> Bound<'py, PyAny> {
                // SAFETY: by the caller's word.
                unsafe {
                    match (self, rows) {
                        $((Self::$variant(s), None) => s.lend(owner),
                          (Self::$variant(s), Some(n)) => s.lend_rows(n, owner),)*
                    }
                }
            }
        }
    };
}

span_of_data!(U8 u8, U16 u16, I32 i32, I64 i64, F16 f16, F32 f32, F64 f64);

enum XSpan {
    Csr(Span<i32>, Span<i32>, DataSpan),
    Dense(DataSpan),
}

/// The matrix and the row numbers of a minibatch: `(data,)` of shape (cells, genes), or `(data, indices,
/// indptr)`; then the rows.
pub(crate) fn lend<'py>(
    py: Python<'py>,
    mut minibatch: Minibatch,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyAny>)> {
    let n = minibatch.n_cells();
    let (rows, x) = minibatch.buffers_mut();
    let rows = Span::of(rows);
    let x = match x {
        X::Csr { indptr, indices, data } => {
            XSpan::Csr(Span::of(indptr), Span::of(indices), DataSpan::of(data)?)
        }
        X::Dense { data } => XSpan::Dense(DataSpan::of(data)?),
        _ => return Err(raise(Error::internal("this form of a minibatch is new"))),
    };
    let owner = Bound::new(py, Buffers { _minibatch: Owned::new(minibatch) })?;
    // Row numbers are below 2^62: a plan has no more cells.
    let rows = Span { start: rows.start.cast::<i64>(), len: rows.len };
    // SAFETY: `owner` has the minibatch, whose vectors stay where they are when it is moved, and
    // does nothing with it but drop it at the end.
    unsafe {
        let x = match x {
            XSpan::Csr(indptr, indices, data) => {
                let (indptr, indices) = (indptr.lend(&owner), indices.lend(&owner));
                PyTuple::new(py, [data.lend(None, &owner), indices, indptr])?
            }
            XSpan::Dense(data) => PyTuple::new(py, [data.lend(Some(n), &owner)])?,
        };
        Ok((x, rows.lend(&owner)))
    }
}

/// The codes of a categorical column, -1 where there is no value.
fn codes<T: Element + From<i32>>(array: &ArrayRef) -> Vec<T> {
    let keys = array.as_dictionary::<Int32Type>().keys();
    keys.iter().map(|key| T::from(key.unwrap_or(-1))).collect()
}

/// The values of a column, and a mask that is true where there is none, if there are such.
///
/// Categorical columns are codes. Text is a list.
pub(crate) fn column<'py>(
    py: Python<'py>,
    array: &ArrayRef,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
    let values = match array.data_type() {
        DataType::Dictionary(_, _) => {
            return Ok((PyArray1::from_vec(py, codes::<i32>(array)).into_any(), None));
        }
        DataType::Utf8 => {
            return Ok((PyList::new(py, array.as_string::<i32>().iter())?.into_any(), None));
        }
        DataType::Int64 => {
            PyArray1::from_slice(py, array.as_primitive::<Int64Type>().values()).into_any()
        }
        DataType::UInt64 => {
            PyArray1::from_slice(py, array.as_primitive::<UInt64Type>().values()).into_any()
        }
        DataType::Float64 => {
            let array = array.as_primitive::<Float64Type>();
            if array.null_count() == 0 {
                PyArray1::from_slice(py, array.values()).into_any()
            } else {
                let values = array.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
                PyArray1::from_vec(py, values).into_any()
            }
        }
        DataType::Boolean => {
            let values = array.as_boolean().values().iter().collect();
            PyArray1::<bool>::from_vec(py, values).into_any()
        }
        other => return Err(raise(strange(other))),
    };
    let mask = (array.null_count() > 0).then(|| {
        let mask = (0..array.len()).map(|i| array.is_null(i)).collect();
        PyArray1::<bool>::from_vec(py, mask).into_any()
    });
    Ok((values, mask))
}

/// A column of a minibatch, of a type that is the same in every minibatch: codes are 64-bit, as loss
/// functions want them, and numbers that may be missing are floats.
pub(crate) fn batch_column<'py>(
    py: Python<'py>,
    array: &ArrayRef,
    may_be_missing: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let floats = |values: Vec<f64>| PyArray1::from_vec(py, values).into_any();
    Ok(match array.data_type() {
        DataType::Dictionary(_, _) => PyArray1::from_vec(py, codes::<i64>(array)).into_any(),
        DataType::Int64 if may_be_missing => {
            let values = array.as_primitive::<Int64Type>().iter();
            floats(values.map(|v| v.map_or(f64::NAN, |v| v as f64)).collect())
        }
        DataType::UInt64 if may_be_missing => {
            let values = array.as_primitive::<UInt64Type>().iter();
            floats(values.map(|v| v.map_or(f64::NAN, |v| v as f64)).collect())
        }
        DataType::Boolean if may_be_missing => {
            let values = array.as_boolean().iter();
            floats(values.map(|v| v.map_or(f64::NAN, |v| f64::from(u8::from(v)))).collect())
        }
        _ => column(py, array)?.0,
    })
}

fn strange(what: &DataType) -> Error {
    Error::unsupported(format!("no obs column has values of type {what}"))
}

/// Rows as `(data, indices, indptr)`, the values in the type in which they are stored.
pub(crate) fn csr<'py>(
    py: Python<'py>,
    rows: &CsrRows,
    value_type: ValueType,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut indptr = Vec::with_capacity(rows.n_rows() + 1);
    let mut indices: Vec<i32> = Vec::with_capacity(rows.nnz());
    indptr.push(0i64);
    for segment in rows.segments() {
        let start = indptr.last().copied().unwrap_or(0);
        indptr.extend(segment.indptr().iter().skip(1).map(|&p| start + p.cast_signed()));
        match segment.indices() {
            Indices::U16(b) => indices.extend(b.iter().map(|&i| i32::from(i))),
            Indices::U32(b) => indices.extend(b.iter().map(|&i| i.cast_signed())),
            other => indices.extend(other.to_u32_vec().into_iter().map(u32::cast_signed)),
        }
    }
    let value_type = rows.segments().first().map_or(value_type, |s| s.values().value_type());
    macro_rules! values {
        ($($variant:ident $ty:ty),*) => {
            match value_type {
                $(ValueType::$variant => {
                    let mut out: Vec<$ty> = Vec::with_capacity(rows.nnz());
                    for segment in rows.segments() {
                        match segment.values() {
                            Values::$variant(b) => out.extend_from_slice(b),
                            other => match other.cast(value_type).map_err(raise)? {
                                Values::$variant(b) => out.extend_from_slice(&b),
                                _ => return Err(raise(Error::internal("a cast gave another type"))),
                            },
                        }
                    }
                    PyArray1::from_vec(py, out).into_any()
                })*
                other => {
                    return Err(raise(Error::internal(format!("values of type {other} are new"))));
                }
            }
        };
    }
    let data = values!(U8 u8, U16 u16, U32 u32, U64 u64, I8 i8, I16 i16, I32 i32, I64 i64, F16 f16, F32 f32, F64 f64);
    let (indices, indptr) = (PyArray1::from_vec(py, indices), PyArray1::from_vec(py, indptr));
    PyTuple::new(py, [data, indices.into_any(), indptr.into_any()])
}
