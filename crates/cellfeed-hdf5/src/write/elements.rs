//! AnnData's elements as HDF5 objects: attributes, groups, arrays, tables. The encoding is that of
//! anndata 0.8 to 0.12 (encoding versions as in "On-disk format" of anndata's documentation).

use super::chunked::Packing;
use super::frame::{ColumnValues, Frame, Items, Strings, StringsKind};
use super::heap::Heap;
use super::message::{self, Datatype, Extent, ObjectHeader, UNDEFINED, kind};
use super::sink::Sink;
use cellfeed_core::{Error, Result, ValueType};

/// Bytes of an array that are collected before they are written.
const PART: usize = 1 << 20;

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute<'a> {
    String(&'a str),
    Strings(&'a [&'a str]),
    Integer(i64),
    Integers(&'a [i64]),
    Float(f64),
    Floats(&'a [f64]),
    Bool(bool),
}

/// What an element says of itself: type and version of its encoding, and more.
pub(super) fn encoded<'a>(
    (kind, version): (&'a str, &'a str),
    more: &[(&'a str, Attribute<'a>)],
) -> Vec<(&'a str, Attribute<'a>)> {
    let mut all = vec![
        ("encoding-type", Attribute::String(kind)),
        ("encoding-version", Attribute::String(version)),
    ];
    all.extend_from_slice(more);
    all
}

/// Writes objects from the leaves up: a group comes after its members.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    pub(super) sink: &'a mut Sink,
    /// How large arrays without attributes are stored: those of sparse matrices.
    pub(super) packing: Packing,
    /// The strings of attributes.
    heap: Heap,
}

impl<'a> Elements<'a> {
    pub(super) fn new(sink: &'a mut Sink, packing: Packing) -> Self {
        Self { sink, packing, heap: Heap::new() }
    }

    /// A group with attributes `encoding-type` and `encoding-version` in front of others.
    pub(super) fn group(
        &mut self,
        encoding: (&str, &str),
        attributes: &[(&str, Attribute<'_>)],
        links: &[(&str, u64)],
    ) -> Result<u64> {
        self.plain_group(&encoded(encoding, attributes), links)
    }

    /// A group with just these attributes.
    pub(super) fn plain_group(
        &mut self,
        attributes: &[(&str, Attribute<'_>)],
        links: &[(&str, u64)],
    ) -> Result<u64> {
        let mut header = ObjectHeader::default();
        header.put(kind::LINK_INFO, &message::link_info())?;
        header.put(kind::GROUP_INFO, &message::group_info())?;
        for (name, address) in links {
            header.put(kind::LINK, &message::link(name, *address)?)?;
        }
        self.attributes(&mut header, attributes)?;
        self.sink.append_aligned(&header.finish()?)
    }

    /// A table: section "Dataframes" (version 0.2.0) of anndata's format.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, rows: usize) -> Result<u64> {
        let index = frame.index_name.as_str();
        let mut links = vec![(index, self.strings(&frame.index, rows)?)];
        for (name, values) in &frame.columns {
            let address = self.column(values, rows).map_err(|e| e.with_default("element", name))?;
            links.push((name, address));
        }
        let order: Vec<&str> = frame.columns.iter().map(|(name, _)| name.as_str()).collect();
        let attributes =
            [("_index", Attribute::String(index)), ("column-order", Attribute::Strings(&order))];
        self.group(("dataframe", "0.2.0"), &attributes, &links)
    }

    fn column(&mut self, values: &ColumnValues<'_>, rows: usize) -> Result<u64> {
        let number = Datatype::Number;
        match values {
            ColumnValues::I32(items) => {
                self.array(number(ValueType::I32), rows, |row| (items.at)(row).to_le_bytes())
            }
            ColumnValues::I64(items) => {
                self.array(number(ValueType::I64), rows, |row| (items.at)(row).to_le_bytes())
            }
            ColumnValues::U64(items) => {
                self.array(number(ValueType::U64), rows, |row| (items.at)(row).to_le_bytes())
            }
            ColumnValues::Nullable { values, missing } => {
                let kind = match values.as_ref() {
                    ColumnValues::I32(_) | ColumnValues::I64(_) | ColumnValues::U64(_) => {
                        "nullable-integer"
                    }
                    ColumnValues::Bool(_) => "nullable-boolean",
                    _ => {
                        return Err(Error::invalid_input("only integers and booleans have a mask"));
                    }
                };
                let values = self.column(values, rows)?;
                let mask = self.array(Datatype::Bool, rows, |row| [u8::from((missing.at)(row))])?;
                self.group((kind, "0.1.0"), &[], &[("mask", mask), ("values", values)])
            }
            ColumnValues::F32(items) => {
                self.array(number(ValueType::F32), rows, |row| (items.at)(row).to_le_bytes())
            }
            ColumnValues::F64(items) => {
                self.array(number(ValueType::F64), rows, |row| (items.at)(row).to_le_bytes())
            }
            ColumnValues::Bool(items) => {
                self.array(Datatype::Bool, rows, |row| [u8::from((items.at)(row))])
            }
            ColumnValues::String(strings) => self.strings(strings, rows),
            ColumnValues::Categorical { codes, categories, ordered } => {
                let codes = self.codes(codes, categories.len(), rows)?;
                let names = self.strings(&Strings::new(categories), categories.len())?;
                let links = [("categories", names), ("codes", codes)];
                let ordered = [("ordered", Attribute::Bool(*ordered))];
                self.group(("categorical", "0.2.0"), &ordered, &links)
            }
        }
    }

    /// Codes in the width that pandas chooses: signed, with one number to spare.
    fn codes(&mut self, codes: &Items<'_, i32>, categories: usize, rows: usize) -> Result<u64> {
        let most = i32::try_from(categories)
            .map_err(|_| Error::invalid_input("a column has at most 2^31 - 1 categories"))?;
        let mut wrong = None;
        let mut checked = |row| {
            let code = (codes.at)(row);
            if code < -1 || code >= most {
                wrong.get_or_insert((row, code));
            }
            // The low bytes of a small signed number are that number in a narrower type.
            code.to_le_bytes()
        };
        let address = if categories < 127 {
            self.array(Datatype::Number(ValueType::I8), rows, |row| {
                let [a, ..] = checked(row);
                [a]
            })
        } else if categories < 32767 {
            self.array(Datatype::Number(ValueType::I16), rows, |row| {
                let [a, b, ..] = checked(row);
                [a, b]
            })
        } else {
            self.array(Datatype::Number(ValueType::I32), rows, checked)
        };
        match wrong {
            None => address,
            Some((row, code)) => Err(Error::invalid_input(format!(
                "code {code} is not one of {categories} categories, nor -1"
            ))
            .with("row", row)),
        }
    }

    /// A contiguous array of `len` elements, made one at a time.
    pub(super) fn array<const N: usize>(
        &mut self,
        datatype: Datatype,
        len: usize,
        mut at: impl FnMut(usize) -> [u8; N],
    ) -> Result<u64> {
        let address = self.sink.append_aligned(&[])?;
        let mut part = Vec::with_capacity(PART.min(len * N));
        for i in 0..len {
            part.extend(at(i));
            if part.len() >= PART {
                self.sink.append(&part)?;
                part.clear();
            }
        }
        self.sink.append(&part)?;
        let extent = Extent::Fixed(len as u64);
        self.dataset(datatype, &extent, &encoded(("array", "0.2.0"), &[]), address, len)
    }

    /// An array of variable-length strings. The references have their place set aside first,
    /// for they become known as the strings go out.
    fn strings(&mut self, strings: &Strings<'_>, len: usize) -> Result<u64> {
        let address = self.string_references(strings, len)?;
        let (extent, encoding) =
            (Extent::Fixed(len as u64), encoded(("string-array", "0.2.0"), &[]));
        self.dataset(Datatype::String, &extent, &encoding, address, len)
    }

    /// Writes strings, and returns the address of what refers to them.
    pub(super) fn string_references(&mut self, strings: &Strings<'_>, len: usize) -> Result<u64> {
        let address = self.sink.reserve(len as u64 * Datatype::String.size() as u64)?;
        let mut heap = Heap::new();
        let (mut references, mut written) = (Vec::new(), 0);
        let mut made = String::new();
        for row in 0..=len {
            if row == len {
                heap.flush(self.sink, &mut references)?;
            } else {
                let string = match &strings.0 {
                    StringsKind::Slice(strings) => strings[row].as_str(),
                    StringsKind::Function(write) => {
                        made.clear();
                        write(row, &mut made);
                        made.as_str()
                    }
                };
                if string.contains('\0') {
                    return Err(
                        Error::invalid_input("a string contains a zero byte").with("row", row)
                    );
                }
                heap.push(string, self.sink, &mut references)?;
            }
            if row == len || references.len() >= PART {
                self.sink.write_at(address + written, &references)?;
                written += references.len() as u64;
                references.clear();
            }
        }
        Ok(address)
    }

    /// A dataset whose `len` elements lie at `address`.
    pub(super) fn dataset(
        &mut self,
        datatype: Datatype,
        extent: &Extent,
        attributes: &[(&str, Attribute<'_>)],
        address: u64,
        len: usize,
    ) -> Result<u64> {
        let bytes = len as u64 * datatype.size() as u64;
        let address = if bytes == 0 { UNDEFINED } else { address };
        let mut header = ObjectHeader::default();
        header.put(kind::DATASPACE, &extent.message())?;
        header.put(kind::DATATYPE, &datatype.message()?)?;
        header.put(kind::FILL_VALUE, &message::fill_value(false))?;
        header.put(kind::LAYOUT, &message::contiguous_layout(address, bytes))?;
        self.attributes(&mut header, attributes)?;
        self.sink.append_aligned(&header.finish()?)
    }

    fn attributes(
        &mut self,
        header: &mut ObjectHeader,
        attributes: &[(&str, Attribute<'_>)],
    ) -> Result<()> {
        let number = Datatype::Number;
        for (name, value) in attributes {
            let (datatype, extent, data) = match value {
                Attribute::String(string) => {
                    (Datatype::String, Extent::Scalar, self.references(&[string])?)
                }
                Attribute::Strings(strings) => {
                    let extent = Extent::Fixed(strings.len() as u64);
                    (Datatype::String, extent, self.references(strings)?)
                }
                Attribute::Integers(integers) => {
                    let data = integers.iter().flat_map(|i| i.to_le_bytes()).collect();
                    let extent = Extent::Fixed(integers.len() as u64);
                    (number(ValueType::I64), extent, data)
                }
                Attribute::Integer(value) => {
                    (number(ValueType::I64), Extent::Scalar, value.to_le_bytes().to_vec())
                }
                Attribute::Float(value) => {
                    (number(ValueType::F64), Extent::Scalar, value.to_le_bytes().to_vec())
                }
                Attribute::Floats(floats) => {
                    let data = floats.iter().flat_map(|v| v.to_le_bytes()).collect();
                    (number(ValueType::F64), Extent::Fixed(floats.len() as u64), data)
                }
                Attribute::Bool(value) => (Datatype::Bool, Extent::Scalar, vec![u8::from(*value)]),
            };
            header.put(kind::ATTRIBUTE, &message::attribute(name, datatype, &extent, &data)?)?;
        }
        Ok(())
    }

    /// Writes the strings of an attribute and returns what refers to them.
    fn references(&mut self, strings: &[&str]) -> Result<Vec<u8>> {
        let mut references = Vec::with_capacity(16 * strings.len());
        for string in strings {
            self.heap.push(string, self.sink, &mut references)?;
        }
        self.heap.flush(self.sink, &mut references)?;
        Ok(references)
    }
}
