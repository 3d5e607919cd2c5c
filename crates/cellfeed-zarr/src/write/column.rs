//! A column of obs or var, written as its rows come. Whether values are missing is known only at the
//! end: then the column becomes a nullable one, with a mask.

use super::codec::Codec;
use super::stream::{Items, Stream};
use super::table::column_stream;
use super::tree::{Tree, encoding};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_schema::DataType;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;

/// What the column holds.
#[derive(Debug)]
enum Kind {
    Codes { categories: Arc<Vec<String>>, ordered: bool },
    Text,
    Integer,
    Float,
    Boolean,
}

/// A column in the making.
#[derive(Debug)]
pub(super) struct Column {
    path: String,
    kind: Kind,
    codec: Codec,
    /// Of integers: nothing is known of their type before the first come.
    values: Option<Stream>,
    items: Items,
    /// Which values are missing, from the first that is.
    mask: Option<Stream>,
    nullable: bool,
    rows: usize,
}

impl Column {
    pub(super) fn new(path: String, schema: &ColumnSchema, codec: Codec) -> Result<Self> {
        let (kind, items) = match &schema.kind {
            ColumnKind::Categorical { categories, ordered } => {
                let kind = Kind::Codes { categories: Arc::clone(categories), ordered: *ordered };
                (kind, codes_of(categories.len())?)
            }
            ColumnKind::String => (Kind::Text, Items::TEXT),
            ColumnKind::Integer => (Kind::Integer, Items::I64),
            ColumnKind::Float => (Kind::Float, Items::F64),
            ColumnKind::Boolean => (Kind::Boolean, Items::BOOL),
            _ => {
                return Err(Error::invalid_input(format!(
                    "a column of kind {} cannot be written",
                    schema.kind.as_str()
                ))
                .with("element", path));
            }
        };
        // As the source had it, so that a file that goes round does not change.
        let nullable = schema.encoding.starts_with("nullable-");
        Ok(Self { path, kind, codec, values: None, items, mask: None, nullable, rows: 0 })
    }

    /// Appends values.
    pub(super) fn append(&mut self, array: &ArrayRef, tree: &mut Tree) -> Result<()> {
        let path = self.path.clone();
        self.append_values(array, tree).map_err(|e| e.with_default("element", path))
    }

    fn append_values(&mut self, array: &ArrayRef, tree: &mut Tree) -> Result<()> {
        if matches!(self.kind, Kind::Integer) && array.data_type() == &DataType::UInt64 {
            match &self.values {
                None => self.items = Items::U64,
                Some(_) if self.items == Items::I64 => return Err(self.wrong(array)),
                Some(_) => {}
            }
        }
        let mut values = match self.values.take() {
            Some(values) => values,
            None => self.stream(self.path_of_values(), self.items)?,
        };
        let n = array.len();
        match &self.kind {
            Kind::Codes { categories, .. } => {
                let array =
                    array.as_dictionary_opt::<Int32Type>().ok_or_else(|| self.wrong(array))?;
                let map = mapping(array.values(), categories)?;
                let out = values.grow(n);
                for code in array.keys() {
                    let code = code.map_or(Ok(-1), |code| map.code(code))?;
                    // Two's complement, so that the low bytes are the narrower code.
                    out.extend_from_slice(&code.to_le_bytes()[..self.items.width]);
                }
            }
            Kind::Text => {
                let array = array.as_string_opt::<i32>().ok_or_else(|| self.wrong(array))?;
                for i in 0..n {
                    values.text(if array.is_null(i) { "" } else { array.value(i) })?;
                }
            }
            Kind::Integer if self.items == Items::U64 => {
                let array =
                    array.as_primitive_opt::<UInt64Type>().ok_or_else(|| self.wrong(array))?;
                let out = values.grow(n);
                array.iter().for_each(|v| out.extend(v.unwrap_or(0).to_le_bytes()));
            }
            Kind::Integer => {
                let array =
                    array.as_primitive_opt::<Int64Type>().ok_or_else(|| self.wrong(array))?;
                let out = values.grow(n);
                array.iter().for_each(|v| out.extend(v.unwrap_or(0).to_le_bytes()));
            }
            Kind::Float => {
                let array =
                    array.as_primitive_opt::<Float64Type>().ok_or_else(|| self.wrong(array))?;
                let out = values.grow(n);
                // AnnData has no mask for floats: what is missing is not a number.
                array.iter().for_each(|v| out.extend(v.unwrap_or(f64::NAN).to_le_bytes()));
            }
            Kind::Boolean => {
                let array = array.as_boolean_opt().ok_or_else(|| self.wrong(array))?;
                let out = values.grow(n);
                out.extend(array.iter().map(|v| u8::from(v.unwrap_or(false))));
            }
        }
        if values.is_ripe() {
            values.write(tree)?;
        }
        self.values = Some(values);
        if matches!(self.kind, Kind::Text | Kind::Integer | Kind::Boolean) {
            self.append_mask(array, tree)?;
        }
        self.rows += n;
        Ok(())
    }

    fn append_mask(&mut self, array: &ArrayRef, tree: &mut Tree) -> Result<()> {
        if self.mask.is_none() {
            if array.null_count() == 0 {
                return Ok(());
            }
            let mut mask = self.stream(format!("{}/mask", self.path), Items::BOOL)?;
            present(&mut mask, self.rows, tree)?;
            self.mask = Some(mask);
        }
        let Some(mask) = &mut self.mask else { return Ok(()) };
        let out = mask.grow(array.len());
        out.extend((0..array.len()).map(|i| u8::from(array.is_null(i))));
        if mask.is_ripe() { mask.write(tree) } else { Ok(()) }
    }

    fn stream(&self, path: String, items: Items) -> Result<Stream> {
        column_stream(path, items, self.codec)
    }

    fn path_of_values(&self) -> String {
        match self.kind {
            Kind::Codes { .. } => format!("{}/codes", self.path),
            _ => self.path.clone(),
        }
    }

    fn wrong(&self, array: &ArrayRef) -> Error {
        let wanted = match self.kind {
            Kind::Codes { .. } => "a dictionary of text with codes of 32 bits",
            Kind::Text => "text",
            Kind::Integer if self.items == Items::U64 => "u64, as before",
            Kind::Integer => "i64",
            Kind::Float => "f64",
            Kind::Boolean => "truth values",
        };
        Error::invalid_input(format!("a column of {} where {wanted} is wanted", array.data_type()))
    }

    /// Writes the rest and the metadata.
    pub(super) fn finish(mut self, tree: &mut Tree) -> Result<()> {
        let mut values = match self.values.take() {
            Some(values) => values,
            None => self.stream(self.path_of_values(), self.items)?,
        };
        let array = encoding("array", "0.2.0");
        let (plain, nullable) = match &self.kind {
            Kind::Codes { categories, ordered } => {
                let mut attributes = encoding("categorical", "0.2.0");
                attributes.insert("ordered".to_owned(), json!(ordered));
                tree.group(&self.path, &attributes)?;
                let path = format!("{}/categories", self.path);
                let mut texts = column_stream(path, Items::TEXT, self.codec)?;
                categories.iter().try_for_each(|category| texts.text(category))?;
                texts.finish(tree, &encoding("string-array", "0.2.0"))?;
                (array.clone(), None)
            }
            Kind::Text => (encoding("string-array", "0.2.0"), Some("nullable-string-array")),
            Kind::Integer => (array.clone(), Some("nullable-integer")),
            Kind::Boolean => (array.clone(), Some("nullable-boolean")),
            Kind::Float => (array.clone(), None),
        };
        let nullable = nullable.filter(|_| self.nullable || self.mask.is_some());
        let Some(kind) = nullable else {
            return values.finish(tree, &plain).map(|_| ());
        };
        let mut mask = match self.mask.take() {
            Some(mask) => mask,
            None => {
                let mut mask = self.stream(format!("{}/mask", self.path), Items::BOOL)?;
                present(&mut mask, self.rows, tree)?;
                mask
            }
        };
        let mut attributes = encoding(kind, "0.1.0");
        if kind == "nullable-string-array" {
            attributes.insert("na-value".to_owned(), json!("NA"));
        }
        let rows = self.rows as u64;
        let path = format!("{}/values", self.path);
        values.finish_rows(tree, &plain, rows, Some(&path))?;
        tree.move_chunks(&self.path)?;
        mask.finish_rows(tree, &array, rows, None)?;
        tree.group(&self.path, &attributes)
    }
}

/// Says of `rows` more rows that they are there.
fn present(mask: &mut Stream, rows: usize, tree: &mut Tree) -> Result<()> {
    const PART: usize = 1 << 20;
    let mut left = rows;
    while left > 0 {
        let part = left.min(PART);
        let out = mask.grow(part);
        out.resize(out.len() + part, 0);
        mask.write(tree)?;
        left -= part;
    }
    Ok(())
}

/// The narrowest type of codes that pandas chooses for so many categories.
fn codes_of(categories: usize) -> Result<Items> {
    match i32::try_from(categories) {
        Ok(0..=127) => Ok(Items { name: "int8", width: 1 }),
        Ok(128..=32_767) => Ok(Items { name: "int16", width: 2 }),
        Ok(_) => Ok(Items::I32),
        Err(_) => Err(Error::unsupported("a column has more than 2^31 categories")),
    }
}

/// From a batch's codes to those of the announced categories.
enum Mapping {
    Same(usize),
    Through(Vec<Option<i32>>),
}

impl Mapping {
    fn code(&self, code: i32) -> Result<i32> {
        let at = usize::try_from(code).ok();
        let found = match self {
            Self::Same(n) => at.filter(|at| at < n).map(|_| code),
            Self::Through(codes) => at.and_then(|at| codes.get(at).copied().flatten()),
        };
        found.ok_or_else(|| {
            Error::invalid_input(format!("the code {code} has none of the announced categories"))
        })
    }
}

fn mapping(values: &ArrayRef, categories: &[String]) -> Result<Mapping> {
    let texts: &StringArray = values
        .as_string_opt::<i32>()
        .ok_or_else(|| Error::invalid_input("the categories of a batch are not text"))?;
    if texts.len() == categories.len() && texts.iter().zip(categories).all(|(a, b)| a == Some(b)) {
        return Ok(Mapping::Same(categories.len()));
    }
    let mut known = HashMap::new();
    for (category, code) in categories.iter().zip(0i32..) {
        known.entry(category.as_str()).or_insert(code);
    }
    let code = |text: Option<&str>| text.and_then(|text| known.get(text).copied());
    Ok(Mapping::Through(texts.iter().map(code).collect()))
}
