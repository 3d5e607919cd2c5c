//! Chunks in a grid of several dimensions.

use super::{as_u64, to_usize};

/// Every place of a grid, in row-major order.
pub(super) fn all(grid: &[u64]) -> Vec<Vec<u64>> {
    let mut out = vec![Vec::new()];
    for n in grid {
        out = out
            .into_iter()
            .flat_map(|head: Vec<u64>| {
                (0..*n).map(move |i| head.iter().copied().chain([i]).collect())
            })
            .collect();
    }
    out
}

/// Copies a chunk to its place in an array, row by row.
pub(super) fn place(
    out: &mut [u8],
    bytes: &[u8],
    shape: &[u64],
    inner: &[u64],
    chunk: &[u64],
    item: usize,
) {
    rows(shape, inner, chunk, |from, to, length| {
        let (from, to, length) = (from * item, to * item, length * item);
        out[to..to + length].copy_from_slice(&bytes[from..from + length]);
    });
}

/// Writes an element to all places of a chunk in an array.
pub(super) fn fill(out: &mut [u8], value: &[u8], shape: &[u64], inner: &[u64], chunk: &[u64]) {
    let item = value.len();
    rows(shape, inner, chunk, |_, to, length| {
        let row = &mut out[to * item..(to + length) * item];
        row.chunks_exact_mut(item).for_each(|place| place.copy_from_slice(value));
    });
}

/// The rows of a chunk that are within the array: where each begins in the chunk and in the array, and
/// its length, in elements.
fn rows(shape: &[u64], inner: &[u64], chunk: &[u64], mut each: impl FnMut(usize, usize, usize)) {
    let Some(last) = shape.len().checked_sub(1) else {
        each(0, 0, 1);
        return;
    };
    let start: Vec<u64> = chunk.iter().zip(inner).map(|(c, i)| c * i).collect();
    let valid: Vec<u64> = start
        .iter()
        .zip(inner)
        .zip(shape)
        .map(|((s, i), n)| (*i).min(n.saturating_sub(*s)))
        .collect();
    let rows: u64 = valid[..last].iter().product();
    for row in 0..rows {
        let (mut rest, mut from, mut to) = (row, 0, 0);
        let (mut from_step, mut to_step) = (inner[last], shape[last]);
        for d in (0..last).rev() {
            let at = rest % valid[d];
            rest /= valid[d];
            from += at * from_step;
            to += (start[d] + at) * to_step;
            from_step *= inner[d];
            to_step *= shape[d];
        }
        each(to_usize(from), to_usize(to + start[last]), to_usize(valid[last]));
    }
}

/// Undoes a transpose: `order[i]` is the dimension that is stored `i`-th.
pub(super) fn untranspose(bytes: &[u8], shape: &[u64], order: &[usize], item: usize) -> Vec<u8> {
    let stored: Vec<u64> = order.iter().map(|&d| shape[d]).collect();
    let mut strides = vec![1u64; shape.len()];
    for i in (0..stored.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * stored[i + 1];
    }
    let mut out = vec![0; bytes.len()];
    for (n, to) in out.chunks_exact_mut(item.max(1)).enumerate() {
        let (mut rest, mut from) = (as_u64(n), 0);
        for d in (0..shape.len()).rev() {
            let at = rest % shape[d];
            rest /= shape[d];
            let place = order.iter().position(|&o| o == d).unwrap_or(0);
            from += at * strides[place];
        }
        let from = to_usize(from) * item;
        to.copy_from_slice(&bytes[from..from + item]);
    }
    out
}
