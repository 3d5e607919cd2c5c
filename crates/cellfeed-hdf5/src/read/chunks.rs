//! Which chunks a read needs, in which steps, and how one step is decoded.

use super::convert::{Convert, emit, write_fill};
use super::filters::{KEEP, Pipeline, Scratch};
use super::start::Proven;
use super::{as_u64, index};
use crate::container::{ByteOrder, ChunkTable, Dataset, ElementType, StoredChunk};
use cellfeed_core::Result;
use cellfeed_core::spans::Origin;
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Stored bytes that one step of a read fetches and decodes, while the next is on its way.
pub(super) const STEP_BYTES: u64 = 16 << 20;

/// A stored chunk and the parts of it that are wanted, as element ranges within it.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) slot: usize,
    pub(super) stored: Option<StoredChunk>,
    /// Where the chunk's bytes lie among those read for the step.
    pub(super) raw: Range<usize>,
    pub(super) parts: Vec<Range<usize>>,
}

impl Task {
    /// Bytes from the beginning of the chunk that have to be decoded: all of them, unless its checksum
    /// was found right before.
    pub(super) fn wanted(&self, size: usize, proven: &Proven, chunk_bytes: usize) -> usize {
        let end = self.parts.last().map_or(0, |part| part.end.saturating_mul(size));
        if proven.has(self.slot) { end.min(chunk_bytes) } else { chunk_bytes }
    }
}

/// One step's decoding.
pub(super) struct Job {
    /// The array's path.
    pub(super) path: String,
    pub(super) element: ElementType,
    pub(super) fill: Vec<u8>,
    pub(super) pipeline: Pipeline,
    pub(super) convert: Convert,
    /// Chunks whose checksums were found right.
    pub(super) proven: Arc<Proven>,
}

thread_local! {
    /// What decoding needs for itself, kept by each worker thread.
    static SCRATCH: RefCell<(Scratch, Vec<u8>)> = RefCell::default();
}

/// Lends the thread's scratch, and gives back what an odd chunk made huge.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch, &mut Vec<u8>) -> T) -> T {
    SCRATCH.with_borrow_mut(|(scratch, chunk)| {
        let done = work(scratch, chunk);
        scratch.trim();
        if chunk.capacity() > KEEP {
            *chunk = Vec::new();
        }
        done
    })
}

impl Job {
    pub(super) fn run(&self, tasks: &[Task], raw: &[u8], place: &mut [u8]) -> Result<()> {
        let size = usize::try_from(self.element.size()).unwrap_or(usize::MAX);
        let out_size = if self.convert == Convert::Index { 4 } else { size };
        let mut places = Vec::with_capacity(tasks.len());
        let mut rest = place;
        for task in tasks {
            let elements: usize = task.parts.iter().map(ExactSizeIterator::len).sum();
            let (head, tail) = rest.split_at_mut(elements * out_size);
            places.push(head);
            rest = tail;
        }
        let origin = Origin::here();
        // What one thread decodes in a row is one span.
        let begin = || origin.decode(&self.path);
        tasks.par_iter().zip(places).try_for_each_init(begin, |doing, (task, place)| {
            doing.add_bytes(self.decoded(task));
            with_scratch(|scratch, chunk| {
                self.decode(task, raw, place, scratch, chunk).map_err(|e| match task.stored {
                    Some(stored) => e.with("offset", stored.offset),
                    None => e,
                })
            })
        })
    }

    /// Bytes that decoding a chunk yields.
    pub(super) fn decoded(&self, task: &Task) -> usize {
        let size = usize::try_from(self.element.size()).unwrap_or(usize::MAX);
        let wanted = task.wanted(size, &self.proven, self.pipeline.chunk_bytes());
        self.pipeline.start_bytes(wanted)
    }

    fn decode(
        &self,
        task: &Task,
        raw: &[u8],
        mut place: &mut [u8],
        scratch: &mut Scratch,
        chunk: &mut Vec<u8>,
    ) -> Result<()> {
        let size = usize::try_from(self.element.size()).unwrap_or(usize::MAX);
        let chunk_bytes = self.pipeline.chunk_bytes();
        let little = self.element.plain_order() == Some(ByteOrder::Little);
        let Some(stored) = task.stored else {
            return write_fill(&self.element, &self.fill, self.convert, place);
        };
        let raw = &raw[task.raw.clone()];
        let whole = matches!(&task.parts[..], [part] if part.len() * size == chunk_bytes);
        if whole && little && self.convert == Convert::Keep {
            self.pipeline.decode(raw, stored.filter_mask, scratch, place)?;
            self.proven.add(task.slot);
            return Ok(());
        }
        // New room is zero without being touched: of a large chunk often the start alone is decoded.
        if chunk.len() < chunk_bytes {
            *chunk = vec![0; chunk_bytes];
        }
        let chunk = &mut chunk[..chunk_bytes];
        let wanted = task.wanted(size, &self.proven, chunk_bytes);
        let mask = stored.filter_mask;
        if self.pipeline.decode_start(raw, mask, scratch, chunk, wanted)? {
            self.proven.add(task.slot);
        }
        for part in &task.parts {
            let source = &chunk[part.start * size..part.end * size];
            let out = if self.convert == Convert::Index { part.len() * 4 } else { source.len() };
            let (head, tail) = place.split_at_mut(out);
            emit(&self.element, self.convert, source, head)?;
            place = tail;
        }
        Ok(())
    }
}

/// Whether elements that were never written, if there are any, are known.
pub(super) fn knows_fill(dataset: &Dataset, table: &ChunkTable) -> bool {
    dataset.fill.is_some() || table.stored() == table.len()
}

/// The chunks that ranges touch, each once, ascending.
pub(super) fn slots(ranges: &[Range<u64>], chunk: u64) -> impl Iterator<Item = usize> + '_ {
    let mut next = 0u64;
    ranges.iter().filter(|r| !r.is_empty()).flat_map(move |r| {
        let (first, end) = ((r.start / chunk).max(next), (r.end - 1) / chunk + 1);
        next = end;
        (first..end).map(index)
    })
}

/// Ranges cut at the borders of chunks: the chunk's slot, and the elements within it.
fn pieces(ranges: &[Range<u64>], chunk: u64) -> impl Iterator<Item = (usize, Range<u64>)> + '_ {
    ranges.iter().filter(|r| !r.is_empty()).flat_map(move |r| {
        (r.start / chunk..=(r.end - 1) / chunk).map(move |slot| {
            let base = slot * chunk;
            let first = r.start.max(base) - base;
            // The last chunk may end past the largest number; the range does not.
            (index(slot), first..(r.end - base).min(chunk))
        })
    })
}

/// What to do chunk by chunk. `raw` is left to [`steps`].
pub(super) fn tasks(ranges: &[Range<u64>], table: &ChunkTable, chunk: u64) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut current = None;
    for (slot, part) in pieces(ranges, chunk) {
        let part = index(part.start)..index(part.end);
        match tasks.last_mut() {
            Some(task) if current == Some(slot) => task.parts.push(part),
            _ => {
                tasks.push(Task { slot, stored: table.get(slot), raw: 0..0, parts: vec![part] });
                current = Some(slot);
            }
        }
    }
    tasks
}

/// Groups tasks into steps of about [`STEP_BYTES`] stored bytes.
pub(super) fn steps(tasks: Vec<Task>) -> Vec<Vec<Task>> {
    let mut steps = Vec::new();
    let (mut step, mut bytes) = (Vec::new(), 0usize);
    for mut task in tasks {
        let stored = task.stored.map_or(0, |c| index(u64::from(c.size)));
        if !step.is_empty() && as_u64(bytes + stored) > STEP_BYTES {
            steps.push(std::mem::take(&mut step));
            bytes = 0;
        }
        task.raw = bytes..bytes + stored;
        bytes += stored;
        step.push(task);
    }
    if !step.is_empty() {
        steps.push(step);
    }
    steps
}

/// File ranges of the wanted elements of uncompressed chunks.
pub(super) fn plain_ranges(
    table: &ChunkTable,
    chunk: u64,
    size: u64,
    ranges: &[Range<u64>],
) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len() * 2);
    for (slot, part) in pieces(ranges, chunk) {
        // All chunks are stored: the caller has checked.
        let offset = table.get(slot).map_or(u64::MAX, |c| c.offset);
        let start = offset.saturating_add(part.start * size);
        let stop = offset.saturating_add(part.end * size);
        match out.last_mut() {
            Some(last) if last.end == start => last.end = stop,
            _ => out.push(start..stop),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Filter;

    /// A task that wants a part of a chunk of so many bytes, shuffled twice, which takes all the room
    /// there is; the room that is kept afterwards.
    fn kept_after(bytes: usize) -> usize {
        let shuffle = Filter { id: 2, name: String::new(), client_data: vec![4], optional: false };
        let pipeline = Pipeline::try_new(&vec![shuffle; 3], 4, bytes).unwrap();
        let job = Job {
            path: "X/data".to_owned(),
            element: ElementType::Integer { bytes: 4, signed: true, order: ByteOrder::Little },
            fill: Vec::new(),
            pipeline,
            convert: Convert::Keep,
            proven: Arc::default(),
        };
        let size = u32::try_from(bytes).unwrap();
        let stored = Some(StoredChunk { offset: 0, size, filter_mask: 0 });
        let part = bytes / 8..bytes / 8 + 2;
        let task = Task { slot: 0, stored, raw: 0..bytes, parts: vec![part] };
        let mut place = [1; 8];
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            job.run(&[task], &vec![0; bytes], &mut place).unwrap();
            assert_eq!(place, [0; 8]);
            SCRATCH.with_borrow(|(scratch, chunk)| scratch.capacity() + chunk.capacity())
        })
    }

    #[test]
    fn room_is_kept_unless_a_chunk_was_huge() {
        assert!(kept_after(4 << 20) >= 8 << 20);
        assert_eq!(kept_after(40 << 20), 0);
    }
}
