//! Where the bytes of inner chunks are: the file and its range, by the index of its shard where there
//! is one. Indexes are read once, checked, and kept.

use super::array::Array;
use super::shard::ShardIndex;
use super::{Context, as_u64, to_usize};
use crate::codec;
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, Entry};
use cellfeed_core::{Error, ErrorKind, Result};
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Inner chunks that a shard may have.
const MOST_IN_FILE: u64 = 1 << 24;

/// The bytes of a chunk as stored; none means fill values.
pub(crate) type Stored = Option<Bytes>;

/// Indexes of shards that are read at the same time from a place that is far.
const INDEXES_AT_ONCE: usize = 64;

/// Files that are read at the same time: a store may have more chunk files than a process may open.
const FILES_AT_ONCE: usize = 24;

/// Chunks in the order asked for, each with its place in a file; none means fill values.
#[derive(Debug)]
pub(crate) struct Located {
    array: Arc<Array>,
    context: Context,
    files: Vec<String>,
    chunks: Vec<Option<(usize, Range<u64>)>>,
}

impl Located {
    /// Finds chunks, given by their places in the grid.
    pub(crate) async fn find(
        array: &Arc<Array>,
        context: &Context,
        chunks: Vec<Vec<u64>>,
    ) -> Result<Self> {
        if context.files.is_far() && array.meta.sharding.is_some() {
            Self::warm(array, context, &chunks).await?;
        }
        let (array, owned) = (Arc::clone(array), context.clone());
        // Files are looked at and indexes read where blocking does not matter.
        context.engine.blocking(move || Self::find_blocking(array, owned, &chunks)).await
    }

    /// Reads the indexes of all shards that are needed at once: one after the other, each would wait.
    async fn warm(array: &Arc<Array>, context: &Context, chunks: &[Vec<u64>]) -> Result<()> {
        let mut names: Vec<String> = chunks.iter().map(|c| array.meta.place(c).0).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| array.indexes.get(name).is_none());
        let set = Arc::clone(&context.files);
        let open = move || {
            // What is not there is found out again, with its consequences, by whoever looks.
            Ok(names.into_iter().map(|n| (set.open(&n).ok(), n)).collect::<Vec<_>>())
        };
        let opened = context.engine.blocking(open).await?;
        let reads = opened.into_iter().filter_map(|(file, name)| {
            let array = Arc::clone(array);
            file.map(|file| async move { array.read_index(&*file, &name).await }.boxed())
        });
        let reads: Vec<BoxFuture<'static, Result<()>>> = reads.collect();
        stream::iter(reads).buffer_unordered(INDEXES_AT_ONCE).try_collect().await
    }

    fn find_blocking(array: Arc<Array>, context: Context, chunks: &[Vec<u64>]) -> Result<Self> {
        let mut known: HashMap<String, Option<(usize, Arc<ShardIndex>)>> = HashMap::new();
        let (mut files, mut places) = (Vec::new(), Vec::with_capacity(chunks.len()));
        for chunk in chunks {
            let (name, number) = array.meta.place(chunk);
            let named = |name: &str, e: Error| {
                array.blame(e.with_default("file", context.files.place(name)))
            };
            let found = match known.get(&name) {
                Some(found) => found,
                None => {
                    let index = array.index(&context, &name).map_err(|e| named(&name, e))?;
                    let found = index.map(|index| {
                        files.push(name.clone());
                        (files.len() - 1, index)
                    });
                    known.entry(name).or_insert(found)
                }
            };
            let place = found.as_ref().and_then(|(file, index)| Some((*file, index.get(number)?)));
            if let Some((file, range)) = &place {
                array.check_stored(range).map_err(|e| named(&files[*file], e))?;
            }
            places.push(place);
        }
        Ok(Self { array, context, files, chunks: places })
    }

    /// Stored bytes of a chunk.
    fn stored(&self, i: usize) -> u64 {
        self.chunks.get(i).and_then(Option::as_ref).map_or(0, |(_, range)| range.end - range.start)
    }

    /// Cuts the chunks into consecutive parts of at most so many stored bytes (a chunk at least), in not
    /// too many files. A chunk counts for `each` bytes if it is stored in fewer.
    pub(crate) fn waves(&self, most: u64, each: u64) -> Vec<Range<usize>> {
        let (mut out, mut start, mut bytes) = (Vec::new(), 0, 0u64);
        let (mut files, mut last) = (0, None);
        for (i, place) in self.chunks.iter().enumerate() {
            let more = self.stored(i).max(each);
            let file = place.as_ref().map(|(file, _)| *file);
            let other = usize::from(file.is_some() && file != last);
            if i > start && (bytes.saturating_add(more) > most || files + other > FILES_AT_ONCE) {
                out.push(start..i);
                (start, bytes, files) = (i, 0, 0);
            }
            bytes = bytes.saturating_add(more);
            files += other;
            last = file.or(last);
        }
        if start < self.chunks.len() {
            out.push(start..self.chunks.len());
        }
        out
    }

    /// Reads some of the chunks: near ones of a file together, files at the same time.
    pub(crate) async fn read(&self, which: Range<usize>) -> Result<Vec<Stored>> {
        let mut out: Vec<Stored> = vec![None; which.len()];
        let mut wanted: Vec<Vec<(usize, Range<u64>)>> = vec![Vec::new(); self.files.len()];
        for (i, place) in self.chunks.get(which).unwrap_or_default().iter().enumerate() {
            if let Some((file, range)) = place {
                wanted[*file].push((i, range.clone()));
            }
        }
        let (mut names, mut members) = (Vec::new(), Vec::new());
        for (name, list) in self.files.iter().zip(wanted).filter(|(_, list)| !list.is_empty()) {
            names.push(name.clone());
            members.push(list);
        }
        let set = Arc::clone(&self.context.files);
        let open = move || names.iter().map(|name| set.open(name)).collect::<Result<Vec<_>>>();
        let files = self.context.engine.blocking(open).await.map_err(|e| self.array.blame(e))?;
        let reads = files.iter().zip(members).map(|(file, members)| async move {
            let ranges: Vec<Range<u64>> = members.iter().map(|(_, r)| r.clone()).collect();
            let bytes = file.get_ranges(ranges).await.map_err(|e| self.array.blame(e))?;
            let mut at = 0;
            let mut parts = Vec::with_capacity(members.len());
            for (i, range) in members {
                let length = to_usize(range.end - range.start);
                parts.push((i, bytes.slice(at..at + length)));
                at += length;
            }
            Ok::<_, Error>(parts)
        });
        for (i, bytes) in futures::future::try_join_all(reads).await?.into_iter().flatten() {
            out[i] = Some(bytes);
        }
        Ok(out)
    }

    /// Reads all of the chunks, not too many files at the same time.
    pub(crate) async fn read_all(&self) -> Result<Vec<Stored>> {
        let mut out = Vec::with_capacity(self.chunks.len());
        for wave in self.waves(u64::MAX, 0) {
            out.append(&mut self.read(wave).await?);
        }
        Ok(out)
    }

    /// Names the array, the file and the place of a chunk that could not be decoded.
    pub(crate) fn blame(&self, i: usize, error: Error) -> Error {
        let error = self.array.blame(error);
        match self.chunks.get(i) {
            Some(Some((file, range))) => {
                let path = self.context.files.place(&self.files[*file]);
                error.with_default("file", path).with_default("offset", range.start)
            }
            _ => error,
        }
    }
}

impl Array {
    /// What is so, or the rule for a file that is not there.
    fn unless_missing<T>(&self, found: Result<T>, name: &str) -> Result<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            Err(_) if !self.strict => Ok(None),
            Err(_) => Err(Error::corrupt(format!(
                "{name} is missing: copy the store again, or write it again with write_empty_chunks"
            ))),
        }
    }

    /// Refuses a chunk that takes far more room than it decodes to, or cannot become so much.
    fn check_stored(&self, range: &Range<u64>) -> Result<()> {
        let stored = range.end - range.start;
        if stored > self.most_stored() {
            return Err(Error::corrupt(format!(
                "a chunk is stored in {stored} bytes, far more than it decodes to"
            ))
            .with("offset", range.start));
        }
        let size = as_u64(self.meta.chunk_bytes().unwrap_or(0));
        if size / codec::most(&self.meta.codecs) > stored {
            return Err(Error::corrupt(format!(
                "a chunk of {size} bytes is stored in {stored}, which cannot become so many"
            ))
            .with("offset", range.start));
        }
        Ok(())
    }

    /// The index of a shard, kept or read and checked; a file that is no shard is its only chunk. None
    /// if there is no such file and that means fill values.
    fn index(&self, context: &Context, name: &str) -> Result<Option<Arc<ShardIndex>>> {
        if self.meta.sharding.is_none() {
            let found = context.files.look(name)?.ok_or_else(|| Error::not_found("no such file"));
            return match self.unless_missing(found, name)? {
                Some(Entry::File(length)) => Ok(Some(Arc::new(ShardIndex::Whole(length)))),
                Some(Entry::Folder) => Err(Error::corrupt("this is a folder, not a file")),
                None => Ok(None),
            };
        }
        if let Some(index) = self.indexes.get(name) {
            return Ok(Some(index));
        }
        let Some(file) = self.unless_missing(context.files.open(name), name)? else {
            return Ok(None);
        };
        let span = self.index_span(file.len())?;
        let mut bytes = vec![0; to_usize(span.end - span.start)];
        file.read_exact_at(span.start, &mut bytes)?;
        self.check_index(name, &bytes, file.len(), &span).map(Some)
    }

    /// Reads an index, checks and keeps it.
    async fn read_index(&self, file: &dyn ByteSource, name: &str) -> Result<()> {
        let blame = |e: Error| self.blame(e.with_default("file", file.location()));
        let span = self.index_span(file.len()).map_err(blame)?;
        let bytes = file.get_ranges(vec![span.clone()]).await.map_err(blame)?;
        self.check_index(name, &bytes, file.len(), &span).map_err(blame)?;
        Ok(())
    }

    /// Where the index is in a shard of so many bytes.
    fn index_span(&self, shard: u64) -> Result<Range<u64>> {
        let sharding = self.meta.sharding.ok_or_else(|| Error::internal("this is no shard"))?;
        let n = self.meta.chunks_in_file();
        let length = n.saturating_mul(16).saturating_add(if sharding.checksum { 4 } else { 0 });
        if n > MOST_IN_FILE || length > shard {
            return Err(Error::corrupt(format!(
                "the shard has {shard} bytes, its index alone should have {length}"
            )));
        }
        let at = if sharding.at_end { shard - length } else { 0 };
        Ok(at..at + length)
    }

    /// Checks an index that was read at `own`, and keeps it.
    fn check_index(
        &self,
        name: &str,
        bytes: &[u8],
        shard: u64,
        own: &Range<u64>,
    ) -> Result<Arc<ShardIndex>> {
        let payload = bytes.get(..to_usize(self.meta.chunks_in_file()) * 16).unwrap_or_default();
        if self.meta.sharding.is_some_and(|s| s.checksum) {
            codec::check_crc32c(payload, bytes).map_err(|e| {
                Error::corrupt(format!("the shard's index: {}", e.message()))
                    .with("offset", own.start)
            })?;
        }
        let index = Arc::new(ShardIndex::new(payload, shard, own)?);
        self.indexes.keep(name, &index);
        Ok(index)
    }
}
