//! Where the bytes of inner chunks are: the file and its range, by the index of its shard where there
//! is one. Indexes are read once, checked, and kept.

use super::array::Array;
use super::shard::ShardIndex;
use super::{Context, to_usize};
use crate::codec;
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, LocalFile};
use cellfeed_core::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Inner chunks that a shard may have.
const MOST_IN_FILE: u64 = 1 << 24;

/// The bytes of a chunk as stored; none means fill values.
pub(crate) type Stored = Option<Bytes>;

/// Chunks in the order asked for, each with its place in a file; none means fill values.
#[derive(Debug)]
pub(crate) struct Located {
    array: Arc<Array>,
    files: Vec<Arc<LocalFile>>,
    chunks: Vec<Option<(usize, Range<u64>)>>,
}

impl Located {
    /// Finds chunks, given by their places in the grid.
    pub(crate) async fn find(
        array: &Arc<Array>,
        context: &Context,
        chunks: Vec<Vec<u64>>,
    ) -> Result<Self> {
        let (array, files) = (Arc::clone(array), context.clone());
        // Files are opened and indexes read where blocking does not matter.
        context.engine.blocking(move || Self::find_blocking(array, &files, &chunks)).await
    }

    fn find_blocking(array: Arc<Array>, context: &Context, chunks: &[Vec<u64>]) -> Result<Self> {
        let mut known: HashMap<String, Option<(usize, Arc<ShardIndex>)>> = HashMap::new();
        let (mut files, mut places) = (Vec::new(), Vec::with_capacity(chunks.len()));
        for chunk in chunks {
            let (name, number) = array.meta.place(chunk);
            let found = match known.get(&name) {
                Some(found) => found,
                None => {
                    let opened = array.open_file(context, &name)?;
                    let found = match opened {
                        None => None,
                        Some(file) => {
                            let index = array.index(&name, &file);
                            let named = |e: Error| e.with_default("file", file.location());
                            let index = index.map_err(|e| array.blame(named(e)))?;
                            files.push(file);
                            Some((files.len() - 1, index))
                        }
                    };
                    known.entry(name).or_insert(found)
                }
            };
            places.push(match found {
                None => None,
                Some((file, index)) => match index.get(number) {
                    None => None,
                    Some(range) => {
                        let named = |e: Error| e.with_default("file", files[*file].location());
                        array.check_stored(&range).map_err(|e| array.blame(named(e)))?;
                        Some((*file, range))
                    }
                },
            });
        }
        Ok(Self { array, files, chunks: places })
    }

    /// Stored bytes of a chunk.
    fn stored(&self, i: usize) -> u64 {
        self.chunks.get(i).and_then(Option::as_ref).map_or(0, |(_, range)| range.end - range.start)
    }

    /// Cuts the chunks into consecutive parts of at most so many stored bytes (a chunk at least).
    pub(crate) fn waves(&self, most: u64) -> Vec<Range<usize>> {
        let (mut out, mut start, mut bytes) = (Vec::new(), 0, 0u64);
        for i in 0..self.chunks.len() {
            let more = self.stored(i);
            if i > start && bytes.saturating_add(more) > most {
                out.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes = bytes.saturating_add(more);
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
        let wanted = self.files.iter().zip(wanted).filter(|(_, members)| !members.is_empty());
        let reads = wanted.map(|(file, members)| async move {
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

    /// Names the array, the file and the place of a chunk that could not be decoded.
    pub(crate) fn blame(&self, i: usize, error: Error) -> Error {
        let error = self.array.blame(error);
        match self.chunks.get(i) {
            Some(Some((file, range))) => {
                let error = error.with_default("file", self.files[*file].location());
                error.with_default("offset", range.start)
            }
            _ => error,
        }
    }
}

impl Array {
    fn open_file(&self, context: &Context, name: &str) -> Result<Option<Arc<LocalFile>>> {
        match context.files.open(name) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.blame(e)),
            Err(_) if !self.strict => Ok(None),
            Err(_) => Err(self.blame(
                Error::corrupt(format!(
                    "{name} is missing: copy the store again, or write it again with \
                     write_empty_chunks"
                ))
                .with("file", context.files.root().join(name).display()),
            )),
        }
    }

    /// Refuses a chunk that takes far more room than it decodes to.
    fn check_stored(&self, range: &Range<u64>) -> Result<()> {
        let stored = range.end - range.start;
        if stored > self.most_stored() {
            return Err(Error::corrupt(format!(
                "a chunk is stored in {stored} bytes, far more than it decodes to"
            ))
            .with("offset", range.start));
        }
        Ok(())
    }

    /// The index of a shard, kept or read and checked; a file that is no shard is its only chunk.
    fn index(&self, name: &str, file: &LocalFile) -> Result<Arc<ShardIndex>> {
        let Some(sharding) = self.meta.sharding else {
            return Ok(Arc::new(ShardIndex::Whole(file.len())));
        };
        if let Some(index) = self.indexes.get(name) {
            return Ok(index);
        }
        let n = self.meta.chunks_in_file();
        let length = n.saturating_mul(16).saturating_add(if sharding.checksum { 4 } else { 0 });
        if n > MOST_IN_FILE || length > file.len() {
            return Err(Error::corrupt(format!(
                "the shard has {} bytes, its index alone should have {length}",
                file.len()
            )));
        }
        let at = if sharding.at_end { file.len() - length } else { 0 };
        let mut bytes = vec![0; to_usize(length)];
        file.read_exact_at(at, &mut bytes)?;
        let payload = bytes.get(..to_usize(n) * 16).unwrap_or_default();
        if sharding.checksum {
            codec::check_crc32c(payload, &bytes).map_err(|e| {
                Error::corrupt(format!("the shard's index: {}", e.message())).with("offset", at)
            })?;
        }
        let index = Arc::new(ShardIndex::new(payload, file.len(), at)?);
        self.indexes.keep(name, &index);
        Ok(index)
    }
}
