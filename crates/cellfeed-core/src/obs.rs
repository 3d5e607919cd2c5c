//! Obs columns in memory: building them, and taking rows out of them.
//!
//! The `take` of arrow's own kernels does this for every Arrow type there is, and takes longer to
//! compile than all of Cellfeed. Obs columns have six types.

use crate::rows::RowRanges;
use crate::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowDictionaryKeyType, Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, Int32Array, PrimitiveArray,
    StringArray,
};
use arrow_schema::DataType;
use std::sync::Arc;

/// The values at `positions`, which must be below the array's length.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for an array of a type that no obs
/// column has, [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) for a position past the end.
pub fn take(array: &dyn Array, positions: &[u32]) -> Result<ArrayRef> {
    let len = array.len();
    let at = |p: &u32| usize::try_from(*p).unwrap_or(usize::MAX);
    if let Some(p) = positions.iter().find(|p| at(p) >= len) {
        return Err(Error::out_of_bounds(format!("value {p} was asked for, but there are {len}")));
    }
    let positions = positions.iter().map(at);
    Ok(match array.data_type() {
        DataType::Dictionary(_, _) => {
            Arc::new(take_codes(array.as_dictionary::<Int32Type>(), positions)?)
        }
        DataType::Int64 => Arc::new(take_numbers(array.as_primitive::<Int64Type>(), positions)),
        DataType::UInt64 => Arc::new(take_numbers(array.as_primitive::<UInt64Type>(), positions)),
        DataType::Float64 => Arc::new(take_numbers(array.as_primitive::<Float64Type>(), positions)),
        DataType::Boolean => {
            let array = array.as_boolean();
            let value = |i| array.is_valid(i).then(|| array.value(i));
            Arc::new(positions.map(value).collect::<BooleanArray>())
        }
        DataType::Utf8 => {
            let array = array.as_string::<i32>();
            let value = |i| array.is_valid(i).then(|| array.value(i));
            Arc::new(positions.map(value).collect::<StringArray>())
        }
        other => {
            return Err(Error::unsupported(format!("no obs column has values of type {other}")));
        }
    })
}

fn take_numbers<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    positions: impl Iterator<Item = usize>,
) -> PrimitiveArray<T> {
    if array.null_count() == 0 {
        return PrimitiveArray::from_iter_values(positions.map(|i| array.value(i)));
    }
    positions.map(|i| array.is_valid(i).then(|| array.value(i))).collect()
}

fn take_codes<K: ArrowDictionaryKeyType>(
    array: &DictionaryArray<K>,
    positions: impl Iterator<Item = usize>,
) -> Result<DictionaryArray<K>> {
    let keys = take_numbers(array.keys(), positions);
    DictionaryArray::try_new(keys, Arc::clone(array.values()))
        .map_err(|e| Error::internal("cannot take categorical values").caused_by(e))
}

/// The rows of an array that covers the whole obs axis.
///
/// # Errors
/// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) if the array is shorter, and as
/// [`take`].
pub fn take_rows(array: &dyn Array, rows: &RowRanges) -> Result<ArrayRef> {
    rows.check_within(u64::try_from(array.len()).unwrap_or(u64::MAX))?;
    if let [range] = rows.as_slice() {
        let start = usize::try_from(range.start).unwrap_or(usize::MAX);
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        return Ok(array.slice(start, len));
    }
    let position = |row| {
        u32::try_from(row).map_err(|_| Error::unsupported("obs columns of 2^32 rows and more"))
    };
    let positions = rows.iter_rows().map(position).collect::<Result<Vec<u32>>>()?;
    take(array, &positions)
}

/// Arrays of one type end to end. Categorical ones must share their categories.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for arrays of a type that no obs column
/// has, [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the types differ.
pub fn concat(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    fn numbers<T: ArrowPrimitiveType>(arrays: &[ArrayRef]) -> ArrayRef {
        let parts = arrays.iter().map(AsArray::as_primitive::<T>);
        Arc::new(parts.flat_map(PrimitiveArray::iter).collect::<PrimitiveArray<T>>())
    }
    let Some(first) = arrays.first() else {
        return Err(Error::internal("no arrays to put end to end"));
    };
    if arrays.iter().any(|a| a.data_type() != first.data_type()) {
        return Err(Error::internal("arrays of different types cannot be put end to end"));
    }
    if arrays.len() == 1 {
        return Ok(Arc::clone(first));
    }
    Ok(match first.data_type() {
        DataType::Dictionary(_, _) => {
            let parts = || arrays.iter().map(AsArray::as_dictionary::<Int32Type>);
            let values = first.as_dictionary::<Int32Type>().values();
            if parts().any(|a| !Arc::ptr_eq(a.values(), values) && a.values() != values) {
                return Err(Error::internal("categories differ between parts of a column"));
            }
            let keys: Int32Array = parts().flat_map(|a| a.keys().iter()).collect();
            let array = DictionaryArray::try_new(keys, Arc::clone(values))
                .map_err(|e| Error::internal("cannot join categorical values").caused_by(e))?;
            Arc::new(array)
        }
        DataType::Int32 => numbers::<Int32Type>(arrays),
        DataType::Int64 => numbers::<Int64Type>(arrays),
        DataType::UInt64 => numbers::<UInt64Type>(arrays),
        DataType::Float64 => numbers::<Float64Type>(arrays),
        DataType::Boolean => {
            let parts = arrays.iter().map(AsArray::as_boolean);
            Arc::new(parts.flat_map(BooleanArray::iter).collect::<BooleanArray>())
        }
        DataType::Utf8 => {
            let parts = arrays.iter().map(AsArray::as_string::<i32>);
            Arc::new(parts.flat_map(|a| a.iter()).collect::<StringArray>())
        }
        other => {
            return Err(Error::unsupported(format!("no obs column has values of type {other}")));
        }
    })
}

/// A categorical column: an Arrow dictionary of codes into categories; missing codes are `None`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if a code has no category.
pub fn categorical_array(
    codes: impl IntoIterator<Item = Option<i32>>,
    categories: &Arc<Vec<String>>,
) -> Result<ArrayRef> {
    let keys: Int32Array = codes.into_iter().collect();
    let values = StringArray::from_iter_values(categories.iter());
    let array = DictionaryArray::try_new(keys, Arc::new(values))
        .map_err(|e| Error::corrupt("a code has no category").caused_by(e))?;
    Ok(Arc::new(array))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use arrow_array::{Float64Array, Int64Array, UInt64Array};

    fn columns() -> Vec<ArrayRef> {
        let categories = Arc::new(vec!["a".to_owned(), "b".to_owned()]);
        vec![
            categorical_array([Some(1), None, Some(0), Some(1)], &categories).unwrap(),
            Arc::new(Int64Array::from(vec![Some(-1), None, Some(3), Some(4)])),
            Arc::new(UInt64Array::from(vec![u64::MAX, 2, 3, 4])),
            Arc::new(Float64Array::from(vec![0.5, f64::NAN, -0.0, 4.0])),
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
            Arc::new(StringArray::from(vec![Some("x"), Some(""), None, Some("yz")])),
        ]
    }

    #[test]
    fn every_type_of_column_is_taken() {
        for column in columns() {
            let taken = take(&column, &[3, 1, 1]).unwrap();
            // Slices of one value are arrow's own way to say what a value is.
            for (i, p) in [3usize, 1, 1].into_iter().enumerate() {
                let (got, want) = (taken.slice(i, 1), column.slice(p, 1));
                assert_eq!(format!("{got:?}"), format!("{want:?}"));
            }
            assert_eq!(take(&column, &[]).unwrap().len(), 0);
            assert_eq!(take(&column, &[4]).unwrap_err().kind(), ErrorKind::OutOfBounds);
            let rows = RowRanges::try_from_rows(&[0, 2, 3]).unwrap();
            assert_eq!(take_rows(&column, &rows).unwrap().len(), 3);
            assert_eq!(take_rows(&column, &RowRanges::empty()).unwrap().len(), 0);
            assert!(take_rows(&column, &RowRanges::single(2..5)).is_err());
            let (head, tail) = (column.slice(0, 1), column.slice(1, 3));
            assert_eq!(&concat(&[head, tail]).unwrap(), &column);
        }
        let odd = arrow_array::Int8Array::from(vec![1]);
        assert_eq!(take(&odd, &[0]).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
