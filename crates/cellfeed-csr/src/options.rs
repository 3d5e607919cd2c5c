//! How to open a store.

use cellfeed_core::io::Access;

/// Options of [`CsrBackend::open`](crate::CsrBackend::open).
#[derive(Debug, Clone, Default)]
pub struct CsrOptions {
    pub(crate) access: Access,
}

impl CsrOptions {
    /// Chooses between map and reads. Default: [`Access::Auto`]. By [`Access::Read`] row offsets are
    /// read whole when a store is opened, two to four bytes a row; else they are looked up in their map
    /// where there is one.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }
}
