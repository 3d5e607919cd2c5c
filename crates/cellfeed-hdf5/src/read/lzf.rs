//! LZF decompression, as h5py's `lzf` filter needs it (LibLZF's format).
//!
//! A control byte below 32 starts `c + 1` literal bytes. Otherwise its high three bits are a length
//! (7: the next byte is added to it) and its low five, with the next byte, a distance: copy
//! `length + 2` bytes from `distance + 1` bytes back.

use cellfeed_core::{Error, Result};

/// Bytes that short copies move at once, wanted or not: what is too many is overwritten next.
const WIDE: usize = 16;

/// Decompresses into `out`; answers how many bytes were written.
pub(crate) fn decompress(source: &[u8], out: &mut [u8]) -> Result<usize> {
    let damaged = || Error::corrupt("an lzf chunk is damaged");
    let (mut from, mut to) = (0usize, 0usize);
    while let Some(&control) = source.get(from) {
        from += 1;
        let control = usize::from(control);
        if control < 32 {
            let n = control + 1;
            // Two fixed moves where there is room for them: no call, no loop.
            if let (Some(wide), Some(place)) =
                (source.get(from..from + 2 * WIDE), out.get_mut(to..to + 2 * WIDE))
            {
                place.copy_from_slice(wide);
            } else {
                let literal = source.get(from..from + n).ok_or_else(damaged)?;
                out.get_mut(to..to + n).ok_or_else(damaged)?.copy_from_slice(literal);
            }
            from += n;
            to += n;
            continue;
        }
        let mut length = control >> 5;
        if length == 7 {
            length += usize::from(*source.get(from).ok_or_else(damaged)?);
            from += 1;
        }
        let low = usize::from(*source.get(from).ok_or_else(damaged)?);
        from += 1;
        let distance = ((control & 31) << 8 | low) + 1;
        let n = length + 2;
        let start = to.checked_sub(distance).ok_or_else(damaged)?;
        if to + n > out.len() {
            return Err(damaged());
        }
        repeat(out, start, to, n);
        to += n;
    }
    Ok(to)
}

/// Copies `n` bytes from `start` to `to`, which may lie inside what is copied: then the bytes
/// between the two repeat.
fn repeat(out: &mut [u8], start: usize, to: usize, n: usize) {
    let distance = to - start;
    let room = out.len() >= to + n.next_multiple_of(WIDE);
    if room && (distance >= WIDE || WIDE.is_multiple_of(distance)) {
        // Each step reads what lies whole before it, or a period that divides the step.
        let mut wide = [0u8; WIDE];
        if distance >= WIDE {
            for step in (0..n).step_by(WIDE) {
                wide.copy_from_slice(&out[start + step..start + step + WIDE]);
                out[to + step..to + step + WIDE].copy_from_slice(&wide);
            }
        } else {
            // The distance divides 16, so it is a power of two: a mask, not a division.
            for (i, byte) in wide.iter_mut().enumerate() {
                *byte = out[start + (i & (distance - 1))];
            }
            for place in out[to..to + n.next_multiple_of(WIDE)].chunks_exact_mut(WIDE) {
                place.copy_from_slice(&wide);
            }
        }
        return;
    }
    for i in 0..n {
        out[to + i] = out[start + i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_matches_and_runs() {
        // "abcabcabcabcx": three literals, a match of nine bytes three back, one literal.
        let packed = [2, b'a', b'b', b'c', 7 << 5, 0, 2, 0, b'x'];
        let mut out = [0u8; 13];
        assert_eq!(decompress(&packed, &mut out).unwrap(), 13);
        assert_eq!(&out, b"abcabcabcabcx");
        // A run: one literal, then 255 + 9 times the same.
        let mut out = [0u8; 265];
        assert_eq!(decompress(&[0, 9, 7 << 5, 255, 0], &mut out).unwrap(), 265);
        assert!(out.iter().all(|&b| b == 9));
    }

    #[test]
    fn every_distance_and_length_repeats() {
        for distance in 1..40usize {
            for length in [3usize, 8, 9, 16, 17, 31, 40, 264] {
                let head: Vec<u8> = (0..distance as u8 + 3).collect();
                let mut packed = vec![u8::try_from(head.len() - 1).unwrap().min(31)];
                packed.extend(head.iter().take(32));
                let written = head.len().min(32);
                if distance > written {
                    continue;
                }
                if length - 2 < 7 {
                    packed.push(u8::try_from((length - 2) << 5).unwrap());
                } else {
                    packed.extend([7 << 5, u8::try_from(length - 9).unwrap()]);
                }
                packed.push(u8::try_from(distance - 1).unwrap());
                packed.extend([1, 250, 251]);
                let mut want = head[..written].to_vec();
                for _ in 0..length {
                    want.push(want[want.len() - distance]);
                }
                want.extend([250, 251]);
                // With and without room behind.
                for room in [0, 64] {
                    let mut out = vec![0; want.len() + room];
                    assert_eq!(decompress(&packed, &mut out).unwrap(), want.len());
                    assert_eq!(out[..want.len()], want, "distance {distance}, length {length}");
                }
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let packed = [2, b'a', b'b', b'c', 7 << 5, 0, 2, 0, b'x'];
        for cut in [1, 3, 5, 6, 8] {
            let mut out = [0u8; 13];
            assert!(decompress(&packed[..cut], &mut out).is_err(), "cut at {cut}");
        }
        assert!(decompress(&packed, &mut [0; 12]).is_err(), "no room");
        assert!(decompress(&[0, 1, 32, 9], &mut [0; 99]).is_err(), "before the start");
    }
}
