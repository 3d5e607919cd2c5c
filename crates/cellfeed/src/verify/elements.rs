//! What a store has, by path, and the reason where it does not give it: what cannot be read is not absent.

use crate::Store;
use crate::transpose::by_columns;
use cellfeed_core::{ColumnKind, ColumnSchema, Error, MatrixKey, Result, Table};

/// Matrices or columns by path, each with what it is asked for by, or why it cannot be read.
pub(super) struct Elements<T>(pub(super) Vec<(String, Result<T, String>)>);

impl<T> Elements<T> {
    pub(super) fn find(&self, path: &str) -> Option<&Result<T, String>> {
        self.0.iter().find(|(p, _)| p == path).map(|(_, found)| found)
    }

    /// Without what is not to be compared.
    pub(super) fn leave_out(&mut self, without: &[String]) {
        self.0.retain(|(path, _)| !without.contains(path));
    }
}

impl Elements<MatrixKey> {
    pub(super) fn matrices(store: &Store) -> Self {
        let element = |m: &cellfeed_core::MatrixSchema| {
            let found = match &m.unreadable {
                Some(why) if !by_columns(store, m) => Err(why.clone()),
                _ => Ok(m.key.clone()),
            };
            (m.key.to_string(), found)
        };
        let mut all: Vec<_> = store.schema().matrices.iter().map(element).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self(all)
    }
}

impl Elements<String> {
    pub(super) fn obs(store: &Store) -> Self {
        Self::columns("obs", &store.schema().obs)
    }

    /// Columns of the genes of a matrix, which are called `element`.
    pub(super) fn var(store: &Store, key: &MatrixKey, element: &str) -> Self {
        let schema = store.schema();
        let var = schema.find(key).map_or(&schema.var, |m| &m.var);
        Self::columns(element, &var.columns)
    }

    /// Columns of a table of genes that was read, and those that cannot be.
    pub(super) fn genes(store: &Store, key: &MatrixKey, element: &str, table: &Table) -> Self {
        let named = |name: &String| (format!("{element}/{name}"), Ok(name.clone()));
        let mut all: Vec<_> = table.columns().iter().map(|(c, _)| named(&c.name)).collect();
        let unreadable = Self::var(store, key, element).0.into_iter();
        all.extend(unreadable.filter(|(_, found)| found.is_err()));
        Self(all)
    }

    fn columns(element: &str, columns: &[ColumnSchema]) -> Self {
        let column = |c: &ColumnSchema| {
            let found = match &c.kind {
                ColumnKind::Unreadable(why) => Err(why.clone()),
                _ => Ok(c.name.clone()),
            };
            (format!("{element}/{}", c.name), found)
        };
        Self(columns.iter().map(column).collect())
    }
}

/// Refuses to leave out what no store has: it is a name that was mistyped.
pub(super) fn check_without(stores: &[&Store], without: &[String]) -> Result<()> {
    let has = |store: &Store, path: &str| {
        let raw = || Elements::var(store, &MatrixKey::Raw, "raw/var");
        Elements::matrices(store).find(path).is_some()
            || Elements::obs(store).find(path).is_some()
            || Elements::var(store, &MatrixKey::X, "var").find(path).is_some()
            || raw().find(path).is_some()
    };
    match without.iter().find(|path| !stores.iter().any(|store| has(store, path))) {
        Some(path) => Err(Error::not_found(format!(
            "there is no {path:?}; what can be left out is called as X, layers/NAME, raw/X, \
             obs/NAME, var/NAME"
        ))),
        None => Ok(()),
    }
}
