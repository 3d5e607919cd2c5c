//! Parquet files with a row a cell, as a Cellfeed backend: our own layout (`NAME.parquet`), read and
//! written, and Tahoe-100M's published one, read.
//!
//! ```text
//! options.rs   how to open a store
//! backend.rs   the Backend trait
//! header.rs    our layout's metadata: what a file says of itself
//! layout.rs    metadata and footer to schema, everything checked
//! tahoe.rs     the same for shards as Tahoe-100M has
//! table.rs     genes and categories, small Parquet files read whole
//! files.rs     footers of all files as one sequence of row groups; rows to byte ranges
//! footer.rs    a footer; thrift.rs its protocol
//! index.rs     the page index, in a few bytes a page
//! walk.rs      bytes of a chunk to its pages
//! page.rs      a page: header, checksum, levels; codec.rs, hybrid.rs
//! read.rs      rows to segments, in waves
//! decode.rs    pages to numbers; rows.rs, convert.rs; sort.rs for rows in no order
//! delta.rs     encodings that are made plain first
//! column.rs    obs and var columns
//! roofline.rs  bare limits, for benchmarks
//! write/       the writer
//! ```
//!
//! The bytes are specified in `docs/parquet-format.md`. Pages are read and written here, not by the
//! `parquet` crate, which tests hold this against: its readers decode every value of a page of lists to
//! find a row, where skipping runs of levels and codes finds it in a step a run; and it sizes
//! allocations by lengths that it has not checked.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::single_range_in_vec_init,
        reason = "small numbers, lists of one range"
    )
)]

mod backend;
mod codec;
mod column;
mod convert;
mod decode;
mod delta;
mod files;
mod footer;
mod header;
mod hybrid;
mod index;
mod layout;
mod options;
mod page;
mod place;
mod read;
mod roofline;
mod rows;
mod sort;
mod table;
mod tahoe;
mod thrift;
mod walk;
mod write;

pub use backend::{ParquetBackend, is_parquet};
pub use options::ParquetOptions;
pub use write::{CODECS, create};
