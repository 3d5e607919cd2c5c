//! Header messages and version 2 object headers, as bytes. Section numbers are those of the HDF5
//! File Format Specification 3.0. Offsets and lengths are 8 bytes wide everywhere.

use super::checksum::lookup3;
use cellfeed_core::{Error, Result, ValueType};

/// The undefined address.
pub(super) const UNDEFINED: u64 = u64::MAX;

/// Message types (section IV.A.2).
pub(super) mod kind {
    pub(in super::super) const DATASPACE: u8 = 0x01;
    pub(in super::super) const LINK_INFO: u8 = 0x02;
    pub(in super::super) const DATATYPE: u8 = 0x03;
    pub(in super::super) const FILL_VALUE: u8 = 0x05;
    pub(in super::super) const LINK: u8 = 0x06;
    pub(in super::super) const LAYOUT: u8 = 0x08;
    pub(in super::super) const GROUP_INFO: u8 = 0x0a;
    pub(in super::super) const FILTERS: u8 = 0x0b;
    pub(in super::super) const ATTRIBUTE: u8 = 0x0c;
}

pub(super) fn u16_of(value: usize) -> Result<u16> {
    u16::try_from(value).map_err(|_| too_large(value))
}

pub(super) fn u32_of(value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| too_large(value))
}

fn too_large(value: usize) -> Error {
    Error::unsupported(format!("{value} is more than its field in an HDF5 header can hold"))
}

/// The datatypes that AnnData needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datatype {
    Number(ValueType),
    /// An enumeration of FALSE and TRUE over i8, as h5py stores booleans.
    Bool,
    /// A variable-length UTF-8 string.
    String,
}

impl Datatype {
    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Number(t) => t.size(),
            Self::Bool => 1,
            Self::String => 16,
        }
    }

    /// Section IV.A.2.d, "Datatype", version 1.
    pub(super) fn message(self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Number(t) => match t {
                ValueType::U8 => fixed(1, false),
                ValueType::U16 => fixed(2, false),
                ValueType::U32 => fixed(4, false),
                ValueType::U64 => fixed(8, false),
                ValueType::I8 => fixed(1, true),
                ValueType::I16 => fixed(2, true),
                ValueType::I32 => fixed(4, true),
                ValueType::I64 => fixed(8, true),
                ValueType::F16 => float(2, 5, 10),
                ValueType::F32 => float(4, 8, 23),
                ValueType::F64 => float(8, 11, 52),
                other => {
                    return Err(Error::unsupported(format!("cannot write values of type {other}")));
                }
            },
            Self::Bool => {
                let mut out = vec![0x18, 2, 0, 0, 1, 0, 0, 0];
                out.extend(fixed(1, true));
                // Names padded to eight bytes, then the members' values.
                out.extend(b"FALSE\0\0\0TRUE\0\0\0\0\0\x01");
                out
            }
            Self::String => {
                // Class 9 of kind string, null-terminated, UTF-8, over single bytes.
                let mut out = vec![0x19, 0x01, 0x01, 0x00, 16, 0, 0, 0];
                out.extend(fixed(1, false));
                out
            }
        })
    }
}

/// A little-endian integer of `size` bytes.
fn fixed(size: u8, signed: bool) -> Vec<u8> {
    vec![0x10, if signed { 0x08 } else { 0 }, 0, 0, size, 0, 0, 0, 0, 0, size * 8, 0]
}

/// A little-endian IEEE number of `size` bytes, its exponent and mantissa in bits.
fn float(size: u8, exponent: u8, mantissa: u8) -> Vec<u8> {
    let bits = size * 8;
    // 0x20: the mantissa's first bit is implied. The sign is the last bit.
    let mut out = vec![0x11, 0x20, bits - 1, 0, size, 0, 0, 0, 0, 0, bits, 0];
    out.extend([mantissa, exponent, 0, mantissa]);
    out.extend(((1u32 << (exponent - 1)) - 1).to_le_bytes());
    out
}

/// The extent of a dataset or attribute.
#[derive(Debug, Clone)]
pub(super) enum Extent {
    /// No elements at all, not even a shape.
    Null,
    Scalar,
    /// Several dimensions.
    Shape(Vec<u64>),
    Fixed(u64),
    /// One dimension that may grow without bound.
    Growing(u64),
}

impl Extent {
    /// Section IV.A.2.b, "Dataspace", version 2.
    pub(super) fn message(&self) -> Vec<u8> {
        match self {
            Self::Null => vec![2, 0, 0, 2],
            Self::Scalar => vec![2, 0, 0, 0],
            Self::Shape(shape) => {
                // HDF5 has at most 32 dimensions; the caller has seen to it.
                let rank = u8::try_from(shape.len()).unwrap_or(u8::MAX);
                let mut out = vec![2, rank, 0, 1];
                out.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
                out
            }
            Self::Fixed(n) => [&[2, 1, 0, 1][..], &n.to_le_bytes()].concat(),
            Self::Growing(n) => {
                [&[2, 1, 1, 1][..], &n.to_le_bytes(), &u64::MAX.to_le_bytes()].concat()
            }
        }
    }
}

/// Section IV.A.2.i, "Data Layout", version 3, contiguous.
pub(super) fn contiguous_layout(address: u64, bytes: u64) -> Vec<u8> {
    [&[3, 1][..], &address.to_le_bytes(), &bytes.to_le_bytes()].concat()
}

/// Section IV.A.2.i, "Data Layout", version 3, chunked in one dimension.
pub(super) fn chunked_layout(index: u64, chunk_len: u32, width: u32) -> Vec<u8> {
    [&[3, 2, 2][..], &index.to_le_bytes(), &chunk_len.to_le_bytes(), &width.to_le_bytes()].concat()
}

/// Section IV.A.2.f, "Data Storage - Fill Value", version 2: the default value, written if set;
/// space is had late (2) for contiguous data, as chunks come (3) for chunked.
pub(super) fn fill_value(chunked: bool) -> Vec<u8> {
    vec![2, if chunked { 3 } else { 2 }, 2, 1, 0, 0, 0, 0]
}

/// Section IV.A.2.m, "Attribute", version 3.
pub(super) fn attribute(
    name: &str,
    datatype: Datatype,
    extent: &Extent,
    data: &[u8],
) -> Result<Vec<u8>> {
    let (datatype, extent) = (datatype.message()?, extent.message());
    // The last byte of the head: the name is UTF-8 unless it is plain ASCII.
    let mut out = vec![3, 0];
    out.extend(u16_of(name.len() + 1)?.to_le_bytes());
    out.extend(u16_of(datatype.len())?.to_le_bytes());
    out.extend(u16_of(extent.len())?.to_le_bytes());
    out.push(u8::from(!name.is_ascii()));
    out.extend(name.as_bytes());
    out.push(0);
    out.extend(datatype);
    out.extend(extent);
    out.extend(data);
    Ok(out)
}

/// Section IV.A.2.g, "Link", version 1, a hard link.
pub(super) fn link(name: &str, address: u64) -> Result<Vec<u8>> {
    // Flags: the width of the name's length (1 or 2 bytes), character set present.
    let mut out = Vec::with_capacity(name.len() + 16);
    if let Ok(length) = u8::try_from(name.len()) {
        out.extend([1, 0x10, u8::from(!name.is_ascii()), length]);
    } else {
        out.extend([1, 0x11, u8::from(!name.is_ascii())]);
        out.extend(u16_of(name.len())?.to_le_bytes());
    }
    out.extend(name.as_bytes());
    out.extend(address.to_le_bytes());
    Ok(out)
}

/// Section IV.A.2.c, "Link Info", version 0: links are kept in the header alone.
pub(super) fn link_info() -> Vec<u8> {
    [&[0, 0][..], &UNDEFINED.to_le_bytes(), &UNDEFINED.to_le_bytes()].concat()
}

/// Section IV.A.2.k, "Group Info", version 0, all defaults.
pub(super) fn group_info() -> Vec<u8> {
    vec![0, 0]
}

/// An object header in the making: section IV.A.1.b, version 2, in one piece.
#[derive(Debug, Default)]
pub(super) struct ObjectHeader {
    messages: Vec<u8>,
}

impl ObjectHeader {
    pub(super) fn put(&mut self, kind: u8, message: &[u8]) -> Result<()> {
        self.messages.push(kind);
        let length = u16::try_from(message.len()).map_err(|_| {
            Error::unsupported("a header message would be larger than 64 KiB: too many columns?")
        })?;
        self.messages.extend(length.to_le_bytes());
        self.messages.push(0);
        self.messages.extend(message);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        // Flags 2: the size is a 4-byte number; no times, no creation order.
        let mut out = b"OHDR\x02\x02".to_vec();
        out.extend(u32_of(self.messages.len())?.to_le_bytes());
        out.extend(self.messages);
        out.extend(lookup3(&out).to_le_bytes());
        Ok(out)
    }
}

/// Bytes of the superblock.
pub(super) const SUPERBLOCK_LEN: usize = 48;

/// Section II.A, "Disk Format: Level 0A", version 2.
pub(super) fn superblock(end: u64, root: u64) -> Vec<u8> {
    let mut out = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00".to_vec();
    for address in [0, UNDEFINED, end, root] {
        out.extend(address.to_le_bytes());
    }
    out.extend(lookup3(&out).to_le_bytes());
    out
}
