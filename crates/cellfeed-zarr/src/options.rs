//! How a store is opened.

/// Options of Zarr stores.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ZarrOptions {}
