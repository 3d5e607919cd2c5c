//! Columns of obs and var: read whole, once, and kept.

use super::Context;
use super::array::{Array, integers};
use super::parts::{self, Parts};
use crate::meta::dtype::Kind;
use crate::meta::record::Field;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, UInt64Array};
use bytes::Bytes;
use cellfeed_core::{
    ColumnKind, ColumnSchema, Error, Result, RowRanges, ValueType, Values, categorical_array,
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
    pub(crate) kept: Mutex<Option<Arc<Parts>>>,
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
        let (parts, rows) = (self.parts(context).await?, rows.clone());
        context.engine.compute(move || parts.rows(&rows)).await
    }

    /// The column as one array.
    pub(crate) async fn whole(&self, context: &Context) -> Result<ArrayRef> {
        let parts = self.parts(context).await?;
        context.engine.compute(move || parts.whole()).await
    }

    async fn parts(&self, context: &Context) -> Result<Arc<Parts>> {
        if let Some(kept) = &*self.kept.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(kept));
        }
        let read = Arc::new(self.fetch(context).await?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&read));
        Ok(read)
    }

    fn categories(&self) -> Option<Arc<Vec<String>>> {
        match &self.schema.kind {
            ColumnKind::Categorical { categories, .. } => Some(Arc::clone(categories)),
            _ => None,
        }
    }

    /// Reads the stored values, and makes arrays of them where that does not hold up whoever polls.
    async fn fetch(&self, context: &Context) -> Result<Parts> {
        let engine = &context.engine;
        let categories = self.categories();
        match &self.source {
            Source::Categorical { codes } => {
                let bytes = codes.read_all(context).await?;
                let kind = codes.meta.kind;
                let categories = categories
                    .ok_or_else(|| Error::internal("a categorical column of another kind"))?;
                let work = move || categorical(&integers(kind, &bytes)?, &categories);
                engine.compute(work).await.map_err(|e| codes.blame(e))
            }
            Source::Field { table, field } => {
                let (field, length) = (field.clone(), table.item()?);
                let records = table.read_all(context).await?;
                let work = move || {
                    let kind = field.kind.unwrap_or(Kind::Text);
                    let bytes = field.of(&records, length)?;
                    match categories {
                        Some(categories) => categorical(&integers(kind, &bytes)?, &categories),
                        None => of_bytes(kind, bytes, &|_| true),
                    }
                };
                engine.compute(work).await.map_err(|e| table.blame(e))
            }
            Source::Plain { values, mask } => {
                let missing = match mask {
                    Some(mask) => Some(mask.read_all(context).await?),
                    None => None,
                };
                let present = move |i: usize| {
                    missing.as_ref().is_none_or(|m| m.get(i).is_some_and(|b| *b == 0))
                };
                let kind = values.meta.kind;
                if kind.size().is_none() {
                    let texts = values.read_text(context).await?;
                    let work = move || Ok(Parts::of_texts(&texts, &present, parts::MOST));
                    return engine.compute(work).await;
                }
                let bytes = values.read_all(context).await?;
                let work = move || of_bytes(kind, bytes, &present);
                engine.compute(work).await.map_err(|e| values.blame(e))
            }
        }
    }
}

fn categorical(codes: &[i64], categories: &Arc<Vec<String>>) -> Result<Parts> {
    let n = i64::try_from(categories.len()).unwrap_or(i64::MAX);
    let mut keys = Vec::with_capacity(codes.len());
    for &code in codes {
        if code < -1 || code >= n {
            return Err(Error::corrupt(format!("the code {code} has no category; there are {n}")));
        }
        keys.push(i32::try_from(code).ok().filter(|c| *c >= 0));
    }
    categorical_array(keys, categories).map(Parts::from)
}

/// Values of a fixed size, in native byte order, as a column.
fn of_bytes(kind: Kind, bytes: Vec<u8>, present: &dyn Fn(usize) -> bool) -> Result<Parts> {
    let array: ArrayRef = match kind {
        Kind::Text | Kind::Fixed(_) | Kind::Bytes(_) => {
            let texts = super::text::fixed(kind, &bytes)?;
            return Ok(Parts::of_texts(&texts, present, parts::MOST));
        }
        Kind::Record(_) => return Err(Error::unsupported("a column of records is not read")),
        Kind::Bool => {
            let values = bytes.iter().enumerate().map(|(i, b)| present(i).then_some(*b != 0));
            Arc::new(values.collect::<BooleanArray>())
        }
        Kind::Number(t) => match t {
            ValueType::F16 | ValueType::F32 | ValueType::F64 => {
                let values = Values::from_bytes(t, Bytes::from(bytes))?.to_f64_vec();
                let values = values.into_iter().enumerate();
                let values = values.map(|(i, v)| present(i).then_some(v));
                Arc::new(values.collect::<Float64Array>())
            }
            ValueType::U64 => {
                let (words, _) = bytes.as_chunks::<8>();
                let values = words.iter().enumerate();
                let values = values.map(|(i, w)| present(i).then_some(u64::from_ne_bytes(*w)));
                Arc::new(values.collect::<UInt64Array>())
            }
            _ => {
                let values = integers(kind, &bytes)?.into_iter().enumerate();
                let values = values.map(|(i, v)| present(i).then_some(v));
                Arc::new(values.collect::<Int64Array>())
            }
        },
    };
    Ok(array.into())
}
