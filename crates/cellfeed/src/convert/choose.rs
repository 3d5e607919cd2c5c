//! What is carried over: matrices and columns that were asked for and can be read. What is not is listed
//! with the reason, but for what a store is nothing without: its `X`, and layers that were named.

use super::ConvertOptions;
use crate::Store;
use crate::transpose::by_columns;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, MatrixKey, MatrixSchema, Result, Schema};

/// A matrix to carry over, and how its rows are had.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) key: MatrixKey,
    /// By columns: rows have to be made.
    pub(super) by_columns: bool,
}

pub(super) fn choose_matrices(
    source: &Store,
    options: &ConvertOptions,
    left_out: &mut Vec<(String, String)>,
) -> Result<Vec<Chosen>> {
    let schema = source.schema();
    if let Some(layers) = &options.layers {
        for name in layers {
            let key = MatrixKey::Layer(name.clone());
            if !schema.matrices.iter().any(|m| m.key == key) {
                schema.matrix(&key)?;
            }
        }
    }
    let mut chosen = Vec::new();
    for matrix in &schema.matrices {
        let wanted = match &matrix.key {
            MatrixKey::X => true,
            MatrixKey::Raw => options.raw,
            MatrixKey::Layer(name) => {
                options.layers.as_ref().is_none_or(|layers| layers.contains(name))
            }
        };
        let path = matrix.key.to_string();
        if !wanted {
            left_out.push((path, "not asked for".to_owned()));
            continue;
        }
        let by_columns = by_columns(source, matrix);
        match &matrix.unreadable {
            Some(why) if !by_columns => match refusal(schema, matrix, why, options) {
                Some(error) => return Err(error),
                None => left_out.push((path, why.clone())),
            },
            _ => chosen.push(Chosen { key: matrix.key.clone(), by_columns }),
        }
    }
    if chosen.is_empty() {
        let why = left_out.first().map_or("the store holds none", |(_, why)| why.as_str());
        return Err(Error::invalid_input(format!("there is no matrix to convert: {why}"))
            .with("file", &schema.location));
    }
    Ok(chosen)
}

/// The error for a matrix that cannot be read, if it must not be left behind: a store without its `X` is
/// hardly what was wanted, unless layers were named, and those that were are wanted.
fn refusal(
    schema: &Schema,
    matrix: &MatrixSchema,
    why: &str,
    options: &ConvertOptions,
) -> Option<Error> {
    let named = options.layers.as_ref().is_some_and(|layers| !layers.is_empty());
    let what = match matrix.key {
        MatrixKey::X if !named => {
            let layers = schema.matrices.iter().filter(|m| m.unreadable.is_none());
            let layers = layers.filter_map(|m| match &m.key {
                MatrixKey::Layer(name) => Some(name.as_str()),
                _ => None,
            });
            match &layers.collect::<Vec<_>>()[..] {
                [] => format!(
                    "X cannot be read: {why}; there is no layer to convert in its place, so mend the store, \
                     or get a sound copy of it"
                ),
                layers => format!(
                    "X cannot be read: {why}; to convert the store without it, name the layers to keep \
                     (--layer, layers=), of {}",
                    layers.join(", ")
                ),
            }
        }
        MatrixKey::Layer(_) if named => format!("{} cannot be read: {why}", matrix.key),
        _ => return None,
    };
    Some(Error::unsupported(what).with("file", &schema.location).with("element", &matrix.key))
}

pub(super) fn choose_columns(
    source: &Store,
    options: &ConvertOptions,
    left_out: &mut Vec<(String, String)>,
) -> Result<Vec<ColumnSchema>> {
    let schema = source.schema();
    if let Some(columns) = &options.obs {
        for name in columns {
            schema.obs_column(name)?;
        }
    }
    let mut chosen = Vec::new();
    for column in &schema.obs {
        let path = format!("obs/{}", column.name);
        if options.obs.as_ref().is_some_and(|wanted| !wanted.contains(&column.name)) {
            left_out.push((path, "not asked for".to_owned()));
        } else if let ColumnKind::Unreadable(why) = &column.kind {
            left_out.push((path, why.clone()));
        } else if chosen.iter().any(|c: &ColumnSchema| c.name == column.name) {
            // Which of the two is read by the name is the source's business.
            left_out.push((path, "an earlier column has this name".to_owned()));
        } else {
            chosen.push(column.clone());
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellfeed_core::io::Engine;
    use cellfeed_core::{MemoryBackend, MemoryMatrix, VarSchema};
    use std::sync::Arc;

    #[test]
    fn of_two_columns_of_one_name_the_first_is_kept() {
        let var = VarSchema { n_vars: 1, ..VarSchema::default() };
        let x = MemoryMatrix::try_new(vec![0, 0, 1], vec![0], vec![1f32], var).unwrap();
        let column = |name: &str, values: [i64; 2]| {
            let (kind, encoding) = (ColumnKind::Integer, String::new());
            let values: arrow_array::ArrayRef =
                Arc::new(arrow_array::Int64Array::from_iter_values(values));
            (ColumnSchema { name: name.to_owned(), kind, encoding }, values)
        };
        let obs = vec![column("a", [1, 2]), column("b", [3, 4]), column("a", [5, 6])];
        let backend = MemoryBackend::try_new(2, vec![(MatrixKey::X, x)], obs).unwrap();
        let store = Store::new(Arc::new(backend), Arc::new(Engine::default()));
        let folder = tempfile::tempdir().unwrap();
        for ending in ["csr", "zarr", "parquet", "h5ad"] {
            let path = folder.path().join(format!("a.{ending}"));
            let options = ConvertOptions::default();
            let done = crate::convert(&store, &path, &options, &mut |_| true).unwrap();
            let why = "an earlier column has this name".to_owned();
            assert!(done.left_out.contains(&("obs/a".to_owned(), why)), "{done:?}");
            let written = crate::open(path.to_str().unwrap(), &crate::OpenOptions::default());
            let written = written.unwrap();
            let names: Vec<&str> = written.schema().obs.iter().map(|c| c.name.as_str()).collect();
            assert_eq!(names, ["a", "b"], "{ending}");
            assert!(
                crate::verify(&store, &written, &mut |_, _| true).unwrap().difference.is_none()
            );
        }
    }
}
