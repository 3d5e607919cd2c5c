//! AnnData in Zarr v2 and v3, sharded or not, as a Cellfeed backend.
//!
//! ```text
//! options.rs   how to open a store
//! backend.rs   what a store is, and the Backend trait of either kind
//! group.rs     an AnnData group
//! collection.rs  annbatch's collections: many groups as one
//! layout.rs    metadata to schema
//! meta/        Zarr metadata: groups, arrays, data types
//! codec/       codecs of bytes
//! read/        rows to inner chunks to byte ranges, bytes to CSR
//! write/       the writer
//! ```
// Unsafe code is in codec/lz4.rs alone.
#![deny(unsafe_code)]

mod backend;
mod codec;
mod collection;
mod group;
mod layout;
mod meta;
mod options;
mod read;
mod write;

pub use backend::{ZarrBackend, looks_like};
pub use options::ZarrOptions;
pub use write::create;
