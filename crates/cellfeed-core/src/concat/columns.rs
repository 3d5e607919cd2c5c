//! Obs columns that all stores have, in one kind.

use super::{only, readable};
use crate::backend::Backend;
use crate::rows::RowRanges;
use crate::schema::{ColumnKind, ColumnSchema};
use crate::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray,
};
use arrow_schema::DataType;
use futures::executor::block_on;
use std::collections::HashMap;
use std::sync::Arc;

/// A column of all stores.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its name in each store; none for the column that says which store a cell is of.
    stored: Vec<Option<String>>,
    to: To,
}

/// What the values become.
#[derive(Debug)]
enum To {
    Same,
    Integer,
    Float,
    Text,
    /// Codes into one list: for each store, the new code of each of its own.
    Codes {
        categories: ArrayRef,
        codes: Vec<Vec<i32>>,
    },
}

/// The columns that all stores have in kinds that go together, then the label; and their schema, with
/// those that cannot be read and why.
pub(super) fn join_columns(
    stores: &[Arc<dyn Backend>],
    index: Option<&str>,
    label: Option<&str>,
) -> Result<(Vec<Column>, Vec<ColumnSchema>)> {
    let (mut columns, mut described) = (Vec::new(), Vec::<ColumnSchema>::new());
    if let Some(index) = index {
        let stored = stores.iter().map(|s| s.schema().obs_index.clone()).collect();
        columns.push(Column { name: index.to_owned(), stored, to: To::Same });
    }
    for column in stores.iter().flat_map(|s| s.schema().obs.to_vec()) {
        if described.iter().any(|c| c.name == column.name) {
            continue;
        }
        let found: Vec<ColumnKind> = stores
            .iter()
            .filter_map(|s| s.schema().obs.iter().find(|c| c.name == column.name))
            .map(|c| c.kind.clone())
            .collect();
        let joined = if found.len() < stores.len() {
            Err(only(found.len(), stores.len()))
        } else {
            join_kinds(&found)
        };
        let (kind, mut to) = match joined {
            Ok(joined) => joined,
            Err(why) => (ColumnKind::Unreadable(why), To::Same),
        };
        if kind == ColumnKind::Integer && mixed(stores, &column.name)? {
            to = To::Integer;
        }
        if readable(&kind) {
            let stored = vec![Some(column.name.clone()); stores.len()];
            columns.push(Column { name: column.name.clone(), stored, to });
        }
        described.push(ColumnSchema { kind, ..column });
    }
    if let Some(label) = label {
        if index == Some(label) || described.iter().any(|c| c.name == label) {
            return Err(Error::invalid_input(format!(
                "{label:?} is a column of the stores already; give the label another name"
            )));
        }
        let mut names: Vec<String> = Vec::new();
        for (i, store) in stores.iter().enumerate() {
            let name = store.schema().location.clone();
            names.push(if names.contains(&name) { format!("{name} ({})", i + 1) } else { name });
        }
        let categories: ArrayRef = Arc::new(StringArray::from_iter_values(&names));
        described.push(ColumnSchema::categorical(label, names, false));
        columns.push(Column {
            name: label.to_owned(),
            stored: vec![None; stores.len()],
            to: To::Codes { categories, codes: Vec::new() },
        });
    }
    Ok((columns, described))
}

/// Whether some stores hold a column of integers signed and others unsigned.
fn mixed(stores: &[Arc<dyn Backend>], name: &str) -> Result<bool> {
    let mut types = Vec::new();
    for store in stores {
        let found = block_on(store.read_obs(&[name.to_owned()], &RowRanges::empty()))?;
        types.extend(found.first().map(|array| array.data_type().clone()));
    }
    Ok(types.windows(2).any(|w| w[0] != w[1]))
}

/// The kind that values of all these kinds have together, or why there is none.
fn join_kinds(kinds: &[ColumnKind]) -> std::result::Result<(ColumnKind, To), String> {
    use ColumnKind::{Boolean, Categorical, Float, Integer, String as Text, Unreadable};
    for kind in kinds {
        if let Unreadable(why) = kind {
            return Err(why.clone());
        }
    }
    let all = |is: fn(&ColumnKind) -> bool| kinds.iter().all(is);
    if all(|k| matches!(k, Categorical { .. })) {
        return Ok(join_categories(kinds));
    }
    if all(|k| matches!(k, Categorical { .. } | Text)) {
        let same = all(|k| matches!(k, Text));
        return Ok((Text, if same { To::Same } else { To::Text }));
    }
    if all(|k| matches!(k, Integer)) {
        return Ok((Integer, To::Same));
    }
    if all(|k| matches!(k, Integer | Float)) {
        let same = all(|k| matches!(k, Float));
        return Ok((Float, if same { To::Same } else { To::Float }));
    }
    if all(|k| matches!(k, Boolean)) {
        return Ok((Boolean, To::Same));
    }
    let mut words: Vec<&str> = kinds.iter().map(ColumnKind::as_str).collect();
    words.dedup();
    Err(format!("it is {} in the stores, which do not go together", words.join(" and ")))
}

fn join_categories(kinds: &[ColumnKind]) -> (ColumnKind, To) {
    if let Some(first) = kinds.first()
        && kinds.iter().all(|k| k == first)
    {
        return (first.clone(), To::Same);
    }
    let (mut names, mut known) = (Vec::<String>::new(), HashMap::<String, i32>::new());
    let mut codes = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let ColumnKind::Categorical { categories, .. } = kind else { continue };
        let code = |name: &String| {
            *known.entry(name.clone()).or_insert_with(|| {
                names.push(name.clone());
                i32::try_from(names.len() - 1).unwrap_or(i32::MAX)
            })
        };
        codes.push(categories.iter().map(code).collect());
    }
    let categories: ArrayRef = Arc::new(StringArray::from_iter_values(&names));
    // Lists that differ have no order together.
    let kind = ColumnKind::Categorical { categories: Arc::new(names), ordered: false };
    (kind, To::Codes { categories, codes })
}

impl Column {
    /// What the column is called in a store, if it is stored.
    pub(super) fn stored_name(&self, store: usize) -> Option<String> {
        self.stored.get(store).cloned().flatten()
    }

    /// Values of a store as values of all; `stored` is what the store answered.
    pub(super) fn convert(
        &self,
        store: usize,
        stored: Option<&ArrayRef>,
        n_rows: u64,
    ) -> Result<ArrayRef> {
        let wrong = || Error::internal(format!("the column {:?} came in another type", self.name));
        if let (None, To::Codes { categories, .. }) = (stored, &self.to) {
            let n = usize::try_from(n_rows).map_err(|_| wrong())?;
            let code = i32::try_from(store).map_err(|_| wrong())?;
            return dictionary(Int32Array::from(vec![code; n]), categories);
        }
        let array = stored.ok_or_else(wrong)?;
        Ok(match &self.to {
            To::Same => Arc::clone(array),
            To::Integer => match array.as_primitive_opt::<UInt64Type>() {
                None => Arc::clone(array),
                Some(unsigned) => Arc::new(self.signed(unsigned.iter())?),
            },
            To::Float => match array.data_type() {
                DataType::Float64 => Arc::clone(array),
                DataType::Int64 => {
                    let whole = array.as_primitive::<Int64Type>().iter();
                    Arc::new(whole.map(|v| v.map(rounded)).collect::<Float64Array>())
                }
                _ => {
                    let whole = array.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.iter();
                    let float = whole.map(|v| v.map(rounded_unsigned));
                    Arc::new(float.collect::<arrow_array::PrimitiveArray<Float64Type>>())
                }
            },
            To::Text => match array.as_dictionary_opt::<Int32Type>() {
                None => Arc::clone(array),
                Some(codes) => {
                    let names = codes.values().as_string_opt::<i32>().ok_or_else(wrong)?;
                    let text = |k: Option<i32>| {
                        k.and_then(|k| usize::try_from(k).ok()).map(|k| names.value(k))
                    };
                    Arc::new(codes.keys().iter().map(text).collect::<StringArray>())
                }
            },
            To::Codes { categories, codes } => {
                let stored = array.as_dictionary_opt::<Int32Type>().ok_or_else(wrong)?;
                let table = codes.get(store).ok_or_else(wrong)?;
                let code = |k: Option<i32>| {
                    k.map(|k| usize::try_from(k).ok().and_then(|k| table.get(k)).copied())
                        .map(|k| k.ok_or_else(wrong))
                        .transpose()
                };
                let keys = stored.keys().iter().map(code).collect::<Result<Int32Array>>()?;
                dictionary(keys, categories)?
            }
        })
    }

    fn signed(&self, values: impl Iterator<Item = Option<u64>>) -> Result<Int64Array> {
        let signed = values.map(|v| v.map(i64::try_from).transpose());
        signed.collect::<std::result::Result<_, _>>().map_err(|_| {
            Error::unsupported(format!(
                "the column {:?} is signed in one store and past 2^63 in another",
                self.name
            ))
        })
    }
}

fn dictionary(keys: Int32Array, categories: &ArrayRef) -> Result<ArrayRef> {
    let array = DictionaryArray::try_new(keys, Arc::clone(categories))
        .map_err(|e| Error::internal("a joined code has no category").caused_by(e))?;
    Ok(Arc::new(array))
}

#[allow(clippy::cast_precision_loss)] // a column of floats rounds
fn rounded(v: i64) -> f64 {
    v as f64
}

#[allow(clippy::cast_precision_loss)] // a column of floats rounds
fn rounded_unsigned(v: u64) -> f64 {
    v as f64
}
