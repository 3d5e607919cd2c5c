//! The `Backend` trait: what a storage format must do, and the laws by which it does it.

use crate::Result;
use crate::csr::{CsrRows, StoredRows};
use crate::element::Extras;
use crate::rows::RowRanges;
use crate::schema::{MatrixKey, Schema};
use crate::table::Table;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

/// What a store likes. Advice only: ignoring it costs speed, never correctness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hints {
    /// How many rows one storage unit (chunk, page) of `X` holds, about; blocks well below it read
    /// more than they need.
    pub chunk_rows: Option<f64>,
    /// How many fetches are worth reading at once: 1 where one keeps disk and cores busy. More than two,
    /// where each read waits long, are also read ahead unless the loader's options say otherwise.
    pub concurrency: usize,
}

/// What a read will cost, from metadata alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCost {
    /// Bytes that will be read from the store.
    pub bytes_read: u64,
    /// Bytes that decoding will produce.
    pub bytes_decoded: u64,
    /// The most memory the read takes at once, its answer included. Memory that the store holds
    /// anyway and the answer only shares, a map for example, does not count.
    pub bytes_held: u64,
    /// Memory that the answer alone takes.
    pub bytes_kept: u64,
    /// Whether the figures are exact; else they are estimates, rather too high than too low.
    pub exact: bool,
}

/// A storage backend. Three methods read, one says what reading costs, the others what there is.
///
/// Sampling, ordering, repeats and shuffling are not a backend's work: it answers for ascending
/// rows, and the loader gathers from the answer.
///
/// # Laws
///
/// Every implementation keeps these; the conformance suite in `cellfeed-testkit` has a case of the
/// same number for each.
///
/// 1. **Agreement.** Row *i* of the answer is the *i*-th row asked for; X, layers and obs agree with
///    what the store's own tools read.
/// 2. **Canonical CSR.** `indptr` starts at 0 and never falls, indices strictly ascend in a row and
///    are below `n_vars`, explicit zeros stay. A store that is not so is mended (rows sorted) or
///    refused (repeated indices).
/// 3. **Purity.** Asking again, or in parts, changes nothing.
/// 4. **Concurrency.** Calls run concurrently and do not disturb each other.
/// 5. **Cancellation.** A dropped future leaves the backend usable.
/// 6. **Bounds.** A row past `n_obs` is an error, never a shorter answer; an empty request is an
///    empty answer.
/// 7. **Distrust.** A corrupt or truncated store is an error that names file, element and offset;
///    never a panic, a hang, or an allocation sized by an unchecked header.
/// 8. **No blocking.** Blocking work never runs on the thread that polls.
#[async_trait]
pub trait Backend: Send + Sync + fmt::Debug {
    /// What the store holds. Fixed at open; does no I/O.
    fn schema(&self) -> &Arc<Schema>;

    /// What the store likes.
    fn hints(&self) -> Hints;

    /// What [`read_rows`](Self::read_rows) of the same rows will cost. Reads nothing, but that looking row
    /// offsets up in a map may wait for their pages.
    ///
    /// # Errors
    /// As `read_rows` for a missing matrix or rows out of bounds.
    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost>;

    /// Rows of a matrix, as CSR segments in the order of the ranges.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Unsupported` if the matrix is missing or cannot be read by rows,
    /// `OutOfBounds` for a row past `n_obs`, `Corrupt` or `Io` if the bytes are.
    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows>;

    /// As [`read_rows`](Self::read_rows), but rows may be as they are stored: gene indices that nobody
    /// has looked at, rows that are still encoded. For the loader, which makes each row canonical when
    /// it copies it. [`StoredRows::canonical`] makes of it what `read_rows` answers. By default the two
    /// are the same.
    ///
    /// # Errors
    /// As `read_rows`, but for what is wrong within rows.
    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        self.read_rows(matrix, rows).await.map(StoredRows::from)
    }

    /// Says that these rows of a matrix will be read soon, so that the disk can begin while others are
    /// decoded. Advice: it holds no memory of this process, and what fails here fails in the read.
    /// Does nothing by default.
    async fn will_read(&self, _matrix: &MatrixKey, _rows: &RowRanges) {}

    /// Obs columns for the rows, one Arrow array a column, in the order of `columns`. Types are
    /// those of [`ColumnKind`](crate::ColumnKind); missing values are nulls.
    ///
    /// # Errors
    /// As `read_rows`, for columns.
    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>>;

    /// The genes of a matrix, with their names and every column that can be read. The genes of `X`
    /// are there also where `X` is not.
    ///
    /// # Errors
    /// `NotFound` for a missing matrix other than `X`; `Corrupt` or `Io` if the bytes are.
    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table>;

    /// Holds the store's files against the checksums that it keeps of them, which reading rows may not do:
    /// how many bytes were checked, or nothing where a store keeps no checksums of files, as by default.
    /// Blocks. `progress` is called with the bytes that were checked and those there are, and ends the work
    /// by answering false.
    ///
    /// # Errors
    /// `Corrupt` naming the first file that is damaged; `Io`; `Cancelled`.
    fn verify_files(&self, _progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Option<u64>> {
        Ok(None)
    }

    /// What conversion asks for beyond that, if the backend offers it.
    fn archive(&self) -> Option<&dyn Archive>;
}

/// What conversion reads of a store besides its rows. Training never does.
#[async_trait]
pub trait Archive: Send + Sync {
    /// Everything of the store but matrices, obs and var. Elements that take more than `limit` bytes
    /// together are left out, the largest first, and listed with the reason.
    ///
    /// # Errors
    /// `Corrupt` or `Io` if the bytes are.
    async fn read_extras(&self, limit: u64) -> Result<Extras>;

    /// What there is of it, by names as `uns` and `raw/varm`, without a look at what is inside: for a
    /// destination that keeps none of it. By default nothing.
    ///
    /// # Errors
    /// `Corrupt` or `Io` if the store's own list of members cannot be read.
    async fn extra_names(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// What reading genes of a matrix by [`read_columns`](Self::read_columns) will cost.
    ///
    /// # Errors
    /// As `read_columns`.
    fn column_cost(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<ReadCost>;

    /// Genes of a matrix that is stored by columns ([`Encoding::Csc`](crate::Encoding::Csc)), as CSR
    /// of the transposed matrix: a "row" of the answer is a gene, its indices are cells.
    ///
    /// # Errors
    /// `Unsupported` if the matrix is not stored by columns; else as [`Backend::read_rows`].
    async fn read_columns(&self, matrix: &MatrixKey, genes: &RowRanges) -> Result<CsrRows>;
}

/// Conveniences for every [`Backend`].
#[async_trait]
pub trait BackendExt: Backend {
    /// Every row of a matrix: for small stores and tests.
    ///
    /// # Errors
    /// As [`Backend::read_rows`].
    async fn read_all_rows(&self, matrix: &MatrixKey) -> Result<CsrRows> {
        let rows = RowRanges::single(0..self.schema().n_obs);
        self.read_rows(matrix, &rows).await
    }

    /// A whole obs column.
    ///
    /// # Errors
    /// As [`Backend::read_obs`].
    async fn read_obs_column(&self, column: &str) -> Result<ArrayRef> {
        let rows = RowRanges::single(0..self.schema().n_obs);
        let mut arrays = self.read_obs(&[column.to_owned()], &rows).await?;
        arrays.pop().ok_or_else(|| crate::Error::internal("read_obs answered no column"))
    }
}

impl<B: Backend + ?Sized> BackendExt for B {}
