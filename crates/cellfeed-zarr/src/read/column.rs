//! Columns of obs and var: read whole, once, and kept.

use super::Context;
use super::array::{Array, integers};
use crate::meta::dtype::Kind;
use crate::meta::record::Field;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array};
use bytes::Bytes;
use cellfeed_core::{
    ColumnKind, ColumnSchema, Error, Result, RowRanges, ValueType, Values, categorical_array,
    take_rows,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the values of a column are.
#[derive(Debug)]
pub(crate) enum Source {
    Plain {
        values: Arc<Array>,
        mask: Option<Arc<Array>>,
    },
    Categorical {
        codes: Arc<Array>,
    },
    /// A field of a table of records; codes, if the column is categorical.
    Field {
        table: Arc<Array>,
        field: Field,
    },
}

/// A column that can be read.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) schema: ColumnSchema,
    pub(crate) source: Source,
    pub(crate) kept: Mutex<Option<ArrayRef>>,
}

impl Column {
    pub(crate) fn new(schema: ColumnSchema, source: Source) -> Self {
        Self { schema, source, kept: Mutex::default() }
    }

    /// The array that has a value for each row.
    pub(crate) fn values(&self) -> &Array {
        match &self.source {
            Source::Plain { values: array, .. }
            | Source::Categorical { codes: array }
            | Source::Field { table: array, .. } => array,
        }
    }

    /// The column at some rows.
    pub(crate) async fn read(&self, context: &Context, rows: &RowRanges) -> Result<ArrayRef> {
        let whole = self.whole(context).await?;
        take_rows(&whole, rows)
    }

    pub(crate) async fn whole(&self, context: &Context) -> Result<ArrayRef> {
        if let Some(kept) = &*self.kept.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(kept));
        }
        let read = self.fetch(context).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&read));
        Ok(read)
    }

    fn categorical(&self, codes: Vec<i64>) -> Result<ArrayRef> {
        let ColumnKind::Categorical { categories, .. } = &self.schema.kind else {
            return Err(Error::internal("a categorical column of another kind"));
        };
        let n = i64::try_from(categories.len()).unwrap_or(i64::MAX);
        let mut keys = Vec::with_capacity(codes.len());
        for code in codes {
            if code < -1 || code >= n {
                return Err(Error::corrupt(format!(
                    "the code {code} has no category; there are {n}"
                )));
            }
            keys.push(i32::try_from(code).ok().filter(|c| *c >= 0));
        }
        categorical_array(keys, categories)
    }

    async fn fetch(&self, context: &Context) -> Result<ArrayRef> {
        match &self.source {
            Source::Categorical { codes } => {
                let found = codes.read_integers(context).await?;
                self.categorical(found).map_err(|e| codes.blame(e))
            }
            Source::Field { table, field } => {
                let (kind, length) = (field.kind, table.item()?);
                let records = table.read_all(context).await?;
                let column = field.of(&records, length).and_then(|bytes| match &self.schema.kind {
                    ColumnKind::Categorical { .. } => {
                        self.categorical(integers(kind.unwrap_or(Kind::Text), &bytes)?)
                    }
                    _ => of_bytes(kind.unwrap_or(Kind::Text), bytes, &|_| true),
                });
                column.map_err(|e| table.blame(e))
            }
            Source::Plain { values, mask } => {
                let missing = match mask {
                    Some(mask) => Some(mask.read_all(context).await?),
                    None => None,
                };
                let present =
                    |i: usize| missing.as_ref().is_none_or(|m| m.get(i).is_some_and(|b| *b == 0));
                plain(context, values, &present).await
            }
        }
    }
}

async fn plain(
    context: &Context,
    array: &Arc<Array>,
    present: &(dyn Fn(usize) -> bool + Sync),
) -> Result<ArrayRef> {
    let kind = array.meta.kind;
    if kind.size().is_none() {
        return Ok(texts(&array.read_text(context).await?, present));
    }
    let bytes = array.read_all(context).await?;
    of_bytes(kind, bytes, present).map_err(|e| array.blame(e))
}

fn texts(texts: &[String], present: &(dyn Fn(usize) -> bool + Sync)) -> ArrayRef {
    let texts = texts.iter().enumerate().map(|(i, t)| present(i).then_some(t.as_str()));
    Arc::new(texts.collect::<StringArray>())
}

/// Values of a fixed size, in native byte order, as a column.
fn of_bytes(
    kind: Kind,
    bytes: Vec<u8>,
    present: &(dyn Fn(usize) -> bool + Sync),
) -> Result<ArrayRef> {
    match kind {
        Kind::Text | Kind::Fixed(_) | Kind::Bytes(_) => {
            Ok(texts(&super::text::fixed(kind, &bytes)?, present))
        }
        Kind::Record(_) => Err(Error::unsupported("a column of records is not read")),
        Kind::Bool => {
            let values = bytes.iter().enumerate().map(|(i, b)| present(i).then_some(*b != 0));
            Ok(Arc::new(values.collect::<BooleanArray>()))
        }
        Kind::Number(t) => match t {
            ValueType::F16 | ValueType::F32 | ValueType::F64 => {
                let values = Values::from_bytes(t, Bytes::from(bytes))?.to_f64_vec();
                let values = values.into_iter().enumerate();
                let values = values.map(|(i, v)| present(i).then_some(v));
                Ok(Arc::new(values.collect::<Float64Array>()))
            }
            ValueType::U64 => {
                let (words, _) = bytes.as_chunks::<8>();
                let values = words.iter().enumerate();
                let values = values.map(|(i, w)| present(i).then_some(u64::from_ne_bytes(*w)));
                Ok(Arc::new(values.collect::<UInt64Array>()))
            }
            _ => {
                let values = integers(kind, &bytes)?.into_iter().enumerate();
                let values = values.map(|(i, v)| present(i).then_some(v));
                Ok(Arc::new(values.collect::<Int64Array>()))
            }
        },
    }
}
