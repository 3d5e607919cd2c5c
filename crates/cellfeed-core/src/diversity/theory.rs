//! What a strategy is expected to give for a label as it lies on disk.

use super::deff::{SharedBlocks, Window};
use super::entropy::{
    entropy_bounds, expected_entropy_pure_blocks, expected_entropy_random,
    expected_entropy_without_replacement, normalised, second_order, shares_entropy,
};
use super::labels::Labels;
use super::stretches::{Stretches, entropy_of_fetches, shared_in_cut_fetches};
use crate::as_u64;
use crate::{Error, Result};

/// What diversity depends on in a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sampling {
    /// File order.
    Streaming,
    /// File order, cells shuffled in each fetch.
    StreamingShuffled,
    /// Blocks of `block_size` cells in random order, cells shuffled in each fetch. True random is
    /// blocks of one cell.
    Blocks {
        /// Cells of a block.
        block_size: u64,
    },
}

/// What is expected of minibatches. Entropies are in bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// The expected entropy of a minibatch, for the label as it lies in this store: see
    /// [`expected`].
    pub entropy: f64,
    /// The same if every block had one label: [`expected_entropy_pure_blocks`]; for strategies with
    /// blocks.
    pub entropy_pure_blocks: Option<f64>,
    /// To second order: `H(p) - (K - 1)/(2 ln 2) * DEFF / m`, with labels weighed by `1 / p_k`.
    pub entropy_second_order: f64,
    /// What `f = 1` gives with blocks of one label; for strategies with blocks.
    pub lower_bound: Option<f64>,
    /// What independent draws give.
    pub upper_bound: f64,
    /// The entropy of the label in the whole store.
    pub entropy_store: f64,
    /// The correlation of labels within blocks (0 for blocks of one cell); without blocks, within
    /// what is shuffled together: a fetch or, unshuffled, a minibatch.
    pub rho: f64,
    /// The design effect of one minibatch; `None` for a label with one value.
    pub deff_1: Option<f64>,
    /// The design effect of the mean of `w` consecutive ones.
    pub deff_w: Option<f64>,
}

/// What a strategy is expected to give with minibatches of `m` cells, `f` minibatches a fetch and
/// windows of `w` minibatches, for a label as it lies in its store. A few passes over the codes.
///
/// - **Streaming:** the mean over all stretches of `m` cells of the file, which are the minibatches.
/// - **Streaming shuffled:** the mean over all stretches of `F = m f` cells of
///   `sum_k sum_j Hypergeometric(j; F, h_k, m) phi(j / m)`, with `h_k` the counts of labels there.
/// - **Blocks of one cell:** `m` cells drawn without replacement from all `n`.
/// - **Blocks:** as [`expected_entropy_pure_blocks`], but with the label counts that the blocks of this
///   file have in place of one label a block, and with a correction to second order for blocks that
///   are drawn without replacement from a file of `n` cells.
///
/// In design effects two cells of different blocks have the correlation
/// `rho_x = -(1 + (b - 1) rho)/(n - b)`, since an epoch draws without replacement; without blocks all
/// correlations are those counted on disk. If `f` minibatches are more than the store has, a fetch is
/// the store. The shorter last fetch of an epoch counts by its minibatches. Where `b` does not divide `F`
/// the mean is over the places at which fetches cut blocks, at most sixteen of them for `entropy`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a size of zero, a window of more
/// than 2^20 minibatches, and for a store with fewer cells than a minibatch.
pub fn expected(labels: &Labels, sampling: Sampling, m: u64, f: u64, w: u64) -> Result<Expected> {
    let n = as_u64(labels.codes().len());
    let block = if let Sampling::Blocks { block_size } = sampling { block_size } else { 1 };
    for (value, name) in
        [(m, "batch_size"), (f, "fetch_factor"), (w, "the window"), (block, "block_size")]
    {
        if value == 0 {
            return Err(Error::invalid_input(format!("{name} is 0; it must be at least 1")));
        }
    }
    if w > 1 << 20 {
        return Err(Error::invalid_input(format!("a window of {w} minibatches is above 2^20")));
    }
    if n == 0 {
        return Err(Error::invalid_input("there are no cells, and so no minibatches"));
    }
    if n < m {
        return Err(Error::invalid_input(format!(
            "{n} cells fill no minibatch of {m}; batch_size must be {n} or less"
        )));
    }
    // A fetch that is larger than the store is the store.
    let store = Store { labels, n, m, f: f.min((n / m).max(1)), w };
    let counts: Vec<f64> = labels.counts().iter().map(|&c| c as f64).collect();
    let found = match sampling {
        Sampling::Streaming => store.stretches(labels.codes(), 1),
        Sampling::StreamingShuffled => {
            let full = usize::try_from(n - n % (m * store.f)).unwrap_or(usize::MAX);
            let (full, last) = labels.codes().split_at(full);
            // The last fetch is one stretch, of as many whole minibatches as it has.
            store.with_last(|f| store.stretches(if f == store.f { full } else { last }, f))
        }
        Sampling::Blocks { block_size } => store.with_last(|f| store.blocks(block_size.min(n), f)),
    };
    let Found { entropy, rho, deff_of_entropy, deff_1: one, deff_w: many } = found;
    let shares = normalised(&counts);
    let varies = shares.len() > 1;
    let bounds = |b: u64| entropy_bounds(&counts, m, b).0;
    let blocks = matches!(sampling, Sampling::Blocks { .. }).then_some(block);
    Ok(Expected {
        entropy,
        entropy_pure_blocks: blocks.map(|b| expected_entropy_pure_blocks(&counts, m, b, store.f)),
        entropy_second_order: second_order(&shares, m, deff_of_entropy),
        lower_bound: blocks.map(bounds),
        upper_bound: expected_entropy_random(&counts, m),
        entropy_store: shares_entropy(&counts),
        rho,
        deff_1: varies.then_some(one),
        deff_w: varies.then_some(many),
    })
}

struct Store<'a> {
    labels: &'a Labels,
    n: u64,
    m: u64,
    f: u64,
    w: u64,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    entropy: f64,
    rho: f64,
    /// The design effect with labels weighed as the entropy weighs them.
    deff_of_entropy: f64,
    deff_1: f64,
    deff_w: f64,
}

impl Store<'_> {
    /// The mean over minibatches of full fetches and of the shorter last one, which has `f` of its own.
    fn with_last(&self, of: impl Fn(u64) -> Found) -> Found {
        let fetch = self.m * self.f;
        let last = self.n % fetch / self.m;
        let full = of(self.f);
        if last == 0 {
            return full;
        }
        let short = of(last);
        let share = last as f64 / (self.n / fetch * self.f + last) as f64;
        let mean = |full: f64, short: f64| full + share * (short - full);
        Found {
            entropy: mean(full.entropy, short.entropy),
            rho: full.rho,
            deff_of_entropy: mean(full.deff_of_entropy, short.deff_of_entropy),
            deff_1: mean(full.deff_1, short.deff_1),
            deff_w: mean(full.deff_w, short.deff_w),
        }
    }

    /// Streaming, with a shuffle inside each `f` minibatches.
    fn stretches(&self, codes: &[u32], f: u64) -> Found {
        let counts = self.labels.counts();
        let (one, many) = (Window::new(self.m, f, 1), Window::new(self.m, f, self.w));
        let stretches = Stretches::count(codes, counts.len(), self.m * f, many.reach());
        let within = stretches.within(counts);
        let correlation = |e: usize| if e == 0 { within } else { stretches.across(e, counts) };
        Found {
            entropy: stretches.entropy_of_draws(self.m),
            rho: within,
            deff_of_entropy: one.deff(|_| stretches.within_for_entropy(counts)),
            deff_1: one.deff(correlation),
            deff_w: many.deff(correlation),
        }
    }

    fn blocks(&self, b: u64, f: u64) -> Found {
        let (labels, m) = (self.labels, self.m);
        let counts = labels.counts();
        let fetch = m * f;
        let (one, many) = (Window::new(m, f, 1), Window::new(m, f, self.w));
        let shared = SharedBlocks::new(b, fetch);
        // Blocks of more than a fetch are read in stretches of a fetch.
        let length = b.min(fetch);
        let reach = if b > fetch { many.reach() } else { 0 };
        let stretches = Stretches::count(labels.codes(), counts.len(), length, reach);
        let (rho, rho_entropy) = (stretches.within(counts), stretches.within_for_entropy(counts));
        // What cells of different blocks lack, since no block comes twice.
        let others = |rho: f64| {
            let rest = self.n.saturating_sub(b) as f64;
            if rest > 0.0 { -(1.0 + (b as f64 - 1.0) * rho) / rest } else { 0.0 }
        };
        // Of two cells of a fetch: how probably they share a block, times their correlation then.
        let cut = !fetch.is_multiple_of(b) && !b.is_multiple_of(fetch);
        let (alike, alike_entropy) = if cut {
            shared_in_cut_fetches(labels.codes(), counts, b, fetch)
        } else {
            (shared.at(0) * rho, shared.at(0) * rho_entropy)
        };
        let apart = |e: usize| 1.0 - shared.at(e);
        let correlation = |e: usize| match e {
            0 => alike + apart(0) * others(rho),
            _ if b > fetch => shared.at(e) * stretches.across(e, counts) + apart(e) * others(rho),
            _ => shared.at(e) * rho + apart(e) * others(rho),
        };
        let deff_entropy = one.deff(|_| alike_entropy + apart(0) * others(rho_entropy));
        let entropy = if b == 1 {
            expected_entropy_without_replacement(counts, m)
        } else if b.is_multiple_of(fetch) {
            stretches.entropy_of_draws(m)
        } else {
            let endless = one.deff(|_| alike_entropy);
            let entropy = entropy_of_fetches(labels.codes(), counts.len(), b, fetch, m);
            entropy + self.slope(entropy, endless) * (endless - deff_entropy)
        };
        Found {
            entropy,
            rho,
            deff_of_entropy: deff_entropy,
            deff_1: one.deff(correlation),
            deff_w: many.deff(correlation),
        }
    }

    /// By how many bits the entropy rises when the design effect falls by 1. With few labels that is
    /// `(K - 1)/(2 m ln 2)`; with more than a minibatch can hold it is far less. So it is taken from
    /// exact entropies: of independent cells against `entropy`, which has the design effect `deff`, or
    /// against cells drawn without replacement where `deff` is too near 1 to tell.
    fn slope(&self, entropy: f64, deff: f64) -> f64 {
        let counts = self.labels.counts();
        let shares: Vec<f64> = counts.iter().map(|&c| c as f64).collect();
        let independent = expected_entropy_random(&shares, self.m);
        if deff > 1.05 {
            return (independent - entropy) / (deff - 1.0);
        }
        let without = expected_entropy_without_replacement(counts, self.m);
        let step = (self.m as f64 - 1.0) / (self.n as f64 - 1.0).max(1.0);
        if step > 0.0 { (without - independent) / step } else { 0.0 }
    }
}
