//! Quasi-random minibatches of single-cell data: the sampler, the loader, and the [`Backend`] trait
//! behind which storage formats stand.
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::single_range_in_vec_init
    )
)]

mod backend;
mod concat;
mod csr;
mod digest;
pub mod diversity;
mod element;
mod error;
pub mod io;
mod loader;
mod memory;
mod obs;
mod offsets;
mod plan;
mod rows;
mod schema;
mod span;
pub mod spans;
mod table;
mod value;
pub mod vector;
mod write;

pub use backend::{Archive, Backend, BackendExt, Hints, ReadCost};
pub use concat::{ConcatBackend, ConcatOptions, Join};
pub use csr::{
    CsrRows, CsrSegment, EncodedRows, GeneIndex, RowBuffer, RowCheck, StoredRows, StoredSegment,
    first_bad_row,
};
pub use digest::Digest;
pub use diversity::{entropy_bits, label_entropy};
pub use element::{ArrayValues, Attribute, Element, Extras, Node};
pub use error::{Error, ErrorKind, Result};
pub use loader::{
    Data, Layout, Loader, LoaderOptions, Minibatch, MinibatchParts, MinibatchStream, Minibatches,
    OutputType, Transform, X,
};
pub use memory::{MemoryBackend, MemoryMatrix};
pub use obs::{categorical_array, concat, take, take_rows};
pub use offsets::{RowOffsets, RowOffsetsBuilder};
pub use plan::{
    Condition, FetchPlan, PLAN_VERSION, Plan, PlanOptions, PlanState, Strata, StrataBuilder,
    Strategy, Subset, SubsetBuilder, Weights,
};
pub use rows::RowRanges;
pub use schema::{
    ArrayStorage, ColumnKind, ColumnSchema, Encoding, MatrixKey, MatrixSchema, Schema, VarSchema,
};
pub use span::ValueSpan;
pub use table::Table;
pub use value::{Indices, Value, ValueType, Values, typed};
pub use write::{CellBatch, NewMatrix, NewStore, StoreWriter, WriteOptions, Written};

/// A length as `u64`, which holds it on every machine there is.
pub(crate) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
