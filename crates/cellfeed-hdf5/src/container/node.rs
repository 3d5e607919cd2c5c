//! Groups and datasets as both readers describe them.

use super::attributes::Attributes;
use super::element::ElementType;

/// An object of the file.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Group(Group),
    Dataset(Dataset),
}

/// A group.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The names of its groups, datasets and links, sorted by their bytes.
    pub(crate) members: Vec<String>,
    pub(crate) attributes: Attributes,
}

/// A dataset: everything but its elements.
#[derive(Debug, Clone)]
pub(crate) struct Dataset {
    /// Empty for a scalar. A null dataspace has the shape `[0]`.
    pub(crate) shape: Vec<u64>,
    pub(crate) element: ElementType,
    pub(crate) storage: Storage,
    /// In the order in which they were applied when writing.
    pub(crate) filters: Vec<Filter>,
    /// The element, little-endian, that never-written chunks hold. `None` when it could not be
    /// found out: then read such rows with `read_raw`, which knows.
    pub(crate) fill: Option<Vec<u8>>,
    pub(crate) attributes: Attributes,
}

impl Dataset {
    /// The length of the leading dimension; a scalar has one row.
    pub(crate) fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements in one row, unless the shape overflows.
    #[cfg(any(test, feature = "libhdf5"))]
    #[cfg(any(test, feature = "libhdf5"))]
    pub(crate) fn elements_per_row(&self) -> Option<u64> {
        self.shape.iter().skip(1).try_fold(1u64, |n, &d| n.checked_mul(d))
    }
}

/// Where the elements are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Inside the metadata: read with `read_raw` or `read_strings`.
    Compact,
    /// One run of bytes at a file offset; `None` if it was never written.
    Contiguous { offset: Option<u64>, size: u64 },
    /// On a grid: see `chunk_table`.
    Chunked { chunk_shape: Vec<u64> },
    /// Virtual datasets and external files.
    Unsupported(String),
}

/// One step of the filter pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// As registered with The HDF Group: 1 deflate, 2 shuffle, 3 fletcher32, 32000 lzf.
    pub(crate) id: u16,
    /// The name in the file, or else the registered one.
    pub(crate) name: String,
    /// Parameters, such as deflate's level.
    pub(crate) client_data: Vec<u32>,
    /// Whether a writer may have left it out when it failed (each chunk's mask says so).
    /// The reference library's binding does not tell, and says `false`.
    pub(crate) optional: bool,
}

/// The registered name of a filter.
pub(crate) fn filter_name(id: u16) -> String {
    match id {
        1 => "deflate",
        2 => "shuffle",
        3 => "fletcher32",
        4 => "szip",
        5 => "nbit",
        6 => "scaleoffset",
        307 => "bzip2",
        32000 => "lzf",
        32001 => "blosc",
        32004 => "lz4",
        32008 => "bitshuffle",
        32013 => "zfp",
        32015 => "zstd",
        32026 => "blosc2",
        _ => return format!("filter {id}"),
    }
    .to_owned()
}
