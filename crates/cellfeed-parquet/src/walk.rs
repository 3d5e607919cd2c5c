//! From the bytes of a chunk to its pages, by the page index or by walking from header to header.

use crate::files::{Chunk, ChunkPlan};
use crate::page::{PageHeader, PageKind};
use bytes::Bytes;
use cellfeed_core::{Error, Result};
use std::ops::Range;

/// A page with its header, not yet decompressed.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) header: PageHeader,
    /// From the header on.
    pub(crate) bytes: Bytes,
    /// Its rows in the group, where the index says them.
    pub(crate) rows: Option<Range<u32>>,
    /// Where it is in the chunk, where all of that was read.
    pub(crate) at: u32,
}

/// The dictionary of a chunk, if it has one, and the data pages.
pub(crate) fn pages(
    chunk: &Chunk,
    plan: &ChunkPlan,
    pieces: &[Bytes],
) -> Result<(Option<Page>, Vec<Page>)> {
    chunk.codec.check()?;
    let mut pieces = pieces.iter();
    let mut piece = || pieces.next().ok_or_else(|| Error::internal("a piece was not read"));
    let mut walk = Walk { chunk, plain: 0, dictionary: None, pages: Vec::new() };
    if plan.dictionary.is_some() {
        let bytes = piece()?;
        let page = walk.header(bytes)?;
        if page.header.kind == PageKind::Dictionary {
            walk.dictionary = Some(page);
        }
    }
    for run in &plan.runs {
        let bytes = piece()?;
        let (Some(numbers), Some(table)) = (&run.pages, chunk.pages.get()) else {
            walk.whole(bytes)?;
            continue;
        };
        let base = table.bytes(numbers).start;
        for number in numbers.clone() {
            let place = table.bytes(&(number..number + 1));
            let at = |n: u64| usize::try_from(n - base).unwrap_or(usize::MAX);
            let mut page = walk.header(&bytes.slice(at(place.start)..at(place.end)))?;
            if !matches!(page.header.kind, PageKind::Data | PageKind::DataV2) {
                return Err(Error::corrupt("the page index leads to what is no data page"));
            }
            page.rows = Some(table.rows(number));
            walk.pages.push(page);
        }
    }
    Ok((walk.dictionary, walk.pages))
}

struct Walk<'a> {
    chunk: &'a Chunk,
    /// Bytes that the pages so far decompress to.
    plain: u64,
    dictionary: Option<Page>,
    pages: Vec<Page>,
}

impl Walk<'_> {
    fn header(&mut self, bytes: &Bytes) -> Result<Page> {
        let header = PageHeader::parse(bytes, self.chunk.codec)?;
        self.plain += u64::try_from(header.plain).unwrap_or(u64::MAX >> 1);
        if self.plain > self.chunk.plain {
            return Err(Error::corrupt(format!(
                "pages of more than the {} bytes that the column chunk has",
                self.chunk.plain
            )));
        }
        Ok(Page { header, bytes: bytes.clone(), rows: None, at: 0 })
    }

    fn whole(&mut self, bytes: &Bytes) -> Result<()> {
        let mut at = 0;
        let mut n_values = 0u64;
        while n_values < self.chunk.n_values {
            if at == bytes.len() {
                return Err(Error::corrupt(format!(
                    "the pages have {n_values} values, but the column chunk says {}",
                    self.chunk.n_values
                )));
            }
            let mut page = self.header(&bytes.slice(at..))?;
            page.at = u32::try_from(at).unwrap_or(u32::MAX);
            at += page.header.whole();
            match page.header.kind {
                PageKind::Other => {}
                PageKind::Dictionary if self.dictionary.is_none() && self.pages.is_empty() => {
                    self.dictionary = Some(page);
                }
                PageKind::Dictionary => {
                    return Err(Error::corrupt("a second dictionary in a column chunk"));
                }
                PageKind::Data | PageKind::DataV2 => {
                    n_values += u64::try_from(page.header.n_values).unwrap_or(u64::MAX >> 1);
                    self.pages.push(page);
                }
            }
        }
        if n_values > self.chunk.n_values {
            return Err(Error::corrupt(format!(
                "the pages have {n_values} values, but the column chunk says {}",
                self.chunk.n_values
            )));
        }
        Ok(())
    }
}
