//! Writing AnnData `.h5ad` files with a CSR `X`, a block of rows at a time, in little memory.
//!
//! The files are laid out here, byte by byte, rather than by a library: that allows chunks to be
//! compressed on all cores and to be streamed through a few megabytes of memory. They follow the
//! HDF5 File Format Specification 3.0 (superblock version 2, object headers version 2, chunks
//! indexed by a version 1 B-tree), which HDF5 1.8 and everything later reads. Objects are written
//! from the leaves up, the superblock last: a file is complete or has no name.

mod btree;
mod checksum;
mod chunked;
mod elements;
mod filter;
mod frame;
mod heap;
mod lzf;
mod message;
mod options;
mod sink;
mod value;

pub use frame::{ColumnValues, Frame, Items, Strings};
pub use options::{Compression, IndexType, WriteOptions};

use cellfeed_core::{Error, Result, Value, ValueType};
use chunked::{Stream, guess_chunk};
use elements::{Attribute, Elements};
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
    n_obs: u64,
    n_vars: u32,
    nnz: u64,
    data: Stream,
    indices: Stream,
    /// Values of each row. The type of `indptr` depends on their sum, so it is written last.
    lengths: Vec<u32>,
    options: WriteOptions,
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
        let stream = |value_type: ValueType| {
            let guess = || guess_chunk(options.expected_nnz, value_type.size());
            Stream::new(value_type, options.chunk_elements.unwrap_or_else(guess), options)
        };
        let mut writer = Self {
            sink: Sink::create(path.as_ref(), options.overwrite)?,
            n_obs: 0,
            n_vars,
            nnz: 0,
            data: stream(options.value_type)?,
            indices: stream(index_type)?,
            lengths: Vec::new(),
            options: options.clone(),
        };
        // The superblock's place.
        writer.sink.append(&[0; message::SUPERBLOCK_LEN])?;
        Ok(writer)
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
        self.check(indptr, indices, data.len())?;
        value::check(data, self.data.value_type())?;
        let target = self.data.value_type();
        value::put_values(data, target, self.data.grow(data.len()));
        value::put_indices(indices, self.indices.value_type(), self.indices.grow(indices.len()));
        for pair in indptr.windows(2) {
            // Strictly ascending indices below n_vars: a row has at most that many.
            self.lengths.push(u32::try_from(pair[1] - pair[0]).unwrap_or(self.n_vars));
        }
        self.nnz += indices.len() as u64;
        self.n_obs = self.lengths.len() as u64;
        for stream in [&mut self.data, &mut self.indices] {
            if stream.is_ripe() {
                stream.write_ripe(&mut self.sink)?;
            }
        }
        Ok(())
    }

    fn check(&self, indptr: &[u64], indices: &[u32], values: usize) -> Result<()> {
        let nnz = indices.len() as u64;
        if indptr.first() != Some(&0) || indptr.last() != Some(&nnz) || indices.len() != values {
            return Err(Error::invalid_input(format!(
                "indptr must go from 0 to the {nnz} indices and {values} values"
            )));
        }
        for (row, pair) in indptr.windows(2).enumerate() {
            let bounds = usize::try_from(pair[0]).ok().zip(usize::try_from(pair[1]).ok());
            let genes = bounds.and_then(|(from, to)| indices.get(from..to));
            let wrong = match genes {
                None => "indptr falls or is past the end",
                Some(genes) if genes.windows(2).any(|g| g[0] >= g[1]) => {
                    "indices do not strictly ascend"
                }
                Some(genes) if genes.last().is_some_and(|&last| last >= self.n_vars) => {
                    "an index is not below n_vars"
                }
                Some(_) => continue,
            };
            return Err(Error::invalid_input(wrong).with("row", self.n_obs + row as u64));
        }
        Ok(())
    }

    /// Cells so far.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.n_obs
    }

    /// Stored values so far.
    #[must_use]
    pub fn nnz(&self) -> u64 {
        self.nnz
    }

    /// Writes the tables, brings everything to the disk and gives the file its name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) if a table does not
    /// have a row for every cell or gene; [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if the
    /// disk fails. No file is left then.
    pub fn finish(self, obs: &Frame<'_>, var: &Frame<'_>) -> Result<Written> {
        let Self { mut sink, n_obs, n_vars, nnz, data, indices, lengths, options } = self;
        let rows = usize::try_from(n_obs).map_err(|_| Error::unsupported("too many cells"))?;
        let genes = usize::try_from(n_vars).map_err(|_| Error::unsupported("too many genes"))?;
        obs.check("obs", rows)?;
        var.check("var", genes)?;
        let x = [
            ("data", data.finish(&mut sink)?),
            ("indices", indices.finish(&mut sink)?),
            ("indptr", write_indptr(&lengths, nnz, &options, &mut sink)?),
        ];
        let mut elements = Elements::new(&mut sink);
        let cells = i64::try_from(n_obs).map_err(|_| Error::unsupported("too many cells"))?;
        let shape = [("shape", Attribute::Integers(&[cells, i64::from(n_vars)]))];
        let x = elements.group(("csr_matrix", "0.1.0"), &shape, &x)?;
        let mut links = vec![("X", x)];
        links.push(("obs", elements.frame(obs, rows).map_err(|e| e.with("table", "obs"))?));
        links.push(("var", elements.frame(var, genes).map_err(|e| e.with("table", "var"))?));
        for name in ["layers", "obsm", "obsp", "uns", "varm", "varp"] {
            links.push((name, elements.group(("dict", "0.1.0"), &[], &[])?));
        }
        links.sort_unstable();
        let root = elements.group(("anndata", "0.1.0"), &[], &links)?;
        let bytes = elements.sink().end();
        sink.write_at(0, &message::superblock(bytes, root))?;
        sink.publish()?;
        Ok(Written { n_obs, n_vars: u64::from(n_vars), nnz, bytes })
    }
}

/// Writes `indptr` in the type that scipy gives it: 32-bit while that holds the non-zeros and
/// `indices` is 32-bit too.
fn write_indptr(lengths: &[u32], nnz: u64, options: &WriteOptions, sink: &mut Sink) -> Result<u64> {
    /// Rows at a time.
    const PART: usize = 1 << 18;
    let narrow = options.index_type == IndexType::I32 && i32::try_from(nnz).is_ok();
    let value_type = if narrow { ValueType::I32 } else { ValueType::I64 };
    let chunk_len = guess_chunk(lengths.len() as u64 + 1, value_type.size());
    let mut stream = Stream::new(value_type, chunk_len, options)?;
    stream.grow(1);
    let mut end = 0u64;
    for part in lengths.chunks(PART) {
        let slots = stream.grow(part.len()).chunks_exact_mut(value_type.size());
        for (slot, &length) in slots.zip(part) {
            end += u64::from(length);
            // The low bytes of a small number are that number in a narrower type.
            slot.copy_from_slice(&end.to_le_bytes()[..slot.len()]);
        }
        if stream.is_ripe() {
            stream.write_ripe(sink)?;
        }
    }
    stream.finish(sink)
}
