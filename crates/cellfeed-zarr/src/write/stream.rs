//! An array that is written as its rows come: whole inner chunks are compressed in parallel and
//! appended to the shard in hand, which gets its index when it is full. What waits in memory is a
//! few chunks and the index, however large a shard is.

use super::codec::{Codec, with_crc32c};
use super::tree::{Attributes, Tree};
use cellfeed_core::{Error, Result};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The index entry of an inner chunk that is not there.
const ABSENT: [u64; 2] = [u64::MAX; 2];

/// Bytes of a shard before compression, about. Readers keep 16 bytes of index for each inner chunk.
const SHARD_BYTES: u64 = 256 << 20;

/// Blosc takes no more at once, and readers should not have to either.
const CHUNK_BYTES: u64 = 1 << 30;

/// What the items of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Items {
    /// Zarr's name of the data type.
    pub(super) name: &'static str,
    /// Bytes of an item; 0 for text.
    pub(super) width: usize,
}

impl Items {
    pub(super) const I32: Self = Self { name: "int32", width: 4 };
    pub(super) const I64: Self = Self { name: "int64", width: 8 };
    pub(super) const U64: Self = Self { name: "uint64", width: 8 };
    pub(super) const F64: Self = Self { name: "float64", width: 8 };
    pub(super) const BOOL: Self = Self { name: "bool", width: 1 };
    pub(super) const TEXT: Self = Self { name: "string", width: 0 };

    /// The value of what is not written.
    pub(super) fn fill_value(self) -> Value {
        match self.name {
            "string" => json!(""),
            "bool" => json!(false),
            name if name.starts_with("float") => json!(0.0),
            _ => json!(0),
        }
    }

    /// The codecs from items to stored bytes.
    pub(super) fn codecs(self, codec: Codec) -> Vec<Value> {
        let first = match self.width {
            0 => json!({"name": "vlen-utf8", "configuration": {}}),
            1 => json!({"name": "bytes"}),
            _ => json!({"name": "bytes", "configuration": {"endian": "little"}}),
        };
        std::iter::once(first).chain(codec.metadata(self.width.max(1))).collect()
    }
}

/// An array in the making.
#[derive(Debug)]
pub(super) struct Stream {
    path: String,
    items: Items,
    codec: Codec,
    /// Lengths of all dimensions but the first.
    trailing: Vec<u64>,
    /// Items of a row: the product of `trailing`.
    row_items: usize,
    /// Rows of an inner chunk.
    inner: u64,
    /// Bytes that wait before they are compressed, at least.
    batch: usize,
    /// Bytes of a shard before compression, about.
    shard_bytes: u64,
    waiting: Vec<u8>,
    /// Of text: where each item ends in `waiting`.
    ends: Vec<usize>,
    n_items: u64,
    full_shards: u64,
    /// Length of the shard in hand, and its inner chunks so far.
    offset: u64,
    index: Vec<[u64; 2]>,
}

impl Stream {
    /// An array of rows of shape `trailing`, none for one dimension, with about `inner` rows in an
    /// inner chunk. Compression begins when `batch` bytes wait.
    pub(super) fn new(
        path: String,
        items: Items,
        trailing: &[u64],
        inner: u64,
        batch: usize,
        codec: Codec,
    ) -> Result<Self> {
        let row_items = trailing.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let row_items = row_items
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n as u64 * items.width.max(4) as u64 <= CHUNK_BYTES);
        let row_items = row_items.ok_or_else(|| {
            Error::unsupported("a row of the array is larger than 1 GiB, and cannot be a chunk")
                .with("element", &path)
        })?;
        let mut stream = Self {
            path,
            items,
            codec,
            trailing: trailing.to_vec(),
            row_items,
            inner: 1,
            batch,
            shard_bytes: SHARD_BYTES,
            waiting: Vec::new(),
            ends: Vec::new(),
            n_items: 0,
            full_shards: 0,
            offset: 0,
            index: Vec::new(),
        };
        stream.set_inner(inner);
        Ok(stream)
    }

    /// Chooses the rows of an inner chunk; of no effect once chunks are written.
    pub(super) fn set_inner(&mut self, rows: u64) {
        if self.is_untouched() {
            let row_bytes = (self.row_items * self.items.width.max(1)).max(1) as u64;
            self.inner = rows.clamp(1, (CHUNK_BYTES / row_bytes).max(1));
        }
    }

    /// Whether nothing was written yet, and the chunks can still be chosen.
    pub(super) fn is_untouched(&self) -> bool {
        self.full_shards == 0 && self.index.is_empty()
    }

    /// Where the little-endian bytes of more items go.
    pub(super) fn grow(&mut self, items: usize) -> &mut Vec<u8> {
        self.n_items += items as u64;
        &mut self.waiting
    }

    /// Appends one text.
    pub(super) fn text(&mut self, text: &str) -> Result<()> {
        let length = u32::try_from(text.len()).ok().filter(|&n| u64::from(n) < CHUNK_BYTES);
        let length = length.ok_or_else(|| {
            Error::unsupported("a text is larger than 1 GiB").with("element", &self.path)
        })?;
        self.waiting.extend(length.to_le_bytes());
        self.waiting.extend(text.as_bytes());
        self.ends.push(self.waiting.len());
        self.n_items += 1;
        Ok(())
    }

    /// Whether so much waits that it should be written.
    pub(super) fn is_ripe(&self) -> bool {
        self.waiting.len() >= self.batch
    }

    /// Compresses and writes all inner chunks that are complete.
    pub(super) fn write(&mut self, tree: &mut Tree) -> Result<()> {
        self.write_chunks(tree, false)
    }

    /// Writes the rest and the array's metadata. Answers how many items it has.
    pub(super) fn finish(mut self, tree: &mut Tree, attributes: &Attributes) -> Result<u64> {
        let rows = self.n_items / (self.row_items as u64).max(1);
        self.finish_rows(tree, attributes, rows, None)
    }

    /// As `finish`, of `rows` rows, which must be told where rows have no items; with the path that
    /// the metadata gets, if it is another than that of the chunks.
    pub(super) fn finish_rows(
        &mut self,
        tree: &mut Tree,
        attributes: &Attributes,
        rows: u64,
        path: Option<&str>,
    ) -> Result<u64> {
        // An array of one chunk has a chunk of its own length.
        self.set_inner(self.inner.min(rows.max(1)));
        self.write_chunks(tree, true)?;
        let chunks = self.index.len() as u64;
        let per_shard = if self.full_shards == 0 { chunks.max(1) } else { self.per_shard() };
        if chunks > 0 {
            let left = usize::try_from(per_shard - chunks).unwrap_or(usize::MAX);
            self.index.extend(std::iter::repeat_n(ABSENT, left));
            tree.append(&self.file(self.full_shards), &sealed(&self.index)?)?;
        }
        let shape = |rows: u64| -> Vec<u64> {
            std::iter::once(rows).chain(self.trailing.iter().copied()).collect()
        };
        let chunk = |rows: u64| -> Vec<u64> { shape(rows).iter().map(|&d| d.max(1)).collect() };
        let metadata = json!({
            "zarr_format": 3, "node_type": "array", "attributes": attributes,
            "shape": shape(rows), "data_type": self.items.name,
            "fill_value": self.items.fill_value(),
            "chunk_grid": {"name": "regular", "configuration": {
                "chunk_shape": chunk(self.inner * per_shard),
            }},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "sharding_indexed", "configuration": {
                "chunk_shape": chunk(self.inner),
                "codecs": self.items.codecs(self.codec),
                "index_codecs": [
                    {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"},
                ],
                "index_location": "end",
            }}],
            "storage_transformers": [],
        });
        tree.node(path.unwrap_or(&self.path), metadata)?;
        Ok(self.n_items)
    }

    /// What waits as one chunk, of an array that has no shards.
    pub(super) fn single_chunk(&self) -> Result<Vec<u8>> {
        let raw = match self.items.width {
            0 => Cow::Owned(counted(self.ends.len(), &self.waiting, 0)?),
            _ => Cow::Borrowed(&self.waiting[..]),
        };
        Ok(self.codec.encoder(self.items.width.max(1))?.encode(raw)?.into_owned())
    }

    /// Inner chunks of a full shard.
    fn per_shard(&self) -> u64 {
        // Of text the length is not known; most of it is short.
        let row =
            (self.row_items * if self.items.width == 0 { 16 } else { self.items.width }).max(1);
        (self.shard_bytes / (self.inner * row as u64)).max(1)
    }

    fn file(&self, shard: u64) -> String {
        format!("{}/c/{shard}{}", self.path, "/0".repeat(self.trailing.len()))
    }

    /// Compresses and writes the inner chunks that are complete, and the last if it is the last.
    fn write_chunks(&mut self, tree: &mut Tree, last: bool) -> Result<()> {
        let width = self.items.width;
        let items = self.waiting.len().checked_div(width).unwrap_or(self.ends.len());
        let length = usize::try_from(self.inner).unwrap_or(usize::MAX);
        let length = length.saturating_mul(self.row_items.max(1));
        let count = if last { items.div_ceil(length) } else { items / length };
        let used = count.saturating_mul(length).min(items);
        let at = |item: usize| match width {
            0 => item.checked_sub(1).map_or(0, |i| self.ends[i]),
            width => item * width,
        };
        let chunk = |k: usize| {
            let (start, end) = (k * length, ((k + 1) * length).min(items));
            let bytes = &self.waiting[at(start)..at(end)];
            let missing = length - (end - start);
            match width {
                // A text that is missing at the end is empty: a length of 0 in four bytes.
                0 => counted(length, bytes, missing * 4).map(Cow::Owned),
                _ if missing == 0 => Ok(Cow::Borrowed(bytes)),
                width => Ok(Cow::Owned([bytes, &vec![0; missing * width]].concat())),
            }
        };
        let codec = self.codec;
        let encoded = (0..count).into_par_iter().map_init(
            || codec.encoder(width.max(1)),
            |encoder, k| match encoder {
                Ok(encoder) => encoder.encode(chunk(k)?),
                Err(e) => Err(Error::internal(e.to_string())),
            },
        );
        let encoded = encoded.collect::<Result<Vec<_>>>()?;
        let (mut shard, mut offset) = (self.full_shards, self.offset);
        let (mut index, mut out) = (self.index.clone(), Vec::new());
        for chunk in encoded {
            index.push([offset, chunk.len() as u64]);
            offset += chunk.len() as u64;
            out.extend_from_slice(&chunk);
            if index.len() as u64 == self.per_shard() {
                out.extend(sealed(&index)?);
                tree.append(&self.file(shard), &out)?;
                (shard, offset) = (shard + 1, 0);
                index.clear();
                out.clear();
            }
        }
        if !out.is_empty() {
            tree.append(&self.file(shard), &out)?;
        }
        let used_bytes = at(used);
        (self.full_shards, self.offset, self.index) = (shard, offset, index);
        self.waiting.drain(..used_bytes);
        if width == 0 {
            self.ends.drain(..used);
            self.ends.iter_mut().for_each(|end| *end -= used_bytes);
        }
        Ok(())
    }
}

/// A shard's index with its checksum.
fn sealed(index: &[[u64; 2]]) -> Result<Vec<u8>> {
    with_crc32c(index.iter().flatten().flat_map(|n| n.to_le_bytes()).collect())
}

/// A chunk of texts: how many, then each with its length, then `padding` zeros.
fn counted(items: usize, texts: &[u8], padding: usize) -> Result<Vec<u8>> {
    let count = u32::try_from(items)
        .map_err(|_| Error::internal("a chunk has more than 2^32 - 1 texts"))?;
    Ok([&count.to_le_bytes()[..], texts, &vec![0; padding]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The inner chunks of a shard that is not compressed, by its index.
    fn chunks(path: &Path, per_shard: usize) -> Vec<Option<Vec<u8>>> {
        let bytes = std::fs::read(path).unwrap();
        let index = &bytes[bytes.len() - 4 - 16 * per_shard..];
        assert_eq!(with_crc32c(index[..16 * per_shard].to_vec()).unwrap(), index);
        let word = |i: usize| u64::from_le_bytes(index[8 * i..8 * i + 8].try_into().unwrap());
        let at = |n: u64| usize::try_from(n).unwrap();
        let chunk = |k: usize| {
            let (start, length) = (word(2 * k), word(2 * k + 1));
            (start != u64::MAX).then(|| bytes[at(start)..at(start + length)].to_vec())
        };
        (0..per_shard).map(chunk).collect()
    }

    #[test]
    fn shards_follow_one_another() {
        for total in [1u32, 63, 64, 65, 128, 1000] {
            let folder = tempfile::tempdir().unwrap();
            let mut tree = Tree::new(folder.path());
            let mut array =
                Stream::new("a".to_owned(), Items::I32, &[], 16, 100, Codec::Plain).unwrap();
            array.shard_bytes = 4 * 64;
            for i in 0..total {
                array.grow(1).extend(i.to_le_bytes());
                if array.is_ripe() {
                    array.write(&mut tree).unwrap();
                }
            }
            array.finish(&mut tree, &Attributes::new()).unwrap();
            let metadata = std::fs::read(folder.path().join("a/zarr.json")).unwrap();
            let metadata: Value = serde_json::from_slice(&metadata).unwrap();
            let number = |pointer: &str| {
                usize::try_from(metadata.pointer(pointer).unwrap().as_u64().unwrap()).unwrap()
            };
            assert_eq!(number("/shape/0"), total as usize);
            let shard = number("/chunk_grid/configuration/chunk_shape/0");
            let inner = number("/codecs/0/configuration/chunk_shape/0");
            assert_eq!((shard % inner, inner), (0, 16.min(total as usize)));
            let mut read = Vec::new();
            for k in 0..(total as usize).div_ceil(shard) {
                let parts = chunks(&folder.path().join(format!("a/c/{k}")), shard / inner);
                // What is absent is behind the end.
                let there = parts.iter().take_while(|part| part.is_some()).count();
                assert!(parts[there..].iter().all(Option::is_none));
                read.extend(parts.into_iter().flatten().flatten());
            }
            assert!(
                !folder.path().join(format!("a/c/{}", (total as usize).div_ceil(shard))).exists()
            );
            let want: Vec<u8> = (0..total).flat_map(u32::to_le_bytes).collect();
            assert_eq!(read[..want.len()], want, "{total}");
            assert!(
                read[want.len()..].iter().all(|&byte| byte == 0) && read.len() < want.len() + 64
            );
        }
    }
}
