//! Stores behind URLs: what is there, and which backend reads it.

use crate::open::{Format, OpenOptions, Store, of_bytes, of_no_format};
use cellfeed_core::io::{ByteSource, Engine, Entry, Folder};
use cellfeed_core::{Backend, Error, Result};
use cellfeed_object::{Located, Remote, RemoteOptions};
use std::sync::{Arc, OnceLock};

/// A client that is made when a URL is first opened; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remotes {
    options: RemoteOptions,
    client: Arc<OnceLock<Remote>>,
}

impl Remotes {
    pub(crate) fn new(options: RemoteOptions) -> Self {
        Self { options, client: Arc::default() }
    }

    pub(crate) fn client(&self) -> Result<Remote> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let client = Remote::new(self.options.clone())?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

/// Opens what a URL leads to.
pub(crate) fn open(url: &str, options: &OpenOptions) -> Result<Store> {
    let (url, root) = url.rsplit_once('#').unwrap_or((url, ""));
    let engine = options.engine();
    let backend = match options.remote.client()?.locate(url, &engine)? {
        Located::File { folder, name, source } => {
            file(&folder, &name, source, root, &engine, options)?
        }
        Located::Folder(files) => folder(files, &engine, options)?,
        _ => return Err(Error::internal("a URL leads to something new")),
    };
    Ok(Store::new(backend, engine))
}

fn file(
    folder: &Arc<dyn Folder>,
    name: &str,
    source: Arc<dyn ByteSource>,
    root: &str,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let mut head = [0; 8];
    let head = &mut head[..usize::try_from(source.len()).unwrap_or(8).min(8)];
    source.read_exact_at(0, head)?;
    match of_bytes(head) {
        Format::Parquet => parquet(folder, name, engine, options),
        Format::Other(what) => Err(of_no_format(what).with("file", source.location())),
        Format::Hdf5 | Format::Csr | Format::Zarr => hdf5(source, root, engine, options),
    }
}

/// Looks at names: one request lists them, or says that there are too many.
fn folder(
    files: Arc<dyn Folder>,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let has = |name: &str| Ok::<_, Error>(matches!(files.look(name)?, Some(Entry::File(_))));
    if has("header.json")? {
        return csr(files, engine, options);
    }
    for name in ["zarr.json", ".zgroup", ".zmetadata"] {
        if has(name)? {
            return zarr(files, engine, options);
        }
    }
    if has("row_ptr.npy")? && has("col_ptr.npy")? && has("data.npy")? {
        return Err(Error::unsupported(
            "BioNeMo SCDL folders are read on this machine alone: copy it here, or convert it",
        )
        .with("file", files.location()));
    }
    for below in ["", "data"] {
        if files.list(below)?.iter().any(|(name, _)| name.ends_with(".parquet")) {
            return parquet(&files, "", engine, options);
        }
    }
    let members = files.list("")?;
    if members.is_empty() {
        return Err(Error::not_found("there is no object whose name begins so")
            .with("file", files.location()));
    }
    // What an upload leaves that broke off, ours or another's: roots go last.
    if members.iter().any(|(name, entry)| name == "obs" && *entry == Entry::Folder) {
        return Err(Error::unsupported(
            "this store is incomplete: it has obs, and no zarr.json, .zgroup or header.json; whoever wrote \
             or copied it was interrupted: write it again",
        )
        .with("file", files.location()));
    }
    Err(of_no_format("this is a folder of no known format").with("file", files.location()))
}

#[cfg(feature = "hdf5")]
fn hdf5(
    source: Arc<dyn ByteSource>,
    root: &str,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let hdf5 = match root {
        "" => options.hdf5.clone(),
        root => options.hdf5.clone().with_root(root),
    };
    let engine = Arc::clone(engine);
    Ok(Arc::new(cellfeed_hdf5::Hdf5Backend::open_source(source, engine, &hdf5)?))
}

#[cfg(feature = "zarr")]
fn zarr(
    files: Arc<dyn Folder>,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let engine = Arc::clone(engine);
    Ok(Arc::new(cellfeed_zarr::ZarrBackend::open_in(files, engine, &options.zarr)?))
}

#[cfg(feature = "csr")]
fn csr(
    files: Arc<dyn Folder>,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let engine = Arc::clone(engine);
    Ok(Arc::new(cellfeed_csr::CsrBackend::open_in(files, engine, &options.csr)?))
}

#[cfg(feature = "parquet")]
fn parquet(
    folder: &Arc<dyn Folder>,
    name: &str,
    engine: &Arc<Engine>,
    options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    let (folder, engine) = (Arc::clone(folder), Arc::clone(engine));
    let parquet = &options.parquet;
    Ok(Arc::new(cellfeed_parquet::ParquetBackend::open_in(folder, name, engine, parquet)?))
}

#[cfg(not(feature = "hdf5"))]
#[allow(clippy::needless_pass_by_value)] // as the one that reads
fn hdf5(
    source: Arc<dyn ByteSource>,
    _root: &str,
    _engine: &Arc<Engine>,
    _options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    Err(crate::open::not_built("HDF5", "hdf5", source.location()))
}

#[cfg(not(feature = "zarr"))]
#[allow(clippy::needless_pass_by_value)] // as the one that reads
fn zarr(
    files: Arc<dyn Folder>,
    _engine: &Arc<Engine>,
    _options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    Err(crate::open::not_built("Zarr", "zarr", files.location()))
}

#[cfg(not(feature = "csr"))]
#[allow(clippy::needless_pass_by_value)] // as the one that reads
fn csr(
    files: Arc<dyn Folder>,
    _engine: &Arc<Engine>,
    _options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    Err(crate::open::not_built("raw CSR", "csr", files.location()))
}

#[cfg(not(feature = "parquet"))]
fn parquet(
    folder: &Arc<dyn Folder>,
    name: &str,
    _engine: &Arc<Engine>,
    _options: &OpenOptions,
) -> Result<Arc<dyn Backend>> {
    Err(crate::open::not_built("Parquet", "parquet", folder.place(name)))
}
