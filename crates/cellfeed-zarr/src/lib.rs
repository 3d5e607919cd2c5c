//! AnnData in Zarr v2 and v3, sharded or not, as a Cellfeed backend.
//!
//! ```text
//! options.rs     how to open a store
//! backend.rs     what a store is, and the Backend trait of either kind
//! group.rs       an AnnData group
//! collection.rs  annbatch's collections: many groups as one
//! consolidated.rs  the listing of a store that cannot be listed
//! layout/        metadata to schema
//! meta/          Zarr metadata: groups, arrays, data types
//! codec/         codecs of bytes
//! read/          rows to inner chunks to byte ranges, bytes to CSR
//! write/         the writer
//! ```
//!
//! # The way of a fetch
//!
//! Offsets of rows are in memory. Wanted rows give ranges of elements, these the inner chunks, and these,
//! by the shards' indexes that are read once and kept, ranges of bytes. Chunks are read and decoded in
//! waves of a few MiB, the next being read while one is decoded on all cores. Each chunk is decoded once,
//! and of blosc only the blocks that hold wanted elements, LZ4 only as far as the last of them; the
//! shuffle is undone straight into the answer.
//!
//! # What is not there
//!
//! By Zarr's rules a chunk that is not there is so many fill values, and writers may leave such chunks
//! out. A file that was lost looks the same. Where zeros would nearly always be a wrong answer, a missing
//! file is therefore an error of kind `Corrupt` that names it: of `data` (whole files of zeros that are
//! stored explicitly), of `indices` (rows of gene 0 alone), unless there is only one gene, and of `indptr`.
//! The remedy, if they were really left out, is to write the store again with `write_empty_chunks`. A
//! chunk that a shard's index says is empty is one: its writer has said so. Dense matrices and columns
//! follow Zarr's rules, since genes that nobody expresses and columns of one category are common.
// Unsafe code is in codec/lz4.rs alone.
#![deny(unsafe_code)]

mod backend;
mod codec;
mod collection;
mod consolidated;
mod group;
mod layout;
mod meta;
mod options;
mod read;
mod write;

pub use backend::{ZarrBackend, looks_like};
pub use options::ZarrOptions;
pub use write::create;
