//! Quasi-random minibatches of single-cell data, straight from files that do not fit in memory.
//!
//! This crate wires the parts together: the sampler and loader of `cellfeed-core`, one backend per
//! storage format behind a cargo feature (`hdf5`, `zarr`, `csr`), [`open`], which tells the format by looking,
//! and [`convert`] and [`verify`] between formats.
//!
//! ```no_run
//! use cellfeed::{LoaderOptions, OpenOptions, Plan, PlanOptions, Strategy};
//!
//! let store = cellfeed::open("atlas.h5ad", &OpenOptions::default())?;
//! let options = PlanOptions::default().with_batch_size(64).with_fetch_factor(256).with_seed(0);
//! let plan = Plan::new(store.n_obs(), Strategy::BlockShuffling { block_size: 16 }, &options)?;
//! let loader = store.loader(plan, LoaderOptions::default().with_obs(["cell_line"]))?;
//! for minibatch in loader.epoch(0)? {
//!     let minibatch = minibatch?;
//!     println!("{} cells", minibatch.n_cells());
//! }
//! # Ok::<(), cellfeed::Error>(())
//! ```
#![forbid(unsafe_code)]

mod convert;
mod format;
mod open;
#[cfg(feature = "object")]
mod remote;
mod sample;
mod transpose;
pub mod tune;
mod verify;

pub use cellfeed_core::*;
#[cfg(feature = "csr")]
pub use cellfeed_csr as csr;
#[cfg(feature = "hdf5")]
pub use cellfeed_hdf5 as hdf5;
#[cfg(feature = "object")]
pub use cellfeed_object as object;
#[cfg(feature = "parquet")]
pub use cellfeed_parquet as parquet;
#[cfg(feature = "zarr")]
pub use cellfeed_zarr as zarr;
pub use convert::{ConvertOptions, Converted, Progress, Stage, convert};
pub use format::{Format, create};
pub use open::{OpenOptions, Store, open, open_many};
pub use sample::StrategyColumns;
pub use verify::{
    Checked, Difference, Unreadable, Verified, VerifyOptions, VerifyProgress, VerifyStage, check,
    verify, verify_with,
};

/// The README's Rust code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
