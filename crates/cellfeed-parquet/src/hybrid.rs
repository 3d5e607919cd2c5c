//! Parquet's hybrid of runs and bit-packed numbers: levels, dictionary codes, truth values. Runs are
//! skipped, not expanded, so that finding rows in a page costs a step a run.

use cellfeed_core::{Error, Result};

/// Numbers of a fixed width of at most 32 bits, read from the front.
#[derive(Debug, Clone)]
pub(crate) struct Hybrid<'a> {
    bytes: &'a [u8],
    width: u32,
    run: Run<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Run<'a> {
    /// So many times one number.
    Same { value: u32, left: usize },
    /// Bit-packed numbers, of which the next is at a bit.
    Packed { bytes: &'a [u8], bit: usize, left: usize },
}

/// A stretch of numbers, as [`Hybrid::runs`] hands them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stretch {
    Same(u32, usize),
    One(u32),
}

fn short() -> Error {
    Error::corrupt("a page has fewer levels or codes than it should have")
}

impl<'a> Hybrid<'a> {
    pub(crate) fn new(bytes: &'a [u8], width: u32) -> Result<Self> {
        if width > 32 {
            return Err(Error::corrupt(format!("codes of {width} bits in a page")));
        }
        Ok(Self { bytes, width, run: Run::Same { value: 0, left: 0 } })
    }

    /// Levels of the first version of pages: a length of four bytes before them. Answers what follows.
    pub(crate) fn levels(bytes: &'a [u8], most: u8) -> Result<(Self, &'a [u8])> {
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(short)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (levels, rest) = rest.split_at_checked(len).ok_or_else(short)?;
        Ok((Self::of_levels(levels, most), rest))
    }

    /// Levels that go up to `most`.
    pub(crate) fn of_levels(bytes: &'a [u8], most: u8) -> Self {
        let width = u8::BITS - most.leading_zeros();
        Self { bytes, width, run: Run::Same { value: 0, left: 0 } }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or_else(short)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::corrupt("a run without end in a page"))
    }

    /// Goes to the next run once one is used up.
    fn advance(&mut self) -> Result<()> {
        let head = self.varint()?;
        let n = usize::try_from(head >> 1).unwrap_or(usize::MAX);
        let width = usize::try_from(self.width).unwrap_or(32);
        if head & 1 == 1 {
            // Groups of eight. Some writers cut the last one short.
            let want = n.checked_mul(width).ok_or_else(short)?;
            let (bytes, rest) = self.bytes.split_at(want.min(self.bytes.len()));
            self.bytes = rest;
            // Codes of no bits take no bytes.
            let have = (bytes.len() * 8).checked_div(width).unwrap_or(usize::MAX);
            self.run = Run::Packed { bytes, bit: 0, left: have.min(n.saturating_mul(8)) };
        } else {
            let (bytes, rest) = self.bytes.split_at_checked(width.div_ceil(8)).ok_or_else(short)?;
            self.bytes = rest;
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.run = Run::Same { value: u32::from_le_bytes(word), left: n };
        }
        let empty = matches!(self.run, Run::Same { left: 0, .. } | Run::Packed { left: 0, .. });
        // An empty run would be met for ever where there are no bytes in it.
        if empty && n > 0 { Err(short()) } else { Ok(()) }
    }

    /// Passes numbers over.
    pub(crate) fn skip(&mut self, mut n: usize) -> Result<()> {
        while n > 0 {
            match &mut self.run {
                Run::Same { left: 0, .. } | Run::Packed { left: 0, .. } => self.advance()?,
                Run::Same { left, .. } => {
                    let k = n.min(*left);
                    *left -= k;
                    n -= k;
                }
                Run::Packed { bit, left, .. } => {
                    let k = n.min(*left);
                    *left -= k;
                    *bit += k * usize::try_from(self.width).unwrap_or(32);
                    n -= k;
                }
            }
        }
        Ok(())
    }

    /// Hands numbers on, run by run where they are in runs.
    pub(crate) fn runs(&mut self, mut n: usize, mut each: impl FnMut(Stretch)) -> Result<()> {
        while n > 0 {
            let width = self.width;
            match &mut self.run {
                Run::Same { left: 0, .. } | Run::Packed { left: 0, .. } => self.advance()?,
                Run::Same { value, left } => {
                    let k = n.min(*left);
                    *left -= k;
                    n -= k;
                    each(Stretch::Same(*value, k));
                }
                Run::Packed { bytes, bit, left } => {
                    let k = n.min(*left);
                    *left -= k;
                    n -= k;
                    for _ in 0..k {
                        each(Stretch::One(number(bytes, *bit, width)));
                        *bit += usize::try_from(width).unwrap_or(32);
                    }
                }
            }
        }
        Ok(())
    }

    /// Fills `out` with the table's values of the codes.
    pub(crate) fn look_up<T: Copy>(&mut self, table: &[T], mut out: &mut [T]) -> Result<()> {
        let past = |code: u32| {
            Error::corrupt(format!("code {code} of a dictionary of {} values", table.len()))
        };
        let at = |code: u32| usize::try_from(code).unwrap_or(usize::MAX);
        while !out.is_empty() {
            let width = self.width;
            match &mut self.run {
                Run::Same { left: 0, .. } | Run::Packed { left: 0, .. } => self.advance()?,
                Run::Same { value, left } => {
                    let k = out.len().min(*left);
                    *left -= k;
                    let found = *table.get(at(*value)).ok_or_else(|| past(*value))?;
                    let (head, tail) = out.split_at_mut(k);
                    head.fill(found);
                    out = tail;
                }
                Run::Packed { bytes, bit, left } => {
                    let k = out.len().min(*left);
                    *left -= k;
                    let (mut head, tail) = out.split_at_mut(k);
                    out = tail;
                    let step = usize::try_from(width).unwrap_or(32);
                    // As many at once as surely are in eight bytes, wherever in a byte they begin.
                    let (mask, at_once) =
                        ((1u64 << width) - 1, 57usize.checked_div(step).unwrap_or(0));
                    while head.len() >= at_once && at_once > 0 {
                        let Some(eight) = bytes.get(*bit / 8..*bit / 8 + 8) else { break };
                        let mut word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
                        word >>= *bit % 8;
                        let (now, later) = head.split_at_mut(at_once);
                        for slot in now {
                            let code = u32::try_from(word & mask).unwrap_or(0);
                            *slot = *table.get(at(code)).ok_or_else(|| past(code))?;
                            word >>= width;
                        }
                        *bit += at_once * step;
                        head = later;
                    }
                    for slot in head {
                        let code = number(bytes, *bit, width);
                        *bit += step;
                        *slot = *table.get(at(code)).ok_or_else(|| past(code))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The number of `width` bits at a bit; 0 past the end, which the run's length rules out.
#[inline]
fn number(bytes: &[u8], bit: usize, width: u32) -> u32 {
    let (byte, shift) = (bit / 8, bit % 8);
    let word = match bytes.get(byte..byte + 8) {
        Some(eight) => u64::from_le_bytes(eight.try_into().unwrap_or_default()),
        None => {
            let mut word = [0; 8];
            let rest = bytes.get(byte..).unwrap_or_default();
            word[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(word)
        }
    };
    let mask = (1u64 << width) - 1;
    u32::try_from((word >> shift) & mask).unwrap_or(0)
}

/// Where rows begin among a page's values, from repetition levels of one bit: the places of zeros, of
/// which there are `limit` at most.
pub(crate) fn row_starts(levels: &mut Hybrid<'_>, n: usize, limit: usize) -> Result<Vec<u32>> {
    let mut starts = Vec::new();
    let (mut at, mut over) = (0u32, false);
    levels.runs(n, |stretch| match stretch {
        Stretch::Same(1.., k) => at = at.saturating_add(u32::try_from(k).unwrap_or(u32::MAX)),
        Stretch::Same(0, k) => {
            over |= k > limit.saturating_sub(starts.len());
            let k = u32::try_from(k).unwrap_or(u32::MAX);
            if !over {
                starts.extend(at..at.saturating_add(k));
            }
            at = at.saturating_add(k);
        }
        Stretch::One(level) => {
            over |= starts.len() > limit;
            if level == 0 && !over {
                starts.push(at);
            }
            at = at.saturating_add(1);
        }
    })?;
    if over || starts.len() > limit {
        return Err(Error::corrupt("a page begins more rows than there are"));
    }
    Ok(starts)
}

/// The places, and levels, where the definition level is below `most`: `limit` at most.
pub(crate) fn gaps(
    levels: &mut Hybrid<'_>,
    n: usize,
    most: u8,
    limit: usize,
) -> Result<Vec<(u32, u8)>> {
    let mut gaps = Vec::new();
    let mut at = 0u32;
    let most = u32::from(most);
    let (mut above, mut over) = (false, false);
    levels.runs(n, |stretch| {
        let (level, k) = match stretch {
            Stretch::Same(level, k) => (level, k),
            Stretch::One(level) => (level, 1),
        };
        above |= level > most;
        over |= level < most && k > limit.saturating_sub(gaps.len());
        let end = at.saturating_add(u32::try_from(k).unwrap_or(u32::MAX));
        if level < most && !over {
            gaps.extend((at..end).map(|place| (place, u8::try_from(level).unwrap_or(u8::MAX))));
        }
        at = end;
    })?;
    if above {
        return Err(Error::corrupt("a definition level above the column's highest"));
    }
    if over {
        return Err(Error::corrupt("more values are missing in a page than there are rows"));
    }
    Ok(gaps)
}

/// Writes numbers: eight and more of one kind as a run, the rest bit-packed.
pub(crate) fn encode(values: &[u32], width: u32, out: &mut Vec<u8>) {
    let varint = |out: &mut Vec<u8>, mut v: u64| {
        while v >= 0x80 {
            out.push(u8::try_from(v & 0x7f).unwrap_or(0) | 0x80);
            v >>= 7;
        }
        out.push(u8::try_from(v).unwrap_or(0));
    };
    let mut rest = values;
    while let Some(&first) = rest.first() {
        let same = rest.iter().take_while(|&&v| v == first).count();
        if same >= 8 || same == rest.len() {
            varint(out, u64::try_from(same).unwrap_or(0) << 1);
            let bytes = usize::try_from(width.div_ceil(8)).unwrap_or(4);
            out.extend_from_slice(&first.to_le_bytes()[..bytes]);
            rest = &rest[same..];
            continue;
        }
        // Groups of eight, up to where a run begins at a group, or the end.
        let mut groups = 1;
        while groups < 63 && groups * 8 < rest.len() {
            let group = &rest[groups * 8..];
            if group.len() >= 8 && group[..8].iter().all(|&v| v == group[0]) {
                break;
            }
            groups += 1;
        }
        varint(out, (groups as u64) << 1 | 1);
        let n = rest.len().min(groups * 8);
        let (mut word, mut bits) = (0u64, 0);
        for i in 0..groups * 8 {
            word |= u64::from(rest.get(i).copied().unwrap_or(0)) << bits;
            bits += width;
            while bits >= 8 {
                out.push(u8::try_from(word & 0xff).unwrap_or(0));
                word >>= 8;
                bits -= 8;
            }
        }
        rest = &rest[n..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(values: &[u32], width: u32) -> Vec<u8> {
        let mut out = Vec::new();
        encode(values, width, &mut out);
        out
    }

    #[test]
    fn numbers_come_back_whole_and_in_parts() {
        for width in [1, 2, 3, 7, 8, 15, 16, 20, 31, 32] {
            let mask = u32::try_from((1u64 << width) - 1).unwrap();
            for n in [0usize, 1, 7, 8, 9, 100, 2000] {
                let values: Vec<u32> = (0..n as u32)
                    .map(|i| if i / 50 % 2 == 0 { i.wrapping_mul(2_654_435_761) & mask } else { 1 })
                    .collect();
                let bytes = encoded(&values, width);
                let mut got = Vec::new();
                Hybrid::new(&bytes, width)
                    .unwrap()
                    .runs(n, |s| match s {
                        Stretch::Same(v, k) => got.extend(std::iter::repeat_n(v, k)),
                        Stretch::One(v) => got.push(v),
                    })
                    .unwrap();
                assert_eq!(got, values, "width {width}, {n} values");
                if width <= 16 && n > 20 {
                    let table: Vec<u32> = (0..1u32 << width).collect();
                    let mut reader = Hybrid::new(&bytes, width).unwrap();
                    let mut out = vec![0; n - 19];
                    reader.skip(13).unwrap();
                    reader.look_up(&table, &mut out).unwrap();
                    assert_eq!(out, values[13..n - 6]);
                    assert!(reader.skip(6 + 8).is_err());
                    let biggest = *values.iter().max().unwrap() as usize;
                    let mut reader = Hybrid::new(&bytes, width).unwrap();
                    let mut out = vec![0; n];
                    assert!(reader.look_up(&table[..biggest], &mut out).is_err());
                }
            }
        }
    }

    #[test]
    fn rows_and_gaps_are_found() {
        let levels = [vec![0, 0], vec![1; 40], vec![0], vec![1; 3], vec![0; 20]].concat();
        let bytes = encoded(&levels, 1);
        let starts = row_starts(&mut Hybrid::of_levels(&bytes, 1), levels.len(), 23).unwrap();
        let want: Vec<u32> = [0, 1, 42].into_iter().chain(46..66).collect();
        assert_eq!(starts, want);
        assert!(row_starts(&mut Hybrid::of_levels(&bytes, 1), levels.len(), 22).is_err());
        let levels = [vec![3; 30], vec![2], vec![3; 9], vec![0; 9]].concat();
        let bytes = encoded(&levels, 2);
        let got = gaps(&mut Hybrid::of_levels(&bytes, 3), levels.len(), 3, 10).unwrap();
        let want: Vec<(u32, u8)> =
            std::iter::once((30, 2)).chain((40..49).map(|i| (i, 0))).collect();
        assert_eq!(got, want);
        assert!(gaps(&mut Hybrid::of_levels(&bytes, 3), levels.len(), 3, 9).is_err());
        assert!(gaps(&mut Hybrid::of_levels(&bytes, 2), levels.len(), 2, 99).is_err());
    }

    #[test]
    fn damaged_runs_end() {
        // Runs of nothing, and of no bytes.
        assert!(Hybrid::new(&[0, 0, 0, 0, 0, 0], 1).unwrap().skip(1).is_err());
        assert!(Hybrid::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], 32).unwrap().skip(1).is_err());
        assert!(Hybrid::new(&[], 33).is_err());
        let mut wide = Hybrid::new(&[0xff, 0xff, 0xff, 0xff, 0x0f], 0).unwrap();
        wide.skip(100).unwrap();
    }
}
