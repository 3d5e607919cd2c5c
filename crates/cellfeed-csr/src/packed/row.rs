//! A row: its genes as gaps, its values as counts, or as they are where they are no counts; behind a
//! checksum.
//!
//! ```text
//! u32   the low half of XXH3-64 of all that follows, its seed the number of non-zeros
//! u8    0: counts; else the type of raw values (see `code`)
//! per 128 non-zeros: a block of gaps; for counts, a block of values
//! for raw values: the values, little-endian
//! ```
//!
//! The first gap is the first gene; every other is the distance to the gene before, less one. Values of
//! a block are less one too, unless one of them is zero, which the block's flag says.

use super::bits::{BLOCK, Unpacked, pack, unpack};
use cellfeed_core::vector::{self, Kernel};
use cellfeed_core::{Error, GeneIndex, Result, Value, ValueSpan, ValueType, Values};
use half::f16;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Of the bytes and of how many non-zeros they stand for, which they do not say themselves.
fn checksum(bytes: &[u8], n: usize) -> [u8; 4] {
    let seed = u64::try_from(n).unwrap_or(u64::MAX);
    let [a, b, c, d, ..] = xxh3_64_with_seed(bytes, seed).to_le_bytes();
    [a, b, c, d]
}

/// How a row's head names a type of raw values.
fn code(value_type: ValueType) -> u8 {
    match value_type {
        ValueType::U8 => 1,
        ValueType::U16 => 2,
        ValueType::U32 => 3,
        ValueType::U64 => 4,
        ValueType::I8 => 5,
        ValueType::I16 => 6,
        ValueType::I32 => 7,
        ValueType::I64 => 8,
        ValueType::F16 => 9,
        ValueType::F32 => 10,
        _ => 11,
    }
}

fn type_of(code: u8) -> Option<ValueType> {
    ValueType::ALL.into_iter().find(|&t| self::code(t) == code)
}

/// The values of a row to be encoded.
pub(super) enum RowValues<'a> {
    Counts(&'a [u32]),
    /// Of one row alone.
    Raw(Values),
}

/// Appends a row. Genes strictly ascend.
pub(super) fn encode(genes: impl Iterator<Item = u32>, values: &RowValues<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 4]);
    let counts = match values {
        RowValues::Counts(counts) => {
            out.push(0);
            Some(*counts)
        }
        RowValues::Raw(values) => {
            out.push(code(values.value_type()));
            None
        }
    };
    let (mut next, mut n) = (0u32, 0usize);
    let gaps = genes.map(|gene| {
        let gap = gene.wrapping_sub(next);
        next = gene.wrapping_add(1);
        n += 1;
        gap
    });
    let mut counts = counts.map(|c| c.chunks(BLOCK));
    let mut block = Vec::with_capacity(BLOCK);
    let mut flush = |block: &mut Vec<u32>, out: &mut Vec<u8>| {
        if block.is_empty() {
            return;
        }
        pack(block, false, out);
        block.clear();
        if let Some(part) = counts.as_mut().and_then(Iterator::next) {
            let zero = part.contains(&0);
            let less = u32::from(!zero);
            block.extend(part.iter().map(|&v| v - less));
            pack(block, zero, out);
            block.clear();
        }
    };
    for gap in gaps {
        block.push(gap);
        if block.len() == BLOCK {
            flush(&mut block, out);
        }
    }
    flush(&mut block, out);
    if let RowValues::Raw(values) = values {
        out.extend_from_slice(&values.le_bytes());
    }
    let sum = checksum(&out[start + 4..], n);
    out[start..start + 4].copy_from_slice(&sum);
}

/// The smallest type of values that are no counts.
pub(super) fn shrink(values: &Values) -> Result<Values> {
    let mut span = ValueSpan::default();
    span.add(values);
    values.cast(span.smallest())
}

/// Gene indices as a store has them.
pub(super) trait Gene: GeneIndex + Send + Sync {
    /// A gene that is known to be below `n_vars`.
    fn of(gene: u64) -> Self;
}

impl Gene for u16 {
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // below n_vars, which is at most 2^16 here
    fn of(gene: u64) -> Self {
        gene as u16
    }
}

impl Gene for u32 {
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // below n_vars, which is below 2^32
    fn of(gene: u64) -> Self {
        gene as u32
    }
}

/// Values as an answer has them, made of counts.
pub(super) trait Target: Value {
    /// The count, and whether the type holds it.
    fn of_count(count: u32) -> (Self, bool);

    /// Counts from the low bits of a block, each of them `more`; whether the type holds all.
    #[inline]
    fn of_block(low: &[u16; BLOCK], more: u16, values: &mut [Self]) -> bool {
        let mut fits = true;
        for (value, &bits) in values.iter_mut().zip(low) {
            let (count, fit) = Self::of_count(u32::from(bits) + u32::from(more));
            *value = count;
            fits &= fit;
        }
        fits
    }
}

macro_rules! targets {
    ($($ty:ty),*) => {
        $(impl Target for $ty {
            #[inline]
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, trivial_numeric_casts)]
            #[allow(clippy::cast_sign_loss, clippy::cast_lossless, clippy::float_cmp)]
            fn of_count(count: u32) -> (Self, bool) {
                let value = count as $ty;
                // Casts saturate or wrap: the way back tells.
                (value, value as u32 == count && value >= 0 as $ty)
            }
        })*
    };
}

targets!(u8, u32, u64, i8, i16, i32, i64, f64);

impl Target for u16 {
    #[inline]
    fn of_count(count: u32) -> (Self, bool) {
        let value = Self::try_from(count);
        (value.unwrap_or(0), value.is_ok())
    }

    /// Eight at a time, since they stay as wide as they are.
    #[inline]
    fn of_block(low: &[u16; BLOCK], more: u16, values: &mut [Self]) -> bool {
        let mut wraps = 0;
        for (value, &bits) in values.iter_mut().zip(low) {
            *value = bits.wrapping_add(more);
            wraps |= Self::from(*value < more);
        }
        wraps == 0
    }
}

impl Target for f32 {
    #[inline]
    fn of_count(count: u32) -> (Self, bool) {
        (count as f32, count <= 1 << 24)
    }
}

impl Target for f16 {
    fn of_count(count: u32) -> (Self, bool) {
        (f16::from_f32(count as f32), count <= 2048)
    }
}

fn damaged(what: &str) -> Error {
    Error::corrupt(format!("a packed row is damaged: {what}"))
}

/// One in each of four lanes of 16 bits: times this, four numbers become their running sums.
const ONES: u64 = 0x0001_0001_0001_0001;
/// What the distances of four genes leave out: the genes between.
const STEPS: u64 = 0x0003_0002_0001_0000;

/// Genes from gaps, four at a time; the first is `next` and its gap. All that count are below 2^16, so no
/// sum runs over into the next lane but behind them.
#[inline(always)]
fn ascend(gaps: &mut [u16; BLOCK], mut next: u64) {
    for four in gaps.as_chunks_mut::<4>().0 {
        let [a, b, c, d] = four.map(u64::from);
        let sums = (a | b << 16 | c << 32 | d << 48).wrapping_mul(ONES);
        let genes = sums.wrapping_add(STEPS).wrapping_add(next.wrapping_mul(ONES));
        next = next.wrapping_add(sums >> 48).wrapping_add(4);
        #[allow(clippy::cast_possible_truncation)] // a lane each
        let lanes = [0, 16, 32, 48].map(|bit| (genes >> bit) as u16);
        *four = lanes;
    }
}

/// Takes a block off the front of bytes, its exceptions added if that can be in 16 bits: then there are
/// the bytes behind it too.
struct Block<'a, 'o> {
    bytes: &'a [u8],
    n: usize,
    low: &'o mut [u16; BLOCK],
}

impl<'a> Kernel for Block<'a, '_> {
    type Answer = Result<(Unpacked<'a>, Option<&'a [u8]>)>;

    #[inline(always)]
    fn run(self) -> Self::Answer {
        let block = unpack(self.bytes, self.n, self.low)?;
        let rest = block.patch(self.low);
        Ok((block, rest))
    }
}

/// As [`Block`], of gaps, which become genes that follow those below `next`; with the bytes behind it comes
/// past which gene it goes on.
struct GeneBlock<'a, 'o> {
    block: Block<'a, 'o>,
    next: u64,
}

impl<'a> Kernel for GeneBlock<'a, '_> {
    type Answer = Result<(Unpacked<'a>, Option<(&'a [u8], u64)>)>;

    #[inline(always)]
    fn run(self) -> Self::Answer {
        let Block { bytes, n, low } = self.block;
        let (block, rest) = Block { bytes, n, low }.run()?;
        let Some(rest) = rest else { return Ok((block, None)) };
        let gaps = low.iter().take(n).map(|&gap| u32::from(gap)).sum::<u32>();
        ascend(low, self.next);
        let end = self.next + u64::from(gaps) + n as u64;
        Ok((block, Some((rest, end))))
    }
}

/// Decodes the genes of a block, which follow those below `next`, off the front of `bytes`. Answers
/// what is behind, and past which gene it goes on.
fn decode_genes<'a, G: Gene>(
    bytes: &'a [u8],
    n_vars: u64,
    next: u64,
    genes: &mut [G],
) -> Result<(&'a [u8], u64)> {
    let n = genes.len();
    let mut low = [0u16; BLOCK];
    let past = |end: u64| {
        // Genes only ascend: if the last is below n_vars, so are all.
        if end <= n_vars {
            return Ok(end);
        }
        Err(Error::corrupt(format!("gene index {} is not below n_vars, {n_vars}", end - 1)))
    };
    let block = Block { bytes, n, low: &mut low };
    let (block, rest) = if n_vars <= 1 << 16 {
        let (block, done) = vector::run(GeneBlock { block, next })?;
        if let Some((rest, end)) = done {
            let end = past(end)?;
            for (gene, &this) in genes.iter_mut().zip(&low) {
                *gene = G::of(this.into());
            }
            return Ok((rest, end));
        }
        (block, None)
    } else {
        vector::run(block)?
    };
    let mut wide = low.map(u32::from);
    let rest = match rest {
        Some(rest) => rest,
        None => block.exceptions(|i, high| wide[i] |= high)?,
    };
    let mut end = next;
    for (gene, &gap) in genes.iter_mut().zip(&wide) {
        let this = end + u64::from(gap);
        *gene = G::of(this);
        end = this + 1;
    }
    Ok((rest, past(end)?))
}

/// Decodes the counts of a block off the front of `bytes`. Answers what is behind, and whether the type
/// holds them.
fn decode_counts<'a, T: Target>(bytes: &'a [u8], values: &mut [T]) -> Result<(&'a [u8], bool)> {
    let mut low = [0u16; BLOCK];
    let (block, rest) = vector::run(Block { bytes, n: values.len(), low: &mut low })?;
    let more = u16::from(!block.flag);
    if let Some(rest) = rest {
        return Ok((rest, T::of_block(&low, more, values)));
    }
    let mut fits = T::of_block(&low, more, values);
    let rest = block.exceptions(|i, high| {
        let count = (u32::from(low[i]) | high).checked_add(more.into());
        let (count, fit) = count.map_or_else(|| (T::of_count(0).0, false), T::of_count);
        values[i] = count;
        fits &= fit;
    })?;
    Ok((rest, fits))
}

/// Decodes a row of as many non-zeros as there are places.
pub(super) fn decode<G: Gene, T: Target>(
    bytes: &[u8],
    n_vars: u64,
    genes: &mut [G],
    values: &mut [T],
) -> Result<()> {
    let (sum, body) = bytes.split_first_chunk::<4>().ok_or_else(|| damaged("it ends too early"))?;
    if checksum(body, genes.len()) != *sum {
        return Err(damaged("its checksum is wrong"));
    }
    let (&mode, mut rest) = body.split_first().ok_or_else(|| damaged("it ends too early"))?;
    let (mut next, mut fits) = (0u64, true);
    for (genes, values) in genes.chunks_mut(BLOCK).zip(values.chunks_mut(BLOCK)) {
        (rest, next) = decode_genes(rest, n_vars, next, genes)?;
        if mode == 0 {
            let (behind, fit) = decode_counts(rest, values)?;
            rest = behind;
            fits &= fit;
        }
    }
    if mode != 0 {
        let kind = type_of(mode).ok_or_else(|| damaged("its values are of an unknown type"))?;
        rest = decode_raw(rest, kind, values)?;
    }
    if !fits {
        return Err(damaged("it has a count that the matrix's type does not hold"));
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged("it has bytes too many")) }
}

fn decode_raw<'a, T: Target>(
    bytes: &'a [u8],
    kind: ValueType,
    values: &mut [T],
) -> Result<&'a [u8]> {
    let (raw, rest) = bytes
        .split_at_checked(values.len() * kind.size())
        .ok_or_else(|| damaged("it ends too early"))?;
    let mut raw = raw.to_vec();
    if cfg!(target_endian = "big") {
        raw.chunks_exact_mut(kind.size()).for_each(<[u8]>::reverse);
    }
    let stored = Values::from_bytes(kind, raw.into())?;
    let cast = stored
        .cast(T::TYPE)
        .map_err(|_| damaged("it has a value that the matrix's type does not hold"))?;
    let typed = cast.as_slice::<T>().ok_or_else(|| Error::internal("a cast gave another type"))?;
    values.copy_from_slice(typed);
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize, stride: u32) -> Vec<u32> {
        (0..n as u32).map(|i| i * stride + (i % 3)).collect()
    }

    #[test]
    fn rows_of_all_lengths_come_back() {
        for n in [0usize, 1, 2, 127, 128, 129, 1000] {
            for stride in [3u32, 40, 4_000_000] {
                let genes = row(n, stride);
                let n_vars = u64::from(genes.last().map_or(1, |g| g + 1));
                let counts: Vec<u32> =
                    (0..n as u32).map(|i| if i % 50 == 7 { 595_310 } else { i % 4 }).collect();
                let mut bytes = Vec::new();
                encode(genes.iter().copied(), &RowValues::Counts(&counts), &mut bytes);
                let (mut g, mut v) = (vec![0u32; n], vec![0u32; n]);
                decode(&bytes, n_vars, &mut g, &mut v).unwrap();
                assert_eq!((&g, &v), (&genes, &counts));
                let mut narrow = vec![0u8; n];
                let fits = counts.iter().all(|&c| c < 256);
                assert_eq!(decode(&bytes, n_vars, &mut g, &mut narrow).is_ok(), fits);
                if n > 0 {
                    assert!(decode(&bytes, n_vars - 1, &mut g, &mut v).is_err());
                    assert!(decode(&bytes, n_vars, &mut g[1..], &mut v[1..]).is_err());
                    for i in 0..bytes.len() {
                        let mut damaged = bytes.clone();
                        damaged[i] ^= 0x10;
                        assert!(decode(&damaged, n_vars, &mut g, &mut v).is_err(), "byte {i}");
                    }
                }
            }
        }
    }

    #[test]
    fn genes_and_counts_at_the_edges_of_16_bits_come_back() {
        let every: Vec<u32> = (0..1 << 16).collect();
        let mut state = 1u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut rows = vec![every, vec![65_535], vec![0, 65_535], vec![0, 1, 65_534, 65_535]];
        for n in [5usize, 128, 300, 2000] {
            let mut genes: Vec<u32> = (0..n).map(|_| draw(1 << 16)).collect();
            genes.sort_unstable();
            genes.dedup();
            rows.push(genes);
        }
        let counts = [0u32, 1, 2, 65_534, 65_535, 65_536, 1 << 24, u32::MAX];
        for genes in &rows {
            for most in 2..counts.len() {
                let wanted: Vec<u32> =
                    genes.iter().map(|_| counts[draw(most as u32 + 1) as usize]).collect();
                let mut bytes = Vec::new();
                encode(genes.iter().copied(), &RowValues::Counts(&wanted), &mut bytes);
                let n = genes.len();
                let (mut g, mut v) = (vec![0u16; n], vec![0u32; n]);
                decode(&bytes, 1 << 16, &mut g, &mut v).unwrap();
                assert!(g.iter().map(|&g| u32::from(g)).eq(genes.iter().copied()));
                assert_eq!(v, wanted);
                let mut narrow = vec![0u16; n];
                let fits = wanted.iter().all(|&c| c < 1 << 16);
                assert_eq!(decode(&bytes, 1 << 16, &mut g, &mut narrow).is_ok(), fits);
                assert!(!fits || narrow.iter().map(|&c| u32::from(c)).eq(wanted));
                let last = u64::from(genes[n - 1]);
                assert!(decode(&bytes, last, &mut g, &mut v).is_err());
            }
        }
    }

    #[test]
    fn values_that_are_no_counts_come_back() {
        let genes = row(300, 7);
        let values: Vec<f32> = (0..300).map(|i| i as f32 * 0.25 - 3.0).collect();
        let raw = shrink(&values.clone().into()).unwrap();
        let mut bytes = Vec::new();
        encode(genes.iter().copied(), &RowValues::Raw(raw), &mut bytes);
        let (mut g, mut v) = (vec![0u16; 300], vec![0f32; 300]);
        decode(&bytes, 4096, &mut g, &mut v).unwrap();
        assert_eq!(v, values);
        let mut wide = vec![0f64; 300];
        decode(&bytes, 4096, &mut g, &mut wide).unwrap();
        assert!(wide.iter().zip(&values).all(|(w, v)| *w == f64::from(*v)));
        assert!(decode(&bytes, 4096, &mut g, &mut vec![0u8; 300]).is_err());
    }
}
