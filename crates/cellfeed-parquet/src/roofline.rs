//! The bare limits of a run, for benchmarks: how long disk, decompressor and memory take for exactly
//! the pages that its fetches need, with nothing else done.
//!
//! Reading: the wanted pages through the byte source, from the page cache too, since no map spares it.
//! Decoding: every page decompressed once into kept scratch; 0 where pages are not compressed. Copying: as
//! many bytes as the answers have, by `memcpy`. A loader overlaps the three, but cannot be faster than the
//! slowest.

use crate::codec::Codec;
use crate::page::open;
use crate::read::{Context, Matrix};
use crate::walk::pages;
use cellfeed_core::io::Roofline;
use cellfeed_core::{Error, Result, RowRanges};
use futures::executor::block_on;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

pub(crate) fn measure(
    context: &Arc<Context>,
    matrix: &Matrix,
    fetches: &[RowRanges],
    threads: usize,
) -> Result<Roofline> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::internal("cannot start threads").caused_by(e))?;
    let files = &context.files;
    let mut limits = Roofline::default();
    let mut target = Vec::new();
    // Once before anything but reading is timed: the buffers are kept ones, whose pages are there.
    for (i, rows) in std::iter::once(fetches.first()).chain(fetches.iter().map(Some)).enumerate() {
        let Some(rows) = rows else { continue };
        let timed = i > 0;
        let mut plans = Vec::new();
        // In the parts that reading has: each a task.
        for part in matrix.plan(files, rows) {
            for (leaf, plan) in [matrix.indices, matrix.data].into_iter().zip(part.chunks) {
                plans.push((part.want.group, leaf, plan));
            }
        }
        let ranges = plans.iter().flat_map(|(g, _, plan)| plan.ranges().map(|r| (*g, r)));
        let ranges: Vec<_> = ranges.collect();
        let start = Instant::now();
        let bytes = block_on(files.fetch(&context.engine, ranges))?;
        if timed {
            limits.read_seconds += start.elapsed().as_secs_f64();
            limits.bytes_read += bytes.iter().map(|b| size(b.len())).sum::<u64>();
        }
        let mut work = Vec::new();
        let mut at = 0;
        for (group, leaf, plan) in &plans {
            let n = plan.ranges().count();
            work.push((files.chunk(*group, *leaf), plan, &bytes[at..at + n]));
            at += n;
        }
        let start = Instant::now();
        let plain = pool.install(|| {
            let one = |&(chunk, plan, bytes): &(_, _, &[_])| -> Result<u64> {
                context.with_scratch(|scratch| {
                    let (dictionary, pages) = pages(chunk, plan, bytes)?;
                    let mut n = 0;
                    for page in dictionary.iter().chain(&pages) {
                        scratch.cut(0);
                        let codec: Codec = chunk.codec;
                        black_box(open(&page.header, &page.bytes, codec, scratch)?);
                        n += size(page.header.plain);
                    }
                    Ok(n)
                })
            };
            work.par_iter().map(one).sum::<Result<u64>>()
        })?;
        if timed {
            limits.decode_seconds += start.elapsed().as_secs_f64();
            limits.bytes_decoded += plain;
        }
        let answer = block_on(Arc::new(matrix.clone()).read(context, rows))?;
        let n: usize = answer.segments().iter().map(|s| s.values().as_bytes().len()).sum();
        if target.len() < n {
            target.resize(n, 0);
        }
        let start = Instant::now();
        let mut rest = target.as_mut_slice();
        for segment in answer.segments() {
            let from = segment.values().as_bytes();
            let (to, tail) = rest.split_at_mut(from.len());
            to.copy_from_slice(from);
            rest = tail;
        }
        black_box(&rest);
        if timed {
            limits.gather_seconds += start.elapsed().as_secs_f64();
            limits.bytes_gathered += size(n);
        }
    }
    Ok(limits)
}

fn size(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
