//! The first bytes of a gzip'd chunk without the rest of it: a block of cells begins and ends anywhere in
//! its chunks, and of the last one only the beginning is wanted.
//!
//! The checksum at the end of a chunk is not seen that way, so each chunk is decoded whole once for an
//! open store, and only as far as needed from then on ([`Proven`]).

use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Which chunks of an array were decoded whole, and their checksums found right.
#[derive(Debug, Default)]
pub(super) struct Proven(Box<[AtomicU64]>);

impl Proven {
    /// None of so many.
    pub(super) fn none(chunks: usize) -> Self {
        Self((0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn has(&self, chunk: usize) -> bool {
        self.0.get(chunk / 64).is_some_and(|word| word.load(Relaxed) & (1 << (chunk % 64)) != 0)
    }

    pub(super) fn add(&self, chunk: usize) {
        if let Some(word) = self.0.get(chunk / 64) {
            word.fetch_or(1 << (chunk % 64), Relaxed);
        }
    }
}

/// Bytes beyond the wanted ones that are decoded too.
///
/// libdeflate stops at the end of the space that it is given, and has written everything before the place
/// where it stopped. That is the end, or less than 258 bytes before it, where a match does not fit; or
/// anywhere, where a stored block does not fit. It may have written nonsense up to 299 bytes past that
/// place. So a mark that lies 512 bytes behind the wanted bytes, and 496 before the end, stays as it was
/// only if the place is before the mark by more than 299 bytes, or the data happen to be the same.
pub(super) const MARGIN: usize = 1024;
const MARK_AT: usize = 512;
const MARK: [u8; 16] = *b"\xd1\x9c\x03\x7f\xe8\x52\xb6\x2d\x94\x61\xfa\x0b\xc7\x38\x8e\x45";

/// Decodes zlib data as far as the first `wanted` bytes; false where that cannot be done, and the data
/// are to be decoded whole: too near to the end, damaged, or a stored block that does not fit.
pub(super) fn inflate_start(
    inflate: &mut Decompressor,
    source: &[u8],
    out: &mut [u8],
    wanted: usize,
) -> bool {
    let Some(out) = out.get_mut(..wanted.saturating_add(MARGIN)) else { return false };
    let mark = wanted + MARK_AT..wanted + MARK_AT + MARK.len();
    out[mark.clone()].copy_from_slice(&MARK);
    // With success the chunk would be shorter than it should be.
    let stopped =
        matches!(inflate.zlib_decompress(source, out), Err(DecompressionError::InsufficientSpace));
    stopped && out[mark] != MARK
}

/// Whether the libdeflate at hand behaves as [`MARGIN`] says, which it does not promise: tried once.
pub(super) fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let data = sample();
        let mut inflate = Decompressor::new();
        let mut compressed = Vec::new();
        let mut out = vec![0; data.len()];
        // Stored blocks, then matches short and long.
        [0, 1, 6, 9].iter().all(|&level| {
            let Ok(level) = CompressionLvl::new(level) else { return false };
            let mut compressor = Compressor::new(level);
            compressed.resize(compressor.zlib_compress_bound(data.len()), 0);
            let Ok(n) = compressor.zlib_compress(&data, &mut compressed) else { return false };
            (0..data.len() - MARGIN).step_by(2_039).all(|wanted| {
                out.fill(0xaa);
                !inflate_start(&mut inflate, &compressed[..n], &mut out, wanted)
                    || out[..wanted] == data[..wanted]
            })
        })
    })
}

/// Bytes with everything in them: literals, matches near and far, short and long.
fn sample() -> Vec<u8> {
    let mut data = Vec::with_capacity(1 << 16);
    let mut state = 1u32;
    while data.len() < 1 << 16 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [kind, a, b, _] = state.to_be_bytes();
        let (far, length) = (1 + usize::from(a) * 61, 3 + usize::from(b));
        match kind % 3 {
            0 => data.extend(state.to_le_bytes()),
            1 => data.extend(std::iter::repeat_n(a, length)),
            _ => (0..length).for_each(|_| {
                data.push(data.len().checked_sub(far).map_or(a, |at| data[at]));
            }),
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(level: i32, data: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut out = vec![0; compressor.zlib_compress_bound(data.len())];
        let n = compressor.zlib_compress(data, &mut out).unwrap();
        out.truncate(n);
        out
    }

    /// Gene indices and counts as files have them, of 4 bytes each.
    fn elements(counts: bool) -> Vec<u8> {
        let mut state = 7u64;
        let mut gene = 0u32;
        let next = (0..33_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = (state >> 40) as u32;
            gene = if gene > 19_900 { 0 } else { gene + 1 + random % 29 };
            if counts { ((1 + random % 5) as f32).to_bits() } else { gene }
        });
        next.flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn the_first_bytes_are_those_of_the_whole() {
        assert!(works());
        let mut state = 1u64;
        let noise: Vec<u8> = (0..80_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        let mut inflate = Decompressor::new();
        for (name, data) in [
            ("genes", elements(false)),
            ("counts", elements(true)),
            ("sample", sample()),
            ("noise", noise.clone()),
            ("noise in the middle", [&sample()[..30_000], &noise, &sample()].concat()),
            ("zeros", vec![0; 100_000]),
        ] {
            for level in [0, 1, 4, 6, 12] {
                let source = compressed(level, &data);
                let mut out = vec![0; data.len()];
                let mut done = 0;
                for wanted in (0..data.len()).step_by(641).chain([1, 2, 3, 4, data.len()]) {
                    out.fill(0x5a);
                    if inflate_start(&mut inflate, &source, &mut out, wanted) {
                        assert!(out[..wanted] == data[..wanted], "{name}, {level}, {wanted}");
                        done += 1;
                    }
                }
                // What does compress is nearly always had.
                if level > 0 && !name.contains("noise") {
                    assert!(done * 641 + 3 * MARGIN > data.len(), "{name}, {level}: {done}");
                }
            }
        }
    }

    #[test]
    fn damage_before_what_is_wanted_is_left_to_the_whole_decoding_or_stays_in_bounds() {
        let data = elements(false);
        let source = compressed(6, &data);
        let mut inflate = Decompressor::new();
        let mut out = vec![0; data.len()];
        for cut in [0, 1, 2, 6, 100, source.len() / 4] {
            assert!(!inflate_start(&mut inflate, &source[..cut], &mut out, 100_000), "{cut}");
        }
        for at in (0..source.len()).step_by(97) {
            let mut damaged = source.clone();
            damaged[at] ^= 0x10;
            // Whatever it says, it must not fail otherwise.
            let _ = inflate_start(&mut inflate, &damaged, &mut out, 50_000);
        }
    }

    #[test]
    fn chunks_are_remembered() {
        let proven = Proven::none(130);
        for chunk in [0, 63, 64, 129] {
            assert!(!proven.has(chunk));
            proven.add(chunk);
            assert!(proven.has(chunk));
        }
        assert!(!proven.has(1) && !proven.has(128));
        proven.add(1000);
        assert!(!proven.has(1000));
    }
}
