//! What strategies go by, read from obs columns: strata, weights, classes.

use super::strata::{Strata, StrataBuilder};
use super::subset::{STEP, Subset};
use super::weighted::Weights;
use crate::backend::Backend;
use crate::diversity::{Coder, Labels, check_label};
use crate::rows::RowRanges;
use crate::schema::Schema;
use crate::{Error, Result, as_u64};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use futures::executor::block_on;

impl Strata {
    /// Sorts the blocks of a subset by one or several obs columns, which are read part by part. Blocks
    /// until they are read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing the columns if there is none of a
    /// name, [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for no columns and for floats,
    /// which are no labels; as [`StrataBuilder::new`] and [`Backend::read_obs`].
    pub fn read(
        backend: &dyn Backend,
        subset: &Subset,
        block_size: u64,
        columns: &[String],
    ) -> Result<Self> {
        let schema = backend.schema();
        if columns.is_empty() {
            return Err(Error::invalid_input("no obs column was named to stratify by"));
        }
        columns.iter().try_for_each(|column| check_label(schema, column))?;
        let mut builder = StrataBuilder::new(subset, block_size, &columns.join(", "))?;
        let mut coders = vec![Coder::default(); columns.len()];
        let mut codes = vec![Vec::new(); columns.len()];
        let mut at = 0;
        while at < subset.n_cells() {
            let end = (at + STEP).min(subset.n_cells());
            let mut rows = RowRanges::empty();
            subset.rows(at..end, &mut rows);
            for ((column, coder), codes) in columns.iter().zip(&mut coders).zip(&mut codes) {
                codes.clear();
                let array = column_of(backend, column, &rows)?;
                coder.encode(&array, codes).map_err(|e| in_column(e, schema, column))?;
            }
            builder.push(&codes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            at = end;
        }
        builder.finish()
    }
}

impl Weights {
    /// The weight of each cell, from an obs column of numbers or booleans. Blocks until it is read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) listing the columns if there is none of that
    /// name; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a column that is not of
    /// numbers, for a missing value, and as [`of_cells`](Self::of_cells); as [`Backend::read_obs`].
    pub fn read(backend: &dyn Backend, column: &str) -> Result<Self> {
        let schema = backend.schema();
        schema.check_obs(column)?;
        let mut weights = Vec::with_capacity(usize::try_from(schema.n_obs).unwrap_or(0));
        for part in RowRanges::single(0..schema.n_obs).parts(STEP) {
            let array = column_of(backend, column, &part)?;
            push_numbers(&array, &mut weights).map_err(|e| in_column(e, schema, column))?;
        }
        Self::of_cells(weights).map_err(|e| in_column(e, schema, column))
    }

    /// The weights that give every value of an obs column the same share of a subset: see
    /// [`balanced`](Self::balanced). Blocks until it is read.
    ///
    /// # Errors
    /// As [`Labels::read`] and [`balanced`](Self::balanced).
    pub fn read_balanced(backend: &dyn Backend, subset: &Subset, column: &str) -> Result<Self> {
        let labels = Labels::read(backend, column)?;
        let missing = labels.missing();
        let weights = Self::of_classes(labels.into_codes(), missing, subset);
        weights.map_err(|e| in_column(e, backend.schema(), column))
    }
}

/// Rows of one column; the same may be asked for twice.
fn column_of(backend: &dyn Backend, column: &str, rows: &RowRanges) -> Result<ArrayRef> {
    let arrays = block_on(backend.read_obs(&[column.to_owned()], rows))?;
    arrays.into_iter().next().ok_or_else(|| Error::internal("read_obs answered no column"))
}

fn in_column(error: Error, schema: &Schema, column: &str) -> Error {
    error.with("file", &schema.location).with("element", format!("obs/{column}"))
}

fn push_numbers(array: &ArrayRef, out: &mut Vec<f64>) -> Result<()> {
    if let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) {
        return Err(Error::invalid_input(format!(
            "cell {} has no weight; leave such cells out by giving them the weight 0",
            as_u64(out.len()) + as_u64(row)
        )));
    }
    match array.data_type() {
        DataType::Float64 => out.extend(array.as_primitive::<Float64Type>().values()),
        DataType::Int64 => {
            out.extend(array.as_primitive::<Int64Type>().values().iter().map(|&v| v as f64));
        }
        DataType::UInt64 => {
            out.extend(array.as_primitive::<UInt64Type>().values().iter().map(|&v| v as f64));
        }
        DataType::Boolean => {
            out.extend(array.as_boolean().values().iter().map(|v| f64::from(u8::from(v))));
        }
        _ => {
            return Err(Error::invalid_input(
                "the column is not of numbers, so that it holds no weights; to draw each of its \
                 values equally often use class-balanced sampling",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obs::categorical_array;
    use crate::plan::{Plan, PlanOptions, Strategy};
    use crate::schema::{ColumnKind, ColumnSchema};
    use crate::{ErrorKind, MemoryBackend};
    use arrow_array::{BooleanArray, Float64Array, Int64Array, UInt64Array};
    use std::sync::Arc;

    fn store() -> MemoryBackend {
        let column = |name: &str, kind| ColumnSchema {
            name: name.to_owned(),
            kind,
            encoding: String::new(),
        };
        let drugs = Arc::new(["b", "a"].map(str::to_owned).to_vec());
        let kind = |categories: &Arc<Vec<String>>| ColumnKind::Categorical {
            categories: Arc::clone(categories),
            ordered: false,
        };
        let drug = [0, 0, 1, 1, 0, 0, 1, 1].map(Some);
        let some = [Some(0), None, Some(1), Some(1), Some(0), Some(0), Some(1), Some(1)];
        let obs: Vec<(ColumnSchema, ArrayRef)> = vec![
            (column("drug", kind(&drugs)), categorical_array(drug, &drugs).unwrap()),
            (column("some", kind(&drugs)), categorical_array(some, &drugs).unwrap()),
            (
                column("plate", ColumnKind::Integer),
                Arc::new(Int64Array::from_iter_values([1, 1, 0, 0, 0, 0, 1, 1])),
            ),
            (column("count", ColumnKind::Integer), Arc::new(UInt64Array::from_iter_values(0..8))),
            (
                column("use", ColumnKind::Boolean),
                Arc::new(BooleanArray::from((0..8).map(|i| i > 5).collect::<Vec<_>>())),
            ),
            (
                column("score", ColumnKind::Float),
                Arc::new(Float64Array::from(
                    (0..8).map(|i| (i != 3).then_some(0.5)).collect::<Vec<_>>(),
                )),
            ),
            (
                column("odd", ColumnKind::Float),
                Arc::new(Float64Array::from(
                    (0..8).map(|i| if i == 6 { f64::NAN } else { 1.0 }).collect::<Vec<_>>(),
                )),
            ),
        ];
        MemoryBackend::try_new(8, vec![], obs).unwrap()
    }

    #[test]
    fn columns_become_strata_and_weights() {
        let store = store();
        let all = Subset::all(8);
        let strata = |subset: &Subset, columns: &[&str]| {
            let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
            Strata::read(&store, subset, 2, &columns)
        };
        assert_eq!(strata(&all, &["drug"]).unwrap().blocks(), [0, 2, 1, 3]);
        let both = strata(&all, &["plate", "drug"]).unwrap();
        assert_eq!((both.blocks(), both.name()), ([0, 3, 2, 1].as_slice(), "plate, drug"));
        assert_eq!(strata(&all, &["drug", "drug"]).unwrap().blocks(), [0, 2, 1, 3]);
        // Codes count from the subset's first cell on.
        let late = Subset::from_rows(8, &[2, 3, 4, 5, 6, 7]).unwrap();
        assert_eq!(strata(&late, &["drug"]).unwrap().blocks(), [0, 2, 1]);
        let drawn = |weights: Weights, draws| {
            let strategy =
                Strategy::BlockWeighted { block_size: 2, draws: Some(draws), replacement: false };
            let plan =
                Plan::weighted(all.clone(), weights, strategy, &PlanOptions::default()).unwrap();
            plan.fetch(0, 0).unwrap().rows().iter_rows().collect::<Vec<_>>()
        };
        assert_eq!(drawn(Weights::read(&store, "use").unwrap(), 2), [6, 7]);
        assert_eq!(drawn(Weights::read(&store, "count").unwrap(), 7), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(drawn(Weights::read(&store, "plate").unwrap(), 4), [0, 1, 6, 7]);
        let balanced = Weights::read_balanced(&store, &late, "drug").unwrap();
        let classes = [0, 0, 1, 1, 0, 0, 1, 1].map(Some);
        let first = |weights: Weights| {
            let options = PlanOptions::default();
            let plan = Plan::weighted(late.clone(), weights, class_balanced(), &options).unwrap();
            plan.fetch(0, 0).unwrap()
        };
        let expected = first(Weights::balanced(&classes, &late).unwrap());
        assert_eq!((first(balanced), expected.rows().n_rows()), (expected, 4));
    }

    fn class_balanced() -> Strategy {
        Strategy::ClassBalanced { block_size: 2, draws: None, replacement: false }
    }

    #[test]
    fn columns_that_do_not_serve_are_explained() {
        let store = store();
        let all = Subset::all(8);
        let strata =
            |column: &str| Strata::read(&store, &all, 2, &[column.to_owned()]).unwrap_err();
        assert_eq!(strata("drugs").kind(), ErrorKind::NotFound);
        assert!(strata("drugs").to_string().contains("the store has drug, some, plate"));
        assert!(strata("score").to_string().contains("pandas.cut"));
        assert!(Strata::read(&store, &all, 2, &[]).is_err());
        for (column, why) in [
            ("drug", "not of numbers"),
            ("score", "cell 3 has no weight"),
            ("odd", "the weight of cell 6 is NaN"),
            ("none", "the store has drug"),
        ] {
            let error = Weights::read(&store, column).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = Weights::read_balanced(&store, &all, "some").unwrap_err().to_string();
        assert!(error.contains("1 cells have no class, the first is cell 1"), "{error}");
        assert!(error.contains("obs/some"), "{error}");
    }
}
