//! Filters: one chunk's bytes to what is stored, and the filter pipeline message.

use super::lzf::Lzf;
use super::message::u32_of;
use super::options::Compression;
use cellfeed_core::{Error, Result};
use libdeflater::{CompressionLvl, Compressor};

/// The filters of a dataset: an optional byte shuffle, then an optional compression.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filters {
    pub(super) compression: Compression,
    pub(super) shuffle: bool,
    /// Bytes of an element.
    pub(super) width: usize,
    /// Elements of a chunk.
    pub(super) chunk_len: u64,
}

/// The filter mask of a chunk that one filter, the given one in the pipeline, left as it was.
const fn skipped(position: u32) -> u32 {
    1 << position
}

impl Filters {
    /// Whether chunks are stored as they are.
    pub(super) fn none(&self) -> bool {
        self.compression == Compression::None && !self.shuffles()
    }

    /// Shuffling single bytes changes nothing, and h5py leaves it out too.
    fn shuffles(&self) -> bool {
        self.shuffle && self.width > 1
    }

    /// Section IV.A.2.l, "Data Storage - Filter Pipeline", version 2; `None` without filters.
    /// All filters are optional (flag bit 0), as h5py sets them.
    pub(super) fn message(&self) -> Result<Option<Vec<u8>>> {
        if self.none() {
            return Ok(None);
        }
        let mut filters = Vec::new();
        let mut count = 0u8;
        let mut put = |id: u16, name: &[u8], values: &[u32]| -> Result<()> {
            filters.extend(id.to_le_bytes());
            if id >= 256 {
                filters.extend(super::message::u16_of(name.len())?.to_le_bytes());
            }
            filters.extend(1u16.to_le_bytes());
            filters.extend(super::message::u16_of(values.len())?.to_le_bytes());
            filters.extend(name);
            filters.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            count += 1;
            Ok(())
        };
        if self.shuffles() {
            put(2, b"", &[u32_of(self.width)?])?;
        }
        match self.compression {
            Compression::None => {}
            Compression::Gzip { level } => put(1, b"", &[level])?,
            Compression::Lzf => {
                // h5py's own three values: its filter's version, liblzf's, the chunk's bytes.
                let bytes = self.chunk_len.checked_mul(self.width as u64);
                let bytes = bytes.and_then(|b| u32::try_from(b).ok()).unwrap_or(0);
                put(32000, b"lzf\0", &[4, 0x0105, bytes])?;
            }
        }
        let mut message = vec![2, count];
        message.append(&mut filters);
        Ok(Some(message))
    }
}

/// What compresses one chunk after another: tables and scratch memory for one thread.
pub(super) struct Encoder {
    filters: Filters,
    deflate: Option<Compressor>,
    lzf: Option<Lzf>,
    shuffled: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(filters: Filters) -> Result<Self> {
        let deflate = match filters.compression {
            Compression::Gzip { level } => {
                let level = i32::try_from(level).ok().and_then(|l| CompressionLvl::new(l).ok());
                Some(Compressor::new(
                    level.ok_or_else(|| Error::invalid_input("gzip levels go from 0 to 9"))?,
                ))
            }
            _ => None,
        };
        let lzf = (filters.compression == Compression::Lzf).then(Lzf::new);
        Ok(Self { filters, deflate, lzf, shuffled: Vec::new() })
    }

    /// The stored form of a whole chunk and its filter mask.
    pub(super) fn encode(&mut self, chunk: &[u8]) -> Result<(Vec<u8>, u32)> {
        let source = if self.filters.shuffles() {
            shuffle(chunk, self.filters.width, &mut self.shuffled);
            &self.shuffled[..]
        } else {
            chunk
        };
        let position = u32::from(self.filters.shuffles());
        if let Some(deflate) = &mut self.deflate {
            let mut out = vec![0; deflate.zlib_compress_bound(source.len())];
            let length = deflate
                .zlib_compress(source, &mut out)
                .map_err(|e| Error::internal(format!("cannot compress a chunk: {e}")))?;
            out.truncate(length);
            // Chunks wait for their turn to be written: hold what they need, not the bound.
            out.shrink_to_fit();
            return Ok((out, 0));
        }
        if let Some(lzf) = &mut self.lzf {
            let mut out = Vec::with_capacity(source.len() / 2);
            if lzf.compress(source, &mut out) {
                return Ok((out, 0));
            }
            return Ok((source.to_vec(), skipped(position)));
        }
        Ok((source.to_vec(), 0))
    }
}

/// HDF5's shuffle: the first bytes of all elements, then the second ones, and so on.
fn shuffle(chunk: &[u8], width: usize, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(chunk.len());
    for byte in 0..width {
        out.extend(chunk.iter().skip(byte).step_by(width));
    }
}

#[cfg(test)]
mod tests {
    use super::shuffle;

    #[test]
    fn shuffle_groups_bytes() {
        let mut out = Vec::new();
        shuffle(&[1, 2, 3, 4, 5, 6], 2, &mut out);
        assert_eq!(out, [1, 3, 5, 2, 4, 6]);
    }
}
