//! The formats by name: which one a path stands for, and how a store of it is begun.

use cellfeed_core::{Error, NewStore, Result, StoreWriter, WriteOptions};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A storage format that stores can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// AnnData in HDF5, `.h5ad`.
    H5ad,
    /// AnnData in Zarr v3, `.zarr`.
    Zarr,
    /// Raw CSR, `.csr`.
    Csr,
    /// Parquet with a row a cell, `.parquet`.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::H5ad, Self::Zarr, Self::Csr, Self::Parquet];

    /// Its name, which is the ending of its stores too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::H5ad => "h5ad",
            Self::Zarr => "zarr",
            Self::Csr => "csr",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it keeps what AnnData has beside matrices, obs and var: uns, obsm and the like.
    pub(crate) fn keeps_extras(self) -> bool {
        matches!(self, Self::H5ad | Self::Zarr)
    }

    /// Of a store of many files, the one without which it does not open.
    #[cfg(feature = "object")]
    pub(crate) fn opener(self) -> Option<&'static str> {
        match self {
            Self::H5ad | Self::Parquet => None,
            Self::Zarr => Some("zarr.json"),
            Self::Csr => Some("header.json"),
        }
    }

    /// The format that a path's ending stands for.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) naming the endings that
    /// are known.
    pub fn from_path(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        Self::ALL.into_iter().find(|f| f.as_str() == ending).ok_or_else(|| {
            let what = match ending {
                "" => "the name has no ending that says the format".to_owned(),
                ending => format!("no format has the ending .{ending}"),
            };
            Error::invalid_input(format!(
                "{what}; endings are {}, or say which format it is (--format, format=)",
                Self::ALL.map(|f| format!(".{f}")).join(", ")
            ))
            .with("file", path.display())
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|f| f.as_str() == s).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid_input(format!("no format is called {s:?}; there are {all}"))
        })
    }
}

/// Begins a store of a format. It has a temporary name until it is finished.
///
/// # Errors
/// As the format's own `create`; of kind `Unsupported` if the format is not in this build.
pub fn create(
    path: &Path,
    format: Format,
    new: NewStore,
    options: &WriteOptions,
) -> Result<Box<dyn StoreWriter>> {
    match format {
        #[cfg(feature = "hdf5")]
        Format::H5ad => cellfeed_hdf5::create(path, new, options),
        #[cfg(feature = "zarr")]
        Format::Zarr => cellfeed_zarr::create(path, new, options),
        #[cfg(feature = "csr")]
        Format::Csr => cellfeed_csr::create(path, new, options),
        #[cfg(feature = "parquet")]
        Format::Parquet => cellfeed_parquet::create(path, new, options),
        #[allow(unreachable_patterns)]
        other => {
            let _ = (new, options);
            Err(Error::unsupported(format!(
                "this build does not write {other}: build it with the feature of that name"
            ))
            .with("file", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_and_names_are_formats() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
            let path = format!("a.b/c.{format}");
            assert_eq!(Format::from_path(Path::new(&path)).unwrap(), format);
        }
        assert!(
            "loom".parse::<Format>().unwrap_err().to_string().contains("h5ad, zarr, csr, parquet")
        );
        let text = |path: &str| Format::from_path(Path::new(path)).unwrap_err().to_string();
        assert!(text("atlas").contains("has no ending") && text("atlas").contains("--format"));
        assert!(text("a.loom").contains("the ending .loom; endings are .h5ad, .zarr"));
    }
}
