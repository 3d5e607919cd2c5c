//! The filter pipeline in Rust: raw chunk bytes to elements, on any thread, without a lock.

use super::{lzf, start};
use crate::container::{Filter, filter_name};
use cellfeed_core::{Error, Result};
use libdeflater::Decompressor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Deflate,
    Lzf,
    Lz4,
    Zstd,
    Shuffle { element: usize },
    Fletcher32,
}

/// A pipeline whose every filter is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pipeline {
    /// In the order of writing.
    steps: Vec<Step>,
    chunk_bytes: usize,
}

/// Refuses filters that neither we nor the pure-Rust library undo, with the remedy.
pub(crate) fn refuse_unknown(filters: &[Filter]) -> Result<()> {
    // Deflate, shuffle, fletcher32, nbit, scale-offset, lzf, lz4, zstd.
    let known = |id: u16| matches!(id, 1 | 2 | 3 | 5 | 6 | 32000 | 32004 | 32015);
    let Some(unknown) = filters.iter().find(|f| !known(f.id)) else { return Ok(()) };
    let name = filter_name(unknown.id);
    let what =
        if name.starts_with("filter") { name } else { format!("{name} (filter {})", unknown.id) };
    Err(Error::unsupported(format!(
        "its chunks went through {what}, which is not read; gzip, lzf, lz4, zstd and no compression \
         are: rewrite it, in Python: import hdf5plugin; anndata.read_h5ad(OLD).write_h5ad(NEW, \
         compression=\"gzip\")"
    )))
}

/// What decoding needs for itself: one per thread, kept between chunks.
pub(crate) struct Scratch {
    inflate: Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    front: Vec<u8>,
    back: Vec<u8>,
}

/// Room beyond this is given back after use.
pub(super) const KEEP: usize = 16 << 20;

impl Scratch {
    /// How many bytes it holds on to.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.front.capacity() + self.back.capacity()
    }

    /// Gives back what an odd chunk made huge.
    pub(super) fn trim(&mut self) {
        for room in [&mut self.front, &mut self.back] {
            if room.capacity() > KEEP {
                *room = Vec::new();
            }
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self { inflate: Decompressor::new(), zstd: None, front: Vec::new(), back: Vec::new() }
    }
}

impl Pipeline {
    /// The pipeline of a dataset; `None` if it has a filter that only the library may know, or two
    /// compressors in a row, whose sizes in between nobody knows.
    pub(crate) fn try_new(filters: &[Filter], element: usize, chunk_bytes: usize) -> Option<Self> {
        let mut steps = Vec::with_capacity(filters.len());
        for filter in filters {
            steps.push(match filter.id {
                1 => Step::Deflate,
                2 => Step::Shuffle { element: shuffle_width(filter, element) },
                3 => Step::Fletcher32,
                32000 => Step::Lzf,
                32004 => Step::Lz4,
                32015 => Step::Zstd,
                _ => return None,
            });
        }
        let keeps_size = |s: &&Step| matches!(s, Step::Shuffle { .. } | Step::Fletcher32);
        let compressors = steps.iter().filter(|s| !keeps_size(s)).count();
        // The mask of a chunk has 32 bits.
        (compressors <= 1 && steps.len() <= 32).then_some(Self { steps, chunk_bytes })
    }

    /// Whether chunk bytes are the elements themselves.
    pub(crate) fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// Bytes of one decoded chunk.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// How many bytes decoding yields of which the first `wanted` are asked for.
    pub(crate) fn start_bytes(&self, wanted: usize) -> usize {
        let start = wanted.saturating_add(start::MARGIN);
        let first = self.steps.first() == Some(&Step::Deflate);
        if first && start < self.chunk_bytes && start::works() { start } else { self.chunk_bytes }
    }

    /// Decodes one chunk into `out`, which is exactly as long as a chunk.
    pub(crate) fn decode(
        &self,
        raw: &[u8],
        mask: u32,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<()> {
        self.decode_start(raw, mask, scratch, out, self.chunk_bytes).map(drop)
    }

    /// Decodes at least the first `wanted` bytes of a chunk into `out`, which is exactly as long as a
    /// chunk: whole where [`start_bytes`](Self::start_bytes) says so. Tells whether the chunk was decoded
    /// whole, and what it has of checksums found right.
    pub(crate) fn decode_start(
        &self,
        raw: &[u8],
        mask: u32,
        scratch: &mut Scratch,
        out: &mut [u8],
        wanted: usize,
    ) -> Result<bool> {
        let applied = |i: usize| mask & (1 << i) == 0;
        // How long the data were before each step of writing; a checksum adds four bytes.
        let mut sizes = Vec::with_capacity(self.steps.len());
        let mut size = self.chunk_bytes;
        for (i, step) in self.steps.iter().enumerate() {
            sizes.push(size);
            if *step == Step::Fletcher32 && applied(i) {
                size += 4;
            }
        }
        let mut todo: Vec<(Step, usize)> = self
            .steps
            .iter()
            .zip(sizes)
            .enumerate()
            .filter(|(i, _)| applied(*i))
            .map(|(_, (step, size))| (*step, size))
            .collect();
        // A checksum on the outside needs no copy.
        let mut raw = raw;
        while let Some((Step::Fletcher32, _)) = todo.last() {
            raw = checked(raw)?;
            todo.pop();
        }
        let Scratch { inflate, zstd, front, back } = scratch;
        let Some((last, rest)) = todo.split_first() else {
            return copy(raw, out).map(|()| true);
        };
        // Undo from the outside in; `front` holds the data once the first step is undone.
        let mut in_front = false;
        for (step, size) in rest.iter().rev() {
            back.resize(*size, 0);
            let source = if in_front { front.as_slice() } else { raw };
            undo(*step, inflate, zstd, source, back)?;
            std::mem::swap(front, back);
            in_front = true;
        }
        let source = if in_front { front } else { raw };
        if last.0 == Step::Deflate
            && self.start_bytes(wanted) < self.chunk_bytes
            && start::inflate_start(inflate, source, out, wanted)
        {
            return Ok(false);
        }
        undo(last.0, inflate, zstd, source, out).map(|()| true)
    }
}

fn shuffle_width(filter: &Filter, element: usize) -> usize {
    let stated = filter.client_data.first().and_then(|&w| usize::try_from(w).ok());
    stated.filter(|&w| w > 0).unwrap_or(element)
}

fn copy(source: &[u8], out: &mut [u8]) -> Result<()> {
    if source.len() != out.len() {
        return Err(Error::corrupt(format!(
            "a chunk has {} bytes instead of {}",
            source.len(),
            out.len()
        )));
    }
    out.copy_from_slice(source);
    Ok(())
}

fn undo(
    step: Step,
    inflate: &mut Decompressor,
    zstd: &mut Option<zstd::bulk::Decompressor<'static>>,
    source: &[u8],
    out: &mut [u8],
) -> Result<()> {
    match step {
        Step::Deflate => {
            let n = inflate
                .zlib_decompress(source, out)
                .map_err(|e| Error::corrupt("a gzip'd chunk is damaged").caused_by(e))?;
            short(n, out.len())
        }
        Step::Lzf => {
            let n = lzf::decompress(source, out)?;
            short(n, out.len())
        }
        Step::Lz4 => lz4(source, out),
        Step::Zstd => {
            let damaged = |e| Error::corrupt("a zstd chunk is damaged").caused_by(e);
            if zstd.is_none() {
                *zstd = Some(zstd::bulk::Decompressor::new().map_err(damaged)?);
            }
            match zstd {
                Some(zstd) => {
                    short(zstd.decompress_to_buffer(source, out).map_err(damaged)?, out.len())
                }
                None => Err(Error::internal("no zstd decompressor")),
            }
        }
        Step::Shuffle { element } => {
            if source.len() != out.len() {
                return copy(source, out);
            }
            unshuffle(source, element, out);
            Ok(())
        }
        Step::Fletcher32 => copy(checked(source)?, out),
    }
}

/// The registered lz4 filter: the length (u64) and the block length (u32), big-endian; then blocks,
/// each its stored length (u32, big-endian) and its bytes, stored as they are if that is shorter.
fn lz4(source: &[u8], out: &mut [u8]) -> Result<()> {
    let damaged = || Error::corrupt("an lz4 chunk is damaged");
    let (length, rest) = source.split_first_chunk::<8>().ok_or_else(damaged)?;
    let (block, mut rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|_| damaged())?;
    let block = usize::try_from(u32::from_be_bytes(*block)).map_err(|_| damaged())?;
    short(length, out.len())?;
    if block == 0 {
        return Err(damaged());
    }
    for place in out.chunks_mut(block) {
        let (stored, tail) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let stored = usize::try_from(u32::from_be_bytes(*stored)).map_err(|_| damaged())?;
        let packed = tail.get(..stored).ok_or_else(damaged)?;
        rest = &tail[stored..];
        if stored == place.len() {
            place.copy_from_slice(packed);
        } else {
            let n = lz4_flex::block::decompress_into(packed, place)
                .map_err(|e| Error::corrupt("an lz4 chunk is damaged").caused_by(e))?;
            short(n, place.len())?;
        }
    }
    Ok(())
}

fn short(n: usize, wanted: usize) -> Result<()> {
    if n == wanted {
        return Ok(());
    }
    Err(Error::corrupt(format!("a chunk decodes to {n} bytes instead of {wanted}")))
}

/// Undoes the byte shuffle: all first bytes of the elements, then all second bytes, and so on; bytes
/// that fill no element follow as they are.
fn unshuffle(source: &[u8], element: usize, out: &mut [u8]) {
    fn planes<const N: usize>(source: &[u8], n: usize, out: &mut [u8]) {
        let plane: [&[u8]; N] = std::array::from_fn(|b| &source[b * n..(b + 1) * n]);
        for (i, to) in out.chunks_exact_mut(N).enumerate() {
            for b in 0..N {
                to[b] = plane[b][i];
            }
        }
    }
    let n = source.len() / element.max(1);
    let whole = n * element;
    let (body, tail) = out.split_at_mut(whole);
    tail.copy_from_slice(&source[whole..]);
    match element {
        0 | 1 => body.copy_from_slice(&source[..whole]),
        2 => planes::<2>(source, n, body),
        4 => planes::<4>(source, n, body),
        8 => planes::<8>(source, n, body),
        _ => {
            for (b, plane) in source[..whole].chunks_exact(n).enumerate() {
                for (to, &byte) in body[b..].iter_mut().step_by(element).zip(plane) {
                    *to = byte;
                }
            }
        }
    }
}

/// Takes the Fletcher checksum off the end and compares it.
fn checked(source: &[u8]) -> Result<&[u8]> {
    let Some((data, stored)) = source.split_last_chunk::<4>() else {
        return Err(Error::corrupt("a chunk is shorter than its checksum"));
    };
    let stored = u32::from_le_bytes(*stored);
    let sum = fletcher32(data);
    // HDF5 1.6.2 and before swapped the bytes of each half on little-endian machines.
    let swapped = ((sum & 0x00ff_00ff) << 8) | ((sum & 0xff00_ff00) >> 8);
    if stored != sum && stored != swapped {
        return Err(Error::corrupt(format!(
            "a chunk's checksum is {sum:08x}, but {stored:08x} is stored: its bytes are damaged"
        )));
    }
    Ok(data)
}

/// Fletcher's checksum over big-endian 16-bit words, an odd last byte being the high half of one.
fn fletcher32(data: &[u8]) -> u32 {
    let (mut a, mut b) = (0u32, 0u32);
    let fold = |s: u32| (s & 0xffff) + (s >> 16);
    // 360 words are the most that cannot overflow 32 bits.
    for block in data.chunks(720) {
        let (words, odd) = block.as_chunks::<2>();
        for word in words {
            a += u32::from(u16::from_be_bytes(*word));
            b += a;
        }
        if let [last] = odd {
            a += u32::from(*last) << 8;
            b += a;
        }
        (a, b) = (fold(a), fold(b));
    }
    (a, b) = (fold(a), fold(b));
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(id: u16, client_data: &[u32]) -> Filter {
        Filter { id, name: String::new(), client_data: client_data.to_vec(), optional: false }
    }

    #[test]
    fn shuffled_and_deflated_chunks_decode() {
        let elements: Vec<u8> = (0..1000u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        let mut shuffled = vec![0u8; 4000];
        for (i, &byte) in elements.iter().enumerate() {
            shuffled[(i % 4) * 1000 + i / 4] = byte;
        }
        let mut z = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut packed = vec![0; z.zlib_compress_bound(4000)];
        let n = z.zlib_compress(&shuffled, &mut packed).unwrap();
        packed.truncate(n);
        let filters = [filter(2, &[4]), filter(1, &[4]), filter(3, &[])];
        let sum = fletcher32(&packed);
        let sealed = [&packed[..], &sum.to_le_bytes()].concat();
        let mut scratch = Scratch::default();
        let mut out = vec![0; 4000];
        let pipeline = Pipeline::try_new(&filters, 4, 4000).unwrap();
        pipeline.decode(&sealed, 0, &mut scratch, &mut out).unwrap();
        assert_eq!(out, elements);
        // Without shuffle for this chunk.
        out.fill(0);
        pipeline.decode(&sealed, 0b001, &mut scratch, &mut out).unwrap();
        assert_eq!(out, shuffled);
        // With nothing applied.
        pipeline.decode(&elements, 0b111, &mut scratch, &mut out).unwrap();
        assert_eq!(out, elements);
        let mut damaged = sealed.clone();
        damaged[100] ^= 1;
        let error = pipeline.decode(&damaged, 0, &mut scratch, &mut out).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        for wrong in [&sealed[..], &packed[..50], &[]] {
            assert!(
                Pipeline::try_new(&filters[..2], 4, 3996)
                    .unwrap()
                    .decode(wrong, 0, &mut scratch, &mut out[..3996])
                    .is_err()
            );
        }
        assert!(pipeline.decode(&[1, 2, 3], 0b111, &mut scratch, &mut out).is_err());
    }

    #[test]
    fn odd_widths_unshuffle() {
        for (element, n) in [(2, 9), (3, 7), (8, 5), (16, 3), (1, 4)] {
            let elements: Vec<u8> = (0..element * n + 2).map(|i| i as u8).collect();
            let mut shuffled = elements.clone();
            for i in 0..element * n {
                shuffled[(i % element) * n + i / element] = elements[i];
            }
            let mut out = vec![0; elements.len()];
            // Two bytes too many for a whole number of elements.
            unshuffle(&shuffled, element, &mut out);
            if elements.len() / element == n {
                assert_eq!(out, elements);
            }
        }
    }

    #[test]
    fn fletcher_known_values() {
        // Sums by hand: words 0x0102, 0x0304; then with an odd byte 0x05 -> 0x0500.
        assert_eq!(fletcher32(&[1, 2, 3, 4]), (0x0508 << 16) | 0x0406);
        assert_eq!(fletcher32(&[1, 2, 3, 4, 5]), (0x0e0e << 16) | 0x0906);
    }

    #[test]
    fn unknown_filters_are_left_to_the_library() {
        assert!(Pipeline::try_new(&[filter(6, &[])], 4, 8).is_none());
        assert!(Pipeline::try_new(&[filter(32000, &[]), filter(1, &[])], 4, 8).is_none());
        assert!(Pipeline::try_new(&[], 4, 8).unwrap().is_plain());
    }
}
