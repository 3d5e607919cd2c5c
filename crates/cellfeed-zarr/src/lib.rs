//! AnnData in Zarr v2 and v3, sharded or not, as a Cellfeed backend.
#![forbid(unsafe_code)]

mod write;

pub use write::create;
