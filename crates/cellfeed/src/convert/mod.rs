//! Conversion: any store that can be read into any format that can be written, in bounded memory.
//!
//! ```text
//! mod.rs        what is carried over, and the run: one batch is written while the next is read
//! batch.rs      one batch: rows in file order or in a shuffled one, of some matrices and columns
//! choose.rs     which matrices and columns are carried over, and why others are not
//! genes.rs      a selection of genes
//! remote.rs     a store for a bucket: written to this machine, then put there
//! spill.rs      rows set aside on the disk, sorted by batch, where the source has another order
//! ```

mod batch;
mod choose;
mod genes;
#[cfg(feature = "object")]
mod remote;
mod spill;

use crate::transpose::Transposed;
use crate::{Format, Store, create};
use batch::{Order, Reader};
use cellfeed_core::{
    ColumnKind, ColumnSchema, Error, Extras, MatrixKey, NewMatrix, NewStore, Result, StoreWriter,
    WriteOptions, Written,
};
use choose::{Chosen, choose_columns, choose_matrices};
use futures::executor::block_on;
use genes::Selection;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to convert, and how.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    format: Option<Format>,
    write: WriteOptions,
    layers: Option<Vec<String>>,
    raw: bool,
    obs: Option<Vec<String>>,
    genes: Option<Vec<String>>,
    shuffle: Option<u64>,
    memory: u64,
    #[cfg_attr(not(feature = "object"), allow(dead_code))]
    staging: Option<PathBuf>,
    #[cfg(feature = "object")]
    remote: crate::remote::Remotes,
}

impl Default for ConvertOptions {
    /// Everything, in the format of the destination's ending, in file order, in 2 GiB.
    fn default() -> Self {
        Self {
            format: None,
            write: WriteOptions::default(),
            layers: None,
            raw: true,
            obs: None,
            genes: None,
            shuffle: None,
            memory: 2 << 30,
            staging: None,
            #[cfg(feature = "object")]
            remote: crate::remote::Remotes::default(),
        }
    }
}

impl ConvertOptions {
    /// The format to write, whatever the destination's ending.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// Codec, chunks, and whether to replace what is there.
    #[must_use]
    pub fn with_write(mut self, write: WriteOptions) -> Self {
        self.write = write;
        self
    }

    /// Only these layers. Default: all. With layers named, an `X` that cannot be read is left behind; else
    /// it is an error.
    #[must_use]
    pub fn with_layers(mut self, layers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.layers = Some(layers.into_iter().map(Into::into).collect());
        self
    }

    /// Whether `raw` is kept. Default: yes.
    #[must_use]
    pub fn with_raw(mut self, raw: bool) -> Self {
        self.raw = raw;
        self
    }

    /// Only these obs columns. Default: all.
    #[must_use]
    pub fn with_obs(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.obs = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Only these genes of `X` and the layers, by name, in the store's order. Default: all.
    #[must_use]
    pub fn with_genes(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.genes = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Permutes all cells, by a seed: the order depends on the seed and on nothing else. A source whose
    /// rows are dear to read one by one is read once, from end to end, and its rows are set aside in a
    /// file beside the destination, uncompressed, until they are written; it is removed at the end.
    #[must_use]
    pub fn with_shuffle(mut self, seed: u64) -> Self {
        self.shuffle = Some(seed);
        self
    }

    /// Bytes of memory for rows that are read and written.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// The folder in which a store for a bucket is put together, in a folder of its own that is removed
    /// at the end: it takes as much as the store, and a shuffled one more. Default: the system's folder for
    /// what is temporary, which `TMPDIR` names.
    #[must_use]
    pub fn with_staging(mut self, folder: impl Into<PathBuf>) -> Self {
        self.staging = Some(folder.into());
        self
    }

    /// How the bucket is reached, for a destination behind a URL.
    #[cfg(feature = "object")]
    #[must_use]
    pub fn with_remote(mut self, options: cellfeed_object::RemoteOptions) -> Self {
        self.remote = crate::remote::Remotes::new(options);
        self
    }
}

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Sets rows aside on the disk, in another order. Few conversions need it.
    Sorting,
    /// Writes the destination.
    Writing,
    /// Puts what was written into the bucket. As many cells are done as are the share of bytes that are
    /// there.
    Uploading,
}

/// How far a conversion is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Cells that this was done with.
    pub cells: u64,
    /// Cells in all.
    pub n_obs: u64,
}

/// What a conversion did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Converted {
    /// The format that was written.
    pub format: Format,
    /// What was written, and what the format could not keep.
    pub written: Written,
    /// What could not be read, or was not asked for: a path and a reason.
    pub left_out: Vec<(String, String)>,
    /// Genes that were asked for and are not there.
    pub missing_genes: Vec<String>,
    /// Genes of `X` that were written.
    pub n_vars: u64,
    /// Genes that the source had; of several, each of them.
    pub n_vars_of_each: Vec<u64>,
}

/// Converts a store. The destination is a path, or a URL of an object store: then it is put together on
/// this machine ([`with_staging`](ConvertOptions::with_staging)) and uploaded, which is tried before the
/// work begins. `progress` is called after each batch, and ends the work by answering false; nothing is
/// left of it then.
///
/// # Errors
/// Of the source as [`Backend::read_rows`](cellfeed_core::Backend::read_rows), of the destination as
/// [`create`]; `InvalidInput` if the destination is the source, or there is nothing to convert;
/// `Unsupported` if the source has an `X` that cannot be read and no layers were named, or a layer that
/// was; `OverBudget` if not even one cell fits the memory; `Cancelled`. Of a URL also `Unsupported` if it is
/// not written to, `NotFound` if there is no such bucket, `Io` if the store refuses or is not reached.
pub fn convert(
    source: &Store,
    destination: impl AsRef<Path>,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Converted> {
    let destination = destination.as_ref();
    if let Some(url) = as_url(destination) {
        #[cfg(feature = "object")]
        return remote::convert(source, url, options, progress);
        #[cfg(not(feature = "object"))]
        return Err(Error::unsupported(
            "this build reaches no object stores: build it with one of the features aws, gcp, azure, or \
             convert to a path",
        )
        .with("url", url));
    }
    refuse_same(source, destination)?;
    write(source, destination, format(destination, options)?, options, progress)
}

/// A destination that is a URL, which as a path would be a strange name of a folder.
fn as_url(destination: &Path) -> Option<&str> {
    let url = destination.to_str()?;
    let (scheme, _) = url.split_once("://")?;
    (!scheme.is_empty() && !scheme.contains('/')).then_some(url)
}

/// The format that is asked for, or that of the destination's ending.
fn format(destination: &Path, options: &ConvertOptions) -> Result<Format> {
    options.format.map_or_else(|| Format::from_path(destination), Ok)
}

/// Converts to a path.
fn write(
    source: &Store,
    destination: &Path,
    format: Format,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Converted> {
    let mut left_out = Vec::new();
    let matrices = choose_matrices(source, options, &mut left_out)?;
    let columns = choose_columns(source, options, &mut left_out)?;
    let selection = match &options.genes {
        Some(names) => Some(Selection::of(source, names)?),
        None => None,
    };
    let chosen = (&matrices[..], columns, selection.as_ref());
    let new = block_on(describe(source, options, format, chosen, &mut left_out))?;
    let (n_obs, n_vars) = (new.n_obs, new.var.n_rows());
    // The writer makes its own copy of what it must know; ours says what to read.
    let mut reader = Reader::new(source, matrices, &new, selection.as_ref(), options.memory / 2)?;
    let order = Order::new(n_obs, options.shuffle)?;
    let writer = create(destination, format, new, &options.write)?;
    let sorted = &mut |cells| progress(Progress { stage: Stage::Sorting, cells, n_obs });
    block_on(reader.spill(&order, destination, sorted))?;
    let reader = Arc::new(reader);
    let written = block_on(run(source, &reader, &order, writer, n_obs, progress))?;
    let missing_genes = selection.map_or_else(Vec::new, |s| s.missing.clone());
    let n_vars_of_each = source.n_vars_of_each().to_vec();
    Ok(Converted { format, written, left_out, missing_genes, n_vars, n_vars_of_each })
}

/// Reads the next batch while the last one is written.
async fn run(
    source: &Store,
    reader: &Arc<Reader>,
    order: &Order,
    mut writer: Box<dyn StoreWriter>,
    n_obs: u64,
    progress: &mut dyn FnMut(Progress) -> bool,
) -> Result<Written> {
    let engine = source.engine();
    let mut done = 0;
    let mut ahead = if n_obs == 0 { None } else { Some(reader.read(order, 0).await?) };
    while let Some(batch) = ahead.take() {
        let cells = batch.n_rows;
        let next = done + cells;
        let write = engine.compute(move || {
            writer.append(&batch)?;
            Ok(writer)
        });
        let read = async {
            if next < n_obs { reader.read(order, next).await.map(Some) } else { Ok(None) }
        };
        // Both to their end: a writer that is still at work when the other fails would leave what it has
        // written behind.
        let (returned, following) = futures::join!(write, read);
        (writer, ahead, done) = (returned?, following?, next);
        if !progress(Progress { stage: Stage::Writing, cells: done, n_obs }) {
            return Err(Error::cancelled());
        }
    }
    engine.compute(move || writer.finish()).await
}

/// Refuses a destination that is a source, or inside one, or around one.
fn refuse_same(source: &Store, destination: &Path) -> Result<()> {
    let real = |p: &Path| {
        let parent = p.parent().filter(|q| !q.as_os_str().is_empty()).unwrap_or(Path::new("."));
        p.canonicalize().or_else(|_| {
            Ok::<_, std::io::Error>(parent.canonicalize()?.join(p.file_name().unwrap_or_default()))
        })
    };
    for location in source.locations() {
        // Behind a # is a part of a file.
        let path = location.split_once('#').map_or(location.as_str(), |(path, _)| path);
        let (Ok(from), Ok(to)) = (real(Path::new(path)), real(destination)) else { continue };
        let same_file = || {
            use std::os::unix::fs::MetadataExt;
            let of = |p: &Path| p.metadata().ok().map(|m| (m.dev(), m.ino()));
            of(&from).is_some() && of(&from) == of(&to)
        };
        if from == to || to.starts_with(&from) || from.starts_with(&to) || same_file() {
            return Err(Error::invalid_input(
                "the destination is the source, or one is inside the other; give another name",
            )
            .with("file", destination.display()));
        }
    }
    Ok(())
}

/// What the source has beside matrices, obs and var, if the destination keeps it: what it does not is not
/// read, so that nothing fails on it, nor takes its time.
async fn read_extras(
    source: &Store,
    options: &ConvertOptions,
    format: Format,
    left_out: &mut Vec<(String, String)>,
) -> Result<Extras> {
    match source.backend().archive() {
        Some(archive) if format.keeps_extras() => archive.read_extras(options.memory / 4).await,
        Some(archive) => {
            let why = format!("a .{format} store keeps matrices, obs and var alone");
            let names = archive.extra_names().await?;
            left_out.extend(names.into_iter().map(|name| (name, why.clone())));
            Ok(Extras::default())
        }
        None => {
            if source.locations().len() > 1 {
                let why = "of several stores only matrices, obs and var are joined";
                left_out.push(("uns, obsm, varm, obsp, varp".to_owned(), why.to_owned()));
            }
            Ok(Extras::default())
        }
    }
}

async fn describe(
    source: &Store,
    options: &ConvertOptions,
    format: Format,
    (matrices, columns, selection): (&[Chosen], Vec<ColumnSchema>, Option<&Selection>),
    left_out: &mut Vec<(String, String)>,
) -> Result<NewStore> {
    let (backend, schema) = (source.backend(), source.schema());
    let mut var = backend.read_var(&MatrixKey::X).await?;
    for column in &schema.var.columns {
        if let ColumnKind::Unreadable(why) = &column.kind {
            left_out.push((format!("var/{}", column.name), why.clone()));
        }
    }
    if let Some(selection) = selection {
        var = selection.table(&var)?;
    }
    let var = Arc::new(var);
    let mut new = Vec::with_capacity(matrices.len());
    for chosen in matrices {
        let found = schema.find(&chosen.key);
        let found = found.ok_or_else(|| Error::internal("a chosen matrix is not there"))?;
        new.push(NewMatrix {
            key: chosen.key.clone(),
            var: match chosen.key {
                MatrixKey::Raw => Arc::new(backend.read_var(&MatrixKey::Raw).await?),
                _ => Arc::clone(&var),
            },
            value_type: found.value_type,
            expected_nnz: found.nnz,
        });
    }
    let mut extras = read_extras(source, options, format, left_out).await?;
    left_out.append(&mut extras.left_out);
    // What has a row for each cell or gene must keep to their order and selection.
    let mut fixed: Vec<&str> = Vec::new();
    if options.shuffle.is_some() {
        fixed.extend(["obsm", "obsp"]);
    }
    if selection.is_some() {
        fixed.extend(["varm", "varp"]);
    }
    extras.elements.retain(|(name, _)| {
        let stays = !fixed.contains(&name.as_str());
        if !stays {
            let why = "it follows an order or a selection that is changed";
            left_out.push((name.clone(), why.to_owned()));
        }
        stays
    });
    Ok(NewStore {
        n_obs: schema.n_obs,
        matrices: new,
        obs_index: schema.obs_index.clone(),
        obs: columns,
        var,
        extras,
    })
}
