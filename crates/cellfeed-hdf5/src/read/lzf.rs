//! LZF decompression, as h5py's `lzf` filter needs it (LibLZF's format).
//!
//! A control byte below 32 starts `c + 1` literal bytes. Otherwise its high three bits are a length
//! (7: the next byte is added to it) and its low five, with the next byte, a distance: copy
//! `length + 2` bytes from `distance + 1` bytes back.

use cellfeed_core::{Error, Result};

/// Decompresses into `out`; answers how many bytes were written.
pub(crate) fn decompress(source: &[u8], out: &mut [u8]) -> Result<usize> {
    let damaged = || Error::corrupt("an lzf chunk is damaged");
    let (mut from, mut to) = (0usize, 0usize);
    while let Some(&control) = source.get(from) {
        from += 1;
        let control = usize::from(control);
        if control < 32 {
            let n = control + 1;
            let literal = source.get(from..from + n).ok_or_else(damaged)?;
            out.get_mut(to..to + n).ok_or_else(damaged)?.copy_from_slice(literal);
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
        if distance >= n {
            out.copy_within(start..start + n, to);
        } else {
            // The copy overlaps what it writes: it repeats a pattern of `distance` bytes.
            let (head, tail) = out.split_at_mut(to);
            let pattern = &head[start..];
            for part in tail[..n].chunks_mut(distance) {
                part.copy_from_slice(&pattern[..part.len()]);
            }
        }
        to += n;
    }
    Ok(to)
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
