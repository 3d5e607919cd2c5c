//! Dataframes: obs and var, in the encodings of anndata 0.5 to 0.13.

use super::{dataset, encoding, join, text};
use crate::container::{Dataset, ElementType, Group, Node};
use crate::read::{Column, ColumnData, Context, StoredArray, Values, column_to_text};
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result, RowRanges};
use std::sync::{Arc, OnceLock};

/// The encoding of a categorical column of a compound table, whose categories are in `uns`.
pub(crate) const CATEGORIES_IN_UNS: &str = "compound field, categories in uns";

/// A dataframe.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) n_rows: u64,
    pub(super) index: Option<Column>,
    pub(super) columns: Vec<Column>,
    /// Whether it is one compound dataset, as anndata 0.6 wrote it.
    pub(super) compound: bool,
}

impl Frame {
    /// Every column that can be asked for, the index last.
    pub(super) fn into_columns(self) -> Vec<Column> {
        let Self { index, mut columns, .. } = self;
        // A column of the same name is what people mean.
        columns.extend(index);
        columns
    }
}

impl Column {
    /// Names are text, whatever they are stored as.
    fn make_text(&mut self) {
        if !matches!(self.schema.kind, ColumnKind::Unreadable(_) | ColumnKind::String) {
            self.schema.kind = ColumnKind::String;
            self.as_text = true;
        }
    }

    /// All values as text.
    pub(super) async fn all_text(&self, context: &Context, n_rows: u64) -> Result<Vec<String>> {
        let array = self.read(context, &RowRanges::single(0..n_rows)).await?;
        Ok(column_to_text(&array))
    }
}

/// Opens the dataframe at `path`; `uns` is where old files keep categories.
pub(super) async fn open(context: &Context, path: &str, uns: &str) -> Result<Frame> {
    match context.container.node(path)? {
        Node::Group(group) => open_group(context, path, &group).await,
        Node::Dataset(dataset) => open_compound(context, path, &dataset, uns).await,
    }
}

fn column(name: &str, kind: ColumnKind, encoding: &str, data: ColumnData) -> Column {
    let schema = ColumnSchema { name: name.to_owned(), kind, encoding: encoding.trim().to_owned() };
    Column { schema, data, as_text: false, whole: OnceLock::new() }
}

fn unreadable(name: &str, why: &Error) -> Column {
    let kind = ColumnKind::Unreadable(super::reason(why));
    column(name, kind, "unknown", ColumnData::Unreadable)
}

async fn open_group(context: &Context, path: &str, frame: &Group) -> Result<Frame> {
    let (kind, _) = encoding(&frame.attributes);
    if !matches!(kind, "" | "dataframe") {
        let error = Error::unsupported(format!("a dataframe was expected, but this is {kind:?}"));
        return Err(context.blame(error, path));
    }
    let has = |name: &str| frame.members.iter().any(|m| m == name);
    let index = match text(&frame.attributes, "_index") {
        Some(name) => Some(name),
        None => ["_index", "index"].into_iter().find(|n| has(n)),
    };
    let order = frame.attributes.strings("column-order").ok().flatten();
    // Columns that the order leaves out come after those it names.
    let mut names: Vec<&str> = order.unwrap_or_default().iter().map(String::as_str).collect();
    let rest = frame.members.iter().map(String::as_str);
    let known: std::collections::HashSet<&str> = names.iter().copied().collect();
    names.extend(rest.filter(|n| !known.contains(n)));
    names.retain(|n| Some(*n) != index && !n.starts_with("__"));

    let index = match index {
        Some(name) if has(name) => {
            let (mut column, n_rows) = open_column(context, path, name).await;
            column.make_text();
            Some((column, n_rows))
        }
        Some(name) => {
            let error = Error::corrupt(format!("the index {name:?} is named, but is not there"));
            return Err(context.blame(error, path));
        }
        None => None,
    };
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        columns.push(open_column(context, path, name).await);
    }
    let lengths = || index.iter().chain(&columns).filter_map(|(column, n)| Some((column, (*n)?)));
    let Some(n_rows) = lengths().map(|(_, n)| n).next() else {
        let error =
            Error::corrupt("the dataframe has neither an index nor a column that can be read");
        return Err(context.blame(error, path));
    };
    if let Some((odd, n)) = lengths().find(|(_, n)| *n != n_rows) {
        let error = Error::corrupt(format!(
            "column {:?} has {n} rows, but the dataframe has {n_rows}",
            odd.schema.name
        ));
        return Err(context.blame(error, path));
    }
    let columns = columns.into_iter().map(|(column, _)| column).collect();
    Ok(Frame { n_rows, index: index.map(|(column, _)| column), columns, compound: false })
}

/// A column and its length; one that cannot be read says why and has none.
async fn open_column(context: &Context, frame: &str, name: &str) -> (Column, Option<u64>) {
    match try_column(context, frame, name).await {
        Ok((column, n_rows)) => (column, Some(n_rows)),
        Err(error) => (unreadable(name, &error), None),
    }
}

async fn try_column(context: &Context, frame: &str, name: &str) -> Result<(Column, u64)> {
    let path = join(frame, name);
    let parsed = match context.container.node(&path)? {
        Node::Group(group) => grouped_column(context, &path, name, &group).await,
        Node::Dataset(dataset) => plain_column(context, &path, name, &dataset).await,
    };
    parsed.map_err(|e| context.blame(e, &path))
}

async fn plain_column(
    context: &Context,
    path: &str,
    name: &str,
    dataset: &Dataset,
) -> Result<(Column, u64)> {
    let (kind, version) = encoding(&dataset.attributes);
    if !matches!(kind, "" | "array" | "string-array" | "categorical") {
        return Err(unknown(kind, version));
    }
    let label = if kind.is_empty() { "plain".to_owned() } else { format!("{kind} {version}") };
    let [n_rows] = dataset.shape[..] else {
        return Err(Error::unsupported(format!(
            "a column has one dimension, but the shape is {:?}",
            dataset.shape
        )));
    };
    // Categories of the 0.1.0 encoding: an integer dataset that refers to them.
    if dataset.attributes.get("categories").is_some() {
        let target = match dataset.attributes.reference("categories") {
            Ok(path) => path.map(str::to_owned),
            // Where the reader cannot follow references, the place is known all the same.
            Err(_) => path
                .rsplit_once('/')
                .map(|(frame, name)| join(frame, &format!("__categories/{name}"))),
        };
        let target =
            target.ok_or_else(|| Error::corrupt("the reference to the categories is lost"))?;
        let codes = Values::Array(StoredArray::open(context, path, dataset)?);
        let categories = self::dataset(context, &target)?;
        let ordered = categories.attributes.bool("ordered").ok().flatten().unwrap_or(false);
        let categories = Arc::new(category_texts(context, &target).await?);
        return Ok((categorical(name, codes, categories, ordered, "categorical 0.1.0"), n_rows));
    }
    let column = values_column(context, path, name, dataset, None, &label)?;
    Ok((column, n_rows))
}

/// A column of numbers, booleans or text, with or without a mask.
fn values_column(
    context: &Context,
    path: &str,
    name: &str,
    dataset: &Dataset,
    mask: Option<StoredArray>,
    label: &str,
) -> Result<Column> {
    if dataset.element.is_string() {
        let n_rows = dataset.rows();
        let data = ColumnData::Strings { path: path.to_owned(), field: None, n_rows, mask };
        return Ok(column(name, ColumnKind::String, label, data));
    }
    let values = StoredArray::open(context, path, dataset)?;
    numeric(name, Values::Array(values), &dataset.element, mask, label)
}

fn numeric(
    name: &str,
    values: Values,
    element: &ElementType,
    mask: Option<StoredArray>,
    label: &str,
) -> Result<Column> {
    Ok(match element {
        ElementType::Integer { .. } => {
            column(name, ColumnKind::Integer, label, ColumnData::Numbers { values, mask })
        }
        ElementType::Float { .. } => {
            column(name, ColumnKind::Float, label, ColumnData::Numbers { values, mask })
        }
        ElementType::Bool => {
            column(name, ColumnKind::Boolean, label, ColumnData::Booleans { values, mask })
        }
        other => return Err(Error::unsupported(format!("values of type {other} are not read"))),
    })
}

fn categorical(
    name: &str,
    codes: Values,
    categories: Arc<Vec<String>>,
    ordered: bool,
    label: &str,
) -> Column {
    let kind = ColumnKind::Categorical { categories: Arc::clone(&categories), ordered };
    column(name, kind, label, ColumnData::Codes { codes, categories })
}

async fn grouped_column(
    context: &Context,
    path: &str,
    name: &str,
    group: &Group,
) -> Result<(Column, u64)> {
    let (kind, version) = encoding(&group.attributes);
    let label = format!("{kind} {version}");
    match kind {
        "categorical" => {
            let at = join(path, "codes");
            let stored = dataset(context, &at)?;
            if !matches!(stored.element, ElementType::Integer { .. }) {
                return Err(Error::corrupt(format!("codes of type {}", stored.element)));
            }
            let codes = StoredArray::open(context, &at, &stored)?;
            let n_rows = codes.len();
            let ordered = group.attributes.bool("ordered").ok().flatten().unwrap_or(false);
            let categories = Arc::new(category_texts(context, &join(path, "categories")).await?);
            Ok((categorical(name, Values::Array(codes), categories, ordered, &label), n_rows))
        }
        "nullable-integer" | "nullable-boolean" | "nullable-string-array" => {
            let (at, mask_at) = (join(path, "values"), join(path, "mask"));
            let values = dataset(context, &at)?;
            // Without a mask nothing is missing.
            let mask = if group.members.iter().any(|m| m == "mask") {
                Some(StoredArray::open(context, &mask_at, &dataset(context, &mask_at)?)?)
            } else {
                None
            };
            let n_rows = values.rows();
            if let Some(mask) = &mask
                && (mask.len() != n_rows || mask.element().size() != 1)
            {
                return Err(Error::corrupt(format!(
                    "the mask has {} values of type {} for {n_rows} rows",
                    mask.len(),
                    mask.element()
                )));
            }
            Ok((values_column(context, &at, name, &values, mask, &label)?, n_rows))
        }
        "" => Err(Error::unsupported("a group without an encoding-type is no column known here")),
        other => Err(unknown(other, version)),
    }
}

fn unknown(kind: &str, version: &str) -> Error {
    Error::unsupported(format!(
        "the encoding {kind:?} (version {version:?}) is not read; categorical, string-array, array, \
         nullable-integer, nullable-boolean and nullable-string-array are"
    ))
}

/// The categories at `path`, of any kind, as text.
async fn category_texts(context: &Context, path: &str) -> Result<Vec<String>> {
    // Boxed: categories may be of any column encoding, themselves among them.
    let (categories, n) = match context.container.node(path)? {
        Node::Dataset(found) => {
            let n = found.rows();
            (values_column(context, path, "categories", &found, None, "")?, n)
        }
        Node::Group(found) => {
            let (kind, _) = encoding(&found.attributes);
            if !kind.starts_with("nullable-") {
                return Err(Error::unsupported(format!("categories of encoding {kind:?}")));
            }
            Box::pin(grouped_column(context, path, "categories", &found)).await?
        }
    };
    categories.all_text(context, n).await
}

/// A dataframe as one compound dataset: the first field, or `index`, holds the names.
async fn open_compound(context: &Context, path: &str, frame: &Dataset, uns: &str) -> Result<Frame> {
    let ElementType::Compound { fields, .. } = &frame.element else {
        let error = Error::corrupt(format!(
            "a dataframe was expected, but the elements are {}",
            frame.element
        ));
        return Err(context.blame(error, path));
    };
    let n_rows = frame.rows();
    let named = |n: &str| fields.iter().position(|f| f.name == n);
    let index_at = named("index").or_else(|| named("_index")).unwrap_or(0);
    let (mut index, mut columns) = (None, Vec::new());
    for (i, field) in fields.iter().enumerate() {
        let name = &field.name;
        let parsed = async {
            if field.element.is_string() {
                let field = Some(name.clone());
                let data = ColumnData::Strings { path: path.to_owned(), field, n_rows, mask: None };
                return Ok(column(name, ColumnKind::String, "compound field", data));
            }
            let element = field.element.clone();
            let values =
                Values::Field { path: path.to_owned(), field: name.clone(), element, n_rows };
            let categories = join(uns, &format!("{name}_categories"));
            let integer = matches!(field.element, ElementType::Integer { .. });
            if integer && context.container.node(&categories).is_ok() {
                let texts = Arc::new(category_texts(context, &categories).await?);
                return Ok(categorical(name, values, texts, false, CATEGORIES_IN_UNS));
            }
            numeric(name, values, &field.element, None, "compound field")
        };
        let mut column = parsed.await.unwrap_or_else(|e| unreadable(name, &e));
        if i == index_at {
            column.make_text();
            index = Some(column);
        } else {
            columns.push(column);
        }
    }
    Ok(Frame { n_rows, index, columns, compound: true })
}
