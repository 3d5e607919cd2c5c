//! URLs: which store, which bucket, which key.

use cellfeed_core::{Error, Result};
use object_store::path::Path;
use std::fmt;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    S3,
    Gcs,
    Azure,
    Http,
}

impl Kind {
    /// The cargo feature that has it.
    pub(crate) fn feature(self) -> &'static str {
        match self {
            Self::S3 => "aws",
            Self::Gcs => "gcp",
            Self::Azure => "azure",
            Self::Http => "http",
        }
    }
}

/// Where something is: a store, and a key in it.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    /// Scheme and bucket, container or host: the URL up to the key.
    pub(crate) store: String,
    pub(crate) key: Path,
    /// Whether the URL ends with a slash, and so means a folder.
    pub(crate) folder: bool,
}

impl Address {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let odd = |what: &str| Err(Error::invalid_input(what).with("url", shown(url)));
        let Some((scheme, rest)) = url.split_once("://") else { return odd("this is no URL") };
        let scheme = scheme.to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "s3" | "s3a" => Kind::S3,
            "gs" => Kind::Gcs,
            "az" | "abfs" | "abfss" => Kind::Azure,
            "http" | "https" => Kind::Http,
            other => {
                return Err(Error::unsupported(format!(
                    "stores behind {other}:// are not read; s3://, gs://, az://, https:// and paths on \
                     this machine are"
                )));
            }
        };
        if kind == Kind::Http && rest.contains('?') {
            return odd("a URL with a query, as signed ones have, is not read");
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return odd("the URL names no bucket, container or host");
        }
        // A name before @ is a container of Azure's; elsewhere it would be a user and a password.
        if kind != Kind::Azure && bucket.contains('@') {
            return odd("the URL has a user in it; give credentials as docs/object-stores.md says");
        }
        let folder = key.is_empty() || key.ends_with('/');
        let key = key.trim_matches('/');
        let parsed = match kind {
            Kind::Http => Path::from_url_path(key),
            _ => Path::parse(key),
        };
        let Ok(key) = parsed else { return odd("the URL's path is none: // or .. or the like") };
        Ok(Self { kind, store: format!("{scheme}://{bucket}"), key, folder })
    }

    /// Whether a folder of this name comes before an object of it.
    pub(crate) fn folder_first(&self) -> bool {
        let ending = self.key.filename().and_then(|name| name.rsplit_once('.')).map(|(_, e)| e);
        self.folder || matches!(ending, Some("zarr" | "csr"))
    }

    /// The same store, another key.
    pub(crate) fn at(&self, key: Path) -> Self {
        Self { kind: self.kind, store: self.store.clone(), key, folder: false }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_ref() {
            "" => f.write_str(&self.store),
            key => write!(f, "{}/{key}", self.store),
        }
    }
}

/// A URL without what may be secret in it.
pub(crate) fn shown(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://...@{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, kind, store, key, folder) in [
            ("s3://b/a/x.h5ad", Kind::S3, "s3://b", "a/x.h5ad", false),
            ("S3://b/a/", Kind::S3, "s3://b", "a", true),
            ("gs://b", Kind::Gcs, "gs://b", "", true),
            ("az://c/my file.zarr", Kind::Azure, "az://c", "my file.zarr", false),
            (
                "abfss://c@acc.dfs.core.windows.net/x",
                Kind::Azure,
                "abfss://c@acc.dfs.core.windows.net",
                "x",
                false,
            ),
            ("https://h:81/a%20b.h5ad", Kind::Http, "https://h:81", "a b.h5ad", false),
        ] {
            let a = Address::parse(url).unwrap();
            assert_eq!(
                (a.kind, a.store.as_str(), a.key.as_ref(), a.folder),
                (kind, store, key, folder)
            );
        }
        assert_eq!(Address::parse("s3://b/x").unwrap().to_string(), "s3://b/x");
    }

    #[test]
    fn what_is_no_address_is_refused_and_secrets_are_not_shown() {
        for (url, why) in [
            ("ftp://h/x", "ftp://"),
            ("s3://", "no bucket"),
            ("s3://b/a/../x", "path is none"),
            ("https://user:secret@h/x", "has a user"),
            ("https://h/x?X-Amz-Signature=secret", "query"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}
