//! How to open a store.

use std::path::PathBuf;

/// Options of [`ParquetBackend::open`](crate::ParquetBackend::open).
#[derive(Debug, Clone, Default)]
pub struct ParquetOptions {
    pub(crate) gene_metadata: Option<PathBuf>,
    pub(crate) missing_shards: bool,
}

impl ParquetOptions {
    /// Where the genes of a Tahoe-100M folder are: a Parquet file with the columns `token_id` and
    /// `ensembl_id`. By default `metadata/gene_metadata.parquet` or `gene_metadata.parquet`, beside the
    /// shards or up to two folders above.
    #[must_use]
    pub fn with_gene_metadata(mut self, path: impl Into<PathBuf>) -> Self {
        self.gene_metadata = Some(path.into());
        self
    }

    /// Whether a folder may hold some of its numbered shards alone, as `train-00003-of-03388.parquet`.
    /// By default a missing one is an error: a download that was cut short looks the same.
    #[must_use]
    pub fn with_missing_shards(mut self, allowed: bool) -> Self {
        self.missing_shards = allowed;
        self
    }
}
