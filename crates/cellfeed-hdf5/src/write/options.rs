//! What a writer can be told: compression, chunk length, types.

use cellfeed_core::{Error, Result, ValueType};

/// How the chunks of `data`, `indices` and `indptr` are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all, as anndata by default.
    #[default]
    None,
    /// Deflate; h5py's default level is 4.
    Gzip {
        /// 0 (store) to 9 (smallest).
        level: u32,
    },
    /// LZF, the fast and weak compression that h5py brings.
    Lzf,
}

impl Compression {
    /// Gzip at h5py's default level.
    #[must_use]
    pub fn gzip() -> Self {
        Self::Gzip { level: 4 }
    }
}

/// The type of the gene indices as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IndexType {
    /// 32-bit signed, as scipy and anndata by default.
    #[default]
    I32,
    /// 64-bit signed, as scipy when a matrix has 2^31 non-zeros or more.
    I64,
}

/// Options of an [`H5adWriter`](super::H5adWriter). The defaults write what anndata writes.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    pub(super) compression: Compression,
    pub(super) shuffle: bool,
    pub(super) chunk_elements: Option<u64>,
    pub(super) value_type: ValueType,
    pub(super) index_type: IndexType,
    pub(super) expected_nnz: u64,
    pub(super) overwrite: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            shuffle: false,
            chunk_elements: None,
            value_type: ValueType::F32,
            index_type: IndexType::I32,
            expected_nnz: 0,
            overwrite: false,
        }
    }
}

impl WriteOptions {
    /// Compresses the chunks. Default: none.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Shuffles the bytes of a chunk before it is compressed. Default: no, as h5py.
    #[must_use]
    pub fn with_shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Sets the elements of a chunk of `data` and of `indices`. Default: h5py's guess, from
    /// [`with_expected_nnz`](Self::with_expected_nnz).
    #[must_use]
    pub fn with_chunk_elements(mut self, elements: u64) -> Self {
        self.chunk_elements = Some(elements);
        self
    }

    /// Sets the type of the values. Default: `f32`.
    #[must_use]
    pub fn with_value_type(mut self, value_type: ValueType) -> Self {
        self.value_type = value_type;
        self
    }

    /// Sets the type of the gene indices. Default: `i32`.
    #[must_use]
    pub fn with_index_type(mut self, index_type: IndexType) -> Self {
        self.index_type = index_type;
        self
    }

    /// Estimates the non-zeros to come: it sets the chunk length alone, so it need not be exact.
    #[must_use]
    pub fn with_expected_nnz(mut self, nnz: u64) -> Self {
        self.expected_nnz = nnz;
        self
    }

    /// Replaces a file that is there already, when the new one is complete. Default: no.
    #[must_use]
    pub fn with_overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        if let Compression::Gzip { level: 10.. } = self.compression {
            return Err(Error::invalid_input("gzip levels go from 0 to 9"));
        }
        // A chunk's size in bytes is a 32-bit number in the file; its elements are of 8 bytes at
        // most.
        if self.chunk_elements.is_some_and(|n| n == 0 || n > (1 << 29) - 1) {
            return Err(Error::invalid_input("a chunk has 1 to 536870911 elements"));
        }
        Ok(())
    }
}
