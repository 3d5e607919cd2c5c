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

use super::bits::{BLOCK, pack, unpack};
use bytemuck::Pod;
use cellfeed_core::{Error, Result, Value, ValueSpan, ValueType, Values};
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
pub(super) trait Gene: Pod + Send + Sync {
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

targets!(u8, u16, u32, u64, i8, i16, i32, i64, f64);

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
    let mut low = [0u16; BLOCK];
    let mut wide = [0u32; BLOCK];
    let mut next = 0u64;
    let mut fits = true;
    for (genes, values) in genes.chunks_mut(BLOCK).zip(values.chunks_mut(BLOCK)) {
        let n = genes.len();
        let block = unpack(rest, n, &mut low)?;
        for (gap, &bits) in wide.iter_mut().zip(&low) {
            *gap = bits.into();
        }
        rest = block.exceptions(|i, high| wide[i] |= high)?;
        for (gene, &gap) in genes.iter_mut().zip(&wide) {
            let this = next + u64::from(gap);
            *gene = G::of(this);
            next = this + 1;
        }
        // Genes only ascend: if the last is below n_vars, so are all.
        if next > n_vars {
            return Err(Error::corrupt(format!(
                "gene index {} is not below n_vars, {n_vars}",
                next - 1
            )));
        }
        if mode == 0 {
            let block = unpack(rest, n, &mut low)?;
            let more = u32::from(!block.flag);
            for (value, &bits) in values.iter_mut().zip(&low) {
                let (count, fit) = T::of_count(u32::from(bits) + more);
                *value = count;
                fits &= fit;
            }
            let mut overflow = false;
            rest = block.exceptions(|i, high| {
                let count = (u32::from(low[i]) | high).checked_add(more);
                overflow |= count.is_none();
                let (count, fit) = T::of_count(count.unwrap_or(0));
                values[i] = count;
                fits &= fit;
            })?;
            fits &= !overflow;
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
