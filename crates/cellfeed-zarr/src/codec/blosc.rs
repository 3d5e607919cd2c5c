//! Blosc's container (format 2, of c-blosc 1): only the blocks that hold wanted bytes are decoded, LZ4
//! only as far as the last of them, and the shuffle is undone straight into place.
//!
//! ```text
//! 16 bytes    version, version of the codec, flags, size of an item; lengths: decoded, of a block, stored
//! 4 a block   where it starts
//! blocks      one stream, or one for each byte of an item; each with its stored length before it
//! ```
//!
//! What is rare (blosclz, snappy, bit shuffle) goes through c-blosc, which zarrs brings along.

use super::shuffle::unshuffle;
use super::{Scratch, lz4};
use std::ops::Range;
use zarrs::array::codec::bytes_to_bytes::blosc::blosc_decompress_bytes;

type Found<T> = Result<T, String>;

const HEADER: usize = 16;
/// Blocks of smaller items than this a stream, or larger ones than that, are not split by bytes.
const SPLIT_FROM: usize = 128;
const SPLIT_TO: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    Lz4,
    Zlib,
    Zstd,
    Other,
}

/// A header that agrees with the bytes behind it.
struct Frame<'a> {
    bytes: &'a [u8],
    inner: Inner,
    shuffled: bool,
    bit_shuffled: bool,
    copied: bool,
    never_split: bool,
    item: usize,
    length: usize,
    block: usize,
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    usize::try_from(i32::from_le_bytes(*word)).ok()
}

impl<'a> Frame<'a> {
    fn new(bytes: &'a [u8]) -> Found<Self> {
        let header = bytes.first_chunk::<HEADER>().ok_or("it is shorter than its header")?;
        let [version, _, flags, item, ..] = *header;
        let lengths = (word(header, 4), word(header, 8), word(header, 12));
        let (Some(length), Some(block), Some(stored)) = lengths else {
            return Err("its header has a length beyond 2^31".to_owned());
        };
        if stored != bytes.len() {
            return Err(format!(
                "it says {stored} bytes are stored, but there are {}",
                bytes.len()
            ));
        }
        if version != 2 || flags & 8 != 0 {
            return Err(format!("format {version} with flags {flags:#x} is not known"));
        }
        let copied = flags & 2 != 0;
        if length > 0 && (item == 0 || block == 0 || block > length) {
            return Err(format!("{length} bytes in blocks of {block} with items of {item}"));
        }
        if copied && length + HEADER != stored {
            return Err(format!("{length} bytes are stored in {stored}"));
        }
        Ok(Self {
            bytes,
            inner: match flags >> 5 {
                1 => Inner::Lz4,
                3 => Inner::Zlib,
                4 => Inner::Zstd,
                _ => Inner::Other,
            },
            shuffled: flags & 1 != 0 && item > 1,
            bit_shuffled: flags & 4 != 0,
            copied,
            never_split: flags & 16 != 0,
            item: usize::from(item),
            length,
            block,
        })
    }

    /// Decodes block `k` of `length` bytes into `to`, as far as its first `need` bytes need it.
    fn decode(
        &self,
        k: usize,
        need: usize,
        to: &mut [u8],
        decoders: &mut super::Decoders,
    ) -> Found<()> {
        let length = to.len();
        let last = length != self.block;
        let split = !self.never_split
            && !last
            && self.item <= SPLIT_TO
            && self.block / self.item >= SPLIT_FROM;
        let streams = if split { self.item } else { 1 };
        if !length.is_multiple_of(streams) {
            return Err(format!("a block of {length} bytes is split in {streams}"));
        }
        let per_stream = length / streams;
        // The first bytes of every plane, where bytes are in planes.
        let plane = length / self.item;
        let (planes, each) = match self.shuffled && need <= plane * self.item {
            true => (self.item, need.div_ceil(self.item)),
            false => (1, need),
        };
        let mut at = word(self.bytes, HEADER + k * 4).ok_or("it has no block table")?;
        for (j, to) in to.chunks_exact_mut(per_stream.max(1)).enumerate().take(streams) {
            let stored = word(self.bytes, at).ok_or("a block starts outside of it")?;
            at += 4;
            let stream = self.bytes.get(at..at.saturating_add(stored));
            let stream = stream.ok_or("a block ends outside of it")?;
            at += stored;
            let first = j * per_stream;
            let wanted = match planes {
                1 => each.saturating_sub(first).min(per_stream),
                _ if split => each,
                _ => (planes - 1) * plane + each,
            };
            if wanted == 0 {
                continue;
            }
            if stored == per_stream {
                to[..wanted].copy_from_slice(&stream[..wanted]);
                continue;
            }
            let done = match self.inner {
                // Planes of one byte are a single match, which is slow to stop in and quick to end.
                Inner::Lz4 if stored > per_stream / 8 => {
                    lz4::decode_start(stream, per_stream, &mut to[..wanted])
                }
                Inner::Lz4 => lz4::decode_start(stream, per_stream, to),
                Inner::Zstd => decoders.zstd(stream, to).is_ok_and(|n| n == per_stream),
                Inner::Zlib => decoders.zlib(stream, to).is_ok_and(|n| n == per_stream),
                Inner::Other => false,
            };
            if !done {
                return Err(format!("block {k} does not decode to {length} bytes"));
            }
        }
        Ok(())
    }
}

/// The decoded length that a header says, once the header agrees with the bytes behind it.
pub(super) fn length(bytes: &[u8]) -> Found<usize> {
    Frame::new(bytes).map(|frame| frame.length)
}

/// Writes ascending byte ranges of what is stored, end to end, to `to`, which has just their length.
/// Answers how many bytes were decoded for it.
pub(super) fn decode_parts(
    bytes: &[u8],
    length: usize,
    parts: impl Iterator<Item = Range<usize>> + Clone,
    to: &mut [u8],
    scratch: &mut Scratch,
) -> Found<usize> {
    let frame = Frame::new(bytes)?;
    if frame.length != length {
        return Err(format!("it says {} bytes, not {length}", frame.length));
    }
    if frame.copied {
        super::copy_parts(&bytes[HEADER..], parts, to);
        return Ok(to.len());
    }
    if frame.inner == Inner::Other || frame.bit_shuffled {
        let whole = blosc_decompress_bytes(bytes, length, 1).map_err(|e| e.to_string())?;
        if whole.len() != length {
            return Err(format!("it decodes to {} bytes, not {length}", whole.len()));
        }
        super::copy_parts(&whole, parts, to);
        return Ok(length);
    }
    let mut decoded = 0;
    let Scratch { block: room, decoders, .. } = scratch;
    let (mut rest, mut at) = (parts.filter(|p| !p.is_empty()), 0);
    // Parts are walked along with the blocks; one that goes past a block comes again in the next.
    let mut current = rest.next();
    while let Some(part) = current.clone() {
        if part.end > length || part.start > part.end {
            return Err(format!("bytes {part:?} of {length} are wanted"));
        }
        let k = part.start / frame.block;
        let span = k * frame.block..((k + 1) * frame.block).min(length);
        let ahead = rest.clone().take_while(|p| p.start < span.end).last();
        let need = ahead.map_or(part.end, |p| p.end).min(span.end) - span.start;
        room.resize(room.len().max(span.len()), 0);
        let room = &mut room[..span.len()];
        frame.decode(k, need, room, decoders)?;
        decoded += need;
        while let Some(part) = current.clone().filter(|p| p.start < span.end) {
            let here = part.start - span.start..part.end.min(span.end) - span.start;
            let to = to.get_mut(at..at + here.len()).ok_or("its parts are beyond the answer")?;
            at += here.len();
            if frame.shuffled {
                unshuffle(room, frame.item, &here, to);
            } else {
                to.copy_from_slice(&room[here]);
            }
            current = if part.end > span.end { Some(span.end..part.end) } else { rest.next() };
        }
    }
    if at != to.len() {
        return Err(format!("{at} bytes were wanted, and {} have a place", to.len()));
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zarrs::array::codec::bytes_to_bytes::blosc::{
        BloscCompressionLevel, BloscCompressor, BloscShuffleMode, blosc_compress_bytes,
    };

    fn pack(
        plain: &[u8],
        item: usize,
        shuffle: BloscShuffleMode,
        with: BloscCompressor,
    ) -> Vec<u8> {
        let level = BloscCompressionLevel::try_from(3u8).unwrap();
        blosc_compress_bytes(plain, level, shuffle, item, with, 0, 1).unwrap()
    }

    #[allow(clippy::cast_possible_truncation)]
    fn every_kind() -> Vec<(Vec<u8>, Vec<u8>, usize)> {
        let mut all = Vec::new();
        for length in [1usize, 127, 4000, 70_000, 600_004] {
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> (i % 5 * 7)) % 3000;
            let mut plain: Vec<u8> = (0..length).flat_map(|i| value(i).to_le_bytes()).collect();
            plain.truncate(length);
            for item in [1, 2, 3, 4, 8, 16, 20] {
                use BloscShuffleMode::{BitShuffle, NoShuffle, Shuffle};
                for shuffle in [NoShuffle, Shuffle, BitShuffle] {
                    use BloscCompressor::{BloscLZ, LZ4, LZ4HC, Snappy, Zlib, Zstd};
                    let kinds = [BloscLZ, LZ4, LZ4HC, Snappy, Zlib, Zstd];
                    for with in &kinds[..if length > 100_000 { 2 } else { 6 }] {
                        // What was built without is not tested.
                        if let Ok(stored) =
                            std::panic::catch_unwind(|| pack(&plain, item, shuffle, *with))
                        {
                            all.push((plain.clone(), stored, item));
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn any_parts_of_what_c_blosc_writes() {
        let mut scratch = Scratch::default();
        let kinds = every_kind();
        assert!(kinds.len() > 200, "{}", kinds.len());
        for (plain, stored, item) in kinds {
            let n = plain.len();
            assert_eq!(length(&stored), Ok(n));
            let cut = |a: usize, b: usize| (n * a / 16 / item * item)..(n * b / 16 / item * item);
            let lists = [
                [0..n, n..n, n..n],
                [0..0, 0..1, n..n],
                [n - 1..n, n..n, n..n],
                [cut(1, 2), cut(5, 12), cut(13, 16)],
                [cut(0, 1), cut(1, 1).start + 3..n, n..n],
            ];
            for parts in lists.into_iter().filter(|l| l.iter().all(|p| p.start <= p.end)) {
                let want: Vec<u8> = parts.iter().flat_map(|r| &plain[r.clone()]).copied().collect();
                let mut to = vec![0; want.len()];
                decode_parts(&stored, n, parts.iter().cloned(), &mut to, &mut scratch).unwrap();
                assert!(to == want, "{n} bytes of {item}, {parts:?}");
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_other_bytes() {
        let mut scratch = Scratch::default();
        let plain: Vec<u8> = (0..3000u32).flat_map(|i| (i % 700).to_le_bytes()).collect();
        let n = plain.len();
        use BloscCompressor::{LZ4, Zlib, Zstd};
        for with in [LZ4, Zlib, Zstd] {
            let stored = pack(&plain, 4, BloscShuffleMode::Shuffle, with);
            let mut to = vec![0; n];
            for cut in 0..stored.len() {
                let parts = std::iter::once(0..n);
                let done = decode_parts(&stored[..cut], n, parts, &mut to, &mut scratch);
                assert!(done.is_err(), "{cut}");
            }
            for at in 0..stored.len() {
                for bit in 0..8 {
                    let mut bad = stored.clone();
                    bad[at] ^= 1 << bit;
                    for parts in [[Some(0..n), None], [Some(40..80), Some(4000..4800)]] {
                        let parts = parts.into_iter().flatten();
                        let length = parts.clone().map(|p| p.len()).sum();
                        let _ = decode_parts(&bad, n, parts, &mut to[..length], &mut scratch);
                    }
                }
            }
        }
    }
}
