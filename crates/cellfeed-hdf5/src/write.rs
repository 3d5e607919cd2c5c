//! Writing AnnData `.h5ad` files, a block of rows at a time: [`create`] for whole stores, and
//! [`H5adWriter`] for one CSR matrix with tables that are computed as they are written.
//!
//! The files are laid out here, byte by byte, rather than by a library: that allows chunks to be
//! compressed on all cores and to be streamed through a few megabytes of memory. They follow the
//! HDF5 File Format Specification 3.0 (superblock version 2, object headers version 2, chunks
//! indexed by a version 1 B-tree), which HDF5 1.8 and everything later reads. Objects are written
//! from the leaves up, the superblock last: a file is complete or has no name.

mod btree;
mod checksum;
mod chunked;
mod columns;
mod elements;
mod extras;
mod filter;
mod frame;
mod heap;
mod lzf;
mod matrix;
mod message;
mod options;
mod sink;
mod store;
mod value;

pub use frame::{ColumnValues, Frame, Items, Strings};
pub use options::{Compression, IndexType, WriteOptions};
pub use store::create;

use cellfeed_core::{Error, Result, Value, ValueType};
use chunked::{Packing, guess_chunk};
use elements::Elements;
use matrix::CsrStream;
use sink::Sink;
use std::path::Path;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Cells.
    pub n_obs: u64,
    /// Genes.
    pub n_vars: u64,
    /// Stored values.
    pub nnz: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes one `.h5ad` file: create it, append rows, finish it with the tables.
///
/// Until [`finish`](Self::finish) the file has a temporary name next to its own; a writer that is
/// dropped earlier removes it. Memory holds some ten megabytes of rows that wait for their chunks
/// to fill, four bytes for every row and 16 bytes for every chunk written.
///
/// ```
/// use cellfeed_hdf5::{ColumnValues, Frame, H5adWriter, Items, Strings, WriteOptions};
///
/// # fn main() -> cellfeed_core::Result<()> {
/// # let folder = tempfile::tempdir().map_err(|e| cellfeed_core::Error::io("cannot make", e))?;
/// # let path = folder.path().join("two_cells.h5ad");
/// let mut writer = H5adWriter::create(&path, 3, &WriteOptions::default())?;
/// writer.append(&[0, 2, 3], &[0, 2, 1], &[1.0f32, 4.0, 2.0])?;
/// let (cells, genes) = (["a", "b"].map(String::from), ["x", "y", "z"].map(String::from));
/// let obs = Frame::new(Strings::new(&cells))
///     .with_column("depth", ColumnValues::I32(Items::new(&[5, 2])));
/// let written = writer.finish(&obs, &Frame::new(Strings::new(&genes)))?;
/// assert_eq!((written.n_obs, written.n_vars, written.nnz), (2, 3, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct H5adWriter {
    sink: Sink,
    n_vars: u32,
    x: CsrStream,
    packing: Packing,
}

impl H5adWriter {
    /// Begins a file of `n_vars` genes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) if the options make no
    /// sense or the file exists and is not to be overwritten;
    /// [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if it cannot be created.
    pub fn create(path: impl AsRef<Path>, n_vars: u32, options: &WriteOptions) -> Result<Self> {
        options.check()?;
        let index_type = match options.index_type {
            IndexType::I32 if i32::try_from(n_vars).is_err() => {
                return Err(Error::invalid_input("that many genes need 64-bit indices"));
            }
            IndexType::I32 => ValueType::I32,
            IndexType::I64 => ValueType::I64,
        };
        let chunk = |value_type: ValueType| {
            let guess = || guess_chunk(options.expected_nnz, value_type.size());
            options.chunk_elements.unwrap_or_else(guess)
        };
        let packing = Packing::new(options.compression, options.shuffle, 2);
        let x = CsrStream::new(n_vars, options.value_type, index_type, chunk, packing)?;
        let mut sink = Sink::create(path.as_ref(), options.overwrite)?;
        // The superblock's place.
        sink.append(&[0; message::SUPERBLOCK_LEN])?;
        Ok(Self { sink, n_vars, x, packing })
    }

    /// Appends rows: row `i` has the genes `indices[indptr[i]..indptr[i + 1]]` and those values.
    /// `indptr` starts at 0. Values are converted to the file's type.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) if the rows are not
    /// canonical CSR (indices strictly ascend in a row and are below `n_vars`) or the file's type
    /// cannot hold a value exactly, rounding of fractions aside; then nothing was appended.
    /// [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if the disk fails; the writer is then of no
    /// further use.
    pub fn append<T: Value>(&mut self, indptr: &[u64], indices: &[u32], data: &[T]) -> Result<()> {
        self.x.append(indptr, indices, data, &mut self.sink)
    }

    /// Cells so far.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.x.n_rows()
    }

    /// Stored values so far.
    #[must_use]
    pub fn nnz(&self) -> u64 {
        self.x.nnz()
    }

    /// Writes the tables, brings everything to the disk and gives the file its name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) if a table does not
    /// have a row for every cell or gene; [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if the
    /// disk fails. No file is left then.
    pub fn finish(self, obs: &Frame<'_>, var: &Frame<'_>) -> Result<Written> {
        let Self { mut sink, n_vars, x, packing } = self;
        let (n_obs, nnz) = (x.n_rows(), x.nnz());
        let rows = usize::try_from(n_obs).map_err(|_| Error::unsupported("too many cells"))?;
        let genes = usize::try_from(n_vars).map_err(|_| Error::unsupported("too many genes"))?;
        obs.check("obs", rows)?;
        var.check("var", genes)?;
        let mut elements = Elements::new(&mut sink, packing);
        let mut links = vec![("X", x.finish(&mut elements)?)];
        links.push(("obs", elements.frame(obs, rows).map_err(|e| e.with("table", "obs"))?));
        links.push(("var", elements.frame(var, genes).map_err(|e| e.with("table", "var"))?));
        let bytes = finish_file(elements, links)?;
        sink.publish()?;
        Ok(Written { n_obs, n_vars: u64::from(n_vars), nnz, bytes })
    }
}

/// Writes the root group, with an empty group for each that AnnData expects and that is not among the
/// links, and the superblock; returns the file's length.
fn finish_file(mut elements: Elements<'_>, mut links: Vec<(&str, u64)>) -> Result<u64> {
    for name in ["layers", "obsm", "obsp", "uns", "varm", "varp"] {
        if !links.iter().any(|(n, _)| *n == name) {
            links.push((name, elements.group(("dict", "0.1.0"), &[], &[])?));
        }
    }
    links.sort_unstable();
    let root = elements.group(("anndata", "0.1.0"), &[], &links)?;
    let bytes = elements.sink.end();
    elements.sink.write_at(0, &message::superblock(bytes, root))?;
    Ok(bytes)
}
