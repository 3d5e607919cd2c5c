//! The bare limits of a run, for benchmarks: how long disk, decoder and memory take for exactly the
//! bytes that its fetches need, with nothing else done.
//!
//! Reading: the stored bytes of the needed chunks, through the byte source, into kept buffers. Decoding:
//! each of them once, into a kept buffer of the thread, from bytes that are in memory already. Copying:
//! the wanted elements once from one kept buffer to another. A loader overlaps the three but cannot be
//! faster than the slowest; what it takes beyond that is its own cost.

use super::array::Array;
use super::locate::Located;
use super::sparse::{SparseMatrix, pieces};
use super::{Context, as_u64, to_usize};
use cellfeed_core::io::Roofline;
use cellfeed_core::{Error, Result, RowRanges};
use futures::executor::block_on;
use rayon::prelude::*;
use std::cell::RefCell;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that a thread copies at a time.
const COPY_BYTES: usize = 256 << 10;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Threads and buffers of a measurement.
pub(crate) struct Bench {
    pool: rayon::ThreadPool,
    from: Vec<u8>,
    to: Vec<u8>,
    pub(crate) limits: Roofline,
}

impl Bench {
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::internal("cannot start threads").caused_by(e))?;
        Ok(Self { pool, from: Vec::new(), to: Vec::new(), limits: Roofline::default() })
    }

    /// Measures the rows of one matrix in a fetch.
    pub(crate) fn measure(
        &mut self,
        context: &Context,
        matrix: &SparseMatrix,
        rows: &RowRanges,
    ) -> Result<()> {
        let ranges = matrix.offsets.element_ranges(rows)?;
        let mut wanted = 0;
        for array in [&matrix.indices, &matrix.data] {
            wanted += self.array(context, array, &ranges)?;
        }
        self.gather(to_usize(wanted));
        Ok(())
    }

    fn array(
        &mut self,
        context: &Context,
        array: &Arc<Array>,
        ranges: &[Range<u64>],
    ) -> Result<u64> {
        let pieces = pieces(ranges, as_u64(array.meta.chunk_len()));
        let item = array.item()?;
        let chunks = pieces.iter().map(|p| vec![p.chunk]).collect();
        let located = block_on(Located::find(array, context, chunks))?;
        let start = Instant::now();
        let stored = block_on(located.read_all())?;
        self.limits.read_seconds += start.elapsed().as_secs_f64();
        self.limits.bytes_read += stored.iter().flatten().map(|b| as_u64(b.len())).sum::<u64>();
        let start = Instant::now();
        let decode = |(piece, stored): (&super::sparse::Piece, &Option<bytes::Bytes>)| {
            ROOM.with_borrow_mut(|room| {
                room.resize(room.len().max(piece.length * item), 0);
                let room = &mut room[..piece.length * item];
                let decoded = array.decode_parts(stored.as_deref(), &piece.parts, room)?;
                black_box(&room);
                Ok::<u64, Error>(as_u64(decoded))
            })
        };
        let decoded: Result<Vec<u64>> =
            self.pool.install(|| pieces.par_iter().zip(&stored).map(decode).collect());
        self.limits.decode_seconds += start.elapsed().as_secs_f64();
        self.limits.bytes_decoded += decoded.map_err(|e| array.blame(e))?.iter().sum::<u64>();
        Ok(ranges.iter().map(|r| r.end - r.start).sum::<u64>() * as_u64(item))
    }

    fn gather(&mut self, bytes: usize) {
        // Filled with ones: a page of zeros that nobody has written need not be in memory.
        for room in [&mut self.from, &mut self.to] {
            room.resize(room.len().max(bytes), 1);
        }
        let (from, to) = (&self.from[..bytes], &mut self.to[..bytes]);
        let start = Instant::now();
        self.pool.install(|| {
            let parts = from.par_chunks(COPY_BYTES).zip(to.par_chunks_mut(COPY_BYTES));
            parts.for_each(|(from, to)| {
                to.copy_from_slice(from);
                black_box(&to);
            });
        });
        self.limits.gather_seconds += start.elapsed().as_secs_f64();
        self.limits.bytes_gathered += as_u64(bytes);
    }
}
