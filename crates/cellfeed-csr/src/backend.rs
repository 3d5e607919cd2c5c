//! The `Backend` of raw CSR stores: looks matrices and columns up, and leaves the reading to `read`.

use crate::columns::{Column, read_table};
use crate::header::{Header, NAME};
use crate::layout::{self, Opened, Tables};
use crate::options::CsrOptions;
use crate::read::Matrix;
use crate::roofline;
use crate::scdl;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::{Access, Engine, FileSet, Folder, Roofline};
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Extras, Hints, MatrixKey, ReadCost, Result, RowRanges,
    Schema, StoredRows, Table, take_rows,
};
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Fetches that are worth reading at once where each read waits long.
const FAR_AT_ONCE: usize = 4;

/// A raw CSR store, or a BioNeMo SCDL folder.
#[derive(Debug)]
pub struct CsrBackend {
    folder: Arc<dyn Folder>,
    engine: Arc<Engine>,
    access: Access,
    schema: Arc<Schema>,
    matrices: Vec<(MatrixKey, Matrix)>,
    columns: Arc<Vec<Column>>,
    tables: Tables,
}

/// Whether a folder is a store of this crate's, by its files.
#[must_use]
pub fn looks_like(path: &Path) -> bool {
    path.is_dir() && (path.join(NAME).is_file() || scdl::looks_like(path))
}

impl CsrBackend {
    /// Opens a store: reads the header and the genes' names, and the row offsets where they cannot be
    /// looked up in a map, or may not ([`Access::Read`]). Blocks meanwhile.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io` if the store cannot be opened, `Unsupported` if it is of a newer
    /// version, `Corrupt` if its files are not what its header says.
    pub fn open(path: &Path, engine: Arc<Engine>, options: &CsrOptions) -> Result<Self> {
        let folder: Arc<dyn Folder> = Arc::new(FileSet::new(path, Arc::clone(&engine)));
        if !path.join(NAME).exists() && scdl::looks_like(path) {
            let opened = scdl::open(path, &folder, &engine, options.access)?;
            return Ok(Self::new(folder, engine, options, opened));
        }
        Self::open_in(folder, engine, options)
    }

    /// As [`open`](Self::open), a store whose root is the folder's, wherever that is. BioNeMo SCDL
    /// folders are opened on this machine alone.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(
        folder: Arc<dyn Folder>,
        engine: Arc<Engine>,
        options: &CsrOptions,
    ) -> Result<Self> {
        let opened = layout::open(&folder, &engine, options.access)?;
        Ok(Self::new(folder, engine, options, opened))
    }

    fn new(
        folder: Arc<dyn Folder>,
        engine: Arc<Engine>,
        options: &CsrOptions,
        opened: Opened,
    ) -> Self {
        let Opened { schema, matrices, columns, tables } = opened;
        Self {
            folder,
            engine,
            access: options.access,
            schema: Arc::new(schema),
            matrices,
            columns: Arc::new(columns),
            tables,
        }
    }

    /// Reads every file of the store and holds it against its checksum, and every row offset against
    /// its neighbours. Blocks.
    ///
    /// # Errors
    /// Of kind `Corrupt` naming the first file that is damaged; `Unsupported` for a BioNeMo SCDL
    /// folder, which has no checksums.
    pub fn verify_checksums(&self) -> Result<()> {
        if matches!(self.tables, Tables::Names) {
            return Err(Error::unsupported("a BioNeMo SCDL folder has no checksums")
                .with("file", self.folder.location()));
        }
        self.check_sums(&mut |_, _| true)?;
        self.check_offsets()
    }

    /// Holds every file against its checksum, and answers how many bytes they have.
    fn check_sums(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<u64> {
        let window = if self.folder.is_far() { 16 << 20 } else { 1 << 20 };
        let mut buffer = vec![0u8; window];
        let header = Header::read(&*self.folder)?;
        let total = header.files().fold(0u64, |n, entry| n.saturating_add(entry.bytes));
        let mut done = 0;
        for entry in header.files() {
            crate::columns::check_file(&*self.folder, entry)?;
            let file = self.folder.open(&entry.path)?;
            let (mut hash, mut at) = (Xxh3::new(), 0);
            while at < entry.bytes {
                let n = usize::try_from(entry.bytes - at).unwrap_or(window).min(window);
                file.read_exact_at(at, &mut buffer[..n])?;
                hash.update(&buffer[..n]);
                at += u64::try_from(n).unwrap_or(u64::MAX);
                if !progress(done + at, total) {
                    return Err(Error::cancelled());
                }
            }
            done += entry.bytes;
            let found = format!("{:016x}", hash.digest());
            if found != entry.xxh3 {
                return Err(Error::corrupt(format!(
                    "the file's checksum is {found}, but the header says {}: its bytes are damaged",
                    entry.xxh3
                ))
                .with("file", file.location()));
            }
        }
        Ok(total)
    }

    /// Holds every row offset against its neighbours.
    fn check_offsets(&self) -> Result<()> {
        for (key, matrix) in &self.matrices {
            let checked = match matrix {
                Matrix::Plain(m) => m.offsets.check_all(),
                Matrix::Packed(m) => m.check_offsets(),
            };
            checked.map_err(|e| self.blame(e.with_default("element", key)))?;
        }
        Ok(())
    }

    /// The bare limits of the machine for the bytes that `read_rows` of these fetches needs: for
    /// benchmarks. Blocks, and works on `threads` threads of its own; of a store that is not in the
    /// page cache (`cold`) it reads through the byte source.
    ///
    /// # Errors
    /// As [`read_rows`](Backend::read_rows).
    #[doc(hidden)]
    pub fn roofline(
        &self,
        matrix: &MatrixKey,
        fetches: &[RowRanges],
        threads: usize,
        cold: bool,
    ) -> Result<Roofline> {
        for rows in fetches {
            rows.check_within(self.schema.n_obs)?;
        }
        if self.folder.local().is_none() {
            return Err(Error::unsupported("limits are known for files of this machine alone"));
        }
        match self.matrix(matrix)? {
            Matrix::Plain(m) => roofline::plain(m, fetches, threads, cold),
            Matrix::Packed(m) => roofline::packed(m, &self.engine, fetches, threads, cold),
        }
    }

    async fn stored(
        &self,
        matrix: &MatrixKey,
        rows: &RowRanges,
        access: Access,
    ) -> Result<StoredRows> {
        rows.check_within(self.schema.n_obs)?;
        let read = match self.matrix(matrix)? {
            Matrix::Plain(m) => m.read(&self.engine, access, rows).await,
            Matrix::Packed(m) => m.read(&self.engine, access, rows).await,
        };
        read.map_err(|e| self.blame(e.with_default("element", matrix)))
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&Matrix> {
        self.schema.pick(key, &self.matrices)
    }

    fn blame(&self, error: Error) -> Error {
        error.with_default("file", self.folder.location())
    }
}

#[async_trait]
impl Backend for CsrBackend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        // A row is read by itself, down to the page.
        let concurrency = if self.folder.is_far() { FAR_AT_ONCE } else { 1 };
        Hints { chunk_rows: Some(1.0), concurrency }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        let cost = match self.matrix(matrix)? {
            Matrix::Plain(m) => m.cost(rows),
            Matrix::Packed(m) => m.cost(rows),
        };
        cost.map_err(|e| self.blame(e.with_default("element", matrix)))
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        let found = self.stored(matrix, rows, self.access.of_kept()).await?;
        found.canonical_on(&self.engine, rows).await
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        self.stored(matrix, rows, self.access).await
    }

    async fn will_read(&self, matrix: &MatrixKey, rows: &RowRanges) {
        // What is wrong with the rows the read will tell.
        if rows.check_within(self.schema.n_obs).is_err() || self.access == Access::Map {
            return;
        }
        match self.matrix(matrix) {
            Ok(Matrix::Plain(m)) => m.will_read(&self.engine, rows).await,
            Ok(Matrix::Packed(m)) => m.will_read(&self.engine, rows).await,
            Err(_) => {}
        }
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        rows.check_within(self.schema.n_obs)?;
        let mut wanted = Vec::with_capacity(columns.len());
        for name in columns {
            self.schema.check_obs(name)?;
            let at = self.columns.iter().position(|c| c.schema.name == *name);
            wanted.push(at.ok_or_else(|| {
                Error::internal(format!("column {name} is in the schema, but was not opened"))
            })?);
        }
        let (all, rows) = (Arc::clone(&self.columns), rows.clone());
        let read = move || {
            let take = |&i: &usize| take_rows(&all[i].whole()?, &rows);
            wanted.iter().map(take).collect()
        };
        self.engine.blocking(read).await.map_err(|e| self.blame(e))
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let var = match matrix {
            MatrixKey::X => &self.schema.var,
            _ => &self.schema.matrix(matrix)?.var,
        };
        match &self.tables {
            Tables::Names => Table::of_names(var.n_vars, &var.names),
            Tables::Files { folder, var, raw_var } => {
                let entry = match (matrix, raw_var) {
                    (MatrixKey::Raw, Some(raw)) => raw,
                    _ => var,
                };
                let (folder, entry) = (folder.clone(), entry.clone());
                self.engine.blocking(move || read_table(&folder, &entry)).await
            }
        }
    }

    fn verify_files(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Option<u64>> {
        if matches!(self.tables, Tables::Names) {
            return Ok(None);
        }
        // Offsets first: what is wrong with them has a row.
        self.check_offsets()?;
        self.check_sums(progress).map(Some)
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

#[async_trait]
impl Archive for CsrBackend {
    async fn read_extras(&self, _limit: u64) -> Result<Extras> {
        // The format keeps none.
        Ok(Extras::default())
    }

    fn column_cost(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<ReadCost> {
        self.matrix(matrix)?;
        Err(self.blame(by_rows(matrix)))
    }

    async fn read_columns(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<CsrRows> {
        self.matrix(matrix)?;
        Err(self.blame(by_rows(matrix)))
    }
}

fn by_rows(matrix: &MatrixKey) -> Error {
    Error::unsupported(format!("{matrix} is stored by rows; read rows of it"))
}
