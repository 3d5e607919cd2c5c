//! What every [`StoreWriter`] must do, checked on any format: what was written is read back as it was
//! given, what is wrong is refused, and nothing is left of what was not finished.
//!
//! ```
//! use cellfeed_testkit::writing::Writing;
//! # use cellfeed_core::{Backend, NewStore, Result, StoreWriter, WriteOptions};
//! # use std::{path::Path, sync::Arc};
//! # fn create(_: &Path, _: NewStore, _: &WriteOptions) -> Result<Box<dyn StoreWriter>> {
//! #     unimplemented!()
//! # }
//! # fn open(_: &Path) -> Result<Arc<dyn Backend>> { unimplemented!() }
//!
//! fn writes_what_it_is_given() {
//!     let packed = |path: &Path, new, options: &WriteOptions| {
//!         create(path, new, &options.clone().with_codec("packed"))
//!     };
//!     Writing::new("store.ext", packed, open).may_drop("uns").check().unwrap();
//! }
//! ```

mod compare;
mod refusals;
mod store;

pub use store::{batches, extras, new_store};

use crate::check_oracle;
use crate::fixtures;
use crate::oracle::Oracle;
use crate::violation::Violation;
use cellfeed_core::{
    Backend, Error, Extras, MatrixKey, NewStore, Result as CoreResult, StoreWriter, WriteOptions,
    Written,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// What a writer did that it should not have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    store: String,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.store, self.what)
    }
}

impl std::error::Error for Failure {}

type Check<T = ()> = Result<T, String>;

/// A writer under test, and the reader that opens what it wrote.
#[derive(Debug)]
pub struct Writing<C, O> {
    file_name: String,
    create: C,
    open: O,
    droppable: Vec<String>,
}

/// Checks a writer that keeps everything: [`Writing::check`].
///
/// # Errors
/// The first thing that is wrong.
pub fn check(
    create: impl Fn(&Path, NewStore, &WriteOptions) -> CoreResult<Box<dyn StoreWriter>>,
    open: impl Fn(&Path) -> CoreResult<Arc<dyn Backend>>,
) -> Result<(), Failure> {
    Writing::new("new.store", create, open).check()
}

impl<C, O> Writing<C, O>
where
    C: Fn(&Path, NewStore, &WriteOptions) -> CoreResult<Box<dyn StoreWriter>>,
    O: Fn(&Path) -> CoreResult<Arc<dyn Backend>>,
{
    /// A writer of stores of this name.
    #[must_use]
    pub fn new(file_name: &str, create: C, open: O) -> Self {
        Self { file_name: file_name.to_owned(), create, open, droppable: Vec::new() }
    }

    /// Says what the format has no place for: `raw`, `layers`, `uns`, `obs/word`. It must say so
    /// itself in [`Written::dropped`]; what it drops beyond that is a failure.
    #[must_use]
    pub fn may_drop(mut self, path: &str) -> Self {
        self.droppable.push(path.to_owned());
        self
    }

    /// Writes every store of [`fixtures::oracles`] and some more, in batches of odd sizes; then all
    /// that must be refused.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Failure> {
        for (oracle, extras) in stores() {
            let result = self.keeps(&oracle, &extras);
            result.map_err(|what| Failure { store: oracle.name.clone(), what })?;
        }
        let oracle = fixtures::oracle("refusals", 37, 23, 4);
        self.refuses(&oracle).map_err(|what| Failure { store: oracle.name.clone(), what })
    }

    /// What goes in comes out.
    fn keeps(&self, oracle: &Oracle, extras: &Extras) -> Check {
        let place = Place::new(&self.file_name)?;
        let new = new_store(oracle, extras.clone()).map_err(|e| e.to_string())?;
        let written = self.write(&place, oracle, new, &WriteOptions::default())?;
        place.holds_just_the_store()?;
        if written.bytes != place.bytes() {
            return Err(format!(
                "{} bytes were reported, {} are there",
                written.bytes,
                place.bytes()
            ));
        }
        self.agrees(&place, oracle, extras, &written)
    }

    fn agrees(&self, place: &Place, oracle: &Oracle, extras: &Extras, written: &Written) -> Check {
        for (path, why) in &written.dropped {
            if !self.droppable.iter().any(|d| path == d || path.starts_with(&format!("{d}/"))) {
                return Err(format!("{path} was dropped, which may not be: {why}"));
            }
        }
        let nnz: usize = oracle.matrices.iter().map(|m| m.indices.len()).sum();
        if written.n_obs != oracle.n_obs {
            return Err(format!("{} cells were reported, not {}", written.n_obs, oracle.n_obs));
        }
        let has = |path: String| !written.dropped.iter().any(|(d, _)| path_is_below(&path, d));
        let mut kept = oracle.clone();
        kept.matrices.retain(|m| has(m.key.to_string()));
        kept.obs.retain(|c| has(format!("obs/{}", c.name)));
        kept.var.retain(|c| has(format!("var/{}", c.name)));
        if let Some(raw) = &mut kept.raw_var {
            raw.retain(|c| has(format!("raw/var/{}", c.name)));
        }
        if kept.matrices.len() == oracle.matrices.len()
            && u64::try_from(nnz).ok() != Some(written.nnz)
        {
            return Err(format!("{} values were reported, not {nnz}", written.nnz));
        }
        let store = (self.open)(&place.path).map_err(|e| format!("it does not open: {e}"))?;
        compare::narrow(&mut kept, store.schema())?;
        check_oracle(store.as_ref(), &kept).map_err(|v: Violation| v.to_string())?;
        compare::extras(store.as_ref(), extras, &has)
    }

    fn write(
        &self,
        place: &Place,
        oracle: &Oracle,
        new: NewStore,
        options: &WriteOptions,
    ) -> Check<Written> {
        let batches = batches(oracle, &new).map_err(|e| e.to_string())?;
        let mut writer = (self.create)(&place.path, new, options)
            .map_err(|e| format!("it cannot be created: {e}"))?;
        for (i, batch) in batches.iter().enumerate() {
            writer.append(batch).map_err(|e| format!("batch {i} is refused: {e}"))?;
        }
        writer.finish().map_err(|e| format!("it cannot be finished: {e}"))
    }
}

fn path_is_below(path: &str, dropped: &str) -> bool {
    path == dropped || path.strip_prefix(dropped).is_some_and(|rest| rest.starts_with('/'))
}

/// Stores worth writing: those of the fixtures; without `X`; without names; with extras.
fn stores() -> Vec<(Oracle, Extras)> {
    let mut all: Vec<(Oracle, Extras)> = fixtures::oracles()
        .into_iter()
        .map(|oracle| {
            let all = extras(&oracle);
            (oracle, all)
        })
        .collect();
    let mut nameless = fixtures::oracle("no names", 13, 7, 11).without_obs_names();
    nameless.matrices.truncate(1);
    nameless.raw_var_names.clear();
    nameless.raw_var = None;
    let mut bare = fixtures::oracle("no X", 29, 7, 12);
    bare.matrices.retain(|m| m.key != MatrixKey::X);
    let mut empty = fixtures::oracle("nothing stored", 300, 9, 13);
    for matrix in &mut empty.matrices {
        matrix.indptr.fill(0);
        matrix.indices.clear();
        matrix.values = matrix.values.slice(0, 0);
    }
    let mut plain = fixtures::oracle("no columns", 700, 40, 14);
    (plain.obs, plain.var, plain.raw_var) = (Vec::new(), Vec::new(), Some(Vec::new()));
    all.extend([nameless, bare, empty, plain].map(|oracle| (oracle, Extras::default())));
    all
}

/// A folder of its own, and the path of the store in it.
struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new(file_name: &str) -> Check<Self> {
        let folder =
            TempDir::new().map_err(|e| Error::io("cannot make a folder", e).to_string())?;
        let path = folder.path().join(file_name);
        Ok(Self { folder, path })
    }

    /// Everything in the folder, hidden or not.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn is_empty(&self, when: &str) -> Check {
        match self.names() {
            names if names.is_empty() => Ok(()),
            names => Err(format!("{when}, {} is left", names.join(", "))),
        }
    }

    fn holds_just_the_store(&self) -> Check {
        let name = self.path.file_name().map(|n| n.to_string_lossy().into_owned());
        match self.names() {
            names if names.len() == 1 && names.first() == name.as_ref() => Ok(()),
            names => Err(format!("the folder should hold the store alone, but has {names:?}")),
        }
    }

    fn bytes(&self) -> u64 {
        fn below(path: &Path) -> u64 {
            match path.symlink_metadata() {
                Ok(found) if found.is_dir() => {
                    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                    entries.map(|e| below(&e.path())).sum()
                }
                Ok(found) => found.len(),
                Err(_) => 0,
            }
        }
        below(&self.path)
    }
}
