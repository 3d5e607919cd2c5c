//! The reference HDF5 library behind the same interface: the oracle of the tests, and the fallback
//! for structures and filters that the pure reader does not know.
//!
//! The library holds one process-wide lock, and it can crash on hostile metadata where a Rust
//! parser gives an error. So a file comes here only after the pure reader has opened it, or has
//! found its structure unsupported.
//!
//! Its binding does not tell everything: byte order of a compound's fields (taken to be the
//! compound's), whether a filter is optional, and the parameters of the built-in filters.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use cellfeed_core::{Error, ErrorKind, Result};
use hdf5::types::{IntSize, TypeDescriptor};
use hdf5::{Dataspace, Datatype, IterationOrder, LinkType, LocationType};

use super::chunk_table::{ChunkTable, ChunkTableBuilder, check_grid, grid_of};
use super::element::{ByteOrder, ElementType, Field};
use super::native_read as read;
use super::node::{Dataset, Filter, Group, Node, Storage, filter_name};
use super::pure::not_found;
use super::strings::{check_rows, over};
use super::{Attributes, Container, Limits, absolute, guard, probe};

/// Opens a local file with the reference library. The pure reader must have opened it before, or
/// have found it `Unsupported`.
pub(crate) fn open_libhdf5(path: &Path, limits: Limits) -> Result<NativeContainer> {
    let name = path.display().to_string();
    guard::run(u64::MAX, || {
        let meta = std::fs::metadata(path).map_err(|e| Error::io("cannot open", e))?;
        // Errors of the library are returned, not printed.
        hdf5::silence_errors(true);
        let library = hdf5::File::open(path).map_err(|e| {
            let text = e.to_string();
            if text.contains("consistency flag") || text.contains("lock file") {
                return probe::in_use();
            }
            failed("cannot open with libhdf5", e)
        })?;
        Ok(NativeContainer { library, file: name.clone(), len: meta.len(), limits })
    })
    .map_err(|e| e.with_default("file", &name))
}

/// See [`open_libhdf5`].
pub(crate) struct NativeContainer {
    library: hdf5::File,
    file: String,
    len: u64,
    limits: Limits,
}

impl fmt::Debug for NativeContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeContainer").field("file", &self.file).finish_non_exhaustive()
    }
}

pub(super) fn failed(what: &str, error: hdf5::Error) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what}: {error}")).caused_by(error)
}

impl Container for NativeContainer {
    fn node(&self, path: &str) -> Result<Node> {
        self.run(path, |key| {
            if key == "/" {
                return self.group(&self.library).map(Node::Group);
            }
            match self.library.loc_type_by_name(key) {
                Ok(LocationType::Group) => {
                    let group = self.library.group(key).map_err(|e| failed("cannot open", e))?;
                    if group.filename() != self.library.filename() {
                        return Err(Error::unsupported(
                            "a link to another file; links out of a file are not followed",
                        ));
                    }
                    self.group(&group).map(Node::Group)
                }
                Ok(LocationType::Dataset) => self.describe(&self.dataset(key)?).map(Node::Dataset),
                Ok(_) => Err(Error::unsupported("neither a group nor a dataset")),
                Err(_) => Err(self.absent(key)),
            }
        })
    }

    fn chunk_table(&self, path: &str) -> Result<ChunkTable> {
        self.run(path, |key| {
            let dataset = self.dataset(key)?;
            let described = self.describe(&dataset)?;
            let Storage::Chunked { chunk_shape } = &described.storage else {
                return Err(Error::invalid_input("the dataset is not stored in chunks"));
            };
            let (_, slots) = grid_of(&described.shape, chunk_shape)?;
            check_grid(slots, self.len, self.limits.chunks)?;
            let mut chunks = Vec::new();
            dataset
                .chunks_visit(|c| {
                    chunks.push((c.offset.to_vec(), c.addr, c.size, c.filter_mask));
                    0
                })
                .map_err(|e| failed("cannot list the chunks", e))?;
            let mut table =
                ChunkTableBuilder::new(&described.shape, chunk_shape, chunks.len(), self.len)?;
            for (first, address, size, mask) in chunks {
                table.push(&first, address, size, mask)?;
            }
            Ok(table.finish())
        })
    }

    fn read_raw(&self, path: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        self.run(path, |key| {
            let (dataset, described) = self.window(key, &rows)?;
            read::plain(&dataset, &described.element, None, &rows)
        })
    }

    fn read_compound_raw(&self, path: &str, field: &str, rows: Range<u64>) -> Result<Vec<u8>> {
        self.run(path, |key| {
            let (dataset, described) = self.window(key, &rows)?;
            read::plain(&dataset, field_of(&described, field)?, Some(field), &rows)
        })
    }

    fn read_strings(&self, path: &str, rows: Range<u64>) -> Result<Vec<String>> {
        self.run(path, |key| {
            let (dataset, described) = self.window(key, &rows)?;
            let kind = descriptor(&dataset)?;
            self.strings(&dataset, &described, &kind, None, &rows)
        })
    }

    fn read_compound_strings(
        &self,
        path: &str,
        field: &str,
        rows: Range<u64>,
    ) -> Result<Vec<String>> {
        self.run(path, |key| {
            let (dataset, described) = self.window(key, &rows)?;
            field_of(&described, field)?;
            let kind = match descriptor(&dataset)? {
                TypeDescriptor::Compound(c) => {
                    c.fields.into_iter().find(|f| f.name == field).map(|f| f.ty)
                }
                _ => None,
            };
            let kind = kind.ok_or_else(|| Error::internal("a field vanished"))?;
            self.strings(&dataset, &described, &kind, Some(field), &rows)
        })
    }
}

fn descriptor(dataset: &hdf5::Dataset) -> Result<TypeDescriptor> {
    let datatype = dataset.dtype().map_err(|e| failed("cannot read the datatype", e))?;
    datatype.to_descriptor().map_err(|e| failed("cannot read the datatype", e))
}

fn field_of<'d>(described: &'d Dataset, name: &str) -> Result<&'d ElementType> {
    match described.element.field(name) {
        Some(field) => Ok(&field.element),
        None => Err(Error::not_found(format!("no field {name:?} in {}", described.element))),
    }
}

impl NativeContainer {
    /// Runs one call with file and element in its error. The binding has assertions too: they
    /// become errors as the pure reader's do.
    fn run<T: Send>(&self, path: &str, work: impl FnOnce(&str) -> Result<T> + Send) -> Result<T> {
        let key = absolute(path);
        guard::run(u64::MAX, || work(&key)).map_err(|e| {
            let element = key.strip_prefix('/').filter(|k| !k.is_empty()).unwrap_or("/");
            e.with_default("file", &self.file).with_default("element", element)
        })
    }

    fn absent(&self, key: &str) -> Error {
        let mut parent = key;
        while let Some((up, _)) = parent.rsplit_once('/') {
            parent = up;
            let names = if up.is_empty() {
                self.members(&self.library)
            } else {
                match self.library.group(up) {
                    Ok(group) => self.members(&group),
                    Err(_) => continue,
                }
            };
            if let Ok(names) = names {
                return not_found(up, &names);
            }
        }
        Error::not_found("no such element")
    }

    fn dataset(&self, key: &str) -> Result<hdf5::Dataset> {
        match self.library.loc_type_by_name(key) {
            Ok(LocationType::Dataset) => {
                let dataset = self.library.dataset(key).map_err(|e| failed("cannot open", e))?;
                if dataset.filename() != self.library.filename() {
                    return Err(Error::unsupported(
                        "a link to another file; links out of a file are not followed",
                    ));
                }
                Ok(dataset)
            }
            Ok(_) => Err(Error::invalid_input("a group, where a dataset was asked for")),
            Err(_) => Err(self.absent(key)),
        }
    }

    fn members(&self, group: &hdf5::Group) -> Result<Vec<String>> {
        let links = group
            .links(hdf5::IndexType::Name, IterationOrder::Native)
            .map_err(|e| failed("cannot list the group", e))?;
        if links.len() > self.limits.names {
            return Err(Error::unsupported(format!("{} members", links.len())));
        }
        let mut names: Vec<String> = links
            .into_iter()
            .filter(|(name, info)| {
                !matches!(info.link_type, LinkType::Hard)
                    || matches!(
                        group.loc_type_by_name(name),
                        Ok(LocationType::Group | LocationType::Dataset)
                    )
            })
            .map(|(name, _)| name)
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn group(&self, group: &hdf5::Group) -> Result<Group> {
        Ok(Group { members: self.members(group)?, attributes: self.attributes(group)? })
    }

    fn attributes(&self, object: &hdf5::Location) -> Result<Attributes> {
        let names = object.attr_names().map_err(|e| failed("cannot list the attributes", e))?;
        if names.len() > self.limits.names {
            return Err(Error::unsupported(format!("{} attributes", names.len())));
        }
        names
            .into_iter()
            .map(|name| {
                let attr = object.attr(&name).map_err(|e| failed("cannot open an attribute", e))?;
                let value = read::attribute(object, &attr);
                Ok((name, value))
            })
            .collect()
    }

    fn describe(&self, dataset: &hdf5::Dataset) -> Result<Dataset> {
        let datatype = dataset.dtype().map_err(|e| failed("cannot read the datatype", e))?;
        let element = element(&datatype);
        let space = dataset.space().map_err(|e| failed("cannot read the shape", e))?;
        let shape = shape(&space);
        let plist = dataset.dcpl().map_err(|e| failed("cannot read the layout", e))?;
        let storage = if plist.external().is_empty() {
            match dataset.layout() {
                hdf5::dataset::Layout::Compact => Storage::Compact,
                hdf5::dataset::Layout::Contiguous => {
                    let elements: u64 = shape.iter().product();
                    let size = elements.saturating_mul(element.size());
                    // "Undefined" plus the userblock, which the library forgets to except.
                    let undefined = self.library.userblock().wrapping_sub(1);
                    let offset = dataset.offset().filter(|&o| o != undefined);
                    Storage::Contiguous { offset, size }
                }
                hdf5::dataset::Layout::Chunked => Storage::Chunked {
                    chunk_shape: dataset.chunk().unwrap_or_default().iter().map(wide).collect(),
                },
                _ => Storage::Unsupported("a virtual dataset".to_owned()),
            }
        } else {
            Storage::Unsupported("external files".to_owned())
        };
        let filters = plist
            .get_filters()
            .map_err(|e| failed("cannot read the filters", e))?
            .iter()
            .map(filter)
            .collect();
        let fill = read::fill(dataset, &element);
        let attributes = self.attributes(dataset)?;
        Ok(Dataset { shape, element, storage, filters, fill, attributes })
    }

    fn window(&self, key: &str, rows: &Range<u64>) -> Result<(hdf5::Dataset, Dataset)> {
        let dataset = self.dataset(key)?;
        let described = self.describe(&dataset)?;
        check_rows(rows, described.rows())?;
        if let Storage::Unsupported(what) = &described.storage {
            return Err(Error::unsupported(format!("the dataset is stored in {what}")));
        }
        // Asked first: the library's own error names folders of the machine that built it.
        for filter in dataset.filters() {
            if !filter.is_available() {
                let name = filter_name(u16::try_from(filter.id()).unwrap_or(u16::MAX));
                return Err(Error::unsupported(format!("libhdf5 has no filter {name}")));
            }
        }
        let limit = self.limits.read_bytes;
        let chunk = match &described.storage {
            Storage::Chunked { chunk_shape } => chunk_shape.as_slice(),
            _ => &[],
        };
        let size = described.element.size();
        let chunk_bytes = chunk.iter().try_fold(size, |n, &d| n.checked_mul(d));
        let bytes = described
            .elements_per_row()
            .and_then(|n| n.checked_mul(size))
            .and_then(|n| n.checked_mul(rows.end - rows.start));
        if chunk_bytes.is_none_or(|n| n > limit) || bytes.is_none_or(|n| n > limit) {
            return Err(over(limit));
        }
        Ok((dataset, described))
    }

    fn strings(
        &self,
        dataset: &hdf5::Dataset,
        described: &Dataset,
        kind: &TypeDescriptor,
        field: Option<&str>,
        rows: &Range<u64>,
    ) -> Result<Vec<String>> {
        let per_row = described.elements_per_row().unwrap_or(u64::MAX);
        read::strings(dataset, kind, field, rows, per_row, self.limits.read_bytes)
    }
}

fn wide(n: &usize) -> u64 {
    u64::try_from(*n).unwrap_or(u64::MAX)
}

fn shape(space: &Dataspace) -> Vec<u64> {
    if space.is_null() { vec![0] } else { space.shape().iter().map(wide).collect() }
}

fn filter(filter: &hdf5::filters::Filter) -> Filter {
    let id = u16::try_from(filter.id()).unwrap_or(u16::MAX);
    let client_data = match filter {
        hdf5::filters::Filter::Deflate(level) => vec![u32::from(*level)],
        hdf5::filters::Filter::User(_, data) => data.clone(),
        _ => Vec::new(),
    };
    Filter { id, name: filter_name(id), client_data, optional: false }
}

/// What a datatype of the library is to us.
fn element(datatype: &Datatype) -> ElementType {
    let order = match datatype.byte_order() {
        hdf5::datatype::ByteOrder::BigEndian => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    match datatype.to_descriptor() {
        Ok(descriptor) => nested(&descriptor, order),
        Err(e) => ElementType::Other {
            size: u32::try_from(datatype.size()).unwrap_or(u32::MAX),
            name: e.to_string(),
        },
    }
}

fn int_bytes(size: IntSize) -> u8 {
    match size {
        IntSize::U1 => 1,
        IntSize::U2 => 2,
        IntSize::U4 => 4,
        IntSize::U8 => 8,
    }
}

fn nested(descriptor: &TypeDescriptor, order: ByteOrder) -> ElementType {
    use TypeDescriptor as D;
    let of = |bytes: u8| if bytes == 1 { ByteOrder::Little } else { order };
    match descriptor {
        D::Integer(size) | D::Unsigned(size) => {
            let bytes = int_bytes(*size);
            let signed = matches!(descriptor, D::Integer(_));
            ElementType::Integer { bytes, signed, order: of(bytes) }
        }
        D::Float(_) => match u8::try_from(descriptor.size()) {
            Ok(bytes) => ElementType::Float { bytes, order },
            Err(_) => ElementType::Other { size: 0, name: "floating point".to_owned() },
        },
        D::Boolean => ElementType::Bool,
        D::Enum(e) => {
            let bytes = int_bytes(e.size);
            let unused = 64 - 8 * u32::from(bytes);
            let value = |v: u64| {
                let v = v.cast_signed() << unused;
                if e.signed { v >> unused } else { (v.cast_unsigned() >> unused).cast_signed() }
            };
            ElementType::Enum {
                bytes,
                signed: e.signed,
                order: of(bytes),
                members: e.members.iter().map(|m| (m.name.clone(), value(m.value))).collect(),
            }
        }
        D::Compound(c) => ElementType::Compound {
            size: u32::try_from(c.size).unwrap_or(u32::MAX),
            fields: c
                .fields
                .iter()
                .map(|f| Field {
                    name: f.name.clone(),
                    offset: wide(&f.offset),
                    element: nested(&f.ty, order),
                })
                .collect(),
        },
        D::FixedAscii(n) | D::FixedUnicode(n) => {
            ElementType::FixedString { len: u32::try_from(*n).unwrap_or(u32::MAX) }
        }
        D::VarLenAscii | D::VarLenUnicode => ElementType::VlenString,
        D::Reference(hdf5::types::Reference::Object) => ElementType::Reference,
        other => ElementType::Other {
            size: u32::try_from(other.size()).unwrap_or(u32::MAX),
            name: other.to_string(),
        },
    }
}
