//! An object read through the cache: what is there from the disk, on the engine's threads, the rest from
//! the store, in whole blocks, which are kept.

use crate::cache::{BLOCK, Cached};
use crate::client::Client;
use crate::object::Inner;
use crate::pieces::{Part, Piece, as_u64, cut, end_to_end, index, place, split};
use bytes::Bytes;
use cellfeed_core::Result;
use cellfeed_core::io::{Buffer, Engine};
use cellfeed_core::spans::Origin;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use std::ops::Range;
use std::sync::Arc;

/// An object, its cache, and what both need.
#[derive(Debug, Clone)]
pub(crate) struct Through {
    pub(crate) inner: Arc<Inner>,
    pub(crate) client: Arc<Client>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) cached: Arc<Cached>,
}

/// An answer of which some is missing.
pub(crate) struct Looked {
    buffer: Buffer,
    ranges: u64,
    wanted: u64,
    missing: Vec<Part>,
}

impl Through {
    /// The bytes of ranges that were checked, end to end.
    pub(crate) async fn get(self, ranges: Vec<Range<u64>>, wanted: usize) -> Result<Bytes> {
        let (here, origin) = (self.clone(), Origin::here());
        let looked = self.engine.blocking(move || Ok(here.look(&ranges, wanted))).await?;
        if looked.missing.is_empty() {
            return Ok(looked.buffer.freeze());
        }
        let client = Arc::clone(&self.client);
        client.run(self.bring(looked, origin)).await
    }

    /// As [`get`](Self::get), and waits; the disk is read on this thread, which may be one of the
    /// engine's.
    pub(crate) fn get_here(self, ranges: &[Range<u64>], wanted: usize) -> Result<Bytes> {
        let looked = self.look(ranges, wanted);
        if looked.missing.is_empty() {
            return Ok(looked.buffer.freeze());
        }
        let client = Arc::clone(&self.client);
        client.block(self.bring(looked, Origin::here()))
    }

    /// Reads what the cache has. Blocks.
    fn look(&self, ranges: &[Range<u64>], wanted: usize) -> Looked {
        let mut buffer = self.engine.buffers().take(wanted);
        let mut parts = end_to_end(ranges);
        parts.retain(|part| match self.inner.in_head(&part.range) {
            Some(bytes) => {
                buffer.as_mut_slice()[part.at..][..bytes.len()].copy_from_slice(&bytes);
                false
            }
            None => true,
        });
        let bytes = |parts: &[Part]| parts.iter().map(Part::len).sum::<u64>();
        let missing = self.cached.read(&parts, buffer.as_mut_slice());
        let (ranges, wanted) = (as_u64(ranges.len()), as_u64(wanted));
        self.engine.stats().add_cached(bytes(&parts) - bytes(&missing));
        if missing.is_empty() {
            self.engine.stats().add_read(ranges, 0, wanted, 0);
        }
        Looked { buffer, ranges, wanted, missing }
    }

    /// Gets what is missing from the store.
    async fn bring(self, looked: Looked, origin: Origin) -> Result<Bytes> {
        let Looked { mut buffer, ranges, wanted, missing } = looked;
        let mut pieces = cut(&missing, buffer.as_mut_slice());
        let (requests, read) = if self.cached.admits() {
            pieces.sort_unstable_by_key(|(range, _)| range.start);
            self.whole_blocks(&origin, pieces).await?
        } else {
            self.inner.fill(&self.client, &origin, pieces).await?
        };
        self.engine.stats().add_read(ranges, requests, wanted, read);
        Ok(buffer.freeze())
    }

    async fn whole_blocks(&self, origin: &Origin, pieces: Vec<Piece<'_>>) -> Result<(u64, u64)> {
        let options = &self.client.options;
        let covers = pieces.iter().map(|(range, _)| range);
        let spans = spans(covers, options.gap, options.run, self.inner.size());
        let (requests, read) = (as_u64(spans.len()), spans.iter().map(|s| s.end - s.start).sum());
        let mut work: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(spans.len());
        let mut rest = pieces;
        rest.reverse();
        for span in spans {
            let (mut inside, mut later) = (Vec::new(), Vec::new());
            while let Some(mut piece) = rest.pop_if(|(range, _)| range.start < span.end) {
                if piece.0.end > span.end {
                    let (head, tail) = split(piece, span.end);
                    later.push(tail);
                    piece = head;
                }
                inside.push(piece);
            }
            rest.append(&mut later);
            work.push(self.one_span(origin, span, inside).boxed());
        }
        let most = options.connections;
        stream::iter(work).buffer_unordered(most).try_collect::<()>().await?;
        Ok((requests, read))
    }

    /// One request, whose bytes go to their places, and into the cache.
    async fn one_span(
        &self,
        origin: &Origin,
        span: Range<u64>,
        mut pieces: Vec<Piece<'_>>,
    ) -> Result<()> {
        let mut buffer = self.engine.buffers().take(index(span.end - span.start));
        let whole = vec![(span.clone(), buffer.as_mut_slice())];
        self.inner.request(&self.client, origin, span.clone(), whole).await?;
        let bytes = buffer.freeze();
        place(&bytes, span.start, &mut pieces);
        let (cached, engine) = (Arc::clone(&self.cached), Arc::clone(&self.engine));
        // Waited for: a disk that is slower than the network shall not fill the memory.
        let write = move || cached.write(span.start, &bytes, engine.stats());
        // It fails when the client ends; then nobody waits for the bytes either.
        let _ = tokio::task::spawn_blocking(write).await;
        Ok(())
    }
}

/// Whole blocks that cover ranges, which ascend: near ones in one, none longer than a request may be.
fn spans<'a>(
    ranges: impl Iterator<Item = &'a Range<u64>>,
    gap: u64,
    longest: u64,
    size: u64,
) -> Vec<Range<u64>> {
    let longest = (longest / BLOCK).max(1) * BLOCK;
    let mut spans: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let mut start = range.start / BLOCK * BLOCK;
        let end = range.end.next_multiple_of(BLOCK).min(size);
        if let Some(last) = spans.last_mut() {
            start = start.max(last.end);
            if start >= end {
                continue;
            }
            if start - last.end <= gap && end - last.start <= longest {
                last.end = end;
                continue;
            }
        }
        while start < end {
            let stop = end.min(start + longest);
            spans.push(start..stop);
            start = stop;
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // one range is meant
    fn spans_are_whole_blocks_that_cover_what_is_wanted() {
        let of = |ranges: &[Range<u64>], gap, longest, size| {
            spans(ranges.iter(), gap * BLOCK, longest * BLOCK, size)
                .into_iter()
                .map(|s| (s.start as f64 / BLOCK as f64, s.end as f64 / BLOCK as f64))
                .collect::<Vec<_>>()
        };
        let b = BLOCK;
        assert_eq!(of(&[5..6], 0, 4, 100 * b), [(0.0, 1.0)]);
        // Two in one block, a third in the next, a fourth behind a gap.
        let near = [5..6, 7..8, b..b + 1, 3 * b..3 * b + 1];
        assert_eq!(of(&near, 0, 4, 100 * b), [(0.0, 2.0), (3.0, 4.0)]);
        assert_eq!(of(&near, 1, 4, 100 * b), [(0.0, 4.0)]);
        // Longer than a request, and one that overlaps it.
        let long = [b / 2..5 * b, b..2 * b, 4 * b + 7..6 * b + b / 2];
        assert_eq!(
            of(&long, 0, 2, 6 * b + b / 2),
            [(0.0, 2.0), (2.0, 4.0), (4.0, 5.0), (5.0, 6.5)]
        );
    }
}
