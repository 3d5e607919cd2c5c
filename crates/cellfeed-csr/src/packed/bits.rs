//! Blocks of up to 128 small numbers in a few bits each, with exceptions for the few large ones.
//!
//! The numbers of a block lie in eight lanes of 16 bits: number `i` is in lane `i % 8`, and each lane is
//! a stream of bits of its own. So all lanes are shifted alike, and the loops below become a few vector
//! instructions for eight numbers without a line of unsafe code. What does not fit the block's width
//! leaves its high bits in a list behind it.

use cellfeed_core::{Error, Result};

/// Numbers of a full block.
pub(super) const BLOCK: usize = 128;
const LANES: usize = 8;
/// The widest block.
const WIDEST: u32 = 16;

/// Bytes that `n` numbers of `width` bits take: every lane has whole words of 16 bits.
fn packed_len(n: usize, width: u32) -> usize {
    let bits = n.div_ceil(LANES) * width as usize;
    bits.div_ceil(16) * 16
}

/// Bits of a number.
fn bits(number: u32) -> u32 {
    32 - number.leading_zeros()
}

/// Bytes of a number in LEB128.
fn leb_len(number: u32) -> usize {
    bits(number).div_ceil(7).max(1) as usize
}

/// The width that makes a block smallest.
fn best_width(numbers: &[u32]) -> u32 {
    let mut counts = [0usize; 33];
    for &number in numbers {
        counts[bits(number) as usize] += 1;
    }
    let cost = |width: u32| {
        let large = counts.iter().enumerate().skip(width as usize + 1);
        let exceptions = large.map(|(b, n)| n * (1 + (b - width as usize).div_ceil(7)));
        packed_len(numbers.len(), width) + exceptions.sum::<usize>()
    };
    (0..=WIDEST).min_by_key(|&w| cost(w)).unwrap_or(WIDEST)
}

/// Appends a block: a byte of width and `flag`, a byte that counts the exceptions, the packed numbers,
/// the exceptions.
pub(super) fn pack(numbers: &[u32], flag: bool, out: &mut Vec<u8>) {
    debug_assert!(numbers.len() <= BLOCK);
    let width = best_width(numbers);
    let large = |number: u32| width < 32 && number >> width != 0;
    let exceptions = numbers.iter().filter(|&&n| large(n)).count();
    // At most 128 exceptions, and a width of at most 16.
    out.push(u8::try_from(width).unwrap_or(0) | (u8::from(flag) << 7));
    out.push(u8::try_from(exceptions).unwrap_or(u8::MAX));
    let start = out.len();
    out.resize(start + packed_len(numbers.len(), width), 0);
    let packed = &mut out[start..];
    let mask = (1u32 << width) - 1;
    for (i, &number) in numbers.iter().enumerate() {
        let (lane, bit) = (i % LANES, (i / LANES) * width as usize);
        let shifted = (number & mask) << (bit % 16);
        for (word, half) in [(bit / 16, shifted & 0xffff), (bit / 16 + 1, shifted >> 16)] {
            if half != 0 {
                let at = (word * LANES + lane) * 2;
                let [low, high, ..] = half.to_le_bytes();
                packed[at] |= low;
                packed[at + 1] |= high;
            }
        }
    }
    for (i, &number) in (0u8..).zip(numbers) {
        if large(number) {
            out.push(i);
            let mut rest = number >> width;
            for _ in 1..leb_len(rest) {
                let [low, ..] = rest.to_le_bytes();
                out.push(low | 0x80);
                rest >>= 7;
            }
            let [low, ..] = rest.to_le_bytes();
            out.push(low);
        }
    }
}

/// Undoes the packing of all 128 numbers of a width. What is missing of the last words is zeros.
#[inline(always)]
fn unpack_width<const W: usize>(packed: &[u8], out: &mut [u16; BLOCK]) {
    let words = packed.as_chunks::<16>().0;
    if let Ok(words) = <&[[u8; 16]; W]>::try_from(words) {
        return unpack_words(words, out);
    }
    let mut padded = [[0; 16]; W];
    for (to, word) in padded.iter_mut().zip(words) {
        *to = *word;
    }
    unpack_words(&padded, out);
}

#[inline(always)]
fn unpack_words<const W: usize>(words: &[[u8; 16]; W], out: &mut [u16; BLOCK]) {
    let mask = if W >= 16 { u16::MAX } else { (1u16 << W) - 1 };
    let lanes = |word: usize| {
        let mut lanes = [0u16; LANES];
        for (lane, pair) in lanes.iter_mut().zip(words[word].as_chunks::<2>().0) {
            *lane = u16::from_le_bytes(*pair);
        }
        lanes
    };
    for (row, numbers) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (word, shift) = (row * W / 16, row * W % 16);
        let low = lanes(word);
        if shift + W <= 16 {
            for (number, low) in numbers.iter_mut().zip(low) {
                *number = (low >> shift) & mask;
            }
        } else {
            for ((number, low), high) in numbers.iter_mut().zip(low).zip(lanes(word + 1)) {
                *number = ((low >> shift) | (high << (16 - shift))) & mask;
            }
        }
    }
}

/// A block as it was read: low bits of all numbers, and what the exceptions add.
#[derive(Debug)]
pub(super) struct Unpacked<'a> {
    pub(super) flag: bool,
    width: u32,
    exceptions: u8,
    rest: &'a [u8],
    n: usize,
}

fn damaged() -> Error {
    Error::corrupt("a packed block is damaged")
}

/// Takes a block of `n` numbers off the front of `bytes`. Numbers past `n` are unspecified. It has its
/// loops where it is called: in a [`Kernel`](cellfeed_core::vector::Kernel).
#[inline(always)]
pub(super) fn unpack<'a>(
    bytes: &'a [u8],
    n: usize,
    out: &mut [u16; BLOCK],
) -> Result<Unpacked<'a>> {
    let (&[head, exceptions], rest) = bytes.split_first_chunk::<2>().ok_or_else(damaged)?;
    let (width, flag) = (u32::from(head & 0x7f), head & 0x80 != 0);
    if width > WIDEST || usize::from(exceptions) > n {
        return Err(damaged());
    }
    let (packed, rest) = rest.split_at_checked(packed_len(n, width)).ok_or_else(damaged)?;
    match width {
        0 => out.fill(0),
        1 => unpack_width::<1>(packed, out),
        2 => unpack_width::<2>(packed, out),
        3 => unpack_width::<3>(packed, out),
        4 => unpack_width::<4>(packed, out),
        5 => unpack_width::<5>(packed, out),
        6 => unpack_width::<6>(packed, out),
        7 => unpack_width::<7>(packed, out),
        8 => unpack_width::<8>(packed, out),
        9 => unpack_width::<9>(packed, out),
        10 => unpack_width::<10>(packed, out),
        11 => unpack_width::<11>(packed, out),
        12 => unpack_width::<12>(packed, out),
        13 => unpack_width::<13>(packed, out),
        14 => unpack_width::<14>(packed, out),
        15 => unpack_width::<15>(packed, out),
        _ => unpack_width::<16>(packed, out),
    }
    Ok(Unpacked { flag, width, exceptions, rest, n })
}

impl<'a> Unpacked<'a> {
    /// Adds what the exceptions add to `low`, the low bits, and answers the bytes behind the block. None
    /// if a number does not fit 16 bits then, or the block is damaged: [`exceptions`](Self::exceptions)
    /// goes into it, and `low` holds some of them already, which adding them once more does not change.
    #[inline(always)]
    #[must_use]
    pub(super) fn patch(&self, low: &mut [u16; BLOCK]) -> Option<&'a [u8]> {
        let mut rest = self.rest;
        for _ in 0..self.exceptions {
            let (&[position, first], tail) = rest.split_first_chunk::<2>()?;
            rest = tail;
            let mut high = u32::from(first & 0x7f);
            if first & 0x80 != 0 {
                let (&second, tail) = rest.split_first()?;
                if second & 0x80 != 0 {
                    return None;
                }
                rest = tail;
                high |= u32::from(second) << 7;
            }
            let place = low.get_mut(..self.n)?.get_mut(usize::from(position))?;
            *place |= u16::try_from(high << self.width).ok()?;
        }
        Some(rest)
    }

    /// Calls `add` with the position of each exception and what it adds to the low bits; answers the
    /// bytes behind the block.
    pub(super) fn exceptions(self, mut add: impl FnMut(usize, u32)) -> Result<&'a [u8]> {
        let mut rest = self.rest;
        for _ in 0..self.exceptions {
            let (&position, tail) = rest.split_first().ok_or_else(damaged)?;
            rest = tail;
            let (mut high, mut shift) = (0u64, 0);
            loop {
                let (&byte, tail) = rest.split_first().ok_or_else(damaged)?;
                rest = tail;
                high |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
                if shift > 28 {
                    return Err(damaged());
                }
            }
            let high = u32::try_from(high << self.width).map_err(|_| damaged())?;
            if usize::from(position) >= self.n {
                return Err(damaged());
            }
            add(position.into(), high);
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(numbers: &[u32]) -> usize {
        let mut bytes = Vec::new();
        pack(numbers, numbers.len() % 2 == 1, &mut bytes);
        let len = bytes.len();
        bytes.extend([7, 7]);
        let mut low = [0u16; BLOCK];
        let block = unpack(&bytes, numbers.len(), &mut low).unwrap();
        assert_eq!(block.flag, numbers.len() % 2 == 1);
        let mut got: Vec<u32> = low[..numbers.len()].iter().map(|&n| n.into()).collect();
        let rest = block.exceptions(|i, high| got[i] += high).unwrap();
        assert_eq!((&got[..], rest), (numbers, &[7u8, 7][..]));
        // Cut short anywhere it is an error or, within the exceptions, never more than was there.
        for cut in 0..len {
            let mut low = [0u16; BLOCK];
            let block = unpack(&bytes[..cut], numbers.len(), &mut low);
            assert!(block.and_then(|b| b.exceptions(|_, _| ())).is_err());
        }
        len
    }

    #[test]
    fn every_width_and_length_comes_back() {
        for width in 0..=32u32 {
            for n in [0usize, 1, 7, 8, 9, 64, 127, 128] {
                let most = if width == 0 { 0 } else { u32::MAX >> (32 - width) };
                let numbers: Vec<u32> =
                    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_769) & most).collect();
                round_trip(&numbers);
                round_trip(&vec![most; n]);
            }
        }
    }

    #[test]
    fn a_few_large_numbers_do_not_widen_a_block() {
        let mut numbers = vec![1u32; BLOCK];
        numbers[5] = 595_309;
        numbers[77] = 300;
        assert!(round_trip(&numbers) < 32, "{}", round_trip(&numbers));
    }
}
