//! AnnData in Zarr v2 and v3, sharded or not, as a Cellfeed backend.
//!
//! ```text
//! options.rs   how to open a store
//! backend.rs   the Backend trait
//! layout.rs    metadata to schema
//! meta/        Zarr metadata: groups, arrays, data types, codecs
//! read/        rows to inner chunks to byte ranges, bytes to CSR
//! write/       the writer
//! ```
#![forbid(unsafe_code)]

mod backend;
mod layout;
mod meta;
mod options;
mod read;
mod write;

pub use backend::{ZarrBackend, looks_like};
pub use options::ZarrOptions;
pub use write::create;
