//! Obs columns as Arrow arrays.

use super::array::{Context, StoredArray};
use super::as_u64;
use super::convert::Convert;
use crate::container::{ByteOrder, ElementType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array,
};
use bytes::Bytes;
use cellfeed_core::{ColumnSchema, Error, Result, RowRanges, categorical_array, take_rows};
use half::f16;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Columns up to this many decoded bytes are read once and kept.
const KEPT_BYTES: u64 = 64 << 20;
/// Strings read at once when a column is read in parts.
const STRING_WINDOW: u64 = 1 << 16;

/// An obs column and where its values are.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) schema: ColumnSchema,
    pub(crate) data: ColumnData,
    /// Whether values of another type are told as text: names of cells may be integers.
    pub(crate) as_text: bool,
    pub(crate) whole: OnceLock<ArrayRef>,
}

/// Where the values of a column are.
#[derive(Debug)]
pub(crate) enum ColumnData {
    /// Codes into categories; negative ones are missing.
    Codes { codes: Values, categories: Arc<Vec<String>> },
    /// Integers or floats.
    Numbers { values: Values, mask: Option<StoredArray> },
    /// Booleans.
    Booleans { values: Values, mask: Option<StoredArray> },
    /// Text.
    Strings { path: String, field: Option<String>, n_rows: u64, mask: Option<StoredArray> },
    /// Nothing that can be read; the schema says why.
    Unreadable,
}

/// Numbers: a dataset of their own, or a field of a compound one.
#[derive(Debug)]
pub(crate) enum Values {
    Array(StoredArray),
    Field { path: String, field: String, element: ElementType, n_rows: u64 },
}

impl Values {
    fn element(&self) -> &ElementType {
        match self {
            Self::Array(array) => array.element(),
            Self::Field { element, .. } => element,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Array(array) => array.len(),
            Self::Field { n_rows, .. } => *n_rows,
        }
    }

    async fn read(&self, context: &Context, ranges: &[Range<u64>]) -> Result<Bytes> {
        match self {
            Self::Array(array) => array.read(context, ranges, Convert::Keep).await,
            Self::Field { path, field, .. } => {
                let (path, field, ranges) = (path.clone(), field.clone(), ranges.to_vec());
                let container = Arc::clone(&context.container);
                let work = move || {
                    let mut bytes = Vec::new();
                    for rows in ranges {
                        bytes.extend(container.read_compound_raw(&path, &field, rows)?);
                    }
                    Ok(bytes.into())
                };
                context.engine.blocking(work).await
            }
        }
    }
}

impl Column {
    /// The column's values for rows.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<ArrayRef> {
        if let Some(whole) = self.whole.get() {
            return take_rows(whole, rows);
        }
        let answer = async {
            if self.bytes() > KEPT_BYTES {
                return self.read_ranges(context, rows.as_slice()).await;
            }
            let all = 0..self.len();
            let all = if all.is_empty() { Vec::new() } else { vec![all] };
            let whole = self.read_ranges(context, &all).await?;
            // Two readers may both come here; they read the same.
            let whole = self.whole.get_or_init(|| whole);
            take_rows(whole, rows)
        };
        answer.await.map_err(|e: Error| {
            e.with_default("column", &self.schema.name)
                .with_default("file", context.source.location())
        })
    }

    fn len(&self) -> u64 {
        match &self.data {
            ColumnData::Codes { codes: values, .. }
            | ColumnData::Numbers { values, .. }
            | ColumnData::Booleans { values, .. } => values.len(),
            ColumnData::Strings { n_rows, .. } => *n_rows,
            ColumnData::Unreadable => 0,
        }
    }

    /// About how many bytes the column takes in memory.
    fn bytes(&self) -> u64 {
        let width = match &self.data {
            ColumnData::Codes { .. } => 4,
            ColumnData::Strings { .. } => 32,
            _ => 8,
        };
        self.len().saturating_mul(width)
    }

    async fn read_ranges(&self, context: &Context, ranges: &[Range<u64>]) -> Result<ArrayRef> {
        let array = self.read_values(context, ranges).await?;
        if !self.as_text {
            return Ok(array);
        }
        Ok(Arc::new(column_to_text(&array).into_iter().map(Some).collect::<StringArray>()))
    }

    async fn read_values(&self, context: &Context, ranges: &[Range<u64>]) -> Result<ArrayRef> {
        match &self.data {
            ColumnData::Codes { codes, categories } => {
                let bytes = codes.read(context, ranges).await?;
                let codes = integers(codes.element(), &bytes)?;
                let n = as_u64(categories.len());
                let bad =
                    codes.iter().find(|&&c| c != -1 && u64::try_from(c).map_or(true, |c| c >= n));
                if let Some(bad) = bad {
                    return Err(Error::corrupt(format!(
                        "code {bad} has no category; there are {n}"
                    )));
                }
                // Checked: a code is -1, which stands for a missing value, or fits.
                categorical_array(
                    codes.into_iter().map(|c| i32::try_from(c).ok().filter(|&c| c >= 0)),
                    categories,
                )
            }
            ColumnData::Numbers { values, mask } => {
                let bytes = values.read(context, ranges).await?;
                let missing = read_mask(context, mask.as_ref(), ranges).await?;
                numbers(values.element(), &bytes, &missing)
            }
            ColumnData::Booleans { values, mask } => {
                let bytes = values.read(context, ranges).await?;
                let missing = read_mask(context, mask.as_ref(), ranges).await?;
                let values = nulls(bytes.iter().map(|&b| b != 0), &missing);
                Ok(Arc::new(values.collect::<BooleanArray>()))
            }
            ColumnData::Strings { path, field, mask, .. } => {
                let missing = read_mask(context, mask.as_ref(), ranges).await?;
                let (path, field, ranges) = (path.clone(), field.clone(), ranges.to_vec());
                let container = Arc::clone(&context.container);
                let work = move || {
                    let mut texts = Vec::new();
                    for range in ranges {
                        let mut at = range.start;
                        while at < range.end {
                            let end = (at + STRING_WINDOW).min(range.end);
                            texts.extend(match &field {
                                None => container.read_strings(&path, at..end)?,
                                Some(f) => container.read_compound_strings(&path, f, at..end)?,
                            });
                            at = end;
                        }
                    }
                    Ok(texts)
                };
                let texts = context.engine.blocking(work).await?;
                let array: StringArray = nulls(texts.into_iter(), &missing).collect();
                Ok(Arc::new(array))
            }
            ColumnData::Unreadable => Err(Error::unsupported("the column cannot be read")),
        }
    }
}

/// Values with those that the mask covers left out.
fn nulls<'a, T: 'a>(
    values: impl Iterator<Item = T> + 'a,
    missing: &'a [u8],
) -> impl Iterator<Item = Option<T>> + 'a {
    values.enumerate().map(|(i, v)| (missing.get(i).copied().unwrap_or(0) == 0).then_some(v))
}

/// One byte a row, not 0 where the value is missing; empty where there is no mask.
async fn read_mask(
    context: &Context,
    mask: Option<&StoredArray>,
    ranges: &[Range<u64>],
) -> Result<Bytes> {
    match mask {
        Some(mask) => mask.read(context, ranges, Convert::Keep).await,
        None => Ok(Bytes::new()),
    }
}

/// Little-endian integers of any width as `i64`.
pub(crate) fn integers(element: &ElementType, bytes: &[u8]) -> Result<Vec<i64>> {
    let (width, signed) = match element {
        ElementType::Integer { bytes, signed, .. } | ElementType::Enum { bytes, signed, .. } => {
            (*bytes, *signed)
        }
        ElementType::Bool => (1, false),
        other => return Err(Error::unsupported(format!("integers were expected, not {other}"))),
    };
    Ok(match (width, signed) {
        (1, false) => bytes.iter().map(|&b| b.into()).collect(),
        (1, true) => bytes.iter().map(|&b| b.cast_signed().into()).collect(),
        (2, false) => each(bytes, |b| u16::from_le_bytes(b).into()),
        (2, true) => each(bytes, |b| i16::from_le_bytes(b).into()),
        (4, false) => each(bytes, |b| u32::from_le_bytes(b).into()),
        (4, true) => each(bytes, |b| i32::from_le_bytes(b).into()),
        (8, true) => each(bytes, i64::from_le_bytes),
        (8, false) => {
            let values: Vec<u64> = each(bytes, u64::from_le_bytes);
            let fits = |v| {
                i64::try_from(v)
                    .map_err(|_| Error::corrupt(format!("the integer {v} is too large")))
            };
            values.into_iter().map(fits).collect::<Result<_>>()?
        }
        _ => return Err(Error::unsupported(format!("integers of {width} bytes"))),
    })
}

fn each<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect()
}

fn numbers(element: &ElementType, bytes: &[u8], missing: &[u8]) -> Result<ArrayRef> {
    Ok(match element {
        ElementType::Integer { bytes: 8, signed: false, .. } => {
            let values = each(bytes, u64::from_le_bytes);
            Arc::new(nulls(values.into_iter(), missing).collect::<UInt64Array>())
        }
        ElementType::Float { bytes: width, order: ByteOrder::Little | ByteOrder::Big } => {
            let values: Vec<f64> = match width {
                2 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
                4 => each(bytes, |b| f32::from_le_bytes(b).into()),
                _ => each(bytes, f64::from_le_bytes),
            };
            Arc::new(nulls(values.into_iter(), missing).collect::<Float64Array>())
        }
        _ => {
            let values = integers(element, bytes)?;
            Arc::new(nulls(values.into_iter(), missing).collect::<Int64Array>())
        }
    })
}

/// The text of any column's values: how categories and names are told.
pub(crate) fn column_to_text(array: &dyn Array) -> Vec<String> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
    if let Some(a) = array.as_dictionary_opt::<Int32Type>() {
        let texts = column_to_text(a.values());
        let text = |key: Option<i32>| {
            let at = key.and_then(|k| usize::try_from(k).ok());
            at.and_then(|k| texts.get(k).cloned()).unwrap_or_default()
        };
        return a.keys().iter().map(text).collect();
    }
    if let Some(a) = array.as_string_opt::<i32>() {
        return a.iter().map(|v| v.unwrap_or_default().to_owned()).collect();
    }
    if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        return a.values().iter().map(ToString::to_string).collect();
    }
    if let Some(a) = array.as_primitive_opt::<UInt64Type>() {
        return a.values().iter().map(ToString::to_string).collect();
    }
    if let Some(a) = array.as_primitive_opt::<Float64Type>() {
        return a.values().iter().map(|v| format!("{v:?}")).collect();
    }
    if let Some(a) = array.as_boolean_opt() {
        return a
            .iter()
            .map(|v| if v == Some(true) { "True" } else { "False" }.to_owned())
            .collect();
    }
    Vec::new()
}
