//! The oracle: what a store holds, known from elsewhere than the backend under test. Fixtures build
//! one in code; `oracle_json.rs` loads those that other tools' readers wrote beside their files.

use cellfeed_core::{Encoding, MatrixKey, Values};

/// The expected contents of a store.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    /// What to call the store in messages.
    pub name: String,
    /// How many cells.
    pub n_obs: u64,
    /// How many genes `X` and the layers have.
    pub n_vars: u64,
    /// `X`, layers and `raw/X`, as far as present.
    pub matrices: Vec<OracleMatrix>,
    /// Names of the cells; empty where the store has none.
    pub obs_names: Vec<String>,
    /// Names of the genes of `X` and the layers; empty where the store has none.
    pub var_names: Vec<String>,
    /// Names of the genes of `raw/X`; empty where the store has none.
    pub raw_var_names: Vec<String>,
    /// Obs columns in the store's order.
    pub obs: Vec<OracleColumn>,
    /// Var columns in the store's order.
    pub var: Vec<OracleColumn>,
    /// Var columns of `raw/X`; `None` where the oracle does not know them.
    pub raw_var: Option<Vec<OracleColumn>>,
    /// What wrote the store, for messages.
    pub writer: Option<String>,
}

/// The expected contents of a matrix: canonical CSR, however the store has it.
#[derive(Debug, Clone)]
pub struct OracleMatrix {
    /// Which matrix.
    pub key: MatrixKey,
    /// How the store has it.
    pub encoding: Encoding,
    /// How many genes.
    pub n_vars: u64,
    /// Where each row starts, and the last one ends.
    pub indptr: Vec<u64>,
    /// The gene of each stored value. Of a dense matrix only values other than zero are listed.
    pub indices: Vec<u32>,
    /// The stored values, in the stored type.
    pub values: Values,
}

/// The expected contents of an obs or var column.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleColumn {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: OracleValues,
}

/// Values of a column; `None` where one is missing.
#[derive(Debug, Clone, PartialEq)]
pub enum OracleValues {
    /// Codes into categories.
    Categorical {
        /// One a row.
        codes: Vec<Option<i32>>,
        /// The categories in code order.
        categories: Vec<Category>,
        /// Whether their order means something.
        ordered: bool,
    },
    /// Text.
    String(Vec<Option<String>>),
    /// Integers, signed and unsigned.
    Integer(Vec<Option<i128>>),
    /// Floats. A NaN is a value, not a missing one.
    Float(Vec<Option<f64>>),
    /// Truth values.
    Boolean(Vec<Option<bool>>),
    /// The store has the column in an encoding that need not be read: it must be listed as
    /// unreadable.
    Unreadable,
}

/// A category. Those that are not text are shown as text by the backend, in any usual spelling.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Category {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
}

impl Category {
    /// Whether a text is a spelling of the category.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // an f32 that Python widened, to be narrowed again
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Text(expected) => text == expected,
            Self::Integer(expected) => text.parse() == Ok(*expected),
            Self::Boolean(expected) => text.to_ascii_lowercase().parse() == Ok(*expected),
            Self::Float(expected) => {
                let is = |got: f64| got == *expected || (got.is_nan() && expected.is_nan());
                let short = |got: f32| {
                    f64::from(*expected as f32).to_bits() == expected.to_bits()
                        && got == *expected as f32
                };
                text.parse().is_ok_and(is) || text.parse().is_ok_and(short)
            }
        }
    }

    /// The category as Rust prints it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Boolean(value) => value.to_string(),
        }
    }
}

impl OracleValues {
    /// How many rows; `None` where the values are not known.
    #[must_use]
    pub fn n_rows(&self) -> Option<usize> {
        Some(match self {
            Self::Categorical { codes, .. } => codes.len(),
            Self::String(v) => v.len(),
            Self::Integer(v) => v.len(),
            Self::Float(v) => v.len(),
            Self::Boolean(v) => v.len(),
            Self::Unreadable => return None,
        })
    }
}

impl OracleMatrix {
    /// The matrix with genes for rows and cells for columns.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let long = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut rows: Vec<Vec<(u32, usize)>> = vec![Vec::new(); at(self.n_vars)];
        for (cell, window) in (0u32..).zip(self.indptr.windows(2)) {
            for i in at(window[0])..at(window[1]) {
                rows[at(self.indices[i].into())].push((cell, i));
            }
        }
        let mut indptr = vec![0];
        for row in &rows {
            indptr.push(indptr[indptr.len() - 1] + long(row.len()));
        }
        let order: Vec<usize> = rows.iter().flatten().map(|&(_, i)| i).collect();
        Self {
            key: self.key.clone(),
            encoding: Encoding::Csr,
            n_vars: long(self.indptr.len() - 1),
            indptr,
            indices: rows.iter().flatten().map(|&(cell, _)| cell).collect(),
            values: self.values.take(&order),
        }
    }
}

impl Oracle {
    /// Looks up a matrix.
    #[must_use]
    pub fn matrix(&self, key: &MatrixKey) -> Option<&OracleMatrix> {
        self.matrices.iter().find(|m| m.key == *key)
    }

    /// The names of the genes of a matrix.
    #[must_use]
    pub fn var_names_of(&self, key: &MatrixKey) -> &[String] {
        if *key == MatrixKey::Raw { &self.raw_var_names } else { &self.var_names }
    }

    /// The var columns of a matrix, if they are known.
    #[must_use]
    pub fn var_columns_of(&self, key: &MatrixKey) -> Option<&[OracleColumn]> {
        if *key == MatrixKey::Raw { self.raw_var.as_deref() } else { Some(&self.var) }
    }

    /// Sets the name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Forgets the names of the cells, for a store that cannot have any.
    #[must_use]
    pub fn without_obs_names(mut self) -> Self {
        self.obs_names.clear();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_recognised_in_any_spelling() {
        assert!(Category::Text("a b".into()).matches("a b"));
        assert!(!Category::Text("a".into()).matches("A"));
        assert!(Category::Integer(10).matches("10"));
        assert!(Category::Boolean(true).matches("True"));
        assert!(Category::Float(0.5).matches("0.5"));
        assert!(Category::Float(2.0).matches("2"));
        assert!(Category::Float(f64::from(0.1f32)).matches("0.1"));
        assert!(!Category::Float(0.1).matches("0.2"));
    }
}
