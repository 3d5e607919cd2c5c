//! The native part of the Python package `cellfeed`: stores, plans and minibatches.
//!
//! ```text
//! store.rs     an open store: what it holds, its rows and its columns
//! plan.rs      subsets and plans
//! run.rs       a run of minibatches, waited for with the lock of Python released
//! convert.rs   conversion between formats
//! arrays.rs    vectors and columns as NumPy arrays, without a copy where they are large
//! wait.rs      waiting that Ctrl-C ends
//! process.rs   what must not be touched after a fork
//! errors.rs    errors as Python's exceptions
//! ```
//!
//! What Python programs use is written in Python, in `python/cellfeed`; this module is its own
//! business and may change. Nothing here calls back into Python from another thread.

// Python's arguments come by value, and Python's signatures are what they are.
#![allow(clippy::needless_pass_by_value, clippy::too_many_arguments, clippy::type_complexity)]

mod arrays;
mod convert;
mod errors;
mod plan;
mod process;
mod run;
mod store;
mod wait;

use pyo3::prelude::*;

/// The native part of the package `cellfeed`; use that.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::convert::{Conversion, command};
    #[pymodule_export]
    use super::plan::{Plan, Subset};
    #[pymodule_export]
    use super::run::Run;
    #[pymodule_export]
    use super::store::Store;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("__version__", env!("CARGO_PKG_VERSION"))?;
        m.add("PLAN_VERSION", cellfeed::PLAN_VERSION)
    }
}
