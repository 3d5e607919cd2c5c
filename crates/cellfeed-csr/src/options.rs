//! How to open a store.

/// How plain matrices are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// By the map where the page cache holds the rows, else by reads: looked at anew for each fetch.
    #[default]
    Auto,
    /// By the map alone: no copy, but a page that is not in memory is waited for, one after the other.
    Map,
    /// By positional reads alone, many at once.
    Read,
}

/// Options of [`CsrBackend::open`](crate::CsrBackend::open).
#[derive(Debug, Clone, Default)]
pub struct CsrOptions {
    pub(crate) access: Access,
}

impl CsrOptions {
    /// Chooses between map and reads. Default: [`Access::Auto`].
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
}
