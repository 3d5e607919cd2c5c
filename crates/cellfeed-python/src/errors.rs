//! Errors as Python's exceptions: which one, `cellfeed._errors` decides.

use cellfeed::Error;
use pyo3::prelude::*;
use std::error::Error as _;

/// The exception for an error, with its whole message.
pub(crate) fn raise(error: Error) -> PyErr {
    let os = error.source().and_then(|e| e.downcast_ref::<std::io::Error>());
    let (is_os, number) = (os.is_some(), os.and_then(std::io::Error::raw_os_error));
    Python::attach(|py| {
        let made = py.import("cellfeed._errors").and_then(|module| {
            let kind = error.kind().as_str();
            module.call_method1("of_kind", (kind, error.to_string(), is_os, number))
        });
        made.map_or_else(|e| e, PyErr::from_value)
    })
}
