//! AnnData `.h5ad` files, as people have them, as a Cellfeed backend; 10x Genomics `.h5` too.
//!
//! ```text
//! options.rs   how to open a file
//! backend.rs   the Backend trait
//! layout/      metadata to schema: every encoding that AnnData has had
//! read/        rows to byte ranges, chunks to elements, elements to CSR
//! container/   HDF5 metadata and chunk tables, by a pure-Rust reader or the reference library
//! write/       a streaming writer of .h5ad
//! ```
//!
//! A chunk table is made once, when the file is opened. Raw chunks are then read at their offsets
//! through the byte source and decoded on every core, each once per fetch; HDF5's own library, with
//! its one lock, is not on the way.
#![cfg_attr(not(feature = "libhdf5"), forbid(unsafe_code))]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers"))]

mod backend;
#[cfg_attr(test, allow(dead_code, unused_imports, reason = "its tests are in tests/container*.rs"))]
mod container;
mod layout;
mod options;
mod read;
mod write;

pub use backend::Hdf5Backend;
pub use cellfeed_core::io::Access;
pub use options::{Hdf5Options, Reader};
pub use write::{
    ColumnValues, Compression, Frame, H5adWriter, IndexType, Items, Strings, WriteOptions, Written,
    create,
};
