//! From pages of a matrix's column to the numbers of the wanted rows, end to end.
//!
//! First every page that has wanted rows is decompressed and taken apart, which tells the rows'
//! lengths; then the numbers are copied, or looked up in the dictionary, straight to their places in
//! one buffer of the answer.

use crate::convert::{Convert, copy_le};
use crate::files::{Chunk, ChunkPlan, Files, Want};
use crate::footer::{Leaf, Physical};
use crate::index::PageTable;
use crate::page::{Body, PageEncoding, Scratch, contents, open};
use crate::rows::{List, Values, at, blobs, null, other_encoding};
use crate::walk::{Page, pages};
use bytemuck::Pod;
use bytes::Bytes;
use cellfeed_core::io::BufferPool;
use cellfeed_core::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// How rows of numbers are stored.
#[derive(Debug)]
pub(crate) enum Form<'a, T> {
    /// A row is a byte string of little-endian numbers.
    Blob,
    /// A row is a list.
    List(Convert<'a, T>),
    /// A row is a list whose first element is a marker, which is not one of the numbers.
    Marked(Convert<'a, T>, fn(&T) -> bool),
}

/// A column of a matrix in one row group.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) want: &'a Want,
    pub(crate) plan: &'a ChunkPlan,
    pub(crate) bytes: &'a [Bytes],
}

/// The numbers of rows, and how many each row has.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) lengths: Vec<u32>,
    pub(crate) bytes: Bytes,
}

/// Numbers that lie together in a page; in blobs, bytes.
#[derive(Debug, Clone, Copy)]
struct Span {
    page: usize,
    start: usize,
    len: usize,
    /// Whether a marker comes first, which `start` and `len` count.
    marked: bool,
    /// The row that it belongs to, of the store.
    row: u64,
}

/// A page that has been taken apart.
#[derive(Debug)]
struct Opened {
    body: Body,
    values: Range<usize>,
    encoding: PageEncoding,
    /// Which dictionary is its own.
    dictionary: usize,
    /// Whether it begins with a row.
    whole: bool,
}

struct Decoder<'a, T> {
    files: &'a Files,
    leaf: &'a Leaf,
    form: &'a Form<'a, T>,
    scratch: &'a mut Scratch,
    opened: Vec<Opened>,
    dictionaries: Vec<Vec<T>>,
    spans: Vec<Span>,
    lengths: Vec<u32>,
}

/// Decodes a column for rows of several groups.
pub(crate) fn column<T: Pod>(
    files: &Files,
    leaf: usize,
    form: &Form<'_, T>,
    pieces: &[Piece<'_>],
    scratch: &mut Scratch,
    pool: &BufferPool,
) -> Result<Rows> {
    scratch.cut(0);
    let mut decoder = Decoder {
        files,
        leaf: &files.leaves[leaf],
        form,
        scratch,
        opened: Vec::new(),
        dictionaries: Vec::new(),
        spans: Vec::new(),
        lengths: Vec::new(),
    };
    for piece in pieces {
        let group = piece.want.group;
        let chunk = files.chunk(group, leaf);
        decoder.add(chunk, piece).map_err(|e| files.blame(e, group))?;
    }
    decoder.finish(pool)
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl<T: Pod> Decoder<'_, T> {
    fn add(&mut self, chunk: &Chunk, piece: &Piece<'_>) -> Result<()> {
        let n_rows = self.files.groups[piece.want.group].n_rows;
        let (dictionary, pages) = pages(chunk, piece.plan, piece.bytes)?;
        if let Some(page) = dictionary {
            self.dictionary(chunk, &page)?;
        }
        let done = self.lengths.len();
        let mut rows = RowCursor { wanted: &piece.want.rows, next: 0 };
        // Without an index all pages are gone through once, to know from then on where rows are.
        let mut places = chunk.pages.get().is_none().then(Vec::new);
        let mut wanted = true;
        for page in &pages {
            let first = rows.next;
            match self.page(chunk, page, &mut rows, n_rows, piece.want) {
                Ok(more) => wanted &= more,
                Err(e) if wanted => return Err(e),
                // What is wrong with rows that nobody wants is none of our business yet.
                Err(_) => places = None,
            }
            // A page that begins within a row is none that can be read by itself.
            let whole = self.opened.last().is_some_and(|page| page.whole);
            match &mut places {
                Some(places) if whole => places.push((page.at, first)),
                _ => places = None,
            }
            if !wanted && places.is_none() {
                break;
            }
        }
        if let Some(places) = places.filter(|_| rows.next == n_rows)
            && let Some(table) = PageTable::learned(chunk.start, chunk.len, &places, n_rows)
        {
            // Another thread may have been as clever.
            let _ = chunk.pages.set(Box::new(table));
        }
        let n: usize = piece.want.rows.iter().map(|r| at(r.end - r.start)).sum();
        if self.lengths.len() - done != n {
            return Err(Error::corrupt(format!(
                "the pages of the column {:?} have {} of the {n} rows that were wanted",
                self.leaf.name,
                self.lengths.len() - done
            )));
        }
        Ok(())
    }

    fn dictionary(&mut self, chunk: &Chunk, page: &Page) -> Result<()> {
        let convert = match self.form {
            Form::List(convert) | Form::Marked(convert, _) => convert,
            Form::Blob => return Ok(()),
        };
        if page.header.encoding == PageEncoding::Other(-1) {
            return Err(Error::corrupt("a dictionary without an encoding"));
        }
        let body = open(&page.header, &page.bytes, chunk.codec, self.scratch)?;
        let bytes = body.bytes(self.scratch);
        let n = page.header.n_values;
        let wanted = n.checked_mul(convert.width).and_then(|len| bytes.get(..len));
        let stored = wanted.ok_or_else(|| {
            Error::corrupt(format!("a dictionary of {n} values in {} bytes", bytes.len()))
        })?;
        let mut table = vec![T::zeroed(); n];
        convert.run(stored, &mut table)?;
        self.dictionaries.push(table);
        Ok(())
    }

    /// Takes a page apart; answers whether later ones may have wanted rows too.
    fn page(
        &mut self,
        chunk: &Chunk,
        page: &Page,
        rows: &mut RowCursor<'_>,
        n_rows: u32,
        want: &Want,
    ) -> Result<bool> {
        let base = page.rows.as_ref().map_or(rows.next, |r| r.start);
        let body = open(&page.header, &page.bytes, chunk.codec, self.scratch)?;
        let whole = body.bytes(self.scratch);
        let left = n_rows.saturating_sub(base);
        let contents = contents(&page.header, whole, self.leaf, at(left))?;
        let number = self.opened.len();
        let dictionary = self.dictionaries.len().wrapping_sub(1);
        let encoding = contents.encoding;
        let values = match contents.values {
            Cow::Borrowed(part) => whole.len() - part.len()..whole.len(),
            Cow::Owned(_) => 0..contents.values.len(),
        };
        let first_row = self.files.groups[want.group].first_row;
        let global = |row: u32| first_row + u64::from(row);
        let name = |row: u32, e: Error| e.with("row", global(row));
        let last = want.rows.last().map_or(0, |r| r.end);
        let spans = &mut self.spans;
        let lengths = &mut self.lengths;
        let mut at_row = true;
        let more = match (&contents.starts, self.form) {
            (None, Form::Blob) => {
                let n = small(page.header.n_values);
                check_rows(page, n, left)?;
                if let Some((row, _)) = contents.gaps.first() {
                    return Err(name(base + row, null()));
                }
                if encoding != PageEncoding::Plain {
                    return Err(other_encoding(encoding));
                }
                blobs(
                    &contents.values,
                    n,
                    |row| rows.wants(base + row),
                    |row, start, len| {
                        let bad = || Error::corrupt("a row's bytes are no whole number of values");
                        if len % size_of::<T>() != 0 {
                            return Err(name(base + row, bad()));
                        }
                        let row = global(row);
                        spans.push(Span { page: number, start, len, marked: false, row });
                        lengths.push(small(len / size_of::<T>()));
                        Ok(())
                    },
                )?;
                rows.next = base + n;
                rows.next < last
            }
            (Some(starts), Form::List(_) | Form::Marked(..)) => {
                let marked = matches!(self.form, Form::Marked(..));
                let list =
                    List { gaps: &contents.gaps, n: small(page.header.n_values), leaf: self.leaf };
                check_rows(page, small(starts.len()), left)?;
                // What comes before the first row belongs to the last of the page before.
                let head = starts.first().copied().unwrap_or(list.n);
                at_row = head == 0;
                if head > 0 {
                    let Some(row) = base.checked_sub(1).filter(|_| page.rows.is_none()) else {
                        return Err(Error::corrupt("a page begins within a row that has no start"));
                    };
                    if rows.wants(row) {
                        let (start, len) = list.values(0..head).map_err(|e| name(row, e))?;
                        let row = global(row);
                        spans.push(Span { page: number, start, len, marked: false, row });
                        if let Some(length) = lengths.last_mut() {
                            *length = length.saturating_add(small(len));
                        }
                    }
                }
                let n = small(starts.len());
                rows.each(base..base + n, |row| {
                    let i = at(row - base);
                    let end = starts.get(i + 1).copied().unwrap_or(list.n);
                    let (start, len) = list.values(starts[i]..end).map_err(|e| name(row, e))?;
                    if marked && len == 0 {
                        return Err(name(row, unmarked()));
                    }
                    lengths.push(small(len) - u32::from(marked));
                    spans.push(Span { page: number, start, len, marked, row: global(row) });
                    Ok(())
                })?;
                rows.next = base + n;
                // A row may go on in the next page, as long as that is not known to be otherwise.
                if page.rows.is_some() { rows.next < last } else { base < last || n == 0 }
            }
            _ => return Err(Error::corrupt("the column is not what its schema says")),
        };
        let plain = match contents.values {
            Cow::Owned(plain) => Some(plain),
            Cow::Borrowed(_) => None,
        };
        let body = plain.map_or(body, |plain| self.scratch.put(&plain));
        self.opened.push(Opened { body, values, encoding, dictionary, whole: at_row });
        Ok(more)
    }

    fn finish(self, pool: &BufferPool) -> Result<Rows> {
        let Self { files, leaf: _, form, scratch, opened, dictionaries, spans, lengths } = self;
        let n: usize = lengths.iter().map(|&n| at(n)).sum();
        let size = size_of::<T>();
        let mut buffer = pool.take(n.saturating_mul(size));
        let mut out = bytemuck::cast_slice_mut::<u8, T>(buffer.as_mut_slice());
        let mut reading: Option<(usize, Values<'_, T>)> = None;
        for span in &spans {
            let page = &opened[span.page];
            let bytes = page.body.bytes(scratch).get(page.values.clone()).unwrap_or_default();
            let n = match form {
                Form::Blob => span.len / size,
                _ => span.len - usize::from(span.marked),
            };
            let (head, tail) = out.split_at_mut(n);
            out = tail;
            let (convert, is_marker) = match form {
                Form::Blob => {
                    copy_le(&bytes[span.start..span.start + span.len], head);
                    continue;
                }
                Form::List(convert) => (convert, None),
                Form::Marked(convert, is_marker) => (convert, Some(is_marker)),
            };
            let table = dictionaries.get(page.dictionary).map(Vec::as_slice);
            let open = || Values::new(page.encoding, bytes, convert, table);
            let is_marker = is_marker.filter(|_| span.marked);
            fill(&mut reading, span, open, is_marker, head).map_err(|e| {
                let group = files.groups.partition_point(|g| g.first_row <= span.row);
                files.blame(e.with_default("row", span.row), group.saturating_sub(1))
            })?;
        }
        Ok(Rows { lengths, bytes: buffer.freeze() })
    }
}

/// Reads a span's values, after its marker, from the page that is being read or from another.
fn fill<'a, T: Pod>(
    reading: &mut Option<(usize, Values<'a, T>)>,
    span: &Span,
    open: impl FnOnce() -> Result<Values<'a, T>>,
    is_marker: Option<&fn(&T) -> bool>,
    out: &mut [T],
) -> Result<()> {
    let values = match reading {
        Some((number, values)) if *number == span.page => values,
        slot => &mut slot.insert((span.page, open()?)).1,
    };
    values.go_to(span.start)?;
    if let Some(is_marker) = is_marker {
        let mut first = [T::zeroed()];
        values.read(&mut first)?;
        if !is_marker(&first[0]) {
            return Err(unmarked());
        }
    }
    values.read(out)
}

fn unmarked() -> Error {
    Error::corrupt("a cell does not begin with the marker, gene 1 with the value -2")
}

/// Holds a page's rows against the index and the group.
fn check_rows(page: &Page, n: u32, left: u32) -> Result<()> {
    let says = page.rows.as_ref().map(|r| r.end - r.start);
    let says = says.or(page.header.n_rows.map(small));
    match says {
        Some(says) if says != n => {
            Err(Error::corrupt(format!("a page has {n} rows instead of {says}")))
        }
        _ if n > left => Err(Error::corrupt("the pages have more rows than the row group")),
        _ => Ok(()),
    }
}

/// Where a page is among the wanted rows of its group.
struct RowCursor<'a> {
    /// What is not passed yet.
    wanted: &'a [Range<u32>],
    /// The row that the next page begins with.
    next: u32,
}

impl RowCursor<'_> {
    /// Whether a row is wanted; asked for in ascending order.
    fn wants(&mut self, row: u32) -> bool {
        while let Some((first, rest)) = self.wanted.split_first() {
            if row < first.end {
                return row >= first.start;
            }
            self.wanted = rest;
        }
        false
    }

    /// The wanted ones of a range of rows.
    fn each(&self, rows: Range<u32>, mut row: impl FnMut(u32) -> Result<()>) -> Result<()> {
        let passed = self.wanted.partition_point(|w| w.end <= rows.start);
        for wanted in &self.wanted[passed..] {
            if wanted.start >= rows.end {
                break;
            }
            (wanted.start.max(rows.start)..wanted.end.min(rows.end)).try_for_each(&mut row)?;
        }
        Ok(())
    }
}

/// Whether a leaf can hold rows of a matrix, and if so whether as byte strings.
pub(crate) fn is_blob(leaf: &Leaf) -> Option<bool> {
    match (leaf.physical, leaf.max_rep) {
        (Physical::Bytes, 0) => Some(true),
        (Physical::Bytes, _) => None,
        (_, 1) => leaf.value_type().map(|_| false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
