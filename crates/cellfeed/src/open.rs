//! `open`: tells the format of a store by looking at it, and picks the backend.

use cellfeed_core::io::{Engine, EngineOptions};
use cellfeed_core::{
    Backend, ConcatBackend, ConcatOptions, Condition, Error, Loader, LoaderOptions, Plan, Result,
    Schema, Subset,
};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// Options of [`open`] that every format shares.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    threads: Option<usize>,
    keep_bytes: Option<u64>,
    engine: Option<Arc<Engine>>,
    #[cfg(feature = "object")]
    pub(crate) remote: crate::remote::Remotes,
    #[cfg(feature = "csr")]
    pub(crate) csr: cellfeed_csr::CsrOptions,
    #[cfg(feature = "hdf5")]
    pub(crate) hdf5: cellfeed_hdf5::Hdf5Options,
    #[cfg(feature = "parquet")]
    pub(crate) parquet: cellfeed_parquet::ParquetOptions,
    #[cfg(feature = "zarr")]
    pub(crate) zarr: cellfeed_zarr::ZarrOptions,
}

impl OpenOptions {
    /// Threads that decode and gather; one per core by default.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Bytes of buffers that are kept between uses; a quarter of the loader's memory is good.
    #[must_use]
    pub fn with_keep_bytes(mut self, bytes: u64) -> Self {
        self.keep_bytes = Some(bytes);
        self
    }

    /// Threads and buffers to share with other stores; the two options above are then unused.
    #[must_use]
    pub fn with_engine(mut self, engine: Arc<Engine>) -> Self {
        self.engine = Some(engine);
        self
    }

    /// How rows that are stored as they are wanted come out of local files: of `.csr` stores, and of
    /// `.h5ad` files that are not compressed. Default: `Auto`.
    #[cfg(any(feature = "csr", feature = "hdf5"))]
    #[must_use]
    pub fn with_access(mut self, access: cellfeed_core::io::Access) -> Self {
        #[cfg(feature = "csr")]
        {
            self.csr = self.csr.with_access(access);
        }
        #[cfg(feature = "hdf5")]
        {
            self.hdf5 = self.hdf5.with_access(access);
        }
        self
    }

    /// How object stores are reached, for stores behind URLs. Clones of these options share threads and
    /// connections.
    #[cfg(feature = "object")]
    #[must_use]
    pub fn with_remote(mut self, options: cellfeed_object::RemoteOptions) -> Self {
        self.remote = crate::remote::Remotes::new(options);
        self
    }

    /// Options of raw CSR stores.
    #[cfg(feature = "csr")]
    #[must_use]
    pub fn with_csr(mut self, options: cellfeed_csr::CsrOptions) -> Self {
        self.csr = options;
        self
    }

    /// Options of Parquet stores.
    #[cfg(feature = "parquet")]
    #[must_use]
    pub fn with_parquet(mut self, options: cellfeed_parquet::ParquetOptions) -> Self {
        self.parquet = options;
        self
    }

    /// Options of Zarr stores.
    #[cfg(feature = "zarr")]
    #[must_use]
    pub fn with_zarr(mut self, options: cellfeed_zarr::ZarrOptions) -> Self {
        self.zarr = options;
        self
    }

    /// Options of HDF5 files.
    #[cfg(feature = "hdf5")]
    #[must_use]
    pub fn with_hdf5(mut self, options: cellfeed_hdf5::Hdf5Options) -> Self {
        self.hdf5 = options;
        self
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        if let Some(engine) = &self.engine {
            return Arc::clone(engine);
        }
        let mut options = EngineOptions::default();
        if let Some(threads) = self.threads {
            options = options.with_threads(threads);
        }
        if let Some(bytes) = self.keep_bytes {
            options = options.with_keep_bytes(bytes);
        }
        Arc::new(Engine::new(options))
    }
}

/// An open store, with the threads and buffers that read it.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    engine: Arc<Engine>,
    /// Where each of the stores is that it consists of.
    locations: Arc<[String]>,
    /// How many genes each of them has.
    n_vars: Arc<[u64]>,
}

impl Store {
    /// Puts a backend of your own with the engine that it uses.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, engine: Arc<Engine>) -> Self {
        let locations = Arc::from([backend.schema().location.clone()]);
        let n_vars = Arc::from([backend.schema().var.n_vars]);
        Self { backend, engine, locations, n_vars }
    }

    /// Where the store is; of several opened as one, where each of them is.
    #[must_use]
    pub fn locations(&self) -> &[String] {
        &self.locations
    }

    /// How many genes the store has; of several opened as one, how many each of them has: those that they
    /// have together are the schema's.
    #[must_use]
    pub fn n_vars_of_each(&self) -> &[u64] {
        &self.n_vars
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Threads, buffers and read statistics.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What the store holds.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        self.backend.schema()
    }

    /// How many cells.
    #[must_use]
    pub fn n_obs(&self) -> u64 {
        self.schema().n_obs
    }

    /// The cells for which all conditions on obs columns hold, such as `plate != plate14`; every cell
    /// if there are none. Reads the columns and waits.
    ///
    /// # Errors
    /// As [`Condition::from_str`](std::str::FromStr::from_str) and [`Subset::from_conditions`].
    pub fn subset(&self, conditions: &[impl AsRef<str>]) -> Result<Subset> {
        let conditions: Vec<Condition> =
            conditions.iter().map(|c| c.as_ref().parse()).collect::<Result<_>>()?;
        futures::executor::block_on(Subset::from_conditions(&*self.backend, &conditions))
    }

    /// A loader that shares the store's threads and buffers.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn loader(&self, plan: Plan, options: LoaderOptions) -> Result<Loader> {
        let options = options.with_engine(Arc::clone(&self.engine));
        Loader::new(Arc::clone(&self.backend), plan, options)
    }
}

/// Opens a store: a path, or a URL of an object store, with `#GROUP` behind it to open a group inside
/// an HDF5 file (`mod/rna` of MuData, a genome of an old 10x file). The format is told by the contents,
/// not by the name.
///
/// # Errors
/// Of kind `NotFound` if there is nothing, `Unsupported` if it is of a format that is not read (or
/// not in this build), and as the backend's own `open`.
pub fn open(uri: &str, options: &OpenOptions) -> Result<Store> {
    #[cfg(feature = "object")]
    if cellfeed_object::is_url(uri) {
        return crate::remote::open(uri, options);
    }
    #[cfg(not(feature = "object"))]
    if let Some((scheme, _)) = uri.split_once("://") {
        return Err(Error::unsupported(format!(
            "this build does not read stores behind {scheme}://: build it with one of the features aws, \
             gcp, azure, http; or give a path on this machine"
        )));
    }
    // A file whose own name has a # in it comes before a group inside another.
    let (path, root) = match uri.rsplit_once('#') {
        Some((path, root)) if !Path::new(uri).exists() => (path, root),
        _ => (uri, ""),
    };
    let path = Path::new(path);
    match sniff(path)? {
        Format::Hdf5 => open_hdf5(path, root, options),
        Format::Csr => open_csr(path, options),
        Format::Zarr => open_zarr(path, options),
        Format::Parquet => open_parquet(path, options),
        Format::Other(what) => Err(of_no_format(what).with("file", path.display())),
    }
}

/// The error for what is none of the formats.
pub(crate) fn of_no_format(what: &str) -> Error {
    Error::unsupported(format!(
        "{what}; what is read is AnnData (.h5ad), parts of MuData (.h5mu#mod/NAME), 10x Genomics .h5 \
         files, AnnData in Zarr (.zarr), Parquet as Cellfeed writes it or as Tahoe-100M is published, raw \
         CSR stores (.csr) and BioNeMo SCDL folders"
    ))
}

/// Opens several stores, of any formats, as one that holds the cells of the first, then those of the
/// second, and so on. They share threads and buffers. Genes are aligned by name; `options` says which
/// stay. One store alone is opened as it is. If hardly any genes are common to all, that is among the
/// engine's [warnings](cellfeed_core::io::ReadStats::take_warnings).
///
/// # Errors
/// As [`open`] for each, and as [`ConcatBackend::try_new`].
pub fn open_many(
    uris: &[impl AsRef<str>],
    options: &OpenOptions,
    concat: &ConcatOptions,
) -> Result<Store> {
    let engine = options.engine();
    let shared = options.clone().with_engine(Arc::clone(&engine));
    let stores = uris.iter().map(|uri| open(uri.as_ref(), &shared)).collect::<Result<Vec<_>>>()?;
    if let ([store], None) = (&stores[..], concat.label()) {
        return Ok(store.clone());
    }
    let locations = stores.iter().flat_map(|s| s.locations.iter().cloned()).collect();
    let n_vars = stores.iter().flat_map(|s| s.n_vars.iter().copied()).collect();
    let backends = stores.into_iter().map(|s| s.backend).collect();
    let backend = ConcatBackend::try_new(backends, concat, Arc::clone(&engine))?;
    Ok(Store { backend: Arc::new(backend), engine, locations, n_vars })
}

pub(crate) enum Format {
    Csr,
    Hdf5,
    Parquet,
    Zarr,
    Other(&'static str),
}

/// Looks at the first bytes.
fn sniff(path: &Path) -> Result<Format> {
    let io = |e| Error::io("cannot open", e).with("file", path.display());
    let found = path.metadata().map_err(io)?;
    if !found.is_dir() && !found.is_file() {
        return Ok(Format::Other("this is a device, a pipe or a socket"));
    }
    if found.is_dir() {
        let has = |name: &str| path.join(name).exists();
        // A folder that has what either kind of raw CSR store must have.
        if has("header.json") || (has("row_ptr.npy") && has("col_ptr.npy") && has("data.npy")) {
            return Ok(Format::Csr);
        }
        if has("zarr.json") || has(".zgroup") || has(".zmetadata") {
            return Ok(Format::Zarr);
        }
        if has_shards(path) {
            return Ok(Format::Parquet);
        }
        return Ok(Format::Other("this is a folder of no known format"));
    }
    let mut head = Vec::new();
    File::open(path).and_then(|f| f.take(8).read_to_end(&mut head)).map_err(io)?;
    Ok(of_bytes(&head))
}

/// The format of a file by its first eight bytes.
pub(crate) fn of_bytes(head: &[u8]) -> Format {
    match head {
        [] => Format::Other("the file is empty"),
        [b'P', b'A', b'R', b'1', ..] => Format::Parquet,
        [b'P', b'K', 3, 4, ..] => Format::Other("this is a zip archive; unpack it first"),
        [0x1f, 0x8b, ..] => Format::Other("this is a gzip'd file; unpack it first, with gunzip"),
        // The signature may come behind a user block: the backend looks for it.
        _ => Format::Hdf5,
    }
}

#[cfg(feature = "hdf5")]
fn open_hdf5(path: &Path, root: &str, options: &OpenOptions) -> Result<Store> {
    let engine = options.engine();
    let hdf5 = match root {
        "" => options.hdf5.clone(),
        root => options.hdf5.clone().with_root(root),
    };
    let backend = cellfeed_hdf5::Hdf5Backend::open(path, Arc::clone(&engine), &hdf5)?;
    Ok(Store::new(Arc::new(backend), engine))
}

/// Whether a folder has Parquet files in it, or in a folder `data` of it.
fn has_shards(path: &Path) -> bool {
    [path.to_path_buf(), path.join("data")].iter().any(|folder| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut names = entries.map(|e| e.path());
        names.any(|p| p.extension().is_some_and(|e| e == "parquet"))
    })
}

#[cfg(feature = "parquet")]
fn open_parquet(path: &Path, options: &OpenOptions) -> Result<Store> {
    let engine = options.engine();
    let parquet = &options.parquet;
    let backend = cellfeed_parquet::ParquetBackend::open(path, Arc::clone(&engine), parquet)?;
    Ok(Store::new(Arc::new(backend), engine))
}

#[cfg(feature = "csr")]
fn open_csr(path: &Path, options: &OpenOptions) -> Result<Store> {
    let engine = options.engine();
    let backend = cellfeed_csr::CsrBackend::open(path, Arc::clone(&engine), &options.csr)?;
    Ok(Store::new(Arc::new(backend), engine))
}

#[cfg(feature = "zarr")]
fn open_zarr(path: &Path, options: &OpenOptions) -> Result<Store> {
    let engine = options.engine();
    let backend = cellfeed_zarr::ZarrBackend::open(path, Arc::clone(&engine), &options.zarr)?;
    Ok(Store::new(Arc::new(backend), engine))
}

/// The error for a format whose feature was left out.
#[cfg(not(all(feature = "csr", feature = "hdf5", feature = "parquet", feature = "zarr")))]
pub(crate) fn not_built(what: &str, feature: &str, place: impl std::fmt::Display) -> Error {
    Error::unsupported(format!(
        "this build does not read {what}: build it with the feature {feature}"
    ))
    .with("file", place)
}

#[cfg(not(feature = "zarr"))]
fn open_zarr(path: &Path, _options: &OpenOptions) -> Result<Store> {
    Err(not_built("Zarr", "zarr", path.display()))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(path: &Path, _options: &OpenOptions) -> Result<Store> {
    Err(not_built("Parquet", "parquet", path.display()))
}

#[cfg(not(feature = "csr"))]
fn open_csr(path: &Path, _options: &OpenOptions) -> Result<Store> {
    Err(not_built("raw CSR", "csr", path.display()))
}

#[cfg(not(feature = "hdf5"))]
fn open_hdf5(path: &Path, _root: &str, _options: &OpenOptions) -> Result<Store> {
    Err(not_built("HDF5", "hdf5", path.display()))
}
