//! Columns of obs and var: from pages to Arrow arrays of the kinds that core knows.

use crate::files::{Chunk, ChunkPlan};
use crate::footer::{Leaf, Meaning, Physical};
use crate::hybrid::{Hybrid, Stretch};
use crate::page::{Body, PageEncoding, Scratch, contents, open};
use crate::rows::other_encoding;
use crate::walk::{Page, pages};
use arrow_array::builder::StringBuilder;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, UInt64Array};
use bytes::Bytes;
use cellfeed_core::{ColumnKind, Error, Result, categorical_array};
use half::f16;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// What a leaf's values are to become.
#[derive(Debug, Clone)]
pub(crate) enum Stored {
    /// Text that is one of the categories.
    Labels(Arc<Vec<String>>, Arc<HashMap<String, i32>>),
    /// Places among the categories.
    Codes(Arc<Vec<String>>),
    Text,
    Signed,
    Unsigned,
    Float,
    Boolean,
}

impl Stored {
    /// What a column of any tool's becomes; else why it is not read.
    pub(crate) fn guess(leaf: &Leaf) -> std::result::Result<(Self, ColumnKind), String> {
        if leaf.siblings > 1 || leaf.max_rep > 0 {
            return Err("it is a list or a structure".to_owned());
        }
        if let Meaning::Other(what) = leaf.meaning {
            return Err(format!("it is {what}"));
        }
        Ok(match leaf.physical {
            Physical::Boolean => (Self::Boolean, ColumnKind::Boolean),
            Physical::Bytes if leaf.meaning == Meaning::Text => (Self::Text, ColumnKind::String),
            Physical::Int64 if leaf.meaning == (Meaning::Integer { bits: 64, signed: false }) => {
                (Self::Unsigned, ColumnKind::Integer)
            }
            Physical::Int32 | Physical::Int64 => (Self::Signed, ColumnKind::Integer),
            Physical::Float | Physical::Double => (Self::Float, ColumnKind::Float),
            Physical::Fixed(2) if leaf.meaning == Meaning::Half => (Self::Float, ColumnKind::Float),
            Physical::Bytes => return Err("it is bytes, not text".to_owned()),
            Physical::Int96 => return Err("it is a timestamp of 96 bits".to_owned()),
            Physical::Fixed(_) => return Err("it is bytes of a fixed length".to_owned()),
        })
    }

    /// Labels of categories; codes, where two have one name.
    pub(crate) fn labels(categories: &Arc<Vec<String>>) -> Self {
        let numbered = categories.iter().cloned().zip(0..);
        Self::Labels(Arc::clone(categories), Arc::new(numbered.collect()))
    }

    fn empty(&self) -> Values {
        match self {
            Self::Labels(..) | Self::Codes(_) => Values::Codes(Vec::new()),
            Self::Text => Values::Text(StringBuilder::new(), 0),
            Self::Signed => Values::Signed(Vec::new()),
            Self::Unsigned => Values::Unsigned(Vec::new()),
            Self::Float => Values::Float(Vec::new()),
            Self::Boolean => Values::Boolean(Vec::new()),
        }
    }
}

#[derive(Debug)]
enum Values {
    Codes(Vec<Option<i32>>),
    Text(StringBuilder, usize),
    Signed(Vec<Option<i64>>),
    Unsigned(Vec<Option<u64>>),
    Float(Vec<Option<f64>>),
    Boolean(Vec<Option<bool>>),
}

/// Collects a column, row group by row group.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    leaf: &'a Leaf,
    stored: &'a Stored,
    values: Values,
    n: u64,
}

/// Plain values of a page or a dictionary.
enum Plain<'a> {
    Fixed(&'a [u8], usize),
    Spans(&'a [u8], Vec<Range<usize>>),
    Bits(&'a [u8]),
}

impl<'a> Plain<'a> {
    fn new(leaf: &Leaf, bytes: &'a [u8], n: usize) -> Result<Self> {
        let width = match leaf.physical {
            Physical::Int32 | Physical::Float => 4,
            Physical::Int64 | Physical::Double => 8,
            Physical::Int96 => 12,
            Physical::Fixed(width) => width,
            Physical::Boolean => return Ok(Self::Bits(bytes)),
            Physical::Bytes => {
                let mut spans = Vec::new();
                let mut at = 0usize;
                for _ in 0..n {
                    let head = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
                    let head = head.ok_or_else(short)?;
                    let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
                    let start = at + 4;
                    at = start.checked_add(len).filter(|&e| e <= bytes.len()).ok_or_else(short)?;
                    spans.push(start..at);
                }
                return Ok(Self::Spans(bytes, spans));
            }
        };
        Ok(Self::Fixed(bytes, width))
    }

    /// A value's bytes; of a truth value one, 0 or 1.
    fn get(&self, i: usize) -> Result<&'a [u8]> {
        match self {
            Self::Fixed(bytes, width) => {
                let start = i.checked_mul(*width).ok_or_else(short)?;
                bytes.get(start..start + width).ok_or_else(short)
            }
            Self::Spans(bytes, spans) => {
                let span = spans.get(i).ok_or_else(short)?;
                bytes.get(span.clone()).ok_or_else(short)
            }
            Self::Bits(bytes) => {
                let byte = bytes.get(i / 8).ok_or_else(short)?;
                Ok(if byte >> (i % 8) & 1 == 1 { &[1] } else { &[0] })
            }
        }
    }
}

fn short() -> Error {
    Error::corrupt("a page has fewer values than its header says")
}

/// A dictionary: its values, and as what they count among the categories.
struct Dictionary<'a> {
    plain: Plain<'a>,
    labels: Vec<Option<i32>>,
    n: usize,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(leaf: &'a Leaf, stored: &'a Stored) -> Self {
        Self { leaf, stored, values: stored.empty(), n: 0 }
    }

    /// Adds the wanted rows of a group, which has `n_rows` and begins with the store's `first_row`.
    pub(crate) fn add(
        &mut self,
        chunk: &Chunk,
        (plan, pieces): (&ChunkPlan, &[Bytes]),
        rows: &[Range<u32>],
        (first_row, n_rows): (u64, u32),
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (dictionary, pages) = pages(chunk, plan, pieces)?;
        let before = self.n;
        scratch.cut(0);
        // Pages are decompressed where the dictionary was: it is copied, and taken apart once.
        let dictionary = match &dictionary {
            Some(page) => {
                let body = open(&page.header, &page.bytes, chunk.codec, scratch)?;
                Some((page, body.into_bytes(scratch)))
            }
            None => None,
        };
        let table = match &dictionary {
            Some((page, bytes)) => Some(self.dictionary(page, bytes)?),
            None => None,
        };
        let mut next = 0u32;
        for page in &pages {
            let n = u32::try_from(page.header.n_values).unwrap_or(u32::MAX);
            let start = page.rows.as_ref().map_or(next, |r| r.start);
            let end = start.checked_add(n).filter(|&end| end <= n_rows);
            let fits = page.rows.as_ref().is_none_or(|r| r.end - r.start == n);
            let end = end.filter(|_| fits).ok_or_else(|| {
                Error::corrupt(format!("a page of {n} rows where fewer or more should be"))
            })?;
            next = end;
            let wanted = rows.iter().map(|r| r.start.max(start)..r.end.min(end));
            let wanted: Vec<Range<u32>> = wanted.filter(|r| !r.is_empty()).collect();
            if wanted.is_empty() {
                continue;
            }
            scratch.cut(0);
            let opened = open(&page.header, &page.bytes, chunk.codec, scratch)?;
            self.page(page, &opened, scratch, table.as_ref(), (start, &wanted), first_row)?;
        }
        let wanted: u64 = rows.iter().map(|r| u64::from(r.end - r.start)).sum();
        if self.n - before != wanted {
            return Err(Error::corrupt(format!(
                "the pages of the column {:?} have {} of {wanted} rows",
                self.leaf.name,
                self.n - before
            )));
        }
        Ok(())
    }

    fn dictionary<'b>(&self, page: &Page, bytes: &'b [u8]) -> Result<Dictionary<'b>> {
        let n = page.header.n_values;
        let plain = Plain::new(self.leaf, bytes, n)?;
        let mut labels = Vec::new();
        if let (Stored::Labels(_, numbers), Plain::Spans(..)) = (self.stored, &plain) {
            for i in 0..n {
                let text = std::str::from_utf8(plain.get(i)?).ok();
                labels.push(text.and_then(|text| numbers.get(text).copied()));
            }
        }
        Ok(Dictionary { plain, labels, n })
    }

    fn page(
        &mut self,
        page: &Page,
        body: &Body,
        scratch: &Scratch,
        table: Option<&Dictionary<'_>>,
        (start, wanted): (u32, &[Range<u32>]),
        first_row: u64,
    ) -> Result<()> {
        let n = page.header.n_values;
        let contents = contents(&page.header, body.bytes(scratch), self.leaf, n)?;
        let present = n - contents.gaps.len();
        let bytes = &contents.values[..];
        let mut codes = Vec::new();
        let mut plain = None;
        match (contents.encoding, table) {
            (PageEncoding::Plain, _) => plain = Some(Plain::new(self.leaf, bytes, present)?),
            (PageEncoding::Dictionary, Some(table)) if present > 0 => {
                let (&width, rest) = bytes.split_first().ok_or_else(short)?;
                codes = expand(Hybrid::new(rest, width.into())?, present)?;
                if codes.iter().any(|&c| usize::try_from(c).unwrap_or(usize::MAX) >= table.n) {
                    return Err(Error::corrupt(format!(
                        "a code beyond a dictionary of {} values",
                        table.n
                    )));
                }
            }
            (PageEncoding::Dictionary, _) if present == 0 => {}
            (PageEncoding::Runs, _) if self.leaf.physical == Physical::Boolean => {
                let (runs, _) = Hybrid::levels(bytes, 1)?;
                codes = expand(runs, present)?;
            }
            (PageEncoding::Dictionary, _) => {
                return Err(Error::corrupt("codes in a column chunk without a dictionary"));
            }
            (other, _) => return Err(other_encoding(other)),
        }
        let flags: [&[u8]; 2] = [&[0], &[1]];
        for row in wanted.iter().cloned().flatten() {
            let slot = row - start;
            let place = |e: Error| e.with("row", first_row + u64::from(row));
            let before = contents.gaps.partition_point(|(gap, _)| *gap < slot);
            if contents.gaps.get(before).is_some_and(|(gap, _)| *gap == slot) {
                self.missing();
                continue;
            }
            let i = usize::try_from(slot).unwrap_or(usize::MAX) - before;
            let code = codes.get(i).map(|&c| usize::try_from(c).unwrap_or(usize::MAX));
            if let (Some(code), Some(table), Values::Codes(values)) =
                (code, table, &mut self.values)
                && let Some(label) = table.labels.get(code)
            {
                let label = label.ok_or_else(unknown).map_err(place)?;
                values.push(Some(label));
                self.n += 1;
                continue;
            }
            let value = match (&plain, code, table) {
                (Some(plain), _, _) => plain.get(i)?,
                (None, Some(code), Some(table)) => table.plain.get(code)?,
                (None, Some(flag), None) => flags.get(flag).copied().ok_or_else(short)?,
                (None, None, _) => return Err(short()),
            };
            self.push(value).map_err(place)?;
        }
        Ok(())
    }

    fn missing(&mut self) {
        self.n += 1;
        match &mut self.values {
            Values::Codes(v) => v.push(None),
            Values::Text(v, _) => v.append_null(),
            Values::Signed(v) => v.push(None),
            Values::Unsigned(v) => v.push(None),
            Values::Float(v) => v.push(None),
            Values::Boolean(v) => v.push(None),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.n += 1;
        let unsigned = matches!(self.leaf.meaning, Meaning::Integer { signed: false, .. });
        match &mut self.values {
            Values::Codes(values) => values.push(Some(match self.stored {
                Stored::Labels(_, numbers) => {
                    let text = std::str::from_utf8(bytes).ok();
                    *text.and_then(|text| numbers.get(text)).ok_or_else(unknown)?
                }
                _ => i32::from_le_bytes(array(bytes)?),
            })),
            Values::Text(values, total) => {
                let text =
                    std::str::from_utf8(bytes).map_err(|_| Error::corrupt("text is not UTF-8"))?;
                *total += text.len();
                if i32::try_from(*total).is_err() {
                    return Err(Error::unsupported(
                        "more than 2 GiB of text at once; ask for fewer rows",
                    ));
                }
                values.append_value(text);
            }
            Values::Signed(values) => values.push(Some(match bytes.len() {
                4 if unsigned => u32::from_le_bytes(array(bytes)?).into(),
                4 => i32::from_le_bytes(array(bytes)?).into(),
                _ => i64::from_le_bytes(array(bytes)?),
            })),
            Values::Unsigned(values) => values.push(Some(u64::from_le_bytes(array(bytes)?))),
            Values::Float(values) => values.push(Some(match bytes.len() {
                2 => f16::from_le_bytes(array(bytes)?).to_f64(),
                4 => f32::from_le_bytes(array(bytes)?).into(),
                _ => f64::from_le_bytes(array(bytes)?),
            })),
            Values::Boolean(values) => values.push(Some(bytes == [1])),
        }
        Ok(())
    }

    /// The array of all that was added.
    pub(crate) fn finish(self) -> Result<ArrayRef> {
        Ok(match (self.values, self.stored) {
            (Values::Codes(v), Stored::Labels(categories, _) | Stored::Codes(categories)) => {
                categorical_array(v, categories)?
            }
            (Values::Codes(_), _) => return Err(Error::internal("codes without categories")),
            (Values::Text(mut v, _), _) => Arc::new(v.finish()),
            (Values::Signed(v), _) => Arc::new(Int64Array::from(v)),
            (Values::Unsigned(v), _) => Arc::new(UInt64Array::from(v)),
            (Values::Float(v), _) => Arc::new(Float64Array::from(v)),
            (Values::Boolean(v), _) => Arc::new(BooleanArray::from(v)),
        })
    }
}

fn unknown() -> Error {
    Error::corrupt("a label that is not among the categories")
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::corrupt("a value of another width"))
}

fn expand(mut runs: Hybrid<'_>, n: usize) -> Result<Vec<u32>> {
    let mut out = Vec::new();
    runs.runs(n, |stretch| match stretch {
        Stretch::Same(value, k) => out.extend(std::iter::repeat_n(value, k)),
        Stretch::One(value) => out.push(value),
    })?;
    Ok(out)
}
