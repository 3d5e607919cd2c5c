//! The bare limits of a run, for benchmarks: how long the disk, the decoders and memory take for
//! exactly the bytes that its fetches need, with nothing else done.
//!
//! Three loops are timed, fetch by fetch, each on plain threads that take the next piece from a
//! counter: reading the stored bytes into a reused buffer (on cold files through the byte source,
//! since a disk that is not told of all ranges beforehand stays half idle), decoding each needed
//! chunk once into a reused buffer from compressed bytes that are in memory already, and copying
//! the wanted elements once from one kept buffer to another. A loader overlaps the three but cannot
//! be faster than the slowest; what it takes beyond that is its own cost.

use super::array::{Context, StoredArray};
use super::filters::{Pipeline, Scratch};
use super::{SparseMatrix, as_u64, index};
use crate::container::{ChunkTable, Node, Storage, StoredChunk};
use cellfeed_core::io::Roofline;
use cellfeed_core::{Error, Result, RowRanges};
use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// The most bytes that one system call reads.
const RUN_BYTES: u64 = 1 << 20;
/// Bytes that a thread copies before it takes the next piece.
const COPY_BYTES: usize = 256 << 10;

/// How an array's elements lie in the file.
enum Stored {
    Plain(Option<u64>),
    Chunked { table: Arc<ChunkTable>, chunk: u64, pipeline: Pipeline },
}

/// A chunk to decode, and where its bytes lie among those of the fetch.
struct Task<'a> {
    raw: Range<usize>,
    mask: u32,
    pipeline: &'a Pipeline,
}

/// What a thread keeps between fetches.
#[derive(Default)]
struct Worker {
    scratch: Scratch,
    buffer: Vec<u8>,
}

/// One of the two arrays of a matrix.
struct Part {
    stored: Stored,
    size: u64,
}

impl Part {
    fn open(context: &Context, array: &StoredArray) -> Result<Self> {
        let path = array.path();
        let Node::Dataset(dataset) = context.container.node(path)? else {
            return Err(Error::internal("an open array is no dataset").with("element", path));
        };
        let size = dataset.element.size();
        let refuse = || {
            Error::unsupported(
                "limits are known for contiguous arrays and for chunks that are decoded here",
            )
            .with("element", path)
        };
        let stored = match dataset.storage {
            Storage::Contiguous { offset, .. } => Stored::Plain(offset),
            Storage::Chunked { chunk_shape } => {
                let chunk = chunk_shape.first().copied().filter(|&n| n > 0).ok_or_else(refuse)?;
                let pipeline =
                    Pipeline::try_new(&dataset.filters, index(size), index(chunk * size));
                Stored::Chunked {
                    table: context.chunk_table(path)?,
                    chunk,
                    pipeline: pipeline.ok_or_else(refuse)?,
                }
            }
            _ => return Err(refuse()),
        };
        Ok(Self { stored, size })
    }

    /// Appends the file ranges of the wanted elements, and the chunks to be decoded of them.
    fn plan<'a>(
        &'a self,
        elements: &[Range<u64>],
        ranges: &mut Vec<Range<u64>>,
        chunks: &mut Vec<(StoredChunk, &'a Pipeline)>,
    ) {
        let size = self.size;
        match &self.stored {
            Stored::Plain(None) => {}
            Stored::Plain(Some(offset)) => ranges
                .extend(elements.iter().map(|r| offset + r.start * size..offset + r.end * size)),
            Stored::Chunked { table, chunk, pipeline } => {
                let mut last = None;
                for range in elements {
                    for slot in range.start / chunk..range.end.div_ceil(*chunk) {
                        let Some(stored) = table.get(index(slot)) else { continue };
                        if pipeline.is_plain() {
                            let base = slot * chunk;
                            let start = range.start.max(base) - base;
                            let end = range.end.min(base + chunk) - base;
                            ranges.push(stored.offset + start * size..stored.offset + end * size);
                        } else if last.replace(slot) != Some(slot) {
                            ranges.push(stored.range());
                            chunks.push((stored, pipeline));
                        }
                    }
                }
            }
        }
    }
}

/// Measures each fetch in turn.
pub(crate) fn measure(
    context: &Context,
    matrix: &SparseMatrix,
    fetches: &[RowRanges],
    threads: usize,
    cold: bool,
) -> Result<Roofline> {
    let location = context.source.location();
    let file =
        File::open(location).map_err(|e| Error::io("cannot open", e).with("file", location))?;
    let parts = [&matrix.indices, &matrix.data];
    let [indices, data] = parts.map(|array| Part::open(context, array));
    let parts = [indices?, data?];
    let kept_size = 4 + as_u64(matrix.value_type.size());
    let mut workers: Vec<Worker> = Vec::new();
    workers.resize_with(threads.max(1), Worker::default);
    let (mut raw, mut from, mut to) = (Vec::new(), Vec::new(), Vec::new());
    let mut sum = Roofline::default();
    for rows in fetches {
        let elements = matrix.offsets.element_ranges(rows)?;
        let (mut ranges, mut chunks) = (Vec::new(), Vec::new());
        for part in &parts {
            part.plan(&elements, &mut ranges, &mut chunks);
        }
        ranges.sort_unstable_by_key(|r| r.start);
        sum.bytes_read += ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        sum.read_seconds += if cold {
            let start = Instant::now();
            black_box(futures::executor::block_on(context.source.get_ranges(ranges))?);
            start.elapsed().as_secs_f64()
        } else {
            read(&file, location, &runs(&ranges), &mut workers)?
        };

        if !chunks.is_empty() {
            let tasks = load(&file, location, &chunks, &mut raw)?;
            sum.bytes_decoded +=
                tasks.iter().map(|t| as_u64(t.pipeline.chunk_bytes())).sum::<u64>();
            sum.decode_seconds += decode(&raw, &tasks, &mut workers)?;
        }

        let wanted: u64 = elements.iter().map(|r| r.end - r.start).sum::<u64>() * kept_size;
        sum.bytes_gathered += wanted;
        sum.gather_seconds += gather(index(wanted), &mut from, &mut to, workers.len());
    }
    Ok(sum)
}

/// Joins ranges that touch and cuts what is longer than one system call reads.
fn runs(sorted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        let mut at = range.start;
        if let Some(run) = runs.last_mut()
            && run.end == at
        {
            at = range.end.min(run.start + RUN_BYTES).max(at);
            run.end = at;
        }
        while at < range.end {
            let end = range.end.min(at + RUN_BYTES);
            runs.push(at..end);
            at = end;
        }
    }
    runs
}

/// Runs `work` on every item, each thread with its worker; answers the seconds taken.
fn timed<T: Sync>(
    items: &[T],
    workers: &mut [Worker],
    work: impl Fn(&T, &mut Worker) -> Result<()> + Sync,
) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let drain = |worker: &mut Worker| {
        while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
            work(item, worker)?;
        }
        Ok(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (own, others) = match workers.split_first_mut() {
            Some(split) => split,
            None => return Err(Error::internal("there is no thread to work")),
        };
        let handles: Vec<_> = others.iter_mut().map(|w| scope.spawn(|| drain(w))).collect();
        let mut answer = drain(own);
        for handle in handles {
            let other = handle.join().map_err(|_| Error::internal("a thread panicked"));
            answer = answer.and(other.and_then(|a| a));
        }
        answer
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn read_at(file: &File, location: &str, offset: u64, place: &mut [u8]) -> Result<()> {
    file.read_exact_at(place, offset)
        .map_err(|e| Error::io("cannot read", e).with("file", location).with("offset", offset))
}

fn read(file: &File, location: &str, runs: &[Range<u64>], workers: &mut [Worker]) -> Result<f64> {
    for worker in &mut *workers {
        worker.buffer.resize(worker.buffer.len().max(index(RUN_BYTES)), 0);
    }
    timed(runs, workers, |run, worker| {
        let place = &mut worker.buffer[..index(run.end - run.start)];
        read_at(file, location, run.start, place)?;
        black_box(&place);
        Ok(())
    })
}

/// Brings the bytes of chunks into memory, end to end.
fn load<'a>(
    file: &File,
    location: &str,
    chunks: &[(StoredChunk, &'a Pipeline)],
    raw: &mut Vec<u8>,
) -> Result<Vec<Task<'a>>> {
    let total: u64 = chunks.iter().map(|(c, _)| u64::from(c.size)).sum();
    raw.resize(raw.len().max(index(total)), 0);
    let mut tasks = Vec::with_capacity(chunks.len());
    let mut at = 0;
    for &(chunk, pipeline) in chunks {
        let place = at..at + index(u64::from(chunk.size));
        at = place.end;
        read_at(file, location, chunk.offset, &mut raw[place.clone()])?;
        tasks.push(Task { raw: place, mask: chunk.filter_mask, pipeline });
    }
    Ok(tasks)
}

fn decode(raw: &[u8], tasks: &[Task<'_>], workers: &mut [Worker]) -> Result<f64> {
    let most = tasks.iter().map(|t| t.pipeline.chunk_bytes()).max().unwrap_or(0);
    for worker in &mut *workers {
        worker.buffer.resize(worker.buffer.len().max(most), 0);
    }
    timed(tasks, workers, |task, Worker { scratch, buffer }| {
        let out = &mut buffer[..task.pipeline.chunk_bytes()];
        task.pipeline.decode(&raw[task.raw.clone()], task.mask, scratch, out)?;
        black_box(&out);
        Ok(())
    })
}

fn gather(bytes: usize, from: &mut Vec<u8>, to: &mut Vec<u8>, threads: usize) -> f64 {
    // Filled with ones: a page of zeros that nobody has written need not be in memory.
    from.resize(from.len().max(bytes), 1);
    to.resize(to.len().max(bytes), 1);
    let (from, to) = (&from[..bytes], &mut to[..bytes]);
    let share = bytes.div_ceil(threads).max(1);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (from, to) in from.chunks(share).zip(to.chunks_mut(share)) {
            scope.spawn(move || {
                for (from, to) in from.chunks(COPY_BYTES).zip(to.chunks_mut(COPY_BYTES)) {
                    to.copy_from_slice(from);
                    black_box(&to);
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_and_are_cut() {
        let most = RUN_BYTES;
        let ranges = [0..10, 10..20, 30..40, 40..40 + most, 2 * most..4 * most + 1];
        let got = runs(&ranges);
        let want = [
            0..20,
            30..30 + most,
            30 + most..40 + most,
            2 * most..3 * most,
            3 * most..4 * most,
            4 * most..4 * most + 1,
        ];
        assert_eq!(got, want);
    }
}
