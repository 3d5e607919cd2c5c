//! Obs and var: which columns there are, and how each is stored.

use super::{array, need, root};
use crate::meta::array::ArrayMeta;
use crate::meta::dtype::Kind;
use crate::meta::{Node, join, members, node, record};
use crate::read::array::{Array, integers};
use crate::read::column::{Column, Source};
use crate::read::{Context, as_u64};
use arrow_array::Array as _;
use arrow_array::cast::AsArray;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result, ValueType};
use futures::executor::block_on;
use std::sync::Arc;

/// An obs or var table.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) index: Column,
    pub(crate) columns: Vec<Column>,
    /// Those that cannot be read are among them.
    pub(crate) schema: Vec<ColumnSchema>,
    pub(crate) n_rows: u64,
    /// Whether the index has the bytes for so many rows.
    pub(crate) vouched: bool,
}

/// How many values a column must have, and whether an array that has its bytes has so many.
#[derive(Debug, Clone, Copy)]
struct Length {
    n: u64,
    vouched: bool,
}

fn vector(context: &Context, path: &str, Length { n, vouched }: Length) -> Result<Arc<Array>> {
    let mut array = array(context, path)?;
    array.vouched = vouched;
    if array.meta.shape != [n] {
        return Err(array.blame(Error::corrupt(format!(
            "the shape is {:?} where {n} values should be",
            array.meta.shape
        ))));
    }
    Ok(Arc::new(array))
}

/// Opens an obs or var table.
pub(super) fn frame(context: &Context, path: &str) -> Result<Frame> {
    let found = need(context, path)?;
    if let Some((meta, _)) = &found.array {
        return record_frame(context, &found, &meta["dtype"]);
    }
    let index = found.text("_index").unwrap_or("_index").to_owned();
    let (head, n_rows) = column_of(context, path, &index, None)?;
    let vouched = head.values().has_its_bytes(context);
    let length = Length { n: n_rows, vouched };
    let order: Vec<String> = match found.attributes.get("column-order").and_then(|o| o.as_array()) {
        Some(list) => list.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
        None => members(root(context), path)?
            .into_iter()
            .filter(|n| *n != index && n != "__categories")
            .collect(),
    };
    let (mut columns, mut schema) = (Vec::new(), Vec::new());
    for name in order {
        match column_of(context, path, &name, Some(length)) {
            Ok((column, _)) => {
                schema.push(column.schema.clone());
                columns.push(column);
            }
            Err(e) => schema.push(ColumnSchema {
                name,
                kind: ColumnKind::Unreadable(e.to_string()),
                encoding: String::new(),
            }),
        }
    }
    Ok(Frame { index: head, columns, schema, n_rows, vouched })
}

/// Opens a table of records, whose index is its first field.
fn record_frame(context: &Context, found: &Node, dtype: &serde_json::Value) -> Result<Frame> {
    let table = Array::new(ArrayMeta::new(found)?);
    let (fields, _) = record::fields(dtype).map_err(|e| table.blame(e))?;
    let [n_rows] = table.meta.shape[..] else {
        return Err(table.blame(Error::corrupt("a table of records is no list")));
    };
    let vouched = table.has_its_bytes(context);
    let table = Arc::new(table);
    let (mut all, mut schema) = (Vec::new(), Vec::new());
    for field in fields {
        let name = field.name.clone();
        let encoding = || "record".to_owned();
        let Some(kind) = field.kind else {
            let why = "its data type is not read".to_owned();
            schema.push(ColumnSchema {
                name,
                kind: ColumnKind::Unreadable(why),
                encoding: encoding(),
            });
            continue;
        };
        // Categories of such old stores are in uns.
        let categories = sibling(&found.path, &format!("uns/{name}_categories"));
        let kind = if !all.is_empty() && node(root(context), &categories)?.is_some() {
            integers(kind, &[]).map_err(|e| table.blame(e))?;
            let texts = block_on(categories_of(context, &categories))?;
            ColumnKind::Categorical { categories: Arc::new(texts), ordered: false }
        } else {
            kind_of(kind)
        };
        let described = ColumnSchema { name, kind, encoding: encoding() };
        if !all.is_empty() {
            schema.push(described.clone());
        }
        all.push(Column::new(described, Source::Field { table: Arc::clone(&table), field }));
    }
    if all.is_empty() {
        return Err(table.blame(Error::unsupported("a table of records has no field that is read")));
    }
    let index = all.remove(0);
    Ok(Frame { index, columns: all, schema, n_rows, vouched })
}

/// The path of another element beside one.
fn sibling(path: &str, name: &str) -> String {
    path.rsplit_once('/').map_or_else(|| name.to_owned(), |(parent, _)| join(parent, name))
}

fn kind_of(kind: Kind) -> ColumnKind {
    match kind {
        Kind::Text | Kind::Fixed(_) | Kind::Bytes(_) => ColumnKind::String,
        Kind::Bool => ColumnKind::Boolean,
        Kind::Number(ValueType::F16 | ValueType::F32 | ValueType::F64) => ColumnKind::Float,
        Kind::Number(_) => ColumnKind::Integer,
        Kind::Record(_) => ColumnKind::Unreadable("it is a table of records".to_owned()),
    }
}

/// A column and its length, which must be as is `known`.
fn column_of(
    context: &Context,
    frame: &str,
    name: &str,
    known: Option<Length>,
) -> Result<(Column, u64)> {
    let path = join(frame, name);
    let found = need(context, &path)?;
    let length = |array: &Array| match (array.meta.shape.as_slice(), known) {
        ([have], Some(Length { n, .. })) if *have != n => {
            Err(array.blame(Error::corrupt(format!("the column has {have} values, not {n}"))))
        }
        ([have], _) => Ok(*have),
        (shape, _) => Err(array.blame(Error::corrupt(format!("a column has the shape {shape:?}")))),
    };
    let vouched = known.is_some_and(|length| length.vouched);
    let schema = |kind| ColumnSchema { name: name.to_owned(), kind, encoding: found.encoding() };
    let categorical = |mut codes: Array, categories: &str, ordered: bool| {
        let n = length(&codes)?;
        codes.vouched = vouched;
        integers(codes.meta.kind, &[]).map_err(|e| codes.blame(e))?;
        let texts = block_on(categories_of(context, categories))?;
        let kind = ColumnKind::Categorical { categories: Arc::new(texts), ordered };
        Ok((Column::new(schema(kind), Source::Categorical { codes: Arc::new(codes) }), n))
    };
    let ordered = |node: &Node| node.attributes.get("ordered").and_then(serde_json::Value::as_bool);
    if found.array.is_some() {
        let mut values = Array::new(ArrayMeta::new(&found)?);
        // anndata 0.7: codes, with the path of their categories.
        if let Some(categories) = found.text("categories") {
            let categories = if node(root(context), &join(frame, categories))?.is_some() {
                join(frame, categories)
            } else {
                categories.to_owned()
            };
            let ordered = ordered(&need(context, &categories)?).unwrap_or(false);
            return categorical(values, &categories, ordered);
        }
        let n = length(&values)?;
        values.vouched = vouched;
        let kind = kind_of(values.meta.kind);
        let source = Source::Plain { values: Arc::new(values), mask: None };
        return Ok((Column::new(schema(kind), source), n));
    }
    match found.text("encoding-type") {
        Some("categorical") => categorical(
            array(context, &join(&path, "codes"))?,
            &join(&path, "categories"),
            ordered(&found).unwrap_or(false),
        ),
        Some("nullable-integer" | "nullable-boolean" | "nullable-string-array") => {
            let mut values = array(context, &join(&path, "values"))?;
            let n = length(&values)?;
            values.vouched = vouched;
            // An index's own values vouch for its mask, of which nothing is written if none is missing.
            let vouched = vouched || values.has_its_bytes(context);
            let values = Arc::new(values);
            let mask = vector(context, &join(&path, "mask"), Length { n, vouched })?;
            if mask.meta.kind != Kind::Bool {
                return Err(mask.blame(Error::corrupt("a mask is not bool")));
            }
            let kind = kind_of(values.meta.kind);
            Ok((Column::new(schema(kind), Source::Plain { values, mask: Some(mask) }), n))
        }
        other => Err(Error::unsupported(format!("a column of the encoding {other:?} is not read"))
            .with("element", path)),
    }
}

/// Categories as text; anndata 0.11 and later may keep them as a nullable array.
async fn categories_of(context: &Context, path: &str) -> Result<Vec<String>> {
    if need(context, path)?.text("encoding-type") != Some("nullable-string-array") {
        return texts_of(context, &Arc::new(array(context, path)?)).await;
    }
    let values = Arc::new(array(context, &join(path, "values"))?);
    let length = Length { n: values.meta.len(), vouched: values.has_its_bytes(context) };
    let mask = vector(context, &join(path, "mask"), length)?;
    if mask.read_all(context).await?.iter().any(|&missing| missing != 0) {
        return Err(mask.blame(Error::corrupt("a category is missing")));
    }
    texts_of(context, &values).await
}

/// Values as text, whatever they are.
async fn texts_of(context: &Context, values: &Arc<Array>) -> Result<Vec<String>> {
    if values.meta.shape.len() != 1 {
        return Err(values.blame(Error::corrupt("categories are no list")));
    }
    let schema = ColumnSchema {
        name: values.meta.path.clone(),
        kind: kind_of(values.meta.kind),
        encoding: String::new(),
    };
    let source = Source::Plain { values: Arc::clone(values), mask: None };
    let all = Column::new(schema, source).whole(context).await?;
    let n = all.len();
    Ok(if let Some(texts) = all.as_string_opt::<i32>() {
        texts.iter().map(|t| t.unwrap_or_default().to_owned()).collect()
    } else if let Some(bools) = all.as_boolean_opt() {
        (0..n).map(|i| if bools.value(i) { "True" } else { "False" }.to_owned()).collect()
    } else if let Some(ints) = all.as_primitive_opt::<arrow_array::types::Int64Type>() {
        ints.values().iter().map(ToString::to_string).collect()
    } else if let Some(ints) = all.as_primitive_opt::<arrow_array::types::UInt64Type>() {
        ints.values().iter().map(ToString::to_string).collect()
    } else if let Some(floats) = all.as_primitive_opt::<arrow_array::types::Float64Type>() {
        floats.values().iter().map(|f| format!("{f:?}")).collect()
    } else {
        return Err(values.blame(Error::unsupported(format!("{} categories", as_u64(n)))));
    })
}
