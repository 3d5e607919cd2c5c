//! Inner chunks of an array: where they lie, their bytes, and what these decode to.
//!
//! The index of a shard is read once and kept. For a read, ranges of all wanted chunks of a file go to
//! the byte source together, files are read at the same time, and each chunk is decoded once.

use super::{Context, as_u64, to_usize};
use crate::meta::array::ArrayMeta;
use crate::meta::codec;
use crate::meta::dtype::Kind;
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, LocalFile};
use cellfeed_core::{Error, ErrorKind, Result, ValueType};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries of shard indexes that are kept for an array: 16 bytes each.
const KEPT_ENTRIES: usize = 4 << 20;
/// Inner chunks that a shard may have.
const MOST_IN_FILE: u64 = 1 << 24;

type ShardIndex = Arc<Vec<Option<Range<u64>>>>;

/// An array that can be read.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) meta: ArrayMeta,
    /// Whether a file that is not there is an error, not so many fill values.
    pub(crate) strict: bool,
    indexes: Mutex<HashMap<String, ShardIndex>>,
}

/// The bytes of a chunk as stored; none means fill values.
pub(crate) type Stored = Option<Bytes>;

impl Array {
    pub(crate) fn new(meta: ArrayMeta) -> Self {
        Self { meta, strict: false, indexes: Mutex::default() }
    }

    pub(crate) fn blame(&self, error: Error) -> Error {
        error.with_default("element", &self.meta.path)
    }

    /// Fetches chunks, given by their places in the grid, in order.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        context: &Context,
        chunks: Vec<Vec<u64>>,
    ) -> Result<Vec<Stored>> {
        let n = chunks.len();
        let (this, files) = (Arc::clone(self), context.clone());
        // Files are opened and indexes read where blocking does not matter.
        let wanted = context.engine.blocking(move || this.locate(&files, &chunks)).await?;
        let reads = wanted.into_iter().map(|file| async move {
            let ranges: Vec<Range<u64>> = file.chunks.iter().map(|(_, r)| r.clone()).collect();
            let bytes = file.source.get_ranges(ranges).await.map_err(|e| self.blame(e))?;
            let mut at = 0;
            let mut parts = Vec::with_capacity(file.chunks.len());
            for (i, range) in file.chunks {
                let length = to_usize(range.end - range.start);
                parts.push((i, bytes.slice(at..at + length)));
                at += length;
            }
            Ok::<_, Error>(parts)
        });
        let mut out = vec![None; n];
        for (i, bytes) in futures::future::try_join_all(reads).await?.into_iter().flatten() {
            out[i] = Some(bytes);
        }
        Ok(out)
    }

    fn locate(&self, context: &Context, chunks: &[Vec<u64>]) -> Result<Vec<Wanted>> {
        let mut by_file: HashMap<String, Vec<(usize, u64)>> = HashMap::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let (file, number) = self.meta.place(chunk);
            by_file.entry(file).or_default().push((i, number));
        }
        let mut out = Vec::with_capacity(by_file.len());
        for (name, members) in by_file {
            let source = match context.files.open(&name) {
                Ok(source) => source,
                Err(e) if e.kind() == ErrorKind::NotFound && !self.strict => continue,
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(self.blame(
                        Error::corrupt(
                            "a file of this array is missing: copy the store again, or write it \
                             again with write_empty_chunks",
                        )
                        .with("file", context.files.root().join(&name).display()),
                    ));
                }
                Err(e) => return Err(self.blame(e)),
            };
            let located = self.ranges(&name, &source, &members);
            let chunks =
                located.map_err(|e| self.blame(e.with_default("file", source.location())))?;
            if !chunks.is_empty() {
                out.push(Wanted { source, chunks });
            }
        }
        Ok(out)
    }

    fn ranges(
        &self,
        name: &str,
        source: &Arc<LocalFile>,
        members: &[(usize, u64)],
    ) -> Result<Vec<(usize, Range<u64>)>> {
        let most = self.meta.chunk_bytes().map(|n| as_u64(n) + as_u64(n) / 4 + 4096);
        let check = |range: &Range<u64>| match most {
            Some(most) if range.end - range.start > most => Err(Error::corrupt(format!(
                "a chunk is stored in {} bytes, far more than it decodes to",
                range.end - range.start
            ))
            .with("offset", range.start)),
            _ => Ok(()),
        };
        let mut chunks = Vec::with_capacity(members.len());
        if self.meta.sharding.is_none() {
            for (i, _) in members {
                let range = 0..source.len();
                check(&range)?;
                chunks.push((*i, range));
            }
            return Ok(chunks);
        }
        let index = self.index(name, source)?;
        for (i, number) in members {
            if let Some(range) = index.get(to_usize(*number)).cloned().flatten() {
                check(&range)?;
                chunks.push((*i, range));
            }
        }
        Ok(chunks)
    }

    /// The index of a shard, kept or read and checked.
    fn index(&self, name: &str, source: &Arc<LocalFile>) -> Result<ShardIndex> {
        let lock = || self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = lock().get(name) {
            return Ok(Arc::clone(index));
        }
        let Some(sharding) = self.meta.sharding else {
            return Err(Error::internal("an array without shards has no index"));
        };
        let n = self.meta.chunks_in_file();
        let length = n.saturating_mul(16).saturating_add(if sharding.checksum { 4 } else { 0 });
        if n > MOST_IN_FILE || length > source.len() {
            return Err(Error::corrupt(format!(
                "the shard has {} bytes, its index alone should have {length}",
                source.len()
            )));
        }
        let at = if sharding.at_end { source.len() - length } else { 0 };
        let mut bytes = vec![0; to_usize(length)];
        source.read_exact_at(at, &mut bytes)?;
        let payload = bytes.get(..to_usize(n) * 16).unwrap_or_default();
        if sharding.checksum {
            codec::check_crc32c(payload, &bytes).map_err(|e| {
                Error::corrupt(format!("the shard's index: {}", e.message())).with("offset", at)
            })?;
        }
        let mut index = Vec::with_capacity(to_usize(n));
        let (words, _) = payload.as_chunks::<8>();
        for (i, pair) in words.chunks_exact(2).enumerate() {
            let (offset, size) = (u64::from_le_bytes(pair[0]), u64::from_le_bytes(pair[1]));
            if offset == u64::MAX && size == u64::MAX {
                index.push(None);
                continue;
            }
            match offset.checked_add(size) {
                Some(end) if end <= source.len() && size > 0 => index.push(Some(offset..end)),
                _ => {
                    return Err(Error::corrupt(format!(
                        "the shard's index puts inner chunk {i} at {offset} with {size} bytes, but \
                         the file has {} bytes",
                        source.len()
                    ))
                    .with("offset", at + as_u64(i) * 16));
                }
            }
        }
        let index = Arc::new(index);
        let mut kept = lock();
        let entries: usize = kept.values().map(|i| i.len()).sum();
        if entries + index.len() > KEPT_ENTRIES {
            kept.clear();
        }
        kept.insert(name.to_owned(), Arc::clone(&index));
        Ok(index)
    }

    /// The elements of a stored chunk in native byte order and the usual order of dimensions.
    pub(crate) fn decode<'a>(&self, stored: Option<&'a [u8]>) -> Result<Cow<'a, [u8]>> {
        let Some(size) = self.meta.chunk_bytes() else {
            return Err(Error::internal("text has no size"));
        };
        let Some(stored) = stored else { return self.filled().map(Cow::Owned) };
        let mut bytes =
            codec::decode(&self.meta.codecs, stored, Some(size)).map_err(|e| self.blame(e))?;
        let word = self.meta.kind.word();
        if self.meta.big_endian != cfg!(target_endian = "big") && word > 1 {
            for item in bytes.to_mut().chunks_exact_mut(word) {
                item.reverse();
            }
        }
        if let (Some(order), Some(item)) = (&self.meta.order, self.meta.kind.size()) {
            bytes = Cow::Owned(untranspose(&bytes, &self.meta.inner, order, item));
        }
        Ok(bytes)
    }

    fn filled(&self) -> Result<Vec<u8>> {
        let item = self.fill_item()?;
        Ok(item.repeat(self.meta.chunk_len()))
    }

    fn fill_item(&self) -> Result<Vec<u8>> {
        let fill = &self.meta.fill;
        let odd = || Error::unsupported(format!("the fill value {fill} is not read"));
        let zero = fill.is_null()
            || fill == &Value::Bool(false)
            || fill.as_f64() == Some(0.0)
            || fill.as_str() == Some("");
        if zero {
            return Ok(vec![0; self.meta.kind.size().unwrap_or(0)]);
        }
        match self.meta.kind {
            Kind::Bool if fill == &Value::Bool(true) => Ok(vec![1]),
            Kind::Number(t) => {
                let values: cellfeed_core::Values = match (fill.as_i64(), fill.as_u64()) {
                    (Some(i), _) => vec![i].into(),
                    (None, Some(u)) => vec![u].into(),
                    _ => {
                        let float = match fill.as_str() {
                            Some("NaN") => f64::NAN,
                            Some("Infinity") => f64::INFINITY,
                            Some("-Infinity") => f64::NEG_INFINITY,
                            _ => fill.as_f64().ok_or_else(odd)?,
                        };
                        vec![float].into()
                    }
                };
                Ok(values.cast(t).map_err(|_| odd())?.as_bytes().to_vec())
            }
            _ => Err(odd()),
        }
    }

    /// Every inner chunk's place in the grid, in row-major order.
    fn all_chunks(&self) -> Vec<Vec<u64>> {
        let mut out = vec![Vec::new()];
        for n in self.meta.grid() {
            out = out
                .into_iter()
                .flat_map(|head: Vec<u64>| {
                    (0..n).map(move |i| head.iter().copied().chain([i]).collect())
                })
                .collect();
        }
        out
    }

    /// Refuses an array that says far more than its files can hold, before it is read whole.
    fn check_plausible(&self, context: &Context) -> Result<()> {
        let size = as_u64(self.meta.kind.size().unwrap_or(4));
        let says = self.meta.len().saturating_mul(size);
        if says <= 16 << 20 && self.meta.grid().iter().product::<u64>() <= 1 << 20 {
            return Ok(());
        }
        let held = bytes_below(&context.files.root().join(&self.meta.path));
        if says / 4096 > held {
            return Err(self.blame(Error::corrupt(format!(
                "the array says {says} bytes, but its files have {held}"
            ))));
        }
        Ok(())
    }

    /// The whole array, of elements with a size, in row-major order.
    pub(crate) async fn read_all(self: &Arc<Self>, context: &Context) -> Result<Vec<u8>> {
        self.check_plausible(context)?;
        let item = self.meta.kind.size().unwrap_or(0);
        let chunks = self.all_chunks();
        let stored = self.fetch(context, chunks.clone()).await?;
        let this = Arc::clone(self);
        let work = move || {
            let mut out = vec![0; to_usize(this.meta.len()).saturating_mul(item)];
            for (chunk, stored) in chunks.iter().zip(&stored) {
                let bytes = this.decode(stored.as_deref())?;
                place(&mut out, &bytes, &this.meta.shape, &this.meta.inner, chunk, item);
            }
            Ok(out)
        };
        let out = context.engine.compute(work).await?;
        context.engine.stats().add_decoded(as_u64(out.len()));
        Ok(out)
    }

    /// The whole array of text, in row-major order, for arrays of at most one dimension.
    pub(crate) async fn read_text(self: &Arc<Self>, context: &Context) -> Result<Vec<String>> {
        if self.meta.shape.len() > 1 {
            return Err(self.blame(Error::unsupported("text of several dimensions is not read")));
        }
        if let Kind::Fixed(chars) = self.meta.kind {
            let bytes = self.read_all(context).await?;
            let texts =
                bytes.chunks_exact((chars * 4).max(1)).map(utf32).collect::<Result<Vec<_>>>();
            return texts.map_err(|e| self.blame(e));
        }
        self.check_plausible(context)?;
        let stored = self.fetch(context, self.all_chunks()).await?;
        let this = Arc::clone(self);
        let work = move || {
            let (mut out, n) = (Vec::new(), to_usize(this.meta.len()));
            for stored in stored {
                let want = this.meta.chunk_len().min(n - out.len().min(n));
                match stored {
                    None => {
                        let fill = this.meta.fill.as_str().unwrap_or_default();
                        out.extend((0..want).map(|_| fill.to_owned()));
                    }
                    Some(stored) => {
                        let bytes = codec::decode(&this.meta.codecs, &stored, None)?;
                        let mut texts = texts(&bytes, this.meta.chunk_len(), want)?;
                        texts.truncate(want);
                        out.append(&mut texts);
                    }
                }
            }
            Ok(out)
        };
        context.engine.compute(work).await.map_err(|e| self.blame(e))
    }

    /// The whole array of numbers as `i64`.
    pub(crate) async fn read_integers(self: &Arc<Self>, context: &Context) -> Result<Vec<i64>> {
        let bytes = self.read_all(context).await?;
        integers(self.meta.kind, &bytes).map_err(|e| self.blame(e))
    }
}

/// Integers of any width.
pub(crate) fn integers(kind: Kind, bytes: &[u8]) -> Result<Vec<i64>> {
    let Kind::Number(t) = kind else {
        return Err(Error::corrupt(format!("{} where integers should be", kind.name())));
    };
    if matches!(t, ValueType::F16 | ValueType::F32 | ValueType::F64) {
        return Err(Error::corrupt(format!("{t} where integers should be")));
    }
    let values = cellfeed_core::Values::from_bytes(t, Bytes::copy_from_slice(bytes))?;
    let values = values.cast(ValueType::I64).map_err(|e| Error::corrupt(e.message().to_owned()))?;
    match values {
        cellfeed_core::Values::I64(b) => Ok(b.to_vec()),
        _ => Err(Error::internal("a cast gave another type")),
    }
}

struct Wanted {
    source: Arc<LocalFile>,
    chunks: Vec<(usize, Range<u64>)>,
}

/// Bytes of the files below a folder.
pub(crate) fn bytes_below(folder: &std::path::Path) -> u64 {
    let mut total = 0;
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(m) if m.is_dir() => folders.push(entry.path()),
                Ok(m) => total += m.len(),
                Err(_) => {}
            }
        }
    }
    total
}

fn utf32(item: &[u8]) -> Result<String> {
    let (words, _) = item.as_chunks::<4>();
    let mut out = String::new();
    for word in words.iter().map(|w| u32::from_ne_bytes(*w)) {
        if word == 0 {
            break;
        }
        out.push(
            char::from_u32(word)
                .ok_or_else(|| Error::corrupt(format!("{word:#x} is no character")))?,
        );
    }
    Ok(out)
}

/// Texts of a chunk: how many, then each with its length before it.
fn texts(bytes: &[u8], most: usize, least: usize) -> Result<Vec<String>> {
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| -> Result<usize> {
        let (head, tail) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| Error::corrupt("text ends before its last value"))?;
        *rest = tail;
        Ok(usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX))
    };
    let n = word(&mut rest)?;
    if n > most || n < least || n > bytes.len() / 4 {
        return Err(Error::corrupt(format!("a chunk says {n} texts where {least} should be")));
    }
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let length = word(&mut rest)?;
        let Some((text, tail)) = rest.split_at_checked(length) else {
            return Err(Error::corrupt(format!("a text of {length} bytes goes past its chunk")));
        };
        rest = tail;
        let text = std::str::from_utf8(text)
            .map_err(|e| Error::corrupt("a text is not UTF-8").caused_by(e))?;
        out.push(text.to_owned());
    }
    Ok(out)
}

/// Copies a chunk to its place in an array, row by row.
fn place(out: &mut [u8], bytes: &[u8], shape: &[u64], inner: &[u64], chunk: &[u64], item: usize) {
    let Some(last) = shape.len().checked_sub(1) else {
        out.copy_from_slice(bytes);
        return;
    };
    let start: Vec<u64> = chunk.iter().zip(inner).map(|(c, i)| c * i).collect();
    let valid: Vec<u64> = start
        .iter()
        .zip(inner)
        .zip(shape)
        .map(|((s, i), n)| (*i).min(n.saturating_sub(*s)))
        .collect();
    let rows: u64 = valid[..last].iter().product();
    for row in 0..rows {
        let (mut rest, mut from, mut to) = (row, 0, 0);
        let (mut from_step, mut to_step) = (inner[last], shape[last]);
        for d in (0..last).rev() {
            let at = rest % valid[d];
            rest /= valid[d];
            from += at * from_step;
            to += (start[d] + at) * to_step;
            from_step *= inner[d];
            to_step *= shape[d];
        }
        let (from, to) = (to_usize(from) * item, to_usize(to + start[last]) * item);
        let length = to_usize(valid[last]) * item;
        out[to..to + length].copy_from_slice(&bytes[from..from + length]);
    }
}

/// Undoes a transpose: `order[i]` is the dimension that is stored `i`-th.
fn untranspose(bytes: &[u8], shape: &[u64], order: &[usize], item: usize) -> Vec<u8> {
    let stored: Vec<u64> = order.iter().map(|&d| shape[d]).collect();
    let mut strides = vec![1u64; shape.len()];
    for i in (0..stored.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * stored[i + 1];
    }
    let mut out = vec![0; bytes.len()];
    for (n, to) in out.chunks_exact_mut(item.max(1)).enumerate() {
        let (mut rest, mut from) = (as_u64(n), 0);
        for d in (0..shape.len()).rev() {
            let at = rest % shape[d];
            rest /= shape[d];
            let place = order.iter().position(|&o| o == d).unwrap_or(0);
            from += at * strides[place];
        }
        let from = to_usize(from) * item;
        to.copy_from_slice(&bytes[from..from + item]);
    }
    out
}
