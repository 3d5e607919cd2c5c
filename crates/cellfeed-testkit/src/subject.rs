//! What a law is checked on: an open store, the oracle of its contents and, where there are files
//! behind it, their bytes and a way to open damaged copies of them.

use crate::fixtures;
use crate::oracle::Oracle;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Hints, MatrixKey, ReadCost, Result, RowRanges, Schema, Table,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The files of a store by their path below it; of a store that is one file, that file's name.
pub type StoreFiles = Vec<(String, Vec<u8>)>;

type Opener = dyn Fn(&StoreFiles) -> Result<Arc<dyn Backend>> + Send + Sync;

/// How far the laws go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long one law, or one damaged store, may take before it counts as hanging.
    pub timeout: Duration,
    /// How many damaged copies law 7 tries besides truncations.
    pub damages: usize,
    /// How much memory opening and reading a damaged copy may take beyond what was taken before,
    /// if [`PeakAlloc`](crate::PeakAlloc) is installed.
    pub memory: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl Default for Limits {
    /// A minute, 300 damaged copies, 256 MiB.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), damages: 300, memory: 256 << 20, seed: 20_250_601 }
    }
}

/// The files behind a store, for law 7.
#[derive(Clone)]
pub(crate) struct Damageable {
    pub(crate) files: Arc<StoreFiles>,
    pub(crate) open: Arc<Opener>,
}

/// A store under test.
#[derive(Clone)]
pub struct Subject {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) oracle: Arc<Oracle>,
    pub(crate) damageable: Option<Damageable>,
    pub(crate) limits: Limits,
    pub(crate) shares_memory: bool,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Subject {
    /// A store without files behind it: law 7 does not apply to it.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, oracle: Oracle) -> Self {
        Self {
            backend,
            oracle: Arc::new(oracle),
            damageable: None,
            limits: Limits::default(),
            shares_memory: false,
        }
    }

    /// A store in a file or folder, which `open` opens. For law 7, `open` gets copies.
    ///
    /// # Errors
    /// Of `open`, or of kind `Io` if the files cannot be read.
    pub fn on_disk(
        path: &Path,
        oracle: Oracle,
        open: impl Fn(&Path) -> Result<Arc<dyn Backend>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let backend = open(path)?;
        let mut files = Vec::new();
        let single = !path.is_dir();
        let name = path.file_name().map_or_else(|| "store".into(), |n| n.to_string_lossy());
        let root = if single { path.parent().unwrap_or(Path::new("")) } else { path };
        collect(root, path, &mut files).map_err(|e| Error::io("cannot read the store", e))?;
        let inside = if single { PathBuf::new() } else { PathBuf::from(name.as_ref()) };
        let target = PathBuf::from(name.as_ref());
        let reopen = move |files: &StoreFiles| -> Result<Arc<dyn Backend>> {
            let folder = copy_of(&inside, files).map_err(|e| Error::io("cannot copy", e))?;
            let inner = open(&folder.path().join(&target))?;
            Ok(Arc::new(Copied { inner, _folder: folder }))
        };
        Ok(Self::new(backend, oracle).with_files(files, reopen))
    }

    /// A store that `write` writes, under this name in a folder that lives as long as the subject,
    /// and `open` opens.
    ///
    /// # Errors
    /// Of `write` and `open`, or of kind `Io`.
    pub fn written(
        file_name: &str,
        oracle: Oracle,
        write: impl FnOnce(&Path, &Oracle) -> Result<()>,
        open: impl Fn(&Path) -> Result<Arc<dyn Backend>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let folder = TempDir::new().map_err(|e| Error::io("cannot make a folder", e))?;
        let path = folder.path().join(file_name);
        write(&path, &oracle)?;
        let subject = Self::on_disk(&path, oracle, open)?;
        let backend = Arc::new(Copied { inner: Arc::clone(&subject.backend), _folder: folder });
        Ok(Self { backend, ..subject })
    }

    /// Gives the bytes of the store's files and a way to open damaged copies, for law 7.
    #[must_use]
    pub fn with_files(
        mut self,
        files: StoreFiles,
        open: impl Fn(&StoreFiles) -> Result<Arc<dyn Backend>> + Send + Sync + 'static,
    ) -> Self {
        self.damageable = Some(Damageable { files: Arc::new(files), open: Arc::new(open) });
        self
    }

    /// Sets how far the laws go.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Says that answers are views of memory that the store holds anyway (a map), so that
    /// `bytes_kept` may be less than an answer refers to.
    #[must_use]
    pub fn with_shared_memory(mut self) -> Self {
        self.shares_memory = true;
        self
    }

    /// The oracle's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.oracle.name
    }

    /// The store.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// What it holds.
    #[must_use]
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// The row sets that laws ask for, drawn from the seed.
    pub(crate) fn requests(&self) -> Vec<RowRanges> {
        fixtures::requests(self.oracle.n_obs, self.limits.seed)
    }
}

fn collect(root: &Path, path: &Path, files: &mut StoreFiles) -> std::io::Result<()> {
    if path.is_dir() {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            entries.push(entry?.path());
        }
        entries.sort();
        return entries.iter().try_for_each(|entry| collect(root, entry, files));
    }
    let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    files.push((name, std::fs::read(path)?));
    Ok(())
}

fn copy_of(inside: &Path, files: &StoreFiles) -> std::io::Result<TempDir> {
    let folder = TempDir::new()?;
    for (name, bytes) in files {
        let path = folder.path().join(inside).join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, bytes)?;
    }
    Ok(folder)
}

/// A store in a folder of its own, which is removed with it.
#[derive(Debug)]
struct Copied {
    inner: Arc<dyn Backend>,
    _folder: TempDir,
}

#[async_trait]
impl Backend for Copied {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.inner.cost(matrix, rows)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.inner.read_rows(matrix, rows).await
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }

    fn archive(&self) -> Option<&dyn Archive> {
        self.inner.archive()
    }
}
