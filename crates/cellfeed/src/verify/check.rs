//! One store by itself: whether its checksums are right, and every row and column of it can be read.

use super::elements::{Elements, check_without};
use super::{Side, VerifyOptions, VerifyProgress, VerifyStage, checksums, window};
use crate::Store;
use cellfeed_core::{BackendExt, Error, MatrixKey, Result};
use futures::executor::block_on;

/// What was read of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Matrices, tables and columns of which all was read.
    pub read: Vec<String>,
    /// What the store has and does not give: a path and the reason.
    pub unreadable: Vec<(String, String)>,
    /// Bytes that were held against the store's own checksums; nothing where it has none.
    pub checksum_bytes: Option<u64>,
}

impl Checked {
    /// Whether all of it was read.
    #[must_use]
    pub fn sound(&self) -> bool {
        self.unreadable.is_empty()
    }
}

/// Reads all of a store's cells and genes, and holds its files against its own checksums if it has some.
/// Every row must be canonical CSR, or one that can be mended. Damage that no checksum covers, and that
/// gives other values in their place, is not seen: [`verify`](crate::verify) sees it beside another store
/// of the same cells. What lies in uns, obsm and the like is not read.
///
/// # Errors
/// For the first thing that is damaged; else as [`verify_with`](crate::verify_with).
pub fn check(
    store: &Store,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress) -> bool,
) -> Result<Checked> {
    check_without(&[store], &options.without)?;
    let checksum_bytes = checksums(store, progress)?;
    let mut found = Checked { checksum_bytes, ..Checked::default() };
    let mut matrices = Elements::matrices(store);
    matrices.leave_out(&options.without);
    let keys = found.readable(matrices);
    found.genes(store, options, &MatrixKey::X, "var")?;
    if keys.contains(&MatrixKey::Raw) {
        found.genes(store, options, &MatrixKey::Raw, "raw/var")?;
    }
    let backend = store.backend();
    if let Some(index) = &store.schema().obs_index {
        block_on(backend.read_obs_column(index))?;
        found.read.push("obs names".to_owned());
    }
    let mut columns = Elements::obs(store);
    columns.leave_out(&options.without);
    for name in found.readable(columns) {
        block_on(backend.read_obs_column(&name))?;
        found.read.push(format!("obs/{name}"));
    }
    let n_obs = store.n_obs();
    let total = n_obs.saturating_mul(u64::try_from(keys.len()).unwrap_or(0));
    let mut done = 0;
    for key in &keys {
        let side = Side::open(store, key, options.memory)?;
        let mut start = 0;
        while start < n_obs {
            let rows = window(&[&side], start, n_obs, options.memory)?;
            block_on(side.read(&rows))?;
            start = rows.end();
            done += rows.n_rows();
            if !progress(VerifyProgress { stage: VerifyStage::Rows, done, total }) {
                return Err(Error::cancelled());
            }
        }
        found.read.push(key.to_string());
    }
    Ok(found)
}

impl Checked {
    /// What can be read of elements; the rest is noted.
    fn readable<T>(&mut self, elements: Elements<T>) -> Vec<T> {
        let mut readable = Vec::new();
        for (path, found) in elements.0 {
            match found {
                Ok(found) => readable.push(found),
                Err(why) => self.unreadable.push((path, why)),
            }
        }
        readable
    }

    fn genes(
        &mut self,
        store: &Store,
        options: &VerifyOptions,
        key: &MatrixKey,
        element: &str,
    ) -> Result<()> {
        let table = block_on(store.backend().read_var(key))?;
        self.read.push(element.to_owned());
        let mut columns = Elements::genes(store, key, element, &table);
        columns.leave_out(&options.without);
        self.readable(columns);
        Ok(())
    }
}
