//! An obs or var table in memory: what conversion carries from one store to another.

use crate::schema::ColumnSchema;
use crate::{Error, Result, as_u64};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, StringArray};
use std::sync::Arc;

/// Columns of obs or var with the names of the cells or genes. Column types are those of
/// [`ColumnKind`](crate::ColumnKind), whatever their width in the store.
#[derive(Debug, Clone, Default)]
pub struct Table {
    n_rows: u64,
    index: Option<(String, ArrayRef)>,
    columns: Vec<(ColumnSchema, ArrayRef)>,
}

impl Table {
    /// Puts columns of `n_rows` rows together. `index` has the names of the rows, as text, and what
    /// the store calls them (`_index`, `index`, `barcode`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if a column has another number
    /// of rows, two have one name, or the index is not text.
    pub fn try_new(
        n_rows: u64,
        index: Option<(String, ArrayRef)>,
        columns: Vec<(ColumnSchema, ArrayRef)>,
    ) -> Result<Self> {
        let named = columns.iter().map(|(column, array)| (&column.name, array));
        for (name, array) in index.iter().map(|(name, array)| (name, array)).chain(named) {
            if as_u64(array.len()) != n_rows {
                return Err(Error::invalid_input(format!(
                    "column {name:?} has {} values for {n_rows} rows",
                    array.len()
                )));
            }
        }
        if let Some((name, array)) = &index
            && array.as_string_opt::<i32>().is_none()
        {
            return Err(Error::invalid_input(format!("the index {name:?} is not text")));
        }
        let mut names: Vec<&str> = columns.iter().map(|(column, _)| column.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::invalid_input(format!("two columns are called {:?}", twice[0])));
        }
        Ok(Self { n_rows, index, columns })
    }

    /// A table of names alone; of no names if there are none.
    ///
    /// # Errors
    /// As [`try_new`](Self::try_new).
    pub fn of_names(n_rows: u64, names: &[String]) -> Result<Self> {
        let index = (!names.is_empty()).then(|| {
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            ("_index".to_owned(), names)
        });
        Self::try_new(n_rows, index, Vec::new())
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// The names of the rows, and what they are called.
    #[must_use]
    pub fn index(&self) -> Option<(&str, &StringArray)> {
        let (name, array) = self.index.as_ref()?;
        Some((name, array.as_string_opt::<i32>()?))
    }

    /// The columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[(ColumnSchema, ArrayRef)] {
        &self.columns
    }

    /// One column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.columns.iter().find(|(column, _)| column.name == name).map(|(_, array)| array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::Int64Array;

    #[test]
    fn lengths_and_names_are_checked() {
        let column = |name: &str, n: i64| -> (ColumnSchema, ArrayRef) {
            let kind = crate::ColumnKind::Integer;
            let schema = ColumnSchema { name: name.to_owned(), kind, encoding: String::new() };
            (schema, Arc::new(Int64Array::from_iter_values(0..n)))
        };
        let table = Table::try_new(3, None, vec![column("a", 3), column("b", 3)]).unwrap();
        assert_eq!(table.column("b").unwrap().len(), 3);
        assert!(table.index().is_none() && table.column("c").is_none());
        assert!(Table::try_new(3, None, vec![column("a", 2)]).is_err());
        assert!(Table::try_new(3, None, vec![column("a", 3), column("a", 3)]).is_err());
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
        assert!(Table::try_new(3, Some(("i".to_owned(), numbers)), vec![]).is_err());
        let names = ["x", "y"].map(str::to_owned);
        assert_eq!(Table::of_names(2, &names).unwrap().index().unwrap().1.value(1), "y");
        assert!(Table::of_names(3, &names).is_err());
    }
}
