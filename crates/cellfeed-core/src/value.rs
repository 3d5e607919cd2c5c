//! Value types of matrices, typed shared buffers of values and of gene indices.

use crate::{Error, Result};
use arrow_buffer::{ArrowNativeType, ScalarBuffer};
use half::f16;
use std::borrow::Cow;
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
    /// A whole number in this type, if it can be had exactly.
    fn from_integer(value: i64) -> Option<Self>;
    /// A fraction, an infinity or a NaN in this type, rounded to nearest; `None` for integer types and
    /// for what would become infinite.
    fn from_fraction(value: f64) -> Option<Self>;
}

macro_rules! values {
    ($($variant:ident $ty:ty, $to_f64:expr, $to_f32:expr, $as_integer:expr, $from_integer:expr, $from_fraction:expr;)*) => {
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

            /// The values as they lie in memory, in native order.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                match self { $(Self::$variant(b) => bytemuck::cast_slice(b),)* }
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
                #[inline]
                fn from_integer(value: i64) -> Option<Self> {
                    let from: fn(i64) -> Option<$ty> = $from_integer;
                    from(value)
                }
                #[inline]
                fn from_fraction(value: f64) -> Option<Self> {
                    let from: fn(f64) -> Option<$ty> = $from_fraction;
                    from(value)
                }
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
    U8 u8, f64::from, f32::from, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    U16 u16, f64::from, f32::from, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    U32 u32, f64::from, |v| v as f32, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    U64 u64, |v| v as f64, |v| v as f32, |v| i64::try_from(v).ok(), |v| v.try_into().ok(), |_| None;
    I8 i8, f64::from, f32::from, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    I16 i16, f64::from, f32::from, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    I32 i32, f64::from, |v| v as f32, |v| Some(v.into()), |v| v.try_into().ok(), |_| None;
    I64 i64, |v| v as f64, |v| v as f32, Some, Some, |_| None;
    F16 f16, f16::to_f64, f16::to_f32, |v| whole(v.to_f64()),
        |v| returns(v, f16::from_f64(v as f64), f16::to_f64), |v| finite(v, f16::from_f64(v), f16::to_f64);
    F32 f32, f64::from, |v| v, |v| whole(v.into()),
        |v| returns(v, v as f32, f64::from), |v| finite(v, narrow(v), f64::from);
    F64 f64, |v| v, narrow, whole, |v| returns(v, v as f64, |v| v), Some;
}

#[allow(clippy::cast_possible_truncation)] // rounding to nearest is what is wanted
fn narrow(v: f64) -> f32 {
    v as f32
}

/// The float made of a whole number, if it is still that number.
fn returns<T: Copy>(whole_number: i64, float: T, to_f64: fn(T) -> f64) -> Option<T> {
    (whole(to_f64(float)) == Some(whole_number)).then_some(float)
}

/// The float made of another, unless it became infinite.
fn finite<T: Copy>(value: f64, float: T, to_f64: fn(T) -> f64) -> Option<T> {
    (!value.is_finite() || to_f64(float).is_finite()).then_some(float)
}

fn cast_to<S: Value>(values: &[S], to: ValueType) -> Result<Values> {
    fn all<S: Value, T: Value>(values: &[S]) -> Result<Values> {
        let mut out = Vec::<T>::with_capacity(values.len());
        for &value in values {
            let Some(value) = exact::<S, T>(value) else {
                return Err(Error::invalid_input(format!(
                    "{} cannot hold the value {value}",
                    T::TYPE
                )));
            };
            out.push(value);
        }
        Ok(T::wrap(out.into()))
    }
    match to {
        ValueType::U8 => all::<S, u8>(values),
        ValueType::U16 => all::<S, u16>(values),
        ValueType::U32 => all::<S, u32>(values),
        ValueType::U64 => all::<S, u64>(values),
        ValueType::I8 => all::<S, i8>(values),
        ValueType::I16 => all::<S, i16>(values),
        ValueType::I32 => all::<S, i32>(values),
        ValueType::I64 => all::<S, i64>(values),
        ValueType::F16 => all::<S, f16>(values),
        ValueType::F32 => all::<S, f32>(values),
        ValueType::F64 => all::<S, f64>(values),
    }
}

/// A float as an integer, if it is one.
#[allow(clippy::cast_possible_truncation)] // the range is checked
fn whole(v: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    (v.trunc() == v && (-LIMIT..LIMIT).contains(&v)).then_some(v as i64)
}

/// The value in another type if that type has it: whole numbers exactly; fractions may be rounded, but
/// not to infinity.
fn exact<S: Value, T: Value>(value: S) -> Option<T> {
    if let Some(whole) = value.as_integer() {
        // A zero keeps its sign, which integers have none of.
        let negative_zero = whole == 0 && value.to_f64().is_sign_negative();
        return if negative_zero { T::from_fraction(-0.0) } else { T::from_integer(whole) };
    }
    // Not a whole number within 64 bits: a u64 past i64, a fraction, an infinity, or not a number.
    if S::TYPE == ValueType::U64 {
        return None;
    }
    T::from_fraction(value.to_f64())
}

impl Values {
    /// The same values in another type; shared where the type is the same.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) naming the first value that the
    /// type cannot hold: whole numbers must be had exactly, fractions may be rounded.
    pub fn cast(&self, to: ValueType) -> Result<Self> {
        if self.value_type() == to {
            return Ok(self.clone());
        }
        with_values!(self, b => cast_to(b, to))
    }

    /// The values little-endian, as files have them: without a copy where memory has them so too.
    #[must_use]
    pub fn le_bytes(&self) -> Cow<'_, [u8]> {
        let native = self.as_bytes();
        if cfg!(target_endian = "little") {
            return Cow::Borrowed(native);
        }
        let mut bytes = native.to_vec();
        bytes.chunks_exact_mut(self.value_type().size()).for_each(<[u8]>::reverse);
        Cow::Owned(bytes)
    }

    /// The values as a slice of their own type; none if it is another.
    #[must_use]
    pub fn as_slice<T: Value>(&self) -> Option<&[T]> {
        (T::TYPE == self.value_type()).then(|| bytemuck::cast_slice(self.as_bytes()))
    }

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

    /// The indices at `positions`, copied.
    ///
    /// # Panics
    /// If a position is past the end.
    #[must_use]
    pub fn take(&self, positions: &[usize]) -> Self {
        match self {
            Self::U16(b) => Self::U16(positions.iter().map(|&i| b[i]).collect::<Vec<_>>().into()),
            Self::U32(b) => Self::U32(positions.iter().map(|&i| b[i]).collect::<Vec<_>>().into()),
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
    use super::Values as Stored;

    #[test]
    fn values_are_had_as_bytes_and_as_slices() {
        let values = Stored::from(vec![1u16, 0x0203]);
        assert_eq!(&*values.le_bytes(), [1, 0, 3, 2]);
        assert_eq!(values.as_slice::<u16>(), Some(&[1u16, 0x0203][..]));
        assert_eq!(values.as_slice::<i16>(), None);
    }

    #[test]
    fn casts_keep_whole_numbers_and_round_fractions() {
        let cast = |v: Stored, to| v.cast(to);
        let small = cast(vec![0f32, 1.0, 255.0].into(), ValueType::U8).unwrap();
        assert!(matches!(&small, Stored::U8(b) if b[..] == [0, 1, 255]));
        assert!(cast(vec![256f32].into(), ValueType::U8).is_err());
        assert!(cast(vec![-0f32].into(), ValueType::U8).is_err());
        assert!(cast(vec![0.5f32].into(), ValueType::I64).is_err());
        assert!(cast(vec![16_777_217i32].into(), ValueType::F32).is_err());
        assert!(cast(vec![u64::MAX].into(), ValueType::F64).is_err());
        assert!(cast(vec![i64::MAX].into(), ValueType::F64).is_err());
        assert!(cast(vec![2048u16].into(), ValueType::F16).is_ok());
        assert!(cast(vec![1e300f64].into(), ValueType::F32).is_err());
        let odd = cast(vec![0.1f64, f64::NAN, f64::INFINITY].into(), ValueType::F32).unwrap();
        assert!(matches!(&odd, Stored::F32(b) if b[0] == 0.1 && b[1].is_nan() && b[2] > 1e38));
        let zeros = cast(vec![-0.0f64, 0.0].into(), ValueType::F32).unwrap();
        assert!(matches!(&zeros, Stored::F32(b) if b[0].is_sign_negative() && b[1].to_bits() == 0));
        let error = cast(vec![-3i8].into(), ValueType::U16).unwrap_err().to_string();
        assert_eq!(error, "u16 cannot hold the value -3");
    }
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
