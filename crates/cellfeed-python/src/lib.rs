//! The native part of the Python package `cellfeed`: stores, plans and minibatches.
//!
//! ```text
//! store.rs     an open store: what it holds, its rows and its columns
//! plan.rs      subsets and plans
//! run.rs       a run of minibatches, waited for with the lock of Python released
//! convert.rs   conversion between formats, and the command
//! diversity.rs how diverse the minibatches of a plan are
//! tune.rs      which sampling is the fastest that is diverse enough
//! work.rs      work on a thread of its own that tells how far it is: the three above
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
mod diversity;
mod errors;
mod plan;
mod process;
mod remote;
mod run;
mod store;
mod tune;
mod wait;
mod work;

use pyo3::prelude::*;

/// The native part of the package `cellfeed`; use that.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::convert::{command, convert};
    #[pymodule_export]
    use super::diversity::{Labels, diversity};
    #[pymodule_export]
    use super::plan::{Plan, Subset};
    #[pymodule_export]
    use super::run::{Run, check_run};
    #[pymodule_export]
    use super::store::Store;
    #[pymodule_export]
    use super::tune::tune;
    #[pymodule_export]
    use super::work::Work;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        m.add("__version__", env!("CARGO_PKG_VERSION"))?;
        m.add("PLAN_VERSION", cellfeed::PLAN_VERSION)
    }
}
