//! Elements of a one-dimensional dataset by ranges: exact byte ranges where it is not compressed,
//! else whole chunks, each read and decoded once, of which only the wanted part is kept.

use super::filters::{Pipeline, Scratch, refuse_unknown};
use super::{as_u64, index};
use crate::container::{
    ByteOrder, ChunkTable, Container, Dataset, ElementType, Storage, StoredChunk,
};
use bytes::Bytes;
use cellfeed_core::io::{Buffer, ByteSource, Engine};
use cellfeed_core::{Error, ErrorKind, Result};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Stored bytes that one step of a read fetches and decodes, while the next is on its way.
const STEP_BYTES: u64 = 16 << 20;

/// What every read of an open file needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) source: Arc<dyn ByteSource>,
    pub(crate) container: Arc<dyn Container>,
}

impl Context {
    /// Says where an error arose.
    pub(crate) fn blame(&self, error: Error, path: &str) -> Error {
        let path = if path.is_empty() { "/" } else { path };
        error.with_default("file", self.source.location()).with_default("element", path)
    }
}

/// What becomes of elements as they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Convert {
    /// Kept, in little-endian order.
    Keep,
    /// Integers of any width to `u32`; those that do not fit are errors.
    Index,
}

#[derive(Debug)]
enum Kind {
    /// One run of bytes, or none if nothing was ever written.
    Contiguous(Option<u64>),
    Chunked {
        table: ChunkTable,
        chunk: u64,
        pipeline: Pipeline,
    },
    /// Only the library can decode it.
    Library {
        window: u64,
    },
}

/// A one-dimensional dataset, ready to be read in parts.
#[derive(Debug)]
pub(crate) struct StoredArray {
    path: String,
    element: ElementType,
    len: u64,
    fill: Vec<u8>,
    kind: Kind,
}

/// A stored chunk and the parts of it that are wanted, as element ranges within it.
#[derive(Debug)]
struct Task {
    stored: Option<StoredChunk>,
    /// Where the chunk's bytes lie among those read for the step.
    raw: Range<usize>,
    parts: Vec<Range<usize>>,
}

impl StoredArray {
    /// Describes a dataset; reads its chunk table.
    pub(crate) fn open(context: &Context, path: &str, dataset: &Dataset) -> Result<Self> {
        Self::describe(context, path, dataset).map_err(|e| context.blame(e, path))
    }

    fn describe(context: &Context, path: &str, dataset: &Dataset) -> Result<Self> {
        let [len] = dataset.shape[..] else {
            return Err(Error::corrupt(format!(
                "one dimension was expected, but the shape is {:?}",
                dataset.shape
            )));
        };
        if dataset.element.plain_order().is_none() {
            return Err(Error::unsupported(format!(
                "numbers were expected, but the elements are {}",
                dataset.element
            )));
        }
        refuse_unknown(&dataset.filters)?;
        let size = dataset.element.size();
        let bytes = len.checked_mul(size);
        let library = Kind::Library { window: (1 << 20) / size.max(1) };
        let kind = match &dataset.storage {
            Storage::Compact => library,
            Storage::Contiguous { offset, size: stored } => {
                if let (Some(offset), Some(bytes)) = (offset, bytes) {
                    let end = offset.checked_add(bytes);
                    if *stored < bytes || end.is_none_or(|end| end > context.source.len()) {
                        return Err(Error::corrupt(format!(
                            "{len} elements take {bytes} bytes, but {stored} are stored at \
                             offset {offset} of a file of {}",
                            context.source.len()
                        ))
                        .with("offset", offset));
                    }
                }
                Kind::Contiguous(*offset)
            }
            Storage::Chunked { chunk_shape } => {
                let chunk = chunk_shape.first().copied().unwrap_or(0);
                let chunk_bytes = chunk.checked_mul(size).and_then(|n| usize::try_from(n).ok());
                let pipeline = chunk_bytes.filter(|&n| n > 0 && n <= 1 << 30).and_then(|n| {
                    Pipeline::try_new(&dataset.filters, usize::try_from(size).unwrap_or(1), n)
                });
                let library = Kind::Library { window: chunk.clamp(1, (64 << 20) / size.max(1)) };
                match pipeline {
                    Some(pipeline) => {
                        let table = context.container.chunk_table(path)?;
                        if knows_fill(dataset, &table) {
                            Kind::Chunked { table, chunk, pipeline }
                        } else {
                            library
                        }
                    }
                    None => library,
                }
            }
            Storage::Unsupported(what) => {
                return Err(Error::unsupported(format!("{what} cannot be read")));
            }
        };
        if bytes.is_none() {
            return Err(Error::corrupt(format!("{len} elements of {size} bytes overflow")));
        }
        let fill = dataset.fill.clone().unwrap_or_default();
        let path = path.to_owned();
        Ok(Self { path, element: dataset.element.clone(), len, fill, kind })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn element(&self) -> &ElementType {
        &self.element
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn size(&self) -> usize {
        usize::try_from(self.element.size()).unwrap_or(usize::MAX)
    }

    /// Whether the stored bytes can be used as they are.
    fn is_native(&self, convert: Convert) -> bool {
        let little = self.element.plain_order() == Some(ByteOrder::Little);
        let index = matches!(self.element, ElementType::Integer { bytes: 4, .. });
        little && (convert == Convert::Keep || index)
    }

    /// Bytes of one element of the answer.
    pub(crate) fn out_size(&self, convert: Convert) -> usize {
        match convert {
            Convert::Keep => self.size(),
            Convert::Index => 4,
        }
    }

    /// Bytes to be read, bytes to be decoded, and the most raw bytes held at once.
    pub(crate) fn cost(&self, ranges: &[Range<u64>], convert: Convert) -> (u64, u64, u64) {
        let size = self.element.size();
        let wanted: u64 = ranges.iter().map(|r| (r.end - r.start) * size).sum();
        match &self.kind {
            Kind::Contiguous(_) => {
                (wanted, wanted, if self.is_native(convert) { 0 } else { wanted })
            }
            Kind::Library { window } => {
                let bytes = wanted + (window * 2 * size).min(STEP_BYTES);
                (bytes, bytes, bytes)
            }
            Kind::Chunked { pipeline, .. } if pipeline.is_plain() => {
                (wanted, wanted, if self.is_native(convert) { 0 } else { wanted })
            }
            Kind::Chunked { table, chunk, pipeline } => {
                let (mut read, mut decoded) = (0u64, 0u64);
                for slot in slots(ranges, *chunk) {
                    read += table.get(slot).map_or(0, |c| u64::from(c.size));
                    decoded += u64::try_from(pipeline.chunk_bytes()).unwrap_or(0);
                }
                (read, decoded, read.min(2 * STEP_BYTES))
            }
        }
    }

    /// The elements of ascending, disjoint ranges, end to end.
    pub(crate) async fn read(
        &self,
        context: &Context,
        ranges: &[Range<u64>],
        convert: Convert,
    ) -> Result<Bytes> {
        let answer = async {
            if let Some(last) = ranges.last()
                && last.end > self.len
            {
                return Err(Error::corrupt(format!(
                    "element {} is wanted, but there are {}",
                    last.end - 1,
                    self.len
                )));
            }
            match &self.kind {
                Kind::Contiguous(offset) => {
                    self.read_contiguous(context, ranges, *offset, convert).await
                }
                Kind::Chunked { table, chunk, pipeline } => {
                    if pipeline.is_plain() && self.all_stored(table, *chunk, pipeline, ranges) {
                        let ranges = plain_ranges(table, *chunk, self.element.size(), ranges);
                        self.read_plain(context, ranges, convert).await
                    } else {
                        self.read_chunks(context, ranges, table, *chunk, pipeline, convert).await
                    }
                }
                Kind::Library { window } => {
                    self.read_library(context, ranges, *window, convert).await
                }
            }
        };
        answer.await.map_err(|e| context.blame(e, &self.path))
    }

    fn all_stored(
        &self,
        table: &ChunkTable,
        chunk: u64,
        pipeline: &Pipeline,
        ranges: &[Range<u64>],
    ) -> bool {
        let full = pipeline.chunk_bytes();
        slots(ranges, chunk)
            .all(|slot| table.get(slot).is_some_and(|c| usize::try_from(c.size) == Ok(full)))
    }

    async fn read_contiguous(
        &self,
        context: &Context,
        ranges: &[Range<u64>],
        offset: Option<u64>,
        convert: Convert,
    ) -> Result<Bytes> {
        let size = self.element.size();
        let Some(offset) = offset else {
            let mut buffer = self.buffer(context, ranges, convert)?;
            write_fill(&self.element, &self.fill, convert, buffer.as_mut_slice())?;
            return Ok(buffer.freeze());
        };
        let bytes = |r: &Range<u64>| offset + r.start * size..offset + r.end * size;
        self.read_plain(context, ranges.iter().map(bytes).collect(), convert).await
    }

    /// Reads exact byte ranges, and converts if the elements need it.
    async fn read_plain(
        &self,
        context: &Context,
        ranges: Vec<Range<u64>>,
        convert: Convert,
    ) -> Result<Bytes> {
        let raw = context.source.get_ranges(ranges).await?;
        context.engine.stats().add_decoded(as_u64(raw.len()));
        if self.is_native(convert) || raw.is_empty() {
            return Ok(raw);
        }
        let (element, out_size) = (self.element.clone(), self.out_size(convert));
        let engine = Arc::clone(&context.engine);
        let work = move || {
            let size = usize::try_from(element.size()).unwrap_or(usize::MAX);
            let mut buffer = engine.buffers().take(raw.len() / size * out_size);
            let parts = raw.par_chunks(size << 14);
            let places = buffer.as_mut_slice().par_chunks_mut(out_size << 14);
            parts.zip(places).try_for_each(|(part, place)| emit(&element, convert, part, place))?;
            Ok(buffer.freeze())
        };
        context.engine.compute(work).await
    }

    fn buffer(&self, context: &Context, ranges: &[Range<u64>], convert: Convert) -> Result<Buffer> {
        let elements: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let bytes = usize::try_from(elements)
            .ok()
            .and_then(|n| n.checked_mul(self.out_size(convert)))
            .ok_or_else(|| Error::corrupt("the answer is larger than the address space"))?;
        Ok(context.engine.buffers().take(bytes))
    }

    /// Reads whole chunks in steps, each decoded while the next is read.
    async fn read_chunks(
        &self,
        context: &Context,
        ranges: &[Range<u64>],
        table: &ChunkTable,
        chunk: u64,
        pipeline: &Pipeline,
        convert: Convert,
    ) -> Result<Bytes> {
        let mut buffer = self.buffer(context, ranges, convert)?;
        let mut steps = steps(tasks(ranges, table, chunk)).into_iter();
        let fetch = |tasks: Vec<Task>| async {
            let ranges = tasks.iter().filter_map(|t| t.stored.map(StoredChunk::range)).collect();
            Ok::<_, Error>((tasks, context.source.get_ranges(ranges).await?))
        };
        let mut ready = match steps.next() {
            Some(tasks) => Some(fetch(tasks).await?),
            None => None,
        };
        let mut done = 0usize;
        while let Some((tasks, raw)) = ready {
            let elements: usize =
                tasks.iter().flat_map(|t| &t.parts).map(ExactSizeIterator::len).sum();
            let bytes = elements * self.out_size(convert);
            let job = Job {
                element: self.element.clone(),
                fill: self.fill.clone(),
                pipeline: pipeline.clone(),
                convert,
            };
            context.engine.stats().add_decoded(as_u64(tasks.len() * pipeline.chunk_bytes()));
            let decode = context.engine.compute(move || {
                job.run(&tasks, &raw, &mut buffer.as_mut_slice()[done..done + bytes])?;
                Ok(buffer)
            });
            let next = async {
                match steps.next() {
                    Some(tasks) => fetch(tasks).await.map(Some),
                    None => Ok(None),
                }
            };
            (buffer, ready) = futures::try_join!(decode, next)?;
            done += bytes;
        }
        Ok(buffer.freeze())
    }

    /// Lets the library decode, in windows of whole chunks.
    async fn read_library(
        &self,
        context: &Context,
        ranges: &[Range<u64>],
        window: u64,
        convert: Convert,
    ) -> Result<Bytes> {
        let buffer = self.buffer(context, ranges, convert)?;
        let (container, engine) = (Arc::clone(&context.container), Arc::clone(&context.engine));
        let (path, element, len) = (self.path.clone(), self.element.clone(), self.len);
        let (size, out_size) = (self.size(), self.out_size(convert));
        let ranges = ranges.to_vec();
        let little = little_endian(&element);
        let work = move || {
            let mut buffer = buffer;
            let mut place = buffer.as_mut_slice();
            let mut held: (Range<u64>, Vec<u8>) = (0..0, Vec::new());
            for range in ranges {
                let mut at = range.start;
                while at < range.end {
                    if !held.0.contains(&at) {
                        let start = at / window * window;
                        let rows = start..(start + window).min(len);
                        let bytes = container.read_raw(&path, rows.clone())?;
                        engine.stats().add_read(1, 1, as_u64(bytes.len()), as_u64(bytes.len()));
                        engine.stats().add_decoded(as_u64(bytes.len()));
                        held = (rows, bytes);
                    }
                    let end = held.0.end.min(range.end);
                    let span = index(at - held.0.start) * size..index(end - held.0.start) * size;
                    let part = held.1.get(span).ok_or_else(|| {
                        Error::corrupt("the library answered fewer elements than were asked for")
                    })?;
                    let (head, tail) = place.split_at_mut(part.len() / size * out_size);
                    emit(&little, convert, part, head)?;
                    place = tail;
                    at = end;
                }
            }
            Ok(buffer.freeze())
        };
        context.engine.blocking(work).await
    }
}

/// One step's decoding.
struct Job {
    element: ElementType,
    fill: Vec<u8>,
    pipeline: Pipeline,
    convert: Convert,
}

thread_local! {
    /// What decoding needs for itself, kept by each worker thread.
    static SCRATCH: RefCell<(Scratch, Vec<u8>)> = RefCell::default();
}

impl Job {
    fn run(&self, tasks: &[Task], raw: &[u8], place: &mut [u8]) -> Result<()> {
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
        tasks.par_iter().zip(places).try_for_each(|(task, place)| {
            SCRATCH.with_borrow_mut(|(scratch, chunk)| {
                self.decode(task, raw, place, scratch, chunk).map_err(|e| match task.stored {
                    Some(stored) => e.with("offset", stored.offset),
                    None => e,
                })
            })
        })
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
            return self.pipeline.decode(raw, stored.filter_mask, scratch, place);
        }
        chunk.resize(chunk_bytes, 0);
        self.pipeline.decode(raw, stored.filter_mask, scratch, chunk)?;
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

/// Writes the fill value, zero if none is stated, everywhere.
fn write_fill(
    element: &ElementType,
    fill: &[u8],
    convert: Convert,
    place: &mut [u8],
) -> Result<()> {
    let size = index(element.size());
    let zeros = vec![0u8; size];
    let mut one = vec![0u8; if convert == Convert::Index { 4 } else { size }];
    // The fill value is little-endian, whatever the elements are.
    let fill = if fill.len() == size { fill } else { &zeros };
    emit(&little_endian(element), convert, fill, &mut one)?;
    place.chunks_exact_mut(one.len()).for_each(|p| p.copy_from_slice(&one));
    Ok(())
}

/// The chunks that ranges touch, each once, ascending.
fn slots(ranges: &[Range<u64>], chunk: u64) -> impl Iterator<Item = usize> + '_ {
    let mut next = 0u64;
    ranges.iter().filter(|r| !r.is_empty()).flat_map(move |r| {
        let (first, end) = ((r.start / chunk).max(next), (r.end - 1) / chunk + 1);
        next = end;
        (first..end).map(index)
    })
}

/// What to do chunk by chunk. `raw` is left to [`steps`].
fn tasks(ranges: &[Range<u64>], table: &ChunkTable, chunk: u64) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut current = None;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let slot = at / chunk;
            let base = slot * chunk;
            let end = (base + chunk).min(range.end);
            let part = index(at - base)..index(end - base);
            match tasks.last_mut() {
                Some(task) if current == Some(slot) => task.parts.push(part),
                _ => {
                    tasks.push(Task {
                        stored: table.get(index(slot)),
                        raw: 0..0,
                        parts: vec![part],
                    });
                    current = Some(slot);
                }
            }
            at = end;
        }
    }
    tasks
}

/// Groups tasks into steps of about [`STEP_BYTES`] stored bytes.
fn steps(tasks: Vec<Task>) -> Vec<Vec<Task>> {
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
fn plain_ranges(
    table: &ChunkTable,
    chunk: u64,
    size: u64,
    ranges: &[Range<u64>],
) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len() * 2);
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let slot = at / chunk;
            let base = slot * chunk;
            let end = (base + chunk).min(range.end);
            // All chunks are stored: the caller has checked.
            let offset = table.get(index(slot)).map_or(u64::MAX, |c| c.offset);
            let start = offset.saturating_add((at - base) * size);
            let stop = offset.saturating_add((end - base) * size);
            match out.last_mut() {
                Some(last) if last.end == start => last.end = stop,
                _ => out.push(start..stop),
            }
            at = end;
        }
    }
    out
}

fn little_endian(element: &ElementType) -> ElementType {
    let mut element = element.clone();
    match &mut element {
        ElementType::Integer { order, .. }
        | ElementType::Float { order, .. }
        | ElementType::Enum { order, .. } => *order = ByteOrder::Little,
        _ => {}
    }
    element
}

/// Copies elements to their place, converting.
fn emit(element: &ElementType, convert: Convert, source: &[u8], place: &mut [u8]) -> Result<()> {
    if convert == Convert::Keep {
        place.copy_from_slice(source);
        element.to_little_endian(place);
        return Ok(());
    }
    let ElementType::Integer { bytes, signed, order } = *element else {
        return Err(Error::unsupported(format!("gene indices cannot be {element}")));
    };
    let (out, _) = place.as_chunks_mut::<4>();
    let big = order == ByteOrder::Big;
    match (bytes, signed) {
        (1, false) => narrow::<1>(source, out, |b| Some(b[0].into())),
        (1, true) => narrow::<1>(source, out, |b| u32::try_from(b[0].cast_signed()).ok()),
        (2, false) => narrow::<2>(source, out, |b| {
            Some(if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }.into())
        }),
        (2, true) => narrow::<2>(source, out, |b| {
            u32::try_from(if big { i16::from_be_bytes(b) } else { i16::from_le_bytes(b) }).ok()
        }),
        // Negative ones are past any n_vars as unsigned: the row check refuses them.
        (4, _) => narrow::<4>(source, out, |b| {
            Some(if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
        }),
        (8, false) => narrow::<8>(source, out, |b| {
            u32::try_from(if big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) }).ok()
        }),
        (8, true) => narrow::<8>(source, out, |b| {
            u32::try_from(if big { i64::from_be_bytes(b) } else { i64::from_le_bytes(b) }).ok()
        }),
        _ => Err(Error::unsupported(format!("gene indices cannot be {element}"))),
    }
}

fn narrow<const N: usize>(
    source: &[u8],
    place: &mut [[u8; 4]],
    to_index: impl Fn([u8; N]) -> Option<u32>,
) -> Result<()> {
    let (elements, _) = source.as_chunks::<N>();
    let mut fits = true;
    for (to, from) in place.iter_mut().zip(elements) {
        let value = to_index(*from);
        fits &= value.is_some();
        *to = value.unwrap_or(u32::MAX).to_ne_bytes();
    }
    if fits {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "a gene index is negative or beyond 32 bits"))
}
