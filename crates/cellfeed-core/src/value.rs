//! Value types of matrices, typed shared buffers of values and of gene indices.

use crate::{Error, Result};
use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use half::f16;
use std::fmt;
use std::str::FromStr;

/// The type of a matrix value as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ValueType {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

impl ValueType {
    /// Every value type.
    pub const ALL: [Self; 11] = [
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
    ];

    /// Bytes of one value.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The short name: `f32`, `u16`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ValueType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == s).ok_or_else(|| {
            Error::invalid_input(format!(
                "no value type is called {s:?}; there are {}",
                Self::ALL.map(Self::as_str).join(", ")
            ))
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that matrix values can have. Sealed: the eleven types of [`ValueType`].
pub trait Value:
    ArrowNativeType + bytemuck::Pod + PartialOrd + fmt::Display + sealed::Sealed
{
    /// The matching [`ValueType`].
    const TYPE: ValueType;
    /// Wraps a typed buffer.
    fn wrap(buffer: ScalarBuffer<Self>) -> Values;
    /// The value as `f64`, rounded where `f64` cannot hold it (64-bit integers past 2^53).
    fn to_f64(self) -> f64;
    /// The value as `f32`, rounded to nearest.
    fn to_f32(self) -> f32;
    /// The value as `i64`, if it is one.
    fn as_integer(self) -> Option<i64>;
}

macro_rules! values {
    ($($variant:ident $ty:ty, $to_f64:expr, $to_f32:expr, $as_integer:expr;)*) => {
        /// Matrix values in a shared, typed buffer: a view of a map, of a decoded chunk, or of a
        /// buffer of their own. Cloning and slicing copy nothing.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        #[allow(missing_docs)]
        pub enum Values { $($variant(ScalarBuffer<$ty>),)* }

        impl Values {
            /// How many values.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(b) => b.len(),)* }
            }

            /// The type of the values.
            #[must_use]
            pub fn value_type(&self) -> ValueType {
                match self { $(Self::$variant(_) => ValueType::$variant,)* }
            }

            /// A part of the values, sharing the memory.
            ///
            /// # Panics
            /// If `start + len` is past the end.
            #[must_use]
            pub fn slice(&self, start: usize, len: usize) -> Self {
                match self { $(Self::$variant(b) => Self::$variant(b.slice(start, len)),)* }
            }

            /// The values at `positions`, copied.
            ///
            /// # Panics
            /// If a position is past the end.
            #[must_use]
            pub fn take(&self, positions: &[usize]) -> Self {
                match self {
                    $(Self::$variant(b) => {
                        Self::$variant(positions.iter().map(|&i| b[i]).collect::<Vec<$ty>>().into())
                    })*
                }
            }

            /// An empty buffer of the given type.
            #[must_use]
            pub fn empty(value_type: ValueType) -> Self {
                match value_type {
                    $(ValueType::$variant => Self::$variant(Vec::<$ty>::new().into()),)*
                }
            }

            /// Views shared bytes in native order as values; copies only if they are misaligned.
            ///
            /// # Errors
            /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the length is not a whole
            /// number of values.
            pub fn from_bytes(value_type: ValueType, bytes: bytes::Bytes) -> Result<Self> {
                match value_type {
                    $(ValueType::$variant => typed::<$ty>(bytes).map(Self::$variant),)*
                }
            }

            /// The values as `f64`, for display and tests.
            #[must_use]
            pub fn to_f64_vec(&self) -> Vec<f64> {
                match self { $(Self::$variant(b) => b.iter().map(|v| v.to_f64()).collect(),)* }
            }
        }

        $(
            impl sealed::Sealed for $ty {}
            impl Value for $ty {
                const TYPE: ValueType = ValueType::$variant;
                fn wrap(buffer: ScalarBuffer<Self>) -> Values { Values::$variant(buffer) }
                #[inline]
                fn to_f64(self) -> f64 { let to: fn($ty) -> f64 = $to_f64; to(self) }
                #[inline]
                fn to_f32(self) -> f32 { let to: fn($ty) -> f32 = $to_f32; to(self) }
                #[inline]
                fn as_integer(self) -> Option<i64> { let to: fn($ty) -> Option<i64> = $as_integer; to(self) }
            }
            impl From<Vec<$ty>> for Values {
                fn from(values: Vec<$ty>) -> Self { Self::$variant(values.into()) }
            }
        )*

        /// Runs an expression with the typed buffer of a [`Values`] bound to a name.
        macro_rules! with_values {
            ($values:expr, $buffer:ident => $body:expr) => {
                match $values { $($crate::value::Values::$variant($buffer) => $body,)* }
            };
        }
        pub(crate) use with_values;
    };
}

values! {
    U8 u8, f64::from, f32::from, |v| Some(v.into());
    U16 u16, f64::from, f32::from, |v| Some(v.into());
    U32 u32, f64::from, |v| v as f32, |v| Some(v.into());
    U64 u64, |v| v as f64, |v| v as f32, |v| i64::try_from(v).ok();
    I8 i8, f64::from, f32::from, |v| Some(v.into());
    I16 i16, f64::from, f32::from, |v| Some(v.into());
    I32 i32, f64::from, |v| v as f32, |v| Some(v.into());
    I64 i64, |v| v as f64, |v| v as f32, Some;
    F16 f16, f16::to_f64, f16::to_f32, |v| whole(v.to_f64());
    F32 f32, f64::from, |v| v, |v| whole(v.into());
    F64 f64, |v| v, narrow, whole;
}

#[allow(clippy::cast_possible_truncation)] // rounding to nearest is what is wanted
fn narrow(v: f64) -> f32 {
    v as f32
}

/// A float as an integer, if it is one.
#[allow(clippy::cast_possible_truncation)] // the range is checked
fn whole(v: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    (v.trunc() == v && (-LIMIT..LIMIT).contains(&v)).then_some(v as i64)
}

impl Values {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Gene indices of CSR rows in a shared buffer, in one of the two widths that matrices of at most
/// 2^31 genes need.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Indices {
    U16(ScalarBuffer<u16>),
    U32(ScalarBuffer<u32>),
}

impl Indices {
    /// How many indices.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U16(b) => b.len(),
            Self::U32(b) => b.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the indices, sharing the memory.
    ///
    /// # Panics
    /// If `start + len` is past the end.
    #[must_use]
    pub fn slice(&self, start: usize, len: usize) -> Self {
        match self {
            Self::U16(b) => Self::U16(b.slice(start, len)),
            Self::U32(b) => Self::U32(b.slice(start, len)),
        }
    }

    /// The indices widened to `u32`.
    #[must_use]
    pub fn to_u32_vec(&self) -> Vec<u32> {
        match self {
            Self::U16(b) => b.iter().map(|&i| u32::from(i)).collect(),
            Self::U32(b) => b.to_vec(),
        }
    }
}

impl From<Vec<u32>> for Indices {
    fn from(indices: Vec<u32>) -> Self {
        Self::U32(indices.into())
    }
}

impl From<Vec<u16>> for Indices {
    fn from(indices: Vec<u16>) -> Self {
        Self::U16(indices.into())
    }
}

/// Views shared bytes as a typed buffer, copying only if they are misaligned.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the length is not a whole number of items.
pub fn typed<T: ArrowNativeType + bytemuck::Pod>(bytes: bytes::Bytes) -> Result<ScalarBuffer<T>> {
    let size = size_of::<T>();
    if !bytes.len().is_multiple_of(size) {
        return Err(Error::corrupt(format!(
            "{} bytes are not a whole number of {size}-byte values",
            bytes.len()
        )));
    }
    if bytes.as_ptr().align_offset(align_of::<T>()) == 0 {
        let len = bytes.len() / size;
        return Ok(ScalarBuffer::new(arrow_buffer::Buffer::from(bytes), 0, len));
    }
    let mut copy = vec![T::default(); bytes.len() / size];
    bytemuck::cast_slice_mut::<T, u8>(&mut copy).copy_from_slice(&bytes);
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn bytes_are_shared_when_aligned_and_copied_when_not() {
        let aligned: Vec<u64> = vec![1, 2, 3];
        let bytes = Bytes::copy_from_slice(bytemuck::cast_slice(&aligned));
        let values = Values::from_bytes(ValueType::U64, bytes.clone()).unwrap();
        assert_eq!(values.to_f64_vec(), [1.0, 2.0, 3.0]);
        let odd = Bytes::from([&[0u8][..], &bytes].concat()).slice(1..);
        assert_eq!(typed::<u64>(odd).unwrap().to_vec(), aligned);
        assert!(Values::from_bytes(ValueType::U64, Bytes::from_static(&[1, 2, 3])).is_err());
    }

    #[test]
    fn names_round_trip() {
        for t in ValueType::ALL {
            assert_eq!(t.as_str().parse::<ValueType>().unwrap(), t);
        }
        assert!("f8".parse::<ValueType>().is_err());
    }
}
