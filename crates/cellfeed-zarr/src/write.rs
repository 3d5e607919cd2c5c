//! Writing AnnData in Zarr v3, sharded, as anndata 0.12 and later and annbatch read it.
//!
//! Matrices are CSR, their values of the announced type; half floats become `f32`. An inner chunk of
//! `data` and `indices` has the values of 8 rows of mean length, or of as many as
//! [`WriteOptions::with_chunk_rows`] says; rows of other lengths straddle inner chunks, since Zarr
//! knows only chunks of one size. Both arrays have the same inner chunks.
//! Shards hold 256 MiB before compression, their index at the end with a CRC-32C, and the root's
//! `zarr.json` all metadata of the store.
//!
//! Codecs, by [`WriteOptions::with_codec`]: `blosc-lz4` (the default), `blosc-zstd`, `zstd`, `gzip`, each
//! also with a level as in `zstd:5`, and `none`.

mod bytes;
mod codec;
mod column;
mod extras;
mod matrix;
mod stream;
mod table;
mod tree;

use cellfeed_core::io::Staging;
use cellfeed_core::{
    CellBatch, Error, MatrixKey, NewStore, Result, StoreWriter, WriteOptions, Written,
};
use codec::Codec;
use matrix::Matrix;
use std::path::Path;
use table::Frame;
use tree::{Tree, encoding, refused_name};

/// Begins a store at `path`, a folder, usually called `NAME.zarr`. Nothing has that name until the
/// store is [finished](StoreWriter::finish).
///
/// Cells and genes without names are numbered from 0, since AnnData has names for all. Columns and
/// members whose names have a slash are dropped: names are those of files.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) if the destination exists and is
/// not to be replaced, for two matrices or obs columns of one name, or for an unknown codec; [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if the
/// folder cannot be made.
pub fn create(path: &Path, new: NewStore, options: &WriteOptions) -> Result<Box<dyn StoreWriter>> {
    let codec = options.codec().map_or(Ok(Codec::default()), Codec::parse)?;
    if options.chunk_rows() == Some(0) {
        return Err(Error::invalid_input("a chunk needs at least one row"));
    }
    for matrix in &new.matrices {
        if let MatrixKey::Layer(name) = &matrix.key
            && let Some(why) = refused_name(name)
        {
            return Err(Error::invalid_input(why).with("element", &matrix.key));
        }
    }
    new.check_names()?;
    let staging = Staging::folder(path, options.overwrite(), crate::backend::looks_like)?;
    let mut tree = Tree::new(staging.path());
    let matrices = new.matrices.iter();
    let matrices =
        matrices.map(|matrix| Matrix::new(matrix, new.n_obs, options.chunk_rows(), codec));
    let matrices = matrices.collect::<Result<_>>()?;
    let obs = Frame::new("obs", new.obs_index.as_deref(), new.obs.iter(), codec, &mut tree)?;
    Ok(Box::new(ZarrWriter { new, codec, matrices, obs, tree, rows: 0, failed: false, staging }))
}

/// A store in the making.
#[derive(Debug)]
struct ZarrWriter {
    new: NewStore,
    codec: Codec,
    matrices: Vec<Matrix>,
    obs: Frame,
    tree: Tree,
    rows: u64,
    /// Whether a batch was refused, perhaps after a part of it was taken.
    failed: bool,
    /// Removes what was written when it is dropped.
    staging: Staging,
}

impl StoreWriter for ZarrWriter {
    fn append(&mut self, batch: &CellBatch) -> Result<()> {
        self.failed = true;
        self.new.check(batch)?;
        self.rows = self.rows.saturating_add(batch.n_rows);
        if self.rows > self.new.n_obs {
            return Err(self.wrong_count());
        }
        for (matrix, rows) in self.matrices.iter_mut().zip(&batch.matrices) {
            matrix.append(rows, &mut self.tree)?;
        }
        let names = batch.obs_index.as_deref();
        self.obs.append(batch.n_rows, names, batch.obs.iter(), &mut self.tree)?;
        self.failed = false;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Written> {
        if self.failed {
            return Err(Error::invalid_input("cells were refused; the store cannot be finished"));
        }
        if self.rows != self.new.n_obs {
            return Err(self.wrong_count());
        }
        let Self { new, codec, matrices, obs, mut tree, staging, .. } = *self;
        let raw = new.matrices.iter().find(|m| m.key == MatrixKey::Raw);
        if let Some(raw) = raw {
            tree.group("raw", &encoding("raw", "0.1.0"))?;
            tree.group("raw/varm", &encoding("dict", "0.1.0"))?;
            Frame::write("raw/var", &raw.var, codec, &mut tree)?;
        }
        tree.group("layers", &encoding("dict", "0.1.0"))?;
        let mut nnz = 0;
        for matrix in matrices {
            nnz += matrix.finish(&mut tree)?;
        }
        obs.finish(&mut tree)?;
        Frame::write("var", &new.var, codec, &mut tree)?;
        for (name, element) in &new.extras.elements {
            match name.as_str() {
                "uns" | "obsm" | "varm" | "obsp" | "varp" => {
                    extras::write(name, element, codec, &mut tree)?;
                }
                _ => {
                    let why = "AnnData has no such part".to_owned();
                    tree.dropped.push((name.clone(), why));
                }
            }
        }
        for name in ["uns", "obsm", "varm", "obsp", "varp"] {
            if new.extras.elements.iter().all(|(given, _)| given != name) {
                tree.group(name, &encoding("dict", "0.1.0"))?;
            }
        }
        let dropped = std::mem::take(&mut tree.dropped);
        let bytes = tree.publish(staging, &encoding("anndata", "0.1.0"))?;
        Ok(Written { n_obs: new.n_obs, nnz, bytes, dropped })
    }
}

impl ZarrWriter {
    fn wrong_count(&self) -> Error {
        Error::invalid_input(format!(
            "{} cells were announced, but {} came",
            self.new.n_obs, self.rows
        ))
    }
}
