//! The bare limits of a run, for benchmarks: how long disk, decoder and memory take for exactly the
//! bytes that its fetches need, with nothing else done.
//!
//! Reading, of a store that is not in the page cache: the wanted bytes through the byte source, which
//! tells the kernel all ranges beforehand. Decoding, of packed rows: each wanted row once, into kept
//! buffers. Copying: the wanted rows, block by block in the fetch's order, from the map, or from a
//! buffer of decoded rows, to a kept buffer as large as the fetch, by `memcpy`. A loader overlaps the
//! three, but cannot be faster than the slowest.

use crate::packed::PackedMatrix;
use crate::read::{Array, PlainMatrix};
use cellfeed_core::io::{Engine, Roofline};
use cellfeed_core::{Error, Result, RowRanges};
use futures::executor::block_on;
use rayon::prelude::*;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::internal("cannot start threads").caused_by(e))
}

/// Copies the wanted parts of an array, and answers their bytes.
fn copy(array: &Array, parts: &[std::ops::Range<u64>], target: &mut Vec<u8>) -> u64 {
    let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let size = u64::try_from(array.element.size()).unwrap_or(8);
    let total = at(parts.iter().map(|r| (r.end - r.start) * size).sum());
    if target.len() < total {
        target.resize(total, 0);
    }
    let mut work = Vec::with_capacity(parts.len());
    let mut rest = target.as_mut_slice();
    for part in parts {
        let (head, tail) = rest.split_at_mut(at((part.end - part.start) * size));
        work.push((at(part.start * size), head));
        rest = tail;
    }
    let bytes = array.map.as_ref().map(|m| m.bytes().clone()).unwrap_or_default();
    work.into_par_iter()
        .for_each(|(start, to)| to.copy_from_slice(&bytes[start..start + to.len()]));
    black_box(&target);
    u64::try_from(total).unwrap_or(u64::MAX)
}

pub(crate) fn plain(
    matrix: &PlainMatrix,
    fetches: &[RowRanges],
    threads: usize,
    cold: bool,
) -> Result<Roofline> {
    let mut limits = Roofline::default();
    let arrays = [&matrix.indices, &matrix.data];
    if arrays.iter().any(|array| array.map.is_none()) {
        return Err(Error::unsupported("limits are measured by the map, which this store is not"));
    }
    for rows in fetches.iter().filter(|_| cold) {
        let parts = matrix.offsets.element_ranges(rows)?;
        let start = Instant::now();
        for array in arrays {
            let read = block_on(array.file.get_ranges(array.ranges(&parts)))?;
            limits.bytes_read += u64::try_from(read.len()).unwrap_or(0);
        }
        limits.read_seconds += start.elapsed().as_secs_f64();
    }
    let pool = pool(threads)?;
    let mut targets = [Vec::new(), Vec::new()];
    // Once before anything is timed: the buffers are kept ones, whose pages are there.
    for timed in [false, true] {
        for rows in fetches.iter().take(if timed { usize::MAX } else { 1 }) {
            let parts = matrix.offsets.element_ranges(rows)?;
            let start = Instant::now();
            let copied: u64 = pool.install(|| {
                let pairs = arrays.into_iter().zip(&mut targets);
                pairs.map(|(array, target)| copy(array, &parts, target)).sum()
            });
            if timed {
                limits.gather_seconds += start.elapsed().as_secs_f64();
                limits.bytes_gathered += copied;
            }
        }
    }
    Ok(limits)
}

pub(crate) fn packed(
    matrix: &Arc<PackedMatrix>,
    engine: &Arc<Engine>,
    fetches: &[RowRanges],
    threads: usize,
    cold: bool,
) -> Result<Roofline> {
    let mut limits = Roofline::default();
    for rows in fetches.iter().filter(|_| cold) {
        let start = Instant::now();
        limits.bytes_read += matrix.read_raw(rows)?;
        limits.read_seconds += start.elapsed().as_secs_f64();
    }
    let pool = pool(threads)?;
    for timed in [false, true] {
        for rows in fetches.iter().take(if timed { usize::MAX } else { 1 }) {
            let start = Instant::now();
            let decoded = pool.install(|| matrix.decode_only(engine, rows))?;
            if timed {
                limits.decode_seconds += start.elapsed().as_secs_f64();
                limits.bytes_decoded += decoded;
            }
        }
    }
    Ok(limits)
}
