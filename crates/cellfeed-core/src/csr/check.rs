//! The canonical form of rows: indices that ascend below a number.

use crate::spans::Origin;
use crate::vector::{self, Kernel};
use crate::{Error, Result};
use rayon::prelude::*;

/// What is still to be asked of rows whose gene indices were not looked at when they were read, and
/// where these lie.
///
/// Whoever copies rows has them in the processor's cache then, where looking is nearly free; a pass over
/// a whole fetch has to bring it from memory once more.
#[derive(Debug)]
pub struct RowCheck {
    pub(super) n_vars: u64,
    pub(super) sorting: bool,
    file: String,
    element: String,
}

impl RowCheck {
    /// Indices have to ascend strictly below `n_vars`; an error names file and element.
    #[must_use]
    pub fn new(n_vars: u64, file: impl Into<String>, element: impl Into<String>) -> Self {
        Self { n_vars, sorting: false, file: file.into(), element: element.into() }
    }

    /// Rows that are not sorted are sorted first: for stores that promise no order.
    #[must_use]
    pub fn sorting(mut self) -> Self {
        self.sorting = true;
        self
    }

    /// Says where an error is, which names its row.
    pub(super) fn blame(&self, error: Error) -> Error {
        error.with_default("file", &self.file).with_default("element", &self.element)
    }
}

/// Rows that one task checks.
const CHECK_ROWS: usize = 1024;

/// The first row whose indices do not strictly ascend below `n_vars`, if any. Large matrices are
/// checked in parallel, on the rayon threads of the caller.
pub fn first_bad_row<I: Copy + PartialOrd + Into<u64> + Sync>(
    indptr: &[u64],
    indices: &[I],
    n_vars: u64,
) -> Option<usize> {
    let n_rows = indptr.len().saturating_sub(1);
    let part = |k: usize| {
        let rows = k * CHECK_ROWS..((k + 1) * CHECK_ROWS).min(n_rows);
        let bad = first_bad_row_of(&indptr[rows.start..=rows.end], indices, n_vars);
        bad.map(|row| rows.start + row)
    };
    let parts = 0..n_rows.div_ceil(CHECK_ROWS);
    if parts.len() < 2 || rayon::current_thread_index().is_none() {
        return parts.into_iter().find_map(part);
    }
    let origin = Origin::here();
    let checked = parts.into_par_iter().map_init(|| origin.check(), |_, k| part(k));
    checked.find_map_first(|bad| bad)
}

fn first_bad_row_of<I: Copy + PartialOrd + Into<u64>>(
    indptr: &[u64],
    indices: &[I],
    n_vars: u64,
) -> Option<usize> {
    let mut start = usize::try_from(*indptr.first()?).unwrap_or(usize::MAX);
    for (row, window) in indptr.windows(2).enumerate() {
        let len = usize::try_from(window[1].saturating_sub(window[0])).unwrap_or(usize::MAX);
        let Some(genes) = indices.get(start..start.saturating_add(len)) else { return Some(row) };
        if !ascends(genes, n_vars) {
            return Some(row);
        }
        start += len;
    }
    None
}

/// Whether a row's indices strictly ascend below `n_vars`.
#[inline]
pub(super) fn ascends<I: Copy + PartialOrd + Into<u64>>(genes: &[I], n_vars: u64) -> bool {
    !vector::run(Falls(genes)) && genes.last().is_none_or(|&g| g.into() < n_vars)
}

/// Whether any of these is not more than the one before it.
struct Falls<'a, I>(&'a [I]);

impl<I: Copy + PartialOrd> Kernel for Falls<'_, I> {
    type Answer = bool;

    #[inline(always)]
    fn run(self) -> bool {
        // Branch-free, so that the compiler vectorises it.
        let next = self.0.get(1..).unwrap_or_default();
        self.0.iter().zip(next).fold(false, |bad, (a, b)| bad | (a >= b))
    }
}

pub(super) fn check_rows<I: Copy + PartialOrd + Into<u64> + Sync>(
    indptr: &[u64],
    indices: &[I],
    n_vars: u64,
) -> Result<()> {
    let Some(row) = first_bad_row(indptr, indices, n_vars) else { return Ok(()) };
    let at = |i: usize| usize::try_from(indptr[i]).unwrap_or(usize::MAX);
    let genes = indices.get(at(row)..at(row + 1)).unwrap_or_default();
    let what = match genes.windows(2).find(|w| w[0] >= w[1]) {
        Some(w) if w[0].into() == w[1].into() => format!("gene {} appears twice", w[0].into()),
        Some(w) => format!("gene {} comes after gene {}", w[1].into(), w[0].into()),
        None => format!(
            "gene index {} is not below n_vars, {n_vars}",
            genes.last().map_or(0, |&g| g.into())
        ),
    };
    Err(Error::corrupt(what).with("row", row))
}
