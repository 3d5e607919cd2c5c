//! Blosc's byte shuffle undone: byte `k` of all items lies in plane `k`, one plane after the other.

use std::ops::Range;

/// Writes bytes `range` of the items of a shuffled block to `to`, which has the range's length. What is
/// left of a block past the last whole item is not shuffled.
pub(super) fn unshuffle(block: &[u8], size: usize, range: &Range<usize>, to: &mut [u8]) {
    let n = block.len() / size;
    let whole =
        range.start.is_multiple_of(size) && range.end.is_multiple_of(size) && range.end <= n * size;
    let items = range.start / size..range.end / size;
    match size {
        2 if whole => two(&block[..n], &block[n..n * 2], items, to),
        4 if whole => four(block, n, items, to),
        8 if whole => eight(block, n, items, to),
        _ => {
            for (at, to) in range.clone().zip(to) {
                let shuffled = at < n * size;
                *to = block[if shuffled { at % size * n + at / size } else { at }];
            }
        }
    }
}

fn two(low: &[u8], high: &[u8], items: Range<usize>, to: &mut [u8]) {
    let (out, _) = to.as_chunks_mut::<2>();
    for ((to, a), b) in out.iter_mut().zip(&low[items.clone()]).zip(&high[items]) {
        *to = (u16::from(*a) | u16::from(*b) << 8).to_le_bytes();
    }
}

fn four(block: &[u8], n: usize, items: Range<usize>, to: &mut [u8]) {
    let plane = |k: usize| &block[k * n + items.start..k * n + items.end];
    let (out, _) = to.as_chunks_mut::<4>();
    let low = plane(0).iter().zip(plane(1));
    let high = plane(2).iter().zip(plane(3));
    for ((to, (a, b)), (c, d)) in out.iter_mut().zip(low).zip(high) {
        let word = u32::from(*a) | u32::from(*b) << 8 | u32::from(*c) << 16 | u32::from(*d) << 24;
        *to = word.to_le_bytes();
    }
}

fn eight(block: &[u8], n: usize, items: Range<usize>, to: &mut [u8]) {
    let plane = |k: usize| &block[k * n + items.start..k * n + items.end];
    let planes: [&[u8]; 8] = std::array::from_fn(plane);
    let (out, _) = to.as_chunks_mut::<8>();
    for (i, to) in out.iter_mut().enumerate().take(items.len()) {
        *to = std::array::from_fn(|k| planes[k][i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_possible_truncation)]
    fn any_range_of_any_size() {
        for size in [1, 2, 3, 4, 7, 8, 16] {
            for length in [0, 1, 15, 16, 129, 1000] {
                let plain: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
                let n = length / size;
                let mut block = plain.clone();
                for i in 0..n {
                    for k in 0..size {
                        block[k * n + i] = plain[i * size + k];
                    }
                }
                for start in [0, 1, size, 4 * size, length / 2 / size * size, length] {
                    for end in [start, start + size, start + 1, n * size, length] {
                        if start <= end && end <= length {
                            let mut to = vec![0; end - start];
                            unshuffle(&block, size, &(start..end), &mut to);
                            assert_eq!(to, plain[start..end], "{size} {length} {start}..{end}");
                        }
                    }
                }
            }
        }
    }
}
