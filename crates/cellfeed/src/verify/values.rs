//! Values compared whatever their types: of rows, and of columns.

use super::{Difference, differ};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use cellfeed_core::{CsrRows, CsrSegment, Error, Indices, Result, Values};
use std::fmt;

/// A stored value, to be compared whatever its type: whole numbers exactly.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn of(values: &Values, i: usize) -> Self {
        fn whole<T: Copy + Into<i128>>(b: &[T], i: usize) -> Number {
            b.get(i).map_or(Number::Whole(0), |&v| Number::Whole(v.into()))
        }
        match values {
            Values::U8(b) => whole(b, i),
            Values::U16(b) => whole(b, i),
            Values::U32(b) => whole(b, i),
            Values::U64(b) => whole(b, i),
            Values::I8(b) => whole(b, i),
            Values::I16(b) => whole(b, i),
            Values::I32(b) => whole(b, i),
            Values::I64(b) => whole(b, i),
            Values::F16(b) => Self::Float(b.get(i).map_or(0.0, |v| v.to_f64())),
            Values::F32(b) => Self::Float(b.get(i).map_or(0.0, |&v| v.into())),
            Values::F64(b) => Self::Float(b.get(i).copied().unwrap_or(0.0)),
            _ => Self::Float(f64::NAN),
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Whole(v) => v == 0,
            Self::Float(v) => v == 0.0,
        }
    }

    #[allow(clippy::float_cmp, reason = "equal is what is asked")]
    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Whole(whole), Self::Float(float)) | (Self::Float(float), Self::Whole(whole)) => {
                // A whole number is equal to a float if the float is that number.
                #[allow(clippy::cast_possible_truncation, reason = "checked by the way back")]
                let back = float as i128;
                float.trunc() == float && back == whole
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
        }
    }
}

fn gene_at(segment: &CsrSegment, i: usize) -> u64 {
    match segment.indices() {
        Indices::U16(b) => b.get(i).map_or(u64::MAX, |&g| g.into()),
        Indices::U32(b) => b.get(i).map_or(u64::MAX, |&g| g.into()),
        _ => u64::MAX,
    }
}

/// The first row and gene in which rows differ, with both values. Zeros may be stored or not.
pub(super) fn rows_differ(a: &CsrRows, b: &CsrRows) -> Option<(usize, u64, Number, Number)> {
    let rows = |x: &CsrRows| -> Vec<(usize, usize, usize)> {
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let all = x.segments().iter().enumerate();
        all.flat_map(|(s, seg)| seg.indptr().windows(2).map(move |w| (s, at(w[0]), at(w[1]))))
            .collect()
    };
    for (row, (left, right)) in rows(a).into_iter().zip(rows(b)).enumerate() {
        let (x, y) = (&a.segments()[left.0], &b.segments()[right.0]);
        let (mut i, mut j) = (left.1, right.1);
        while i < left.2 || j < right.2 {
            let gi = if i < left.2 { gene_at(x, i) } else { u64::MAX };
            let gj = if j < right.2 { gene_at(y, j) } else { u64::MAX };
            let zero = Number::Whole(0);
            let (gene, first, second) = match gi.cmp(&gj) {
                std::cmp::Ordering::Equal => {
                    (gi, Number::of(x.values(), i), Number::of(y.values(), j))
                }
                std::cmp::Ordering::Less => (gi, Number::of(x.values(), i), zero),
                std::cmp::Ordering::Greater => (gj, zero, Number::of(y.values(), j)),
            };
            i += usize::from(gi <= gj);
            j += usize::from(gj <= gi);
            if !(first.equals(second) || first.is_zero() && second.is_zero()) {
                return Some((row, gene, first, second));
            }
        }
    }
    None
}

/// The first row in which two columns differ.
pub(super) fn columns_differ(path: &str, a: &ArrayRef, b: &ArrayRef) -> Result<Option<Difference>> {
    if a.len() != b.len() {
        return Ok(Some(differ(path, format!("{} values", a.len()), b.len())));
    }
    for row in 0..a.len() {
        let (x, y) = (text_at(a, row)?, text_at(b, row)?);
        if x != y {
            let show = |v: Option<String>| v.unwrap_or_else(|| "missing".to_owned());
            let mut found = differ(path, show(x), show(y));
            found.row = u64::try_from(row).ok();
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A value as text, in a form that is the same for equal numbers of different types.
fn text_at(array: &ArrayRef, row: usize) -> Result<Option<String>> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Dictionary(_, _) => {
            let array = array.as_dictionary::<Int32Type>();
            let code = usize::try_from(array.keys().value(row)).unwrap_or(usize::MAX);
            let categories = array.values().as_string::<i32>();
            if code < categories.len() { categories.value(code).to_owned() } else { String::new() }
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        // Whole floats print as integers do.
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        other => return Err(Error::unsupported(format!("a column of type {other}"))),
    }))
}
