//! Columns of obs and var on their way to pages: values with gaps, text by a dictionary.

use super::file::{Compression, Content, EncodedPage, Field, RawPage, Shape};
use crate::footer::{Meaning, Physical};
use crate::header::ColumnEntry;
use crate::hybrid::encode;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rows in a page: few enough that a block's labels do not cost the decoding of much else.
const PAGE_ROWS: usize = 2048;
/// Text of more different values than this in a row group has no dictionary.
const DICTIONARY: usize = 1 << 15;

/// Values of a row group.
#[derive(Debug)]
enum Values {
    /// Places in `texts`.
    Text(Vec<Option<u32>>),
    /// Plain ones, of so many bytes each.
    Fixed(Vec<Option<[u8; 8]>>, usize),
    Boolean(Vec<Option<bool>>),
}

/// A column under construction.
#[derive(Debug)]
pub(crate) struct ColumnWriter {
    pub(crate) schema: ColumnSchema,
    column: String,
    /// Whether categories are stored as numbers, since two have one name.
    coded: bool,
    /// Of integers: once known.
    unsigned: Option<bool>,
    values: Values,
    texts: Vec<String>,
    places: HashMap<String, u32>,
}

impl ColumnWriter {
    pub(crate) fn new(schema: ColumnSchema, column: String) -> Result<Self> {
        let mut coded = false;
        let values = match &schema.kind {
            ColumnKind::Categorical { categories, .. } => {
                let distinct: HashSet<&String> = categories.iter().collect();
                coded = distinct.len() != categories.len();
                if coded { Values::Fixed(Vec::new(), 4) } else { Values::Text(Vec::new()) }
            }
            ColumnKind::String => Values::Text(Vec::new()),
            ColumnKind::Integer | ColumnKind::Float => Values::Fixed(Vec::new(), 8),
            ColumnKind::Boolean => Values::Boolean(Vec::new()),
            _ => {
                return Err(Error::invalid_input(format!(
                    "the column {:?} has no values",
                    schema.name
                )));
            }
        };
        let (texts, places) = (Vec::new(), HashMap::new());
        Ok(Self { schema, column, coded, unsigned: None, values, texts, places })
    }

    pub(crate) fn field(&self) -> Field {
        let integer = |bits, signed| Meaning::Integer { bits, signed };
        let (physical, meaning) = match &self.schema.kind {
            ColumnKind::Categorical { .. } if self.coded => (Physical::Int32, Meaning::Plain),
            ColumnKind::Integer => (Physical::Int64, integer(64, !self.unsigned.unwrap_or(false))),
            ColumnKind::Float => (Physical::Double, Meaning::Plain),
            ColumnKind::Boolean => (Physical::Boolean, Meaning::Plain),
            _ => (Physical::Bytes, Meaning::Text),
        };
        Field { name: self.column.clone(), shape: Shape::Optional, physical, meaning }
    }

    pub(crate) fn entry(&self) -> ColumnEntry {
        let ordered = match &self.schema.kind {
            ColumnKind::Categorical { ordered, .. } => Some(*ordered),
            _ => None,
        };
        ColumnEntry {
            name: self.schema.name.clone(),
            column: self.column.clone(),
            kind: self.schema.kind.as_str().to_owned(),
            unsigned: self.unsigned == Some(true),
            ordered,
            categories: None,
        }
    }

    pub(crate) fn categories(&self) -> Option<&Arc<Vec<String>>> {
        match &self.schema.kind {
            ColumnKind::Categorical { categories, .. } => Some(categories),
            _ => None,
        }
    }

    fn place(&mut self, text: &str) -> Result<u32> {
        if let Some(&place) = self.places.get(text) {
            return Ok(place);
        }
        let place = u32::try_from(self.texts.len())
            .map_err(|_| Error::invalid_input("too many different texts"))?;
        self.texts.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        Ok(place)
    }

    /// Adds values, which are of the column's kind.
    pub(crate) fn append(&mut self, array: &ArrayRef) -> Result<()> {
        match array.data_type() {
            DataType::Dictionary(_, _) => {
                let codes = array.as_dictionary::<Int32Type>();
                let keys = codes.keys();
                if let Values::Fixed(values, _) = &mut self.values {
                    values.extend(keys.iter().map(|k| k.map(|k| eight(&k.to_le_bytes()))));
                    return Ok(());
                }
                let texts = codes.values().as_string::<i32>();
                let mut known: Vec<Option<u32>> = vec![None; texts.len()];
                let mut places = Vec::with_capacity(keys.len());
                for key in keys {
                    let Some(key) = key.map(|k| usize::try_from(k).unwrap_or(usize::MAX)) else {
                        places.push(None);
                        continue;
                    };
                    let slot = known.get(key).copied().ok_or_else(|| {
                        Error::invalid_input(format!("code {key} has no category"))
                    })?;
                    let place = match slot {
                        Some(place) => place,
                        None => self.place(texts.value(key))?,
                    };
                    known[key] = Some(place);
                    places.push(Some(place));
                }
                if let Values::Text(values) = &mut self.values {
                    values.extend(places);
                }
            }
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                let places = texts.iter().map(|t| t.map(|t| self.place(t)).transpose());
                let places = places.collect::<Result<Vec<_>>>()?;
                if let Values::Text(values) = &mut self.values {
                    values.extend(places);
                }
            }
            DataType::Int64 => {
                self.integers(false)?;
                let values = array.as_primitive::<Int64Type>();
                self.fixed(values.iter().map(|v| v.map(i64::to_le_bytes)));
            }
            DataType::UInt64 => {
                self.integers(true)?;
                let values = array.as_primitive::<UInt64Type>();
                self.fixed(values.iter().map(|v| v.map(u64::to_le_bytes)));
            }
            DataType::Float64 => {
                let values = array.as_primitive::<Float64Type>();
                self.fixed(values.iter().map(|v| v.map(f64::to_le_bytes)));
            }
            DataType::Boolean => {
                if let Values::Boolean(values) = &mut self.values {
                    values.extend(array.as_boolean().iter());
                }
            }
            other => return Err(Error::invalid_input(format!("a column of type {other}"))),
        }
        Ok(())
    }

    fn fixed(&mut self, new: impl Iterator<Item = Option<[u8; 8]>>) {
        if let Values::Fixed(values, _) = &mut self.values {
            values.extend(new);
        }
    }

    fn integers(&mut self, unsigned: bool) -> Result<()> {
        if *self.unsigned.get_or_insert(unsigned) != unsigned {
            return Err(Error::invalid_input(format!(
                "the column {:?} came with signed numbers in one batch and unsigned in another",
                self.schema.name
            )));
        }
        Ok(())
    }

    /// The pages of what was added, which is then forgotten.
    pub(crate) fn pages(&mut self, compression: Compression) -> Result<Vec<EncodedPage>> {
        let texts = std::mem::take(&mut self.texts);
        self.places.clear();
        let mut raw = Vec::new();
        match &mut self.values {
            Values::Text(values) => {
                let values = std::mem::take(values);
                let bytes: usize = texts.iter().map(|t| t.len() + 4).sum();
                if texts.len() <= DICTIONARY && bytes <= 1 << 20 {
                    let body: Vec<u8> = texts.iter().flat_map(|t| string(t)).collect();
                    let n_values = u32::try_from(texts.len()).unwrap_or(u32::MAX);
                    let content = Content::Dictionary;
                    raw.push(RawPage { body, n_values, n_rows: 0, content });
                    let most = n_values.saturating_sub(1);
                    let width = (u32::BITS - most.leading_zeros()).max(1);
                    raw.extend(pages(&values, Content::Codes, |present, body| {
                        body.push(u8::try_from(width).unwrap_or(32));
                        let codes: Vec<u32> = present.copied().collect();
                        encode(&codes, width, body);
                    }));
                } else {
                    let text = |&place: &u32| &texts[usize::try_from(place).unwrap_or(usize::MAX)];
                    raw.extend(pages(&values, Content::Values, |present, body| {
                        present.for_each(|place| body.extend(string(text(place))));
                    }));
                }
            }
            Values::Fixed(values, width) => {
                let (values, width) = (std::mem::take(values), *width);
                raw.extend(pages(&values, Content::Values, |present, body| {
                    present.for_each(|value| body.extend_from_slice(&value[..width]));
                }));
            }
            Values::Boolean(values) => {
                let values = std::mem::take(values);
                raw.extend(pages(&values, Content::Values, |present, body| {
                    let present: Vec<bool> = present.copied().collect();
                    body.extend(present.chunks(8).map(|bits| {
                        bits.iter().rev().fold(0u8, |byte, &bit| byte << 1 | u8::from(bit))
                    }));
                }));
            }
        }
        raw.into_iter().map(|page| page.encode(compression)).collect()
    }
}

fn eight(bytes: &[u8; 4]) -> [u8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(bytes);
    out
}

fn string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], text.as_bytes()].concat()
}

/// Pages of values with gaps: definition levels, then what `put` makes of the values that are there.
fn pages<T>(
    values: &[Option<T>],
    content: Content,
    put: impl Fn(&mut dyn Iterator<Item = &T>, &mut Vec<u8>),
) -> Vec<RawPage> {
    let page = |part: &[Option<T>]| {
        let levels: Vec<u32> = part.iter().map(|v| u32::from(v.is_some())).collect();
        let mut body = vec![0; 4];
        encode(&levels, 1, &mut body);
        let len = u32::try_from(body.len() - 4).unwrap_or(u32::MAX);
        body[..4].copy_from_slice(&len.to_le_bytes());
        put(&mut part.iter().flatten(), &mut body);
        let n = u32::try_from(part.len()).unwrap_or(u32::MAX);
        RawPage { body, n_values: n, n_rows: n, content }
    };
    values.chunks(PAGE_ROWS).map(page).collect()
}
