//! Encodings that some writers choose for pages of their newer version, turned into plain ones: deltas,
//! and bytes of a kind put together.

use crate::footer::{Leaf, Physical};
use cellfeed_core::{Error, Result};

const DELTAS: i64 = 5;
const DELTA_LENGTHS: i64 = 6;
const SPLIT: i64 = 9;

/// The name of an encoding by Parquet's number.
pub(crate) fn name(encoding: i64) -> String {
    let known = match encoding {
        4 => "BIT_PACKED",
        5 => "DELTA_BINARY_PACKED",
        6 => "DELTA_LENGTH_BYTE_ARRAY",
        7 => "DELTA_BYTE_ARRAY",
        9 => "BYTE_STREAM_SPLIT",
        _ => return format!("number {encoding}"),
    };
    known.to_owned()
}

fn short() -> Error {
    Error::corrupt("a page has fewer values than its header says")
}

/// `n` values of a page as the encoding PLAIN would have them; none if this encoding is not read.
pub(crate) fn plain(encoding: i64, leaf: &Leaf, bytes: &[u8], n: usize) -> Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    match (encoding, leaf.physical) {
        (DELTAS, Physical::Int32) => {
            // Differences wrap around, so that the low half is right.
            deltas(bytes, n, |v| out.extend_from_slice(&v.to_le_bytes()[..4]))?;
        }
        (DELTAS, Physical::Int64) => {
            deltas(bytes, n, |v| out.extend_from_slice(&v.to_le_bytes()))?;
        }
        (DELTA_LENGTHS, Physical::Bytes) => {
            let mut lengths = Vec::new();
            let used = deltas(bytes, n, |v| lengths.push(v))?;
            let mut rest = bytes.get(used..).ok_or_else(short)?;
            for length in lengths {
                let length = u32::try_from(length).map_err(|_| short())?;
                let at = usize::try_from(length).unwrap_or(usize::MAX);
                let (text, after) = rest.split_at_checked(at).ok_or_else(short)?;
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(text);
                rest = after;
            }
        }
        (SPLIT, _) => {
            let width = match leaf.physical {
                Physical::Int32 | Physical::Float => 4,
                Physical::Int64 | Physical::Double => 8,
                Physical::Fixed(width) => width,
                _ => return Ok(None),
            };
            if n.checked_mul(width) != Some(bytes.len()) {
                return Err(short());
            }
            out.resize(bytes.len(), 0);
            for (k, stream) in bytes.chunks_exact(n.max(1)).enumerate() {
                out.iter_mut().skip(k).step_by(width).zip(stream).for_each(|(o, b)| *o = *b);
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(out))
}

/// Reads `n` deltas; answers how many bytes they took.
fn deltas(bytes: &[u8], n: usize, mut each: impl FnMut(i64)) -> Result<usize> {
    let mut at = 0;
    let varint = |at: &mut usize| -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *bytes.get(*at).ok_or_else(short)?;
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(short())
    };
    let signed = |v: u64| (v >> 1).cast_signed() ^ -((v & 1).cast_signed());
    let size = |v: u64| usize::try_from(v).unwrap_or(usize::MAX);
    let block = size(varint(&mut at)?);
    let parts = size(varint(&mut at)?);
    let total = size(varint(&mut at)?);
    let mut value = signed(varint(&mut at)?);
    let in_part = block.checked_div(parts).unwrap_or(0);
    if total != n || in_part == 0 || in_part % 32 != 0 || block > 1 << 16 {
        return Err(Error::corrupt(format!("{total} deltas in a page of {n} values")));
    }
    let mut left = n;
    if left > 0 {
        each(value);
        left -= 1;
    }
    while left > 0 {
        let least = signed(varint(&mut at)?);
        let widths = bytes.get(at..at.saturating_add(parts)).ok_or_else(short)?;
        at += parts;
        for &width in widths {
            if left == 0 {
                break;
            }
            if width > 64 {
                return Err(Error::corrupt(format!("deltas of {width} bits")));
            }
            let width = usize::from(width);
            let packed = bytes.get(at..at + in_part * width / 8).ok_or_else(short)?;
            at += packed.len();
            for i in 0..in_part.min(left) {
                let delta = number(packed, i * width, width);
                value = value.wrapping_add(least).wrapping_add(delta.cast_signed());
                each(value);
            }
            left -= in_part.min(left);
        }
    }
    Ok(at)
}

/// The number of `width` bits, 64 at most, at a bit.
fn number(bytes: &[u8], bit: usize, width: usize) -> u64 {
    let mut word = [0; 16];
    let part = bytes.get(bit / 8..).unwrap_or_default();
    let part = &part[..part.len().min(9)];
    word[..part.len()].copy_from_slice(part);
    let mask = (1u128 << width) - 1;
    u64::try_from((u128::from_le_bytes(word) >> (bit % 8)) & mask).unwrap_or(0)
}
