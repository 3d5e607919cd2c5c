//! The small interface behind which HDF5 metadata and chunk tables are read, in one of two ways.
//!
//! ```text
//!                 Container
//!                /         \
//!   PureContainer           NativeContainer (feature libhdf5)
//!   hdf5-pure, any ReadAt   the reference library, a path
//! ```
//!
//! The pure-Rust reader is the default: it needs no C library and reads through [`ReadAt`], so the
//! bytes may come from anywhere. The reference library is the oracle in tests and the fallback for
//! structures and filters that the pure reader does not know.
//!
//! What a container gives is checked: a [`ChunkTable`] lies inside the file and on the chunk grid,
//! no size is a bare header value, and every call ends in bounded time and memory (see [`Limits`]).
//!
//! **Panics.** The pure reader runs on bytes that nobody checked before. A panic inside it becomes
//! an error of kind `Corrupt`; Rust's panic hook still prints its message to standard error, since
//! a library must not replace the hook of its host.

mod ahead;
mod attributes;
mod cache;
mod chunk_table;
mod element;
pub(crate) mod guard;
mod header;
mod heap;
mod links;
#[cfg(feature = "libhdf5")]
mod native;
#[cfg(feature = "libhdf5")]
mod native_read;
mod node;
mod probe;
mod pure;
mod pure_convert;
mod pure_node;
mod pure_rows;
mod source;
mod strings;
#[cfg(test)]
pub(crate) mod walk;

use std::fmt;
use std::ops::Range;

use cellfeed_core::Result;

pub(crate) use attributes::{AttributeValue, Attributes};
pub(crate) use chunk_table::{ChunkTable, StoredChunk};
pub(crate) use element::{ByteOrder, ElementType};
#[cfg(feature = "libhdf5")]
pub(crate) use native::open_libhdf5;
pub(crate) use node::{Dataset, Filter, Group, Node, Storage, filter_name};
#[cfg(test)]
pub(crate) use pure::PureContainer;
pub(crate) use pure::open_pure;
#[cfg(test)]
pub(crate) use source::LocalFile;
pub(crate) use source::ReadAt;

/// An open HDF5 file. Paths are written `group/member`; a leading slash makes no difference, and
/// the empty path is the root group. Soft links are followed; links to other files are not. Both
/// are members of their group, whether they lead anywhere or not. (In a group that keeps its links
/// in a fractal heap the pure reader sees neither.)
///
/// Laws for implementors:
/// 1. Calls are pure and may run concurrently.
/// 2. Whatever the bytes, a call returns; its memory stays within [`Limits`] plus a small multiple
///    of the metadata it walks.
/// 3. Errors name the file and the element.
pub(crate) trait Container: Send + Sync + fmt::Debug {
    /// The group or dataset at `path` with all its attributes. `NotFound` names members that the
    /// parent does have.
    fn node(&self, path: &str) -> Result<Node>;

    /// Where every chunk of a chunked dataset lies. `InvalidInput` for other storage.
    fn chunk_table(&self, path: &str) -> Result<ChunkTable>;

    /// The elements of rows `rows` (positions on the leading dimension; a scalar has one row),
    /// decoded by the library: row-major, each element in its own size, little-endian. For numbers,
    /// booleans, enumerations and fixed-length strings; others are `Unsupported`.
    fn read_raw(&self, path: &str, rows: Range<u64>) -> Result<Vec<u8>>;

    /// Like [`Container::read_raw`] for one field of a compound dataset.
    fn read_compound_raw(&self, path: &str, field: &str, rows: Range<u64>) -> Result<Vec<u8>>;

    /// The strings of rows `rows`, of variable or fixed length. A null string reads as empty;
    /// trailing padding is taken off fixed-length ones. Invalid UTF-8 is `Corrupt` and names the
    /// row.
    fn read_strings(&self, path: &str, rows: Range<u64>) -> Result<Vec<String>>;

    /// Like [`Container::read_strings`] for one field of a compound dataset.
    fn read_compound_strings(
        &self,
        path: &str,
        field: &str,
        rows: Range<u64>,
    ) -> Result<Vec<String>>;
}

/// What one call may use. The defaults suit atlases; tests lower them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most bytes that one read of elements may return, and the most that one decoded chunk
    /// may hold: callers read long datasets in windows of rows.
    pub(crate) read_bytes: u64,
    /// The most chunks of one dataset.
    pub(crate) chunks: u64,
    /// The most members of a group and the most attributes of an object.
    pub(crate) names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { read_bytes: 128 << 20, chunks: 1 << 26, names: 1 << 20 }
    }
}

/// The components of a path, as both readers understand it.
fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|c| !c.is_empty() && *c != ".")
}

/// The path as messages and references write it: absolute, single slashes.
fn absolute(path: &str) -> String {
    let joined: Vec<&str> = components(path).collect();
    format!("/{}", joined.join("/"))
}
