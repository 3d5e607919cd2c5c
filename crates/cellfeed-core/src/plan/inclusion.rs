//! Weighted sampling without replacement: an epoch has as many cells as it draws, each at most once,
//! with a probability in proportion to its weight as far as no probability can be above 1.
//!
//! Which cells an epoch has is a systematic sample (Madow, 1949): on a line each cell has a piece as
//! long as its probability, and cells whose piece one of the points `u, u + 1, u + 2, ..` hits are
//! chosen. So the chosen cells are numbered in file order without a list of them: block shuffling then
//! runs over these numbers. Lengths are integers, so that counts are exact.

use super::random::{Purpose, Stream};
use super::subset::Subset;
use super::weighted::Weights;
use crate::rows::RowRanges;
use crate::{Error, Result, as_u64};
use std::ops::Range;
use std::sync::Arc;

/// The line of a plan: for each block where its pieces end, 8 bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Inclusion {
    weights: Weights,
    /// A cell's probability is its weight times this, at most 1.
    scale: f64,
    /// The length 1 is `1 << bits`.
    bits: u32,
    ends: Arc<[u64]>,
    draws: u64,
    block_size: u64,
    digest: u64,
}

impl Eq for Inclusion {}

impl Inclusion {
    /// The line of `draws` cells; as many as leave all probabilities in proportion, if not said.
    pub(super) fn new(
        weights: Weights,
        subset: &Subset,
        block_size: u64,
        draws: Option<u64>,
    ) -> Result<Self> {
        let sums = weights.checked_sums(subset)?;
        let most = sums.positive;
        // A sum of equal shares may fall short of a whole number by rounding.
        let exact = (sums.total / sums.heaviest * (1.0 + 1e-9)).floor();
        // Not negative, and compared with the most.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let draws = draws.unwrap_or((exact as u64).clamp(1, most));
        if draws > most {
            return Err(Error::invalid_input(format!(
                "{draws} cells cannot be drawn without replacement: the subset has {most} whose \
                 weight is above 0; draw at most as many, or draw with replacement"
            )));
        }
        if draws >= 1 << 40 {
            return Err(Error::invalid_input(format!("{draws} draws are 2^40 or more")));
        }
        // The whole line is 2^62 long at most.
        let bits = ((draws + 1).leading_zeros() - 2).min(52);
        let scale = scale(&weights, subset, draws, most);
        let mut this = Self {
            digest: weights.digest(subset),
            weights,
            scale,
            bits,
            ends: Arc::from([]),
            draws,
            block_size,
        };
        let mut ends = Vec::new();
        let (mut end, mut pieces) = (0, Vec::new());
        for block in 0..subset.n_cells().div_ceil(block_size) {
            this.pieces(subset, block, &mut pieces);
            end += pieces.iter().sum::<u64>();
            ends.push(end);
        }
        this.ends = ends.into();
        if end <= (draws - 1) << bits {
            return Err(Error::invalid_input(
                "the weights differ by too many orders of magnitude to draw without replacement",
            ));
        }
        Ok(this)
    }

    /// Cells of an epoch.
    pub(super) fn draws(&self) -> u64 {
        self.draws
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// How long the piece of each cell of a block is, in file order: rounded to integers so that they add
    /// up to the rounded sum.
    fn pieces(&self, subset: &Subset, block: u64, out: &mut Vec<u64>) {
        out.clear();
        let one = 1u64 << self.bits;
        let (mut sum, mut given) = (0.0, 0u64);
        let mut rows = RowRanges::empty();
        subset.rows(self.cells(subset, block), &mut rows);
        for row in rows.iter_rows() {
            let weight = self.weights.of(usize::try_from(row).unwrap_or(usize::MAX));
            if weight <= 0.0 {
                out.push(0);
                continue;
            }
            sum += (weight * self.scale).min(1.0);
            // Below 2^62, and not negative.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let upto = (sum * one as f64).round() as u64;
            let piece = upto.saturating_sub(given).min(one);
            given += piece;
            out.push(piece);
        }
    }

    fn cells(&self, subset: &Subset, block: u64) -> Range<u64> {
        block * self.block_size..((block + 1) * self.block_size).min(subset.n_cells())
    }

    /// The cells of one epoch.
    pub(super) fn epoch<'a>(&'a self, subset: &'a Subset, seed: u64, epoch: u64) -> Chosen<'a> {
        let end = self.ends.last().copied().unwrap_or(0);
        // Every point is on the line, also where rounding made it a little short.
        let room = end.saturating_sub((self.draws - 1) << self.bits).clamp(1, 1 << self.bits);
        let first = Stream::new(seed, epoch, Purpose::FirstPoint, 0).below(room);
        Chosen { line: self, subset, seed, epoch, first }
    }
}

/// The factor that makes probabilities of weights: those above 1 are cut, until the rest adds up.
fn scale(weights: &Weights, subset: &Subset, draws: u64, most: u64) -> f64 {
    if draws == most {
        return f64::INFINITY;
    }
    let mut limit = f64::INFINITY;
    let mut cut = 0;
    loop {
        let sums = weights.sums(subset, limit);
        let scale = (draws - cut) as f64 / sums.total;
        let below = weights.sums(subset, 1.0 / scale);
        let now = most - below.positive;
        if now <= cut || now >= draws {
            return scale;
        }
        (cut, limit) = (now, 1.0 / scale);
    }
}

/// The cells of an epoch, numbered in file order.
pub(super) struct Chosen<'a> {
    line: &'a Inclusion,
    subset: &'a Subset,
    seed: u64,
    epoch: u64,
    /// The first point.
    first: u64,
}

impl Chosen<'_> {
    /// Appends the rows of the chosen cells numbered `span`.
    pub(super) fn rows(&self, span: Range<u64>, out: &mut RowRanges) {
        let line = self.line;
        let mut pieces = Vec::new();
        let mut at = span.start;
        while at < span.end {
            let point = self.point(at);
            let block = line.ends.partition_point(|&end| end <= point);
            let start = block.checked_sub(1).and_then(|b| line.ends.get(b)).copied().unwrap_or(0);
            line.pieces(self.subset, as_u64(block), &mut pieces);
            // The pieces lie in random order, so that which cells come together differs by epoch.
            let mut order: Vec<u32> = (0..).take(pieces.len()).collect();
            Stream::new(self.seed, self.epoch, Purpose::PieceOrder, as_u64(block))
                .shuffle(&mut order);
            let (first, mut number) = (self.points_before(start), self.points_before(start));
            let mut end = start;
            let mut hit = Vec::new();
            for cell in order {
                let piece = usize::try_from(cell).ok().and_then(|c| pieces.get(c));
                end += piece.copied().unwrap_or(0);
                // No piece is longer than the distance of points.
                if number < line.draws && self.point(number) < end {
                    hit.push(u64::from(cell));
                    number += 1;
                }
            }
            hit.sort_unstable();
            let cells = line.cells(self.subset, as_u64(block)).start;
            let skip = usize::try_from(at - first).unwrap_or(usize::MAX);
            let take = usize::try_from(span.end - at).unwrap_or(usize::MAX);
            for cell in hit.iter().skip(skip).take(take).map(|c| cells + c) {
                self.subset.rows(cell..cell + 1, out);
            }
            // A block that a point is in has a chosen cell.
            at = number.max(at + 1);
        }
    }

    fn point(&self, number: u64) -> u64 {
        self.first + (number << self.line.bits)
    }

    /// How many points lie before a place.
    fn points_before(&self, place: u64) -> u64 {
        match place.checked_sub(self.first) {
            None | Some(0) => 0,
            Some(past) => past.div_ceil(1 << self.line.bits).min(self.line.draws),
        }
    }
}
