//! The conformance suite for implementations of [`Backend`].
//!
//! Each of the eight laws in the trait's documentation has a check in [`laws`], which reads a store
//! in every way the law speaks of and compares the answers with an [`Oracle`]: what the store holds,
//! known from elsewhere. The suite is itself tested: for each law [`faults`] has stores that break
//! it, and `tests/broken.rs` sees to it that they are found out.
//!
//! # Testing a backend
//!
//! A backend's `tests/conformance.rs` says how to build stores, and the [`conformance!`] macro makes
//! one test of each law:
//!
//! ```
//! use cellfeed_testkit::{PeakAlloc, Subject, conformance, fixtures};
//! # use cellfeed_core::{Backend, Result};
//! # use std::{path::Path, sync::Arc};
//! # fn write(_: &Path, _: &cellfeed_testkit::Oracle) -> Result<()> { unimplemented!() }
//! # fn open(_: &Path) -> Result<Arc<dyn Backend>> { unimplemented!() }
//!
//! // Lets law 7 see an allocation that is sized by a damaged header.
//! #[global_allocator]
//! static ALLOCATOR: PeakAlloc = PeakAlloc;
//!
//! fn stores() -> Vec<Subject> {
//!     let build = |oracle| Subject::written("store.ext", oracle, write, open);
//!     fixtures::oracles().into_iter().map(build).collect::<Result<_>>().unwrap()
//! }
//!
//! conformance!(written, stores);
//! # fn main() {}
//! ```
//!
//! A law that cannot be checked is skipped with its reason, `conformance!(written, stores, skip
//! law_7: "no files behind it")`, and shows as ignored.
//!
//! Reading one's own output proves little. Files that other tools wrote come with an oracle in JSON
//! each ([`Oracle::load`]); they go through the suite like the others, or, where they are many,
//! through [`check_oracle`] alone.
//!
//! # Testing a writer
//!
//! [`writing::Writing`] writes the fixtures through a format's [`StoreWriter`] in batches of odd sizes,
//! opens and compares what came of it (matrices, names, obs, var, extras), and sees to it that wrong
//! batches are refused, that nothing is left of what was not finished, and that what is there already
//! stays until its replacement is complete:
//!
//! ```text
//! Writing::new("store.ext", create, open).check().unwrap();
//! ```
//!
//! What the format has no place for is named with [`may_drop`](writing::Writing::may_drop), and must be
//! named by the writer in [`Written::dropped`].
//!
//! [`StoreWriter`]: cellfeed_core::StoreWriter
//! [`Written::dropped`]: cellfeed_core::Written::dropped
#![deny(unsafe_code)]
#![allow(clippy::single_range_in_vec_init, reason = "lists of one row range are meant")]

mod compare;
pub mod damage;
pub mod faults;
pub mod fixtures;
pub mod laws;
mod oracle;
mod oracle_json;
mod peak;
mod subject;
pub mod suite;
mod violation;
pub mod writing;

pub use oracle::{Category, Oracle, OracleColumn, OracleMatrix, OracleValues};
pub use peak::PeakAlloc;
pub use subject::{Limits, StoreFiles, Subject};
pub use violation::{Law, Violation};

use cellfeed_core::Backend;

/// Whether a store holds what the oracle says, read in every way of law 1.
///
/// ```
/// use cellfeed_testkit::{check_oracle, fixtures};
///
/// let oracle = fixtures::oracle("small", 20, 10, 1);
/// let backend = fixtures::memory_backend(&oracle)?;
/// assert!(check_oracle(&backend, &oracle).is_ok());
/// let other = fixtures::oracle("small", 20, 10, 2);
/// let violation = check_oracle(&backend, &other).unwrap_err();
/// assert!(violation.to_string().starts_with("law 1 (agreement): small: "));
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
///
/// Sizes are not held against a store that shares memory with its answers.
///
/// # Errors
/// The first disagreement.
pub fn check_oracle(backend: &dyn Backend, oracle: &Oracle) -> Result<(), Violation> {
    laws::agreement(backend, oracle, Limits::default().seed, true).map_err(|v| v.of(&oracle.name))
}
