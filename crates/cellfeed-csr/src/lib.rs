//! Raw CSR stores (`NAME.csr/`), memory-mapped or read at positions, as a Cellfeed backend; NVIDIA
//! BioNeMo SCDL folders too, read-only.
//!
//! ```text
//! options.rs   how to open a store
//! backend.rs   the Backend trait
//! header.rs    header.json: what the store says of itself
//! layout.rs    header and files to schema, every length checked
//! scdl.rs      the same for BioNeMo SCDL folders
//! columns.rs   obs and var columns, an Arrow file each
//! read.rs      rows to segments, by the map or by reads
//! roofline.rs  bare limits, for benchmarks
//! packed/      rows packed into bits
//! write.rs     the writer
//! ```
//!
//! The bytes are specified in `docs/csr-format.md`. A plain store needs no decoding: with the map, the
//! loader's gather copies values straight from the page cache into the minibatch.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "small numbers"))]

mod backend;
mod columns;
mod header;
mod layout;
mod options;
mod packed;
mod read;
mod roofline;
mod scdl;
mod write;

pub use backend::{CsrBackend, looks_like};
pub use cellfeed_core::io::Access;
pub use options::CsrOptions;
pub use write::{CODECS, create};
