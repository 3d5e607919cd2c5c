//! A chunked dataset that is written as its elements come.

use super::btree::{self, Chunk};
use super::filter::{Encoder, Filters};
use super::message::{self, Datatype, Extent, ObjectHeader, kind, u32_of};
use super::options::Compression;
use super::sink::Sink;
use cellfeed_core::{Error, Result, ValueType};
use rayon::prelude::*;

/// How a dataset's chunks are stored, and when they are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    pub(super) compression: Compression,
    pub(super) shuffle: bool,
    /// Chunks are compressed and written once this many bytes wait.
    pub(super) batch: usize,
}

impl Packing {
    /// What waits in all the datasets that are written side by side, about.
    const BATCH: usize = 16 << 20;

    pub(super) fn new(compression: Compression, shuffle: bool, datasets: usize) -> Self {
        // Enough that every thread has several chunks.
        let batch = (Self::BATCH / datasets.max(1)).max(1 << 20);
        Self { compression, shuffle, batch }
    }
}

/// The chunk length that h5py guesses for a one-dimensional dataset of `elements` elements that
/// may grow (`h5py/_hl/filters.py`, `guess_chunk`): half the length, again and again, until it
/// nears 16 KiB x 2^log10(MiB of the dataset).
pub(super) fn guess_chunk(elements: u64, width: usize) -> u64 {
    const BASE: f64 = 16.0 * 1024.0;
    const LEAST: f64 = 8.0 * 1024.0;
    const MOST: f64 = 1024.0 * 1024.0;
    let width = width as f64;
    let mut length = if elements == 0 { 1024 } else { elements };
    let megabytes = length as f64 * width / MOST;
    let target = (BASE * megabytes.log10().exp2()).clamp(LEAST, MOST);
    loop {
        let bytes = length as f64 * width;
        let near = bytes < target || (bytes - target).abs() / target < 0.5;
        if length == 1 || (near && bytes < MOST) {
            return length;
        }
        length = length.div_ceil(2);
    }
}

/// A dataset in the making: whole chunks are on disk, the rest waits.
#[derive(Debug)]
pub(super) struct Stream {
    value_type: ValueType,
    filters: Filters,
    chunk_bytes: usize,
    batch: usize,
    elements: u64,
    waiting: Vec<u8>,
    chunks: Vec<Chunk>,
}

impl Stream {
    pub(super) fn new(value_type: ValueType, chunk_len: u64, packing: Packing) -> Result<Self> {
        let width = value_type.size();
        let chunk_bytes = usize::try_from(chunk_len).ok().and_then(|n| n.checked_mul(width));
        let chunk_bytes = chunk_bytes.filter(|&n| n > 0 && u32::try_from(n).is_ok());
        let chunk_bytes =
            chunk_bytes.ok_or_else(|| Error::invalid_input("a chunk has 1 to 2^32 - 1 bytes"))?;
        let Packing { compression, shuffle, batch } = packing;
        Ok(Self {
            value_type,
            filters: Filters { compression, shuffle, width, chunk_len },
            chunk_bytes,
            batch,
            elements: 0,
            waiting: Vec::new(),
            chunks: Vec::new(),
        })
    }

    pub(super) fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Where the bytes of `elements` more elements, little-endian, are to be put.
    pub(super) fn grow(&mut self, elements: usize) -> &mut [u8] {
        let start = self.waiting.len();
        self.waiting.resize(start + elements * self.filters.width, 0);
        self.elements += elements as u64;
        &mut self.waiting[start..]
    }

    /// Whether enough waits to be worth writing.
    pub(super) fn is_ripe(&self) -> bool {
        self.waiting.len() >= self.batch.max(self.chunk_bytes)
    }

    /// Writes all whole chunks that wait.
    pub(super) fn write_ripe(&mut self, sink: &mut Sink) -> Result<()> {
        let whole = self.waiting.len() / self.chunk_bytes * self.chunk_bytes;
        if self.filters.none() {
            let start = sink.append(&self.waiting[..whole])?;
            let bytes = u32_of(self.chunk_bytes)?;
            for chunk in 0..whole / self.chunk_bytes {
                let address = start + (chunk * self.chunk_bytes) as u64;
                self.chunks.push(Chunk { address, bytes, mask: 0 });
            }
        } else {
            // So many at a time that their compressed forms stay small beside what waits.
            for some in self.waiting[..whole].chunks(self.batch.next_multiple_of(self.chunk_bytes))
            {
                let encoded: Vec<_> = some
                    .par_chunks(self.chunk_bytes)
                    .map_init(
                        || Encoder::new(self.filters),
                        |encoder, chunk| match encoder {
                            Ok(encoder) => encoder.encode(chunk),
                            Err(e) => Err(Error::new(e.kind(), e.message())),
                        },
                    )
                    .collect::<Result<_>>()?;
                for (bytes, mask) in encoded {
                    let address = sink.append(&bytes)?;
                    self.chunks.push(Chunk { address, bytes: u32_of(bytes.len())?, mask });
                }
            }
        }
        self.waiting.drain(..whole);
        Ok(())
    }

    /// Writes the rest, the index and the object header; returns the header's address.
    pub(super) fn finish(mut self, sink: &mut Sink) -> Result<u64> {
        // The last chunk is stored whole; what lies past the extent is zero.
        let whole = self.waiting.len().next_multiple_of(self.chunk_bytes);
        self.waiting.resize(whole, 0);
        self.write_ripe(sink)?;
        let index = btree::write(&self.chunks, self.filters.chunk_len, sink)?;
        let length = u32::try_from(self.filters.chunk_len)
            .map_err(|_| Error::invalid_input("a chunk has at most 2^32 - 1 elements"))?;
        let mut header = ObjectHeader::default();
        header.put(kind::DATASPACE, &Extent::Growing(self.elements).message())?;
        header.put(kind::DATATYPE, &Datatype::Number(self.value_type).message()?)?;
        header.put(kind::FILL_VALUE, &message::fill_value(true))?;
        let layout = message::chunked_layout(index, length, u32_of(self.filters.width)?);
        header.put(kind::LAYOUT, &layout)?;
        if let Some(filters) = self.filters.message()? {
            header.put(kind::FILTERS, &filters)?;
        }
        sink.append_aligned(&header.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::guess_chunk;

    #[test]
    fn guesses_as_h5py() {
        // From h5py 3.16: guess_chunk((n,), (None,), width).
        for (n, width, chunk) in GUESSES {
            assert_eq!(guess_chunk(n, width), chunk, "{n} elements of {width} bytes");
        }
    }

    const GUESSES: [(u64, usize, u64); 9] = [
        (0, 4, 1024),
        (1, 4, 1),
        (1000, 4, 1000),
        (100_000, 4, 3125),
        (2_286_884, 4, 8934),
        (28_000_000, 4, 13672),
        (282_000_000, 4, 34424),
        (282_000_000, 1, 68848),
        (10_000_000_000, 8, 76294),
    ];
}
