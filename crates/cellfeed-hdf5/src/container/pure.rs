//! The default reader: `hdf5-pure` over any source, guarded and checked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cellfeed_core::{Error, Result};
use hdf5_pure::{File, FileAccessProperties, FormatError};

use super::cache::{Paged, PureSource};
use super::chunk_table::{ChunkTable, ChunkTableBuilder, check_grid, grid_of};
use super::header::Sizes;
use super::node::{Node, Storage};
use super::pure_convert as convert;
use super::pure_node::{chunk_bytes, shape_and_element};
use super::source::ReadAt;
use super::{Container, Limits, absolute, components, guard, links, probe};

/// Open datasets that are kept, since each holds its list of chunks once it was read from.
const HANDLES: usize = 8;
/// Members that a "not found" names.
const NAMED: usize = 12;

/// Opens an HDF5 file with the pure reader. `file` names it in errors.
pub(crate) fn open_pure(
    source: impl ReadAt + 'static,
    file: &str,
    limits: Limits,
) -> Result<PureContainer> {
    let paged = Arc::new(Paged::new(Box::new(source)));
    let budget = budget(paged.len());
    guard::run(budget, || {
        probe::find_superblock(&paged)?;
        let library = File::from_source_with_options(
            PureSource(Arc::clone(&paged)),
            FileAccessProperties::new(),
        )
        .map_err(convert::error)?;
        let superblock = library.superblock();
        probe::check_length(&paged, superblock.eof_address)?;
        let sizes = Sizes {
            offset: usize::from(superblock.offset_size),
            length: usize::from(superblock.length_size),
            base: superblock.base_address.get(),
        };
        let root = superblock.root_group_address;
        Ok(PureContainer {
            library,
            source: Arc::clone(&paged),
            file: file.to_owned(),
            sizes,
            root,
            limits,
            names: OnceLock::new(),
            handles: Mutex::default(),
        })
    })
    .map_err(|e| e.with_default("file", file))
}

/// What one call may read: all of a small file several times, but no more than a few GiB.
fn budget(file_len: u64) -> u64 {
    file_len.saturating_mul(4).min(2 << 30).saturating_add(64 << 20)
}

/// See [`open_pure`].
pub(crate) struct PureContainer {
    library: File,
    pub(super) source: Arc<Paged>,
    file: String,
    pub(super) sizes: Sizes,
    pub(super) root: u64,
    pub(super) limits: Limits,
    /// Paths by header address, made when the first object reference is met.
    pub(super) names: OnceLock<HashMap<u64, String>>,
    handles: Mutex<VecDeque<(String, Handle)>>,
}

/// An open dataset, and whether its chunks were checked.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) dataset: hdf5_pure::Dataset,
    pub(super) checked: Arc<OnceLock<()>>,
}

impl fmt::Debug for PureContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PureContainer").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Container for PureContainer {
    fn node(&self, path: &str) -> Result<Node> {
        self.run(path, 0, |key| {
            if key == "/" {
                return self.group(&self.library.root(), key).map(Node::Group);
            }
            self.followed(key, |key| match self.library.dataset(key) {
                Ok(dataset) => Ok(self.describe(&dataset, key).map(Node::Dataset)),
                Err(hdf5_pure::Error::NotADataset(_)) => match self.library.group(key) {
                    Ok(group) => Ok(self.group(&group, key).map(Node::Group)),
                    Err(hdf5_pure::Error::NotAGroup(_)) => {
                        Ok(Err(Error::unsupported("neither a group nor a dataset")))
                    }
                    Err(e) => Ok(Err(convert::error(e))),
                },
                Err(e) => Err(e),
            })
        })
    }

    fn chunk_table(&self, path: &str) -> Result<ChunkTable> {
        self.run(path, 0, |key| self.table(&self.handle(key)?.dataset))
    }

    fn read_raw(&self, path: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        self.run(path, self.limits.read_bytes, |key| {
            let window = self.window(key, &rows)?;
            if window.element.plain_order().is_none() {
                return Err(Error::unsupported(format!(
                    "elements of type {} cannot be read as plain values",
                    window.element
                )));
            }
            let mut bytes = window.read()?;
            window.element.to_little_endian(&mut bytes);
            Ok(bytes)
        })
    }

    fn read_compound_raw(&self, path: &str, field: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        self.run(path, self.limits.read_bytes, |key| {
            let window = self.window(key, &rows)?;
            let (at, element, _) = window.field(field)?;
            if element.plain_order().is_none() {
                return Err(Error::unsupported(format!(
                    "the field {field:?} of type {element} cannot be read as plain values"
                )));
            }
            let mut bytes = Vec::new();
            window.each(|item| {
                bytes.extend_from_slice(item.get(at.clone()).unwrap_or_default());
                Ok(())
            })?;
            element.to_little_endian(&mut bytes);
            Ok(bytes)
        })
    }

    fn read_strings(&self, path: &str, rows: Range<u64>) -> Result<Vec<String>> {
        self.run(path, self.limits.read_bytes, |key| {
            let window = self.window(key, &rows)?;
            let padding = convert::padding(&window.datatype);
            self.strings(&window, &(0..window.element_size), &window.element, padding, &rows)
        })
    }

    fn read_compound_strings(
        &self,
        path: &str,
        field: &str,
        rows: Range<u64>,
    ) -> Result<Vec<String>> {
        self.run(path, self.limits.read_bytes, |key| {
            let window = self.window(key, &rows)?;
            let (at, element, padding) = window.field(field)?;
            self.strings(&window, &at, &element, padding, &rows)
        })
    }
}

impl PureContainer {
    /// Runs one call: guarded, with file and element in its error.
    fn run<T: Send>(
        &self,
        path: &str,
        payload: u64,
        work: impl FnOnce(&str) -> Result<T> + Send,
    ) -> Result<T> {
        let key = absolute(path);
        let budget = budget(self.source.len()).saturating_add(payload.saturating_mul(4));
        guard::run(budget, || work(&key)).map_err(|e| {
            let element = key.strip_prefix('/').filter(|k| !k.is_empty()).unwrap_or("/");
            e.with_default("file", &self.file).with_default("element", element)
        })
    }

    /// Opens what is at `key`; if the library cannot, again with soft links resolved, which it does
    /// not follow.
    fn followed<T>(
        &self,
        key: &str,
        open: impl Fn(&str) -> Result<Result<T>, hdf5_pure::Error>,
    ) -> Result<T> {
        let error = match open(key) {
            Ok(opened) => return opened,
            Err(error) => error,
        };
        guard::forget();
        match links::canonical(&self.source, self.sizes, self.root, key)? {
            Some(path) => open(&path).unwrap_or_else(|e| Err(self.absent(&path, e))),
            None => Err(self.absent(key, error)),
        }
    }

    fn absent(&self, key: &str, error: hdf5_pure::Error) -> Error {
        let missing = matches!(
            &error,
            hdf5_pure::Error::Format(FormatError::PathNotFound(_)) | hdf5_pure::Error::NotAGroup(_)
        );
        if !missing {
            return convert::error(error);
        }
        let mut parent = key;
        while let Some((up, _)) = parent.rsplit_once('/') {
            parent = up;
            let found =
                if up.is_empty() { Ok(self.library.root()) } else { self.library.group(up) };
            if let Ok(names) = found.map_err(convert::error).and_then(|g| self.members(&g, up)) {
                return not_found(up, &names);
            }
        }
        Error::not_found("no such element")
    }

    pub(super) fn handle(&self, key: &str) -> Result<Handle> {
        let kept = || self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, handle)) = kept().iter().find(|(k, _)| k == key) {
            return Ok(handle.clone());
        }
        let dataset = self.followed(key, |key| match self.library.dataset(key) {
            Ok(dataset) => Ok(Ok(dataset)),
            Err(hdf5_pure::Error::NotADataset(_)) => {
                Ok(Err(Error::invalid_input("a group, where a dataset was asked for")))
            }
            Err(e) => Err(e),
        })?;
        let handle = Handle { dataset, checked: Arc::default() };
        let mut handles = kept();
        handles.push_back((key.to_owned(), handle.clone()));
        if handles.len() > HANDLES {
            handles.pop_front();
        }
        Ok(handle)
    }

    pub(super) fn members(&self, group: &hdf5_pure::Group, key: &str) -> Result<Vec<String>> {
        let address = links::address_of(&self.source, self.sizes, self.root, components(key))?;
        let ours = match address {
            Some(at) => links::member_names(&self.source, self.sizes, at)?,
            None => None,
        };
        let mut names = match ours {
            Some(names) => names,
            None => {
                let mut names = group.datasets().map_err(convert::error)?;
                names.extend(group.groups().map_err(convert::error)?);
                names
            }
        };
        self.check_count(names.len(), "members")?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    pub(super) fn check_count(&self, count: usize, what: &str) -> Result<()> {
        if count > self.limits.names {
            return Err(Error::unsupported(format!("{count} {what} are more than are read")));
        }
        Ok(())
    }

    pub(super) fn table(&self, dataset: &hdf5_pure::Dataset) -> Result<ChunkTable> {
        let (shape, element) = shape_and_element(dataset)?;
        let Storage::Chunked { chunk_shape } = self.storage(dataset, &shape, &element)? else {
            return Err(Error::invalid_input("the dataset is not stored in chunks"));
        };
        let chunk_bytes = chunk_bytes(&chunk_shape, &element)?;
        self.check_chunks(dataset, &shape, &chunk_shape, chunk_bytes)?;
        let chunks = dataset.chunks().map_err(convert::error)?;
        let filtered = !dataset.filters().is_empty();
        let mut table =
            ChunkTableBuilder::new(&shape, &chunk_shape, chunks.len(), self.source.len())?;
        for c in &chunks {
            if !filtered && c.storage_size != chunk_bytes {
                return Err(Error::corrupt(format!(
                    "an unfiltered chunk has {} bytes and should have {chunk_bytes}",
                    c.storage_size
                )));
            }
            table.push(&c.offset, c.address, c.storage_size, c.filter_mask)?;
        }
        Ok(table.finish())
    }

    /// What must hold before the library lists chunks: it allocates by the grid's size.
    fn check_chunks(
        &self,
        dataset: &hdf5_pure::Dataset,
        shape: &[u64],
        chunk_shape: &[u64],
        chunk_bytes: u64,
    ) -> Result<()> {
        let (_, slots) = grid_of(shape, chunk_shape)?;
        check_grid(slots, self.source.len(), self.limits.chunks)?;
        match dataset.chunk_index().map_err(convert::error)? {
            Some(hdf5_pure::ChunkIndex::BTreeV2) => Err(Error::unsupported(
                "the chunks are indexed by a version 2 B-tree, which only the libhdf5 reader reads",
            )),
            Some(hdf5_pure::ChunkIndex::Implicit)
                if slots.checked_mul(chunk_bytes).is_none_or(|n| n > self.source.len()) =>
            {
                Err(Error::corrupt(format!("{slots} chunks of {chunk_bytes} bytes do not fit")))
            }
            _ => Ok(()),
        }
    }
}

/// The error for a name that a group does not have.
pub(crate) fn not_found(parent: &str, names: &[String]) -> Error {
    let parent = if parent.is_empty() { "the root group" } else { parent };
    Error::not_found(format!("no such element; {parent} {}", listed(names)))
}

pub(super) fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "is empty".to_owned();
    }
    let mut text =
        format!("has {}", names.get(..names.len().min(NAMED)).unwrap_or_default().join(", "));
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}
