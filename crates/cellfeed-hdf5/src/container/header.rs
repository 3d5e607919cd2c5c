//! Object headers, read by ourselves for the two things that the pure reader's interface hides:
//! the bytes of an attribute that holds an object reference, and the fill value.
//!
//! Source: HDF5 File Format Specification 3.0, IV.A "Disk Format: Level 2A - Data Object Headers".
//! Only what lies in the header itself is read; attributes in dense storage stay unknown.

use cellfeed_core::{Error, Result};

use super::cache::Paged;

pub(super) const LINK_INFO: u16 = 0x02;
const LAYOUT: u16 = 0x08;
const FILL_OLD: u16 = 0x04;
const FILL: u16 = 0x05;
pub(super) const LINK: u16 = 0x06;
const FILTERS: u16 = 0x0b;
const ATTRIBUTE: u16 = 0x0c;
const CONTINUATION: u16 = 0x10;
pub(super) const SYMBOL_TABLE: u16 = 0x11;

/// Continuation blocks of one header.
const BLOCKS: usize = 4096;
const SHARED: u8 = 0x02;

/// How wide addresses and lengths are in this file, and where they count from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) offset: usize,
    pub(crate) length: usize,
    pub(crate) base: u64,
}

/// A little-endian number of at most eight bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, &b| (n << 8) | u64::from(b))
}

impl Sizes {
    /// A stored address as a position in the file; `None` for the undefined and the null address.
    pub(crate) fn address(self, bytes: &[u8]) -> Option<u64> {
        if bytes.iter().all(|&b| b == 0xff) || bytes.iter().all(|&b| b == 0) {
            return None;
        }
        number(bytes).checked_add(self.base)
    }

    /// The address at a place.
    pub(crate) fn address_at(self, bytes: &[u8], at: usize) -> Option<u64> {
        self.address(bytes.get(at..at.checked_add(self.offset)?)?)
    }

    /// The length at a place.
    pub(crate) fn length_at(self, bytes: &[u8], at: usize) -> Option<usize> {
        usize::try_from(number(bytes.get(at..at.checked_add(self.length)?)?)).ok()
    }
}

/// One message of a header.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    flags: u8,
    pub(crate) body: Vec<u8>,
}

fn damaged(address: u64) -> Error {
    Error::corrupt("an object header is damaged").with("offset", address)
}

/// All messages of the header at `address`, continuations included.
pub(crate) fn messages(source: &Paged, sizes: Sizes, address: u64) -> Result<Vec<Message>> {
    let wrong = || damaged(address);
    let head = source.read(address, 6)?;
    let (version2, tracked, start, len) = if head.starts_with(b"OHDR") {
        let flags = head.get(5).copied().unwrap_or(0);
        let width = 1usize << (flags & 3);
        let times = if flags & 0x20 != 0 { 16 } else { 0 };
        let phases = if flags & 0x10 != 0 { 4 } else { 0 };
        let at = address.checked_add(6 + times + phases).ok_or_else(wrong)?;
        let len = usize::try_from(number(&source.read(at, width)?)).map_err(|_| wrong())?;
        let start = at.checked_add(u64::try_from(width).unwrap_or(8)).ok_or_else(wrong)?;
        (true, flags & 4 != 0, start, len)
    } else if head.first() == Some(&1) {
        let prefix = source.read(address, 16)?;
        let len = number(prefix.get(8..12).unwrap_or_default());
        let start = address.checked_add(16).ok_or_else(wrong)?;
        (false, false, start, usize::try_from(len).map_err(|_| wrong())?)
    } else {
        return Err(wrong());
    };
    let mut blocks = vec![(start, len)];
    let mut next = 0;
    let mut found = Vec::new();
    while let Some(&(at, len)) = blocks.get(next) {
        let first = next == 0;
        next += 1;
        let bytes = source.read(at, len)?;
        let body = match (version2, first) {
            // Later blocks start with OCHK and end with a checksum.
            (true, false) => bytes.get(4..len.saturating_sub(4)).ok_or_else(wrong)?,
            _ => bytes.as_slice(),
        };
        split(body, version2, tracked, &mut found).ok_or_else(wrong)?;
        for message in found.extract_if(.., |m: &mut Message| m.kind == CONTINUATION) {
            let to = sizes.address_at(&message.body, 0).ok_or_else(wrong)?;
            let len = sizes.length_at(&message.body, sizes.offset).ok_or_else(wrong)?;
            blocks.push((to, len));
        }
        if blocks.len() > BLOCKS {
            return Err(wrong());
        }
    }
    Ok(found)
}

fn split(mut bytes: &[u8], version2: bool, tracked: bool, to: &mut Vec<Message>) -> Option<()> {
    let head_len = if version2 { 4 + if tracked { 2 } else { 0 } } else { 8 };
    // What is shorter than a message's head is a gap.
    while bytes.len() >= head_len {
        let (head, rest) = bytes.split_at(head_len);
        let (kind, len, flags) = if version2 {
            (u64::from(*head.first()?), number(head.get(1..3)?), *head.get(3)?)
        } else {
            (number(head.get(..2)?), number(head.get(2..4)?), *head.get(4)?)
        };
        let (body, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        if kind != 0 {
            to.push(Message { kind: u16::try_from(kind).ok()?, flags, body: body.to_vec() });
        }
        bytes = rest;
    }
    Some(())
}

/// Whether the header is that of a group or a dataset (and not of a named datatype).
pub(crate) fn is_object(messages: &[Message]) -> bool {
    messages.iter().any(|m| matches!(m.kind, LAYOUT | LINK | LINK_INFO | SYMBOL_TABLE))
}

/// Whether the object has a filter pipeline.
pub(crate) fn has_filters(messages: &[Message]) -> bool {
    messages.iter().any(|m| m.kind == FILTERS)
}

/// The element that never-written storage holds, as it is in the file. `None` when it is shared or
/// damaged, an empty vector when it is the default, zeros.
pub(crate) fn fill_value(messages: &[Message]) -> Option<Vec<u8>> {
    let Some(m) = messages.iter().find(|m| m.kind == FILL) else {
        return match messages.iter().find(|m| m.kind == FILL_OLD) {
            Some(m) if m.flags & SHARED != 0 => None,
            Some(m) => sized(&m.body, 0),
            None => Some(Vec::new()),
        };
    };
    if m.flags & SHARED != 0 {
        return None;
    }
    match *m.body.first()? {
        1 | 2 if *m.body.get(3)? == 0 => Some(Vec::new()),
        1 | 2 => sized(&m.body, 4),
        3 => match *m.body.get(1)? {
            flags if flags & 0x20 != 0 => sized(&m.body, 2),
            _ => Some(Vec::new()),
        },
        _ => None,
    }
}

fn sized(body: &[u8], at: usize) -> Option<Vec<u8>> {
    let len = usize::try_from(number(body.get(at..at + 4)?)).ok()?;
    // A size of -1 stands for an undefined value.
    if len == usize::try_from(u32::MAX).ok()? {
        return Some(Vec::new());
    }
    Some(body.get(at + 4..at.checked_add(4)?.checked_add(len)?)?.to_vec())
}

/// The address that the attribute `name` refers to, if it is an object reference in the header.
pub(crate) fn attribute_reference(messages: &[Message], sizes: Sizes, name: &str) -> Option<u64> {
    messages
        .iter()
        .filter(|m| m.kind == ATTRIBUTE && m.flags & SHARED == 0)
        .find_map(|m| reference_in(&m.body, sizes, name))
}

fn reference_in(body: &[u8], sizes: Sizes, name: &str) -> Option<u64> {
    let version = *body.first()?;
    let len = |at: usize| usize::try_from(number(body.get(at..at + 2)?)).ok();
    let (name_len, type_len, space_len) = (len(2)?, len(4)?, len(6)?);
    let padded = |n: usize| if version == 1 { n.next_multiple_of(8) } else { n };
    let name_at: usize = if version == 3 { 9 } else { 8 };
    let stored = body.get(name_at..name_at.checked_add(name_len)?)?;
    if stored.split(|&b| b == 0).next()? != name.as_bytes() {
        return None;
    }
    let type_at = name_at.checked_add(padded(name_len))?;
    let datatype = body.get(type_at..type_at.checked_add(type_len)?)?;
    // Class 7 is a reference, its kind 0 one to an object.
    if datatype.first()? & 0x0f != 7 || datatype.get(1)? & 0x0f != 0 {
        return None;
    }
    let data_at = type_at.checked_add(padded(type_len))?.checked_add(padded(space_len))?;
    sizes.address_at(body, data_at)
}
