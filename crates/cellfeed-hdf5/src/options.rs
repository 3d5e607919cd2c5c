//! How to open a file.

use cellfeed_core::io::Access;

/// Which reader parses the metadata and makes the chunk tables. Elements are read and decoded by
/// Cellfeed itself either way, but for filters that it does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reader {
    /// The pure-Rust reader.
    #[default]
    Pure,
    /// The reference HDF5 library. It is given only files whose metadata the pure reader has parsed
    /// before, because it can crash on hostile ones.
    #[cfg(feature = "libhdf5")]
    Libhdf5,
}

/// Options of [`Hdf5Backend::open`](crate::Hdf5Backend::open).
#[derive(Debug, Clone, Default)]
pub struct Hdf5Options {
    pub(crate) reader: Reader,
    pub(crate) root: String,
    pub(crate) access: Access,
}

impl Hdf5Options {
    /// Chooses the metadata reader.
    #[must_use]
    pub fn with_reader(mut self, reader: Reader) -> Self {
        self.reader = reader;
        self
    }

    /// Chooses between map and reads, for CSR matrices that are neither compressed nor converted; all
    /// else is read. Default: [`Access::Auto`]. The map saves a copy. A file that is written anew in its
    /// place meanwhile, as anndata writes, is an error either way; of which maps that holds, see
    /// [`MappedFile`](cellfeed_core::io::MappedFile).
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Opens a group inside the file instead of its root: `mod/rna` of a MuData file, or a genome
    /// of an old 10x file.
    #[must_use]
    pub fn with_root(mut self, path: impl Into<String>) -> Self {
        self.root = path.into().trim_matches('/').to_owned();
        self
    }
}
