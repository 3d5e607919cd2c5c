//! Thrift's compact protocol, as far as Parquet's footers and page headers use it.
//!
//! What is read is never believed: a list has no more items than bytes are left, nesting has an end,
//! and nothing is allocated by a length alone.

use cellfeed_core::{Error, Result};

/// How deep structures may be nested; Parquet's own are six deep.
const DEEPEST: u32 = 24;

pub(crate) const TRUE: u8 = 1;
pub(crate) const FALSE: u8 = 2;
pub(crate) const BYTE: u8 = 3;
pub(crate) const I32: u8 = 5;
pub(crate) const I64: u8 = 6;
pub(crate) const BINARY: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const STRUCT: u8 = 12;

/// Reads from the front of bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
}

fn short() -> Error {
    Error::corrupt("metadata end too early")
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or_else(short)?;
        let part = self.bytes.get(self.at..end).ok_or_else(short)?;
        self.at = end;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or_else(short)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a number of more than 64 bits in the metadata"))
    }

    fn signed(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    /// A number of a field of any integer type.
    pub(crate) fn integer(&mut self, kind: u8) -> Result<i64> {
        match kind {
            BYTE => self.byte().map(|b| b.cast_signed().into()),
            4 | I32 | I64 => self.signed(),
            _ => Err(wrong(kind)),
        }
    }

    /// As [`integer`](Self::integer), where nothing below zero has a meaning.
    pub(crate) fn unsigned(&mut self, kind: u8) -> Result<u64> {
        let value = self.integer(kind)?;
        u64::try_from(value).map_err(|_| Error::corrupt(format!("{value} where a size should be")))
    }

    pub(crate) fn binary(&mut self, kind: u8) -> Result<&'a [u8]> {
        if kind != BINARY {
            return Err(wrong(kind));
        }
        let len = self.varint()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub(crate) fn text(&mut self, kind: u8) -> Result<&'a str> {
        std::str::from_utf8(self.binary(kind)?)
            .map_err(|_| Error::corrupt("a name in the metadata is not text"))
    }

    /// Reads a structure: `field` gets each field's number and type, and answers whether it has read
    /// the value; else it is skipped.
    pub(crate) fn fields(
        &mut self,
        mut field: impl FnMut(&mut Self, i16, u8) -> Result<bool>,
    ) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::corrupt("metadata are nested too deeply"));
        }
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                self.depth -= 1;
                return Ok(());
            }
            id = match head >> 4 {
                0 => i16::try_from(self.signed()?)
                    .map_err(|_| Error::corrupt("a field of an unknown number"))?,
                delta => id.saturating_add(delta.into()),
            };
            let kind = head & 0x0f;
            if !field(self, id, kind)? {
                self.skip(kind)?;
            }
        }
    }

    /// The type and number of a list's items.
    pub(crate) fn list(&mut self, kind: u8) -> Result<(u8, usize)> {
        if kind != LIST && kind != 10 {
            return Err(wrong(kind));
        }
        let head = self.byte()?;
        let n = match head >> 4 {
            15 => usize::try_from(self.varint()?).unwrap_or(usize::MAX),
            n => n.into(),
        };
        // An item has a byte at least.
        if n > self.left() {
            return Err(short());
        }
        Ok((head & 0x0f, n))
    }

    /// The items of a list of structures.
    pub(crate) fn structs(
        &mut self,
        kind: u8,
        mut item: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let (kind, n) = self.list(kind)?;
        if kind != STRUCT && n > 0 {
            return Err(wrong(kind));
        }
        (0..n).try_for_each(|_| item(self))
    }

    fn skip(&mut self, kind: u8) -> Result<()> {
        match kind {
            TRUE | FALSE => Ok(()),
            BYTE => self.take(1).map(|_| ()),
            4 | I32 | I64 => self.varint().map(|_| ()),
            7 => self.take(8).map(|_| ()),
            BINARY => self.binary(kind).map(|_| ()),
            LIST | 10 => {
                let (kind, n) = self.list(kind)?;
                match kind {
                    // Truth values have a byte each in lists.
                    TRUE | FALSE => self.take(n).map(|_| ()),
                    _ => (0..n).try_for_each(|_| self.skip_nested(kind)),
                }
            }
            11 => {
                let n = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                if n > self.left() {
                    return Err(short());
                }
                if n == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..n).try_for_each(|_| {
                    self.skip_nested(kinds >> 4)?;
                    self.skip_nested(kinds & 0x0f)
                })
            }
            STRUCT => self.fields(|_, _, _| Ok(false)),
            _ => Err(wrong(kind)),
        }
    }

    fn skip_nested(&mut self, kind: u8) -> Result<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(Error::corrupt("metadata are nested too deeply"));
        }
        self.skip(kind)?;
        self.depth -= 1;
        Ok(())
    }
}

fn wrong(kind: u8) -> Error {
    Error::corrupt(format!("a value of type {kind} in the metadata where another should be"))
}

/// Writes a structure's fields, which must ascend.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    last: Vec<i16>,
    id: i16,
}

impl Writer {
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.bytes.push(u8::try_from(value).unwrap_or(0));
    }

    fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn field(&mut self, id: i16, kind: u8) {
        match u8::try_from(id - self.id) {
            Ok(delta @ 1..=15) => self.bytes.push(delta << 4 | kind),
            _ => {
                self.bytes.push(kind);
                self.signed(id.into());
            }
        }
        self.id = id;
    }

    pub(crate) fn bool(&mut self, id: i16, value: bool) {
        self.field(id, if value { TRUE } else { FALSE });
    }

    pub(crate) fn byte(&mut self, id: i16, value: u8) {
        self.field(id, BYTE);
        self.bytes.push(value);
    }

    pub(crate) fn i32(&mut self, id: i16, value: i32) {
        self.field(id, I32);
        self.signed(value.into());
    }

    /// A size; those of 2^63 and more do not exist.
    pub(crate) fn i64(&mut self, id: i16, value: u64) {
        self.field(id, I64);
        self.signed(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(crate) fn text(&mut self, id: i16, value: &str) {
        self.field(id, BINARY);
        self.plain_text(value);
    }

    fn plain_text(&mut self, value: &str) {
        self.varint(u64::try_from(value.len()).unwrap_or(u64::MAX));
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn structure(&mut self, id: i16, fill: impl FnOnce(&mut Self)) {
        self.field(id, STRUCT);
        self.item(fill);
    }

    fn item(&mut self, fill: impl FnOnce(&mut Self)) {
        self.last.push(self.id);
        self.id = 0;
        fill(self);
        self.bytes.push(0);
        self.id = self.last.pop().unwrap_or(0);
    }

    fn head(&mut self, id: i16, kind: u8, n: usize) {
        self.field(id, LIST);
        match u8::try_from(n) {
            Ok(n @ 0..=14) => self.bytes.push(n << 4 | kind),
            _ => {
                self.bytes.push(0xf0 | kind);
                self.varint(u64::try_from(n).unwrap_or(u64::MAX));
            }
        }
    }

    pub(crate) fn structs<T>(&mut self, id: i16, items: &[T], fill: impl Fn(&mut Self, &T)) {
        self.head(id, STRUCT, items.len());
        for item in items {
            self.item(|w| fill(w, item));
        }
    }

    pub(crate) fn numbers(&mut self, id: i16, items: &[i32]) {
        self.head(id, I32, items.len());
        items.iter().for_each(|&v| self.signed(v.into()));
    }

    pub(crate) fn texts(&mut self, id: i16, items: &[String]) {
        self.head(id, BINARY, items.len());
        items.iter().for_each(|v| self.plain_text(v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut w = Writer::default();
        w.i32(1, -7);
        w.structure(3, |w| {
            w.text(2, "µ");
            w.bool(40, true);
        });
        w.numbers(4, &[1; 20]);
        w.structs(5, &[1u64, 1 << 40], |w, &v| w.i64(1, v));
        w.texts(6, &["a".to_owned()]);
        w.byte(7, 16);
        let bytes = w.finish();
        let mut seen = Vec::new();
        let mut r = Reader::new(&bytes);
        r.fields(|r, id, kind| {
            match id {
                1 => seen.push(r.integer(kind)?),
                3 => r.fields(|r, id, kind| {
                    if id == 2 {
                        assert_eq!(r.text(kind)?, "µ");
                        return Ok(true);
                    }
                    assert_eq!((id, kind), (40, TRUE));
                    Ok(false)
                })?,
                5 => r.structs(kind, |r| {
                    r.fields(|r, _, kind| {
                        seen.push(r.integer(kind)?);
                        Ok(true)
                    })
                })?,
                7 => seen.push(r.integer(kind)?),
                _ => return Ok(false),
            }
            Ok(true)
        })
        .unwrap();
        assert_eq!(seen, [-7, 1, 1 << 40, 16]);
        assert_eq!(r.position(), bytes.len());
        for cut in 0..bytes.len() {
            assert!(Reader::new(&bytes[..cut]).fields(|_, _, _| Ok(false)).is_err());
        }
        // Nested without end; a list of more items than there are bytes.
        assert!(Reader::new(&[0x1c; 100]).fields(|_, _, _| Ok(false)).is_err());
        let long = [0x19, 0xfc, 0xff, 0xff, 0xff, 0x7f, 0];
        assert!(Reader::new(&long).fields(|_, _, _| Ok(false)).is_err());
    }
}
