//! Rows to inner chunks to byte ranges, bytes to CSR.

pub(crate) mod array;
mod chunk;
pub(crate) mod column;
pub(crate) mod dense;
pub(crate) mod extras;
mod grid;
mod locate;
mod parts;
pub(crate) mod roofline;
mod shard;
pub(crate) mod sparse;
mod text;

use cellfeed_core::io::{Engine, Folder};
use std::sync::Arc;

/// What every read needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) files: Arc<dyn Folder>,
    pub(crate) engine: Arc<Engine>,
}

/// A length in memory; what is beyond it fails a check of lengths.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A length as `u64`.
pub(crate) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
