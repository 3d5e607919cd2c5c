//! Rows within one page: where a list's values are, by its levels; byte strings; values read forwards,
//! plain ones or codes.

use crate::convert::Convert;
use crate::delta;
use crate::footer::Leaf;
use crate::hybrid::Hybrid;
use crate::page::PageEncoding;
use bytemuck::Pod;
use cellfeed_core::{Error, Result};
use std::ops::Range;

pub(crate) fn at(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(crate) fn null() -> Error {
    Error::corrupt("a missing value (null) where a row's values should be")
}

pub(crate) fn other_encoding(encoding: PageEncoding) -> Error {
    let name = match encoding {
        PageEncoding::Other(number) => delta::name(number),
        PageEncoding::Plain => "PLAIN".to_owned(),
        PageEncoding::Dictionary => "RLE_DICTIONARY".to_owned(),
        PageEncoding::Runs => "RLE".to_owned(),
    };
    Error::unsupported(format!(
        "a page is encoded as {name}, which is not read of this column; write it again as PLAIN, or if \
         it is no column of byte strings by a dictionary"
    ))
}

/// The levels of a page of lists.
pub(crate) struct List<'a> {
    pub(crate) gaps: &'a [(u32, u8)],
    pub(crate) n: u32,
    pub(crate) leaf: &'a Leaf,
}

impl List<'_> {
    /// Where the values of a row's slots are among the page's values.
    pub(crate) fn values(&self, slots: Range<u32>) -> Result<(usize, usize)> {
        let before = self.gaps.partition_point(|(slot, _)| *slot < slots.start);
        let start = at(slots.start) - before;
        match self.gaps.get(before) {
            Some(&(slot, level)) if slot < slots.end => {
                // A list without elements has one slot and the level just below an element's.
                let empty = slots.end - slots.start == 1 && level + 1 == self.leaf.list_def;
                if empty { Ok((start, 0)) } else { Err(null()) }
            }
            _ => Ok((start, at(slots.end - slots.start))),
        }
    }
}

/// Walks byte strings of a plain page and hands the wanted ones on.
pub(crate) fn blobs(
    bytes: &[u8],
    n: u32,
    mut wants: impl FnMut(u32) -> bool,
    mut each: impl FnMut(u32, usize, usize) -> Result<()>,
) -> Result<()> {
    let short = || Error::corrupt("a page ends within a row's bytes");
    let mut at = 0usize;
    for row in 0..n {
        let head = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or_else(short)?;
        let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        let start = at + 4;
        at = start.checked_add(len).filter(|&end| end <= bytes.len()).ok_or_else(short)?;
        if wants(row) {
            each(row, start, len)?;
        }
    }
    Ok(())
}

/// Values of a page of lists, read forwards.
pub(crate) enum Values<'a, T> {
    Plain { bytes: &'a [u8], at: usize, convert: &'a Convert<'a, T> },
    Codes { codes: Hybrid<'a>, at: usize, table: &'a [T] },
}

impl<'a, T: Pod> Values<'a, T> {
    pub(crate) fn new(
        encoding: PageEncoding,
        bytes: &'a [u8],
        convert: &'a Convert<'a, T>,
        table: Option<&'a [T]>,
    ) -> Result<Self> {
        match encoding {
            PageEncoding::Plain => Ok(Self::Plain { bytes, at: 0, convert }),
            PageEncoding::Dictionary => {
                let table = table.ok_or_else(|| {
                    Error::corrupt("a page of codes in a column chunk without a dictionary")
                })?;
                let (codes, at) = match bytes.split_first() {
                    Some((&width, codes)) => (Hybrid::new(codes, width.into())?, 0),
                    // No values at all.
                    None => (Hybrid::new(&[], 0)?, 0),
                };
                Ok(Self::Codes { codes, at, table })
            }
            other => Err(other_encoding(other)),
        }
    }

    pub(crate) fn go_to(&mut self, place: usize) -> Result<()> {
        match self {
            Self::Plain { at, .. } => *at = place,
            Self::Codes { codes, at, .. } => {
                let back = || Error::internal("values are read forwards");
                codes.skip(place.checked_sub(*at).ok_or_else(back)?)?;
                *at = place;
            }
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, out: &mut [T]) -> Result<()> {
        match self {
            Self::Plain { bytes, at, convert } => {
                let start = at.checked_mul(convert.width);
                let len = out.len().checked_mul(convert.width);
                let stored = start.zip(len).and_then(|(s, n)| bytes.get(s..s.checked_add(n)?));
                *at += out.len();
                let short = || Error::corrupt("a page has fewer values than its header says");
                convert.run(stored.ok_or_else(short)?, out)
            }
            Self::Codes { codes, at, table } => {
                *at += out.len();
                codes.look_up(table, out)
            }
        }
    }
}
