//! Whether two stores hold the same, whatever their formats: shape, names, matrices, columns.
//!
//! ```text
//! mod.rs        the comparison
//! check.rs      one store by itself: whether all of it can be read
//! elements.rs   what a store has, of which what can be read is compared
//! report.rs     options and answers
//! values.rs     rows and columns compared, whatever the types of their values
//! ```

mod check;
mod elements;
mod report;
mod values;

use crate::Store;
use crate::transpose::{Transposed, by_columns};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use cellfeed_core::io::as_limit;
use cellfeed_core::{CsrRows, Error, ErrorKind, MatrixKey, Result, RowRanges, Table};
pub use check::{Checked, check};
use elements::{Elements, check_without};
use futures::executor::block_on;
pub use report::{Difference, Unreadable, Verified, VerifyOptions, VerifyProgress, VerifyStage};
use std::fmt;
use values::{columns_differ, rows_differ};

/// Cells that are compared at once.
const WINDOW: u64 = 8192;

/// A matrix of one of the stores.
struct Side<'a> {
    store: &'a Store,
    key: &'a MatrixKey,
    transposed: Option<Transposed>,
}

impl<'a> Side<'a> {
    fn open(store: &'a Store, key: &'a MatrixKey, memory: u64) -> Result<Self> {
        let matrix = store.schema().find(key);
        let made = matrix.is_some_and(|m| by_columns(store, m));
        let transposed = made.then(|| Transposed::open(store, key, memory / 8)).transpose()?;
        Ok(Self { store, key, transposed })
    }

    /// Bytes that reading rows takes.
    fn bytes(&self, rows: &RowRanges) -> Result<u64> {
        match &self.transposed {
            Some(transposed) => Ok(transposed.bytes(rows)),
            None => self.store.backend().cost(self.key, rows).map(|cost| cost.bytes_held),
        }
    }

    async fn read(&self, rows: &RowRanges) -> Result<CsrRows> {
        match &self.transposed {
            Some(transposed) => transposed.read(self.store, rows).await,
            None => self.store.backend().read_rows(self.key, rows).await,
        }
    }
}

/// Cells from `start` on that are compared at once: as many as fit the memory. Of rows that are made of
/// columns the more the better, since each time all columns are read.
fn window(sides: &[&Side<'_>], start: u64, n_obs: u64, memory: u64) -> Result<RowRanges> {
    let made = sides.iter().any(|side| side.transposed.is_some());
    let mut n = if made { n_obs - start } else { WINDOW.min(n_obs - start) };
    loop {
        let rows = RowRanges::single(start..start + n);
        let mut held = 0u64;
        let mut most = (0, sides.first());
        for side in sides {
            let bytes = side.bytes(&rows)?;
            held = held.saturating_add(bytes);
            if bytes >= most.0 {
                most = (bytes, Some(side));
            }
        }
        if held <= memory {
            return Ok(rows);
        }
        if let (1, (bytes, Some(side))) = (n, most) {
            return Err(Error::new(
                ErrorKind::OverBudget,
                format!(
                    "reading one cell takes {}, more than the memory limit of {} allows; raise \
                     the limit (--memory) if that is what you expect of the store",
                    as_limit(bytes),
                    as_limit(memory)
                ),
            )
            .with("file", &side.store.schema().location)
            .with("element", side.key)
            .with("row", start));
        }
        n = n.div_ceil(2);
    }
}

/// Compares two stores. Numbers are compared as numbers, whatever their types; categories by their
/// text; values that are not stored are zeros. Before, the files of a store that keeps checksums of them
/// are held against those. `progress` is called with the rows that were compared
/// and those there are, over all matrices, and ends the work by answering false.
///
/// # Errors
/// If a store cannot be read; `OverBudget` if a cell takes more than the memory; `Cancelled`.
pub fn verify(
    first: &Store,
    second: &Store,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Verified> {
    let progress = &mut |p: VerifyProgress| match p.stage {
        VerifyStage::Rows => progress(p.done, p.total),
        VerifyStage::Checksums => progress(0, 0),
    };
    verify_with(first, second, &VerifyOptions::default(), progress)
}

/// As [`verify`], with options, and with progress of both stages.
///
/// # Errors
/// As `verify`; `NotFound` if neither store has what is to be left out.
pub fn verify_with(
    first: &Store,
    second: &Store,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress) -> bool,
) -> Result<Verified> {
    check_without(&[first, second], &options.without)?;
    let stores = [first, second];
    let mut run = Run { stores, options, found: Verified::default(), names: None };
    run.found.checksum_bytes = [checksums(first, progress)?, checksums(second, progress)?];
    run.found.difference = run.all(progress)?;
    Ok(run.found)
}

/// Holds a store's files against its own checksums, if it has some.
fn checksums(
    store: &Store,
    progress: &mut dyn FnMut(VerifyProgress) -> bool,
) -> Result<Option<u64>> {
    let stage = VerifyStage::Checksums;
    let told = &mut |done, total| progress(VerifyProgress { stage, done, total });
    store.backend().verify_files(told)
}

struct Run<'a> {
    stores: [&'a Store; 2],
    options: &'a VerifyOptions,
    found: Verified,
    /// Names of the cells of the first store, read when a difference is to be told.
    names: Option<ArrayRef>,
}

fn differ(element: &str, first: impl fmt::Display, second: impl fmt::Display) -> Difference {
    Difference {
        element: element.to_owned(),
        row: None,
        name: None,
        gene: None,
        first: first.to_string(),
        second: second.to_string(),
    }
}

impl Run<'_> {
    fn all(
        &mut self,
        progress: &mut dyn FnMut(VerifyProgress) -> bool,
    ) -> Result<Option<Difference>> {
        let [a, b] = self.stores.map(Store::schema);
        if a.n_obs != b.n_obs {
            return Ok(Some(differ("n_obs", a.n_obs, b.n_obs)));
        }
        if a.var.n_vars != b.var.n_vars {
            return Ok(Some(differ("n_vars", a.var.n_vars, b.var.n_vars)));
        }
        let matrices = self.stores.map(Elements::matrices);
        let keys = self.common(matrices);
        if let Some(found) = self.table("var", &MatrixKey::X)? {
            return Ok(Some(found));
        }
        if keys.contains(&MatrixKey::Raw)
            && let Some(found) = self.table("raw/var", &MatrixKey::Raw)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = self.obs()? {
            return Ok(Some(found));
        }
        let total = a.n_obs * u64::try_from(keys.len()).unwrap_or(0);
        let mut done = 0;
        for key in &keys {
            self.found.compared.push(key.to_string());
            if let Some(found) = self.matrix(key, &mut done, total, progress)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What both have and give; the rest is noted.
    fn common<T: Clone>(&mut self, [mut a, mut b]: [Elements<T>; 2]) -> Vec<T> {
        a.leave_out(&self.options.without);
        b.leave_out(&self.options.without);
        for (path, found) in &b.0 {
            match (a.find(path), found) {
                (None, Ok(_)) => self.found.only_second.push(path.clone()),
                (None, Err(why)) => self.unreadable(path, None, Some(why), false),
                _ => {}
            }
        }
        let mut both = Vec::new();
        for (path, first) in a.0 {
            match (first, b.find(&path)) {
                (Ok(key), Some(Ok(_))) => both.push(key),
                (Ok(_), None) => self.found.only_first.push(path),
                (Err(why), None) => self.unreadable(&path, Some(&why), None, false),
                (first, Some(second)) => {
                    let (first, second) = (first.err(), second.as_ref().err());
                    self.unreadable(&path, first.as_ref(), second, true);
                }
            }
        }
        both
    }

    fn unreadable(
        &mut self,
        element: &str,
        first: Option<&String>,
        second: Option<&String>,
        in_both: bool,
    ) {
        let (first, second) = (first.cloned(), second.cloned());
        let element = element.to_owned();
        self.found.unreadable.push(Unreadable { element, first, second, in_both });
    }

    /// The genes' table: names, then columns.
    fn table(&mut self, element: &str, key: &MatrixKey) -> Result<Option<Difference>> {
        let read = |store: &Store| block_on(store.backend().read_var(key));
        let [a, b] = [read(self.stores[0])?, read(self.stores[1])?];
        if a.n_rows() != b.n_rows() {
            return Ok(Some(differ(element, a.n_rows(), b.n_rows())));
        }
        let names = |t: &Table| t.index().map(|(_, names)| names.clone());
        match (names(&a), names(&b)) {
            (Some(x), Some(y)) => {
                self.found.compared.push(format!("{element} names"));
                if let Some(row) = (0..x.len()).find(|&i| x.value(i) != y.value(i)) {
                    let mut found = differ(element, x.value(row), y.value(row));
                    found.row = u64::try_from(row).ok();
                    return Ok(Some(found));
                }
            }
            (Some(_), None) => self.found.only_first.push(format!("{element} names")),
            (None, Some(_)) => self.found.only_second.push(format!("{element} names")),
            (None, None) => {}
        }
        let columns = |i: usize, t: &Table| Elements::genes(self.stores[i], key, element, t);
        let both = self.common([columns(0, &a), columns(1, &b)]);
        for name in both {
            let path = format!("{element}/{name}");
            if let (Some(x), Some(y)) = (a.column(&name), b.column(&name))
                && let Some(mut found) = columns_differ(&path, x, y)?
            {
                found.name = found.row.and_then(|row| {
                    let (_, names) = a.index()?;
                    Some(names.value(usize::try_from(row).ok()?).to_owned())
                });
                return Ok(Some(found));
            }
            self.found.compared.push(path);
        }
        Ok(None)
    }

    fn obs(&mut self) -> Result<Option<Difference>> {
        let [a, b] = self.stores.map(Store::schema);
        let rows = RowRanges::single(0..a.n_obs);
        let read = |store: &Store, name: &str| -> Result<ArrayRef> {
            let arrays = block_on(store.backend().read_obs(&[name.to_owned()], &rows))?;
            arrays.into_iter().next().ok_or_else(|| Error::internal("no column was answered"))
        };
        match (&a.obs_index, &b.obs_index) {
            (Some(x), Some(y)) => {
                let (x, y) = (read(self.stores[0], x)?, read(self.stores[1], y)?);
                self.found.compared.push("obs names".to_owned());
                let found = columns_differ("obs names", &x, &y)?;
                self.names = Some(x);
                if found.is_some() {
                    return Ok(found);
                }
            }
            (Some(_), None) => self.found.only_first.push("obs names".to_owned()),
            (None, Some(_)) => self.found.only_second.push("obs names".to_owned()),
            (None, None) => {}
        }
        let both = self.common(self.stores.map(Elements::obs));
        for name in both {
            let path = format!("obs/{name}");
            let (x, y) = (read(self.stores[0], &name)?, read(self.stores[1], &name)?);
            if let Some(found) = columns_differ(&path, &x, &y)? {
                return Ok(Some(self.named(found)));
            }
            self.found.compared.push(path);
        }
        Ok(None)
    }

    /// Adds the cell's name.
    fn named(&self, mut found: Difference) -> Difference {
        let names = self.names.as_ref().and_then(|n| n.as_string_opt::<i32>());
        found.name = found.row.and_then(|row| {
            let row = usize::try_from(row).ok()?;
            names.filter(|n| row < n.len()).map(|n| n.value(row).to_owned())
        });
        found
    }

    fn matrix(
        &self,
        key: &MatrixKey,
        done: &mut u64,
        total: u64,
        progress: &mut dyn FnMut(VerifyProgress) -> bool,
    ) -> Result<Option<Difference>> {
        let [a, b] = self.stores;
        let (Some(x), Some(y)) = (a.schema().find(key), b.schema().find(key)) else {
            return Err(Error::internal("a matrix that both have is not there"));
        };
        if x.n_vars() != y.n_vars() {
            return Ok(Some(differ(&key.to_string(), x.n_vars(), y.n_vars())));
        }
        let memory = self.options.memory;
        let (first, second) = (Side::open(a, key, memory)?, Side::open(b, key, memory)?);
        let (mut start, n_obs) = (0, a.n_obs());
        while start < n_obs {
            let rows = window(&[&first, &second], start, n_obs, memory)?;
            start = rows.end();
            let (left, right) =
                block_on(async { futures::try_join!(first.read(&rows), second.read(&rows)) })?;
            if let Some((row, gene, first, second)) = rows_differ(&left, &right) {
                let names = &x.var.names;
                let at = usize::try_from(gene).unwrap_or(usize::MAX);
                let mut found = differ(&key.to_string(), first, second);
                found.row = rows.iter_rows().nth(row);
                found.gene = Some(names.get(at).cloned().unwrap_or_else(|| gene.to_string()));
                return Ok(Some(self.named(found)));
            }
            *done += rows.n_rows();
            let stage = VerifyStage::Rows;
            if !progress(VerifyProgress { stage, done: *done, total }) {
                return Err(Error::cancelled());
            }
        }
        Ok(None)
    }
}
