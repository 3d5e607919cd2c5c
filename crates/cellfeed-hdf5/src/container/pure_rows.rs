//! Rows of a dataset through the pure reader: sizes are checked before anything is read.

use std::ops::Range;

use cellfeed_core::{Error, Result};
use hdf5_pure::Datatype;

use super::element::ElementType;
use super::heap::Heap;
use super::node::Storage;
use super::pure::{Handle, PureContainer, listed};
use super::pure_convert::{self as convert, Padding};
use super::pure_node::{chunk_bytes, shape_and_element};
use super::strings::{StringRows, check_rows, over};

impl PureContainer {
    pub(super) fn window(&self, key: &str, rows: &Range<u64>) -> Result<Window> {
        let Handle { dataset, checked } = self.handle(key)?;
        let (shape, element) = shape_and_element(&dataset)?;
        check_rows(rows, shape.first().copied().unwrap_or(1))?;
        let storage = self.storage(&dataset, &shape, &element)?;
        let limit = self.limits.read_bytes;
        match storage {
            Storage::Chunked { chunk_shape } => {
                let chunk_bytes = chunk_bytes(&chunk_shape, &element)?;
                if chunk_bytes > limit {
                    return Err(Error::unsupported(format!(
                        "chunks of {chunk_bytes} bytes are beyond the {limit} that are decoded"
                    )));
                }
                // The library allocates by the stored size of a chunk, which may be a lie.
                if checked.get().is_none() {
                    let largest = u64::from(self.table(&dataset)?.largest());
                    if largest > chunk_bytes.saturating_mul(2).saturating_add(1 << 16) {
                        return Err(Error::corrupt(format!(
                            "a chunk of {chunk_bytes} bytes claims to be stored in {largest}"
                        )));
                    }
                    checked.get_or_init(|| ());
                }
            }
            Storage::Unsupported(what) => {
                return Err(Error::unsupported(format!("the dataset is stored in {what}")));
            }
            Storage::Compact | Storage::Contiguous { .. } => {}
        }
        let per_row = shape.iter().skip(1).try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = per_row
            .and_then(|n| n.checked_mul(element.size()))
            .and_then(|n| n.checked_mul(rows.end - rows.start))
            .filter(|&n| n <= limit)
            .ok_or_else(|| over(limit))?;
        Ok(Window {
            datatype: dataset.datatype().map_err(convert::error)?,
            dataset,
            scalar: shape.is_empty(),
            rows: rows.clone(),
            per_row: per_row.unwrap_or(0),
            element_size: usize::try_from(element.size()).map_err(|_| over(limit))?,
            bytes: usize::try_from(bytes).map_err(|_| over(limit))?,
            element,
        })
    }

    pub(super) fn strings(
        &self,
        window: &Window,
        at: &Range<usize>,
        element: &ElementType,
        padding: Padding,
        rows: &Range<u64>,
    ) -> Result<Vec<String>> {
        let mut out = StringRows::new(rows, window.per_row, self.limits.read_bytes)?;
        match element {
            ElementType::VlenString => {
                let mut heap = Heap::new(&self.source, self.sizes);
                let end = at.start.saturating_add(heap.reference_size());
                window.each(|item| {
                    out.push_terminated(heap.resolve(item.get(at.start..end).unwrap_or_default())?)
                })?;
            }
            ElementType::FixedString { .. } => window.each(|item| {
                let bytes = item.get(at.clone()).unwrap_or_default();
                match padding {
                    Padding::Terminated => out.push_terminated(bytes),
                    Padding::Nulls => out.push_padded(bytes, false),
                    Padding::Spaces => out.push_padded(bytes, true),
                }
            })?,
            _ => {
                return Err(Error::invalid_input(format!(
                    "elements of type {element} are no strings"
                )));
            }
        }
        Ok(out.finish())
    }
}

/// Rows of a dataset whose size was checked.
pub(super) struct Window {
    dataset: hdf5_pure::Dataset,
    pub(super) datatype: Datatype,
    pub(super) element: ElementType,
    pub(super) element_size: usize,
    scalar: bool,
    rows: Range<u64>,
    per_row: u64,
    bytes: usize,
}

impl Window {
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        if self.bytes == 0 {
            return Ok(Vec::new());
        }
        let raw = if self.scalar {
            self.dataset.read_raw()
        } else {
            self.dataset.read_raw_rows(self.rows.start, self.rows.end - self.rows.start)
        };
        let raw = raw.map_err(convert::error)?;
        if raw.len() != self.bytes {
            return Err(Error::corrupt(format!(
                "{} bytes were read where {} should be",
                raw.len(),
                self.bytes
            )));
        }
        Ok(raw)
    }

    pub(super) fn each(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.read()?.chunks_exact(self.element_size.max(1)).try_for_each(&mut visit)
    }

    /// Place, type and padding of a compound's field.
    pub(super) fn field(&self, name: &str) -> Result<(Range<usize>, ElementType, Padding)> {
        let ElementType::Compound { fields, .. } = &self.element else {
            return Err(Error::invalid_input(format!("{} has no fields", self.element)));
        };
        let Some(field) = self.element.field(name) else {
            let names: Vec<String> = fields.iter().map(|f| f.name.clone()).collect();
            return Err(Error::not_found(format!("no field {name:?}; {}", listed(&names))));
        };
        let padding = match &self.datatype {
            Datatype::Compound { members, .. } => members
                .iter()
                .find(|m| m.name == name)
                .map_or(Padding::Nulls, |m| convert::padding(&m.datatype)),
            _ => Padding::Nulls,
        };
        let range = usize::try_from(field.offset).ok().and_then(|start| {
            let end = start.checked_add(usize::try_from(field.element.size()).ok()?)?;
            (end <= self.element_size).then_some(start..end)
        });
        let range = range
            .ok_or_else(|| Error::corrupt(format!("the field {name:?} ends past its element")))?;
        Ok((range, field.element.clone(), padding))
    }
}
