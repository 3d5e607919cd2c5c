//! The options of a transform.

use cellfeed::{Error, Result, Transform};
use std::path::PathBuf;

/// What is made of values and genes while rows are copied.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Transforming {
    /// Only the genes in this file, one name a line, in its order. One that the store lacks is an error.
    #[arg(long, value_name = "FILE")]
    genes: Option<PathBuf>,
    /// Scale each cell to this total over all of its genes.
    #[arg(long, value_name = "TOTAL")]
    normalize_total: Option<f64>,
    /// Take ln(1 + x), after --normalize-total.
    #[arg(long)]
    log1p: bool,
    /// 1 for values above this threshold, 0 for others.
    #[arg(long, value_name = "THRESHOLD")]
    binarize: Option<f64>,
}

impl Transforming {
    pub(crate) fn transform(&self) -> Result<Transform> {
        let mut transform = Transform::default();
        if let Some(path) = &self.genes {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Error::io("cannot read the list of genes", e).with("file", path.display())
            })?;
            let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
            transform = transform.with_genes(names);
        }
        if let Some(total) = self.normalize_total {
            transform = transform.with_normalize_total(total);
        }
        if self.log1p {
            transform = transform.with_log1p();
        }
        if let Some(threshold) = self.binarize {
            transform = transform.with_binarize(threshold);
        }
        Ok(transform)
    }
}
