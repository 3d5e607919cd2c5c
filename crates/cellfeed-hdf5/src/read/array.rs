//! Elements of a one-dimensional dataset by ranges: exact byte ranges where it is not compressed,
//! else whole chunks, each read and decoded once, of which only the wanted part is kept.

use super::chunks::{Job, STEP_BYTES, Task, knows_fill, plain_ranges, slots, steps, tasks};
use super::convert::{Convert, emit, little_endian, write_fill};
use super::filters::{Pipeline, refuse_unknown};
use super::start::Proven;
use super::{as_u64, index};
use crate::container::{
    ByteOrder, ChunkTable, Container, Dataset, ElementType, Storage, StoredChunk,
};
use bytes::Bytes;
use cellfeed_core::io::{Access, Buffer, ByteSource, Engine, MappedFile};
use cellfeed_core::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What every read of an open file needs.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) engine: Arc<Engine>,
    pub(crate) source: Arc<dyn ByteSource>,
    pub(crate) container: Arc<dyn Container>,
    pub(crate) access: Access,
    /// None where the file is not, or must not be, mapped.
    pub(crate) map: Option<MappedFile>,
    /// Chunk tables in use, by path: describing an array and reading it share one.
    tables: Arc<Mutex<HashMap<String, Weak<ChunkTable>>>>,
}

impl Context {
    pub(crate) fn new(
        engine: Arc<Engine>,
        source: Arc<dyn ByteSource>,
        container: Arc<dyn Container>,
        access: Access,
    ) -> Result<Self> {
        let map = access.map_of(&*source)?;
        Ok(Self { engine, source, container, access, map, tables: Arc::default() })
    }

    /// The chunk table of the dataset at `path`, made anew unless somebody has it.
    pub(crate) fn chunk_table(&self, path: &str) -> Result<Arc<ChunkTable>> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(path).and_then(Weak::upgrade) {
            return Ok(table);
        }
        let table = Arc::new(self.container.chunk_table(path)?);
        tables.insert(path.to_owned(), Arc::downgrade(&table));
        Ok(table)
    }

    /// Says where an error arose.
    pub(crate) fn blame(&self, error: Error, path: &str) -> Error {
        let path = if path.is_empty() { "/" } else { path };
        error.with_default("file", self.source.location()).with_default("element", path)
    }
}

#[derive(Debug)]
enum Kind {
    /// One run of bytes, or none if nothing was ever written.
    Contiguous(Option<u64>),
    Chunked {
        table: Arc<ChunkTable>,
        chunk: u64,
        pipeline: Pipeline,
        proven: Arc<Proven>,
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
                        let table = context.chunk_table(path)?;
                        if knows_fill(dataset, &table) {
                            let proven = Arc::new(Proven::none(table.len()));
                            Kind::Chunked { table, chunk, pipeline, proven }
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

    /// How many of the first `elements` were never written, as far as whole chunks tell.
    pub(crate) fn never_written(&self, elements: u64) -> u64 {
        match &self.kind {
            Kind::Contiguous(None) => elements,
            Kind::Contiguous(Some(_)) | Kind::Library { .. } => 0,
            Kind::Chunked { table, chunk, .. } if table.stored() < table.len() => {
                let whole = 0..elements;
                slots(std::slice::from_ref(&whole), *chunk)
                    .filter(|&slot| table.get(slot).is_none())
                    .map(|slot| elements.saturating_sub(as_u64(slot) * chunk).min(*chunk))
                    .sum()
            }
            Kind::Chunked { .. } => 0,
        }
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

    /// Whether [`cost`](Self::cost) tells exactly: what the library reads for us is a guess.
    pub(crate) fn cost_is_exact(&self) -> bool {
        !matches!(self.kind, Kind::Library { .. })
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
            Kind::Chunked { table, chunk, pipeline, .. } => {
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
                Kind::Chunked { table, chunk, pipeline, proven } => {
                    if pipeline.is_plain() && self.all_stored(table, *chunk, pipeline, ranges) {
                        let ranges = plain_ranges(table, *chunk, self.element.size(), ranges);
                        self.read_plain(context, ranges, convert).await
                    } else {
                        let job = Job {
                            path: self.path.clone(),
                            element: self.element.clone(),
                            fill: self.fill.clone(),
                            pipeline: pipeline.clone(),
                            convert,
                            proven: Arc::clone(proven),
                        };
                        self.read_chunks(context, ranges, table, *chunk, job).await
                    }
                }
                Kind::Library { window } => {
                    self.read_library(context, ranges, *window, convert).await
                }
            }
        };
        answer.await.map_err(|e| context.blame(e, &self.path))
    }

    /// Where in the file the bytes are that reading these elements needs; empty where only the library
    /// knows.
    pub(crate) fn stored_ranges(&self, ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let size = self.element.size();
        match &self.kind {
            Kind::Contiguous(Some(offset)) => {
                ranges.iter().map(|r| offset + r.start * size..offset + r.end * size).collect()
            }
            Kind::Chunked { table, chunk, pipeline, .. } => {
                if pipeline.is_plain() && self.all_stored(table, *chunk, pipeline, ranges) {
                    return plain_ranges(table, *chunk, size, ranges);
                }
                let stored = slots(ranges, *chunk).filter_map(|slot| table.get(slot));
                stored.map(StoredChunk::range).collect()
            }
            Kind::Contiguous(None) | Kind::Library { .. } => Vec::new(),
        }
    }

    /// Whether the file holds just the bytes that reading these elements answers.
    pub(super) fn is_as_wanted(&self, ranges: &[Range<u64>], convert: Convert) -> bool {
        self.is_native(convert)
            && match &self.kind {
                Kind::Contiguous(offset) => offset.is_some(),
                Kind::Chunked { table, chunk, pipeline, .. } => {
                    pipeline.is_plain() && self.all_stored(table, *chunk, pipeline, ranges)
                }
                Kind::Library { .. } => false,
            }
            && ranges.last().is_none_or(|last| last.end <= self.len)
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
        job: Job,
    ) -> Result<Bytes> {
        let mut buffer = self.buffer(context, ranges, job.convert)?;
        let (out_size, job) = (self.out_size(job.convert), Arc::new(job));
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
            let bytes = elements * out_size;
            let job = Arc::clone(&job);
            let decoded: usize = tasks.iter().map(|task| job.decoded(task)).sum();
            context.engine.stats().add_decoded(as_u64(decoded));
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
