//! What a strategy is expected to give for a label as it lies on disk.

use super::deff::{SharedBlocks, Window};
use super::entropy::{
    entropy_bounds, expected_entropy_pure_blocks, expected_entropy_random,
    expected_entropy_without_replacement, normalised, second_order, shares_entropy,
};
use super::labels::Labels;
use super::strata::{Apart, Strata};
use super::stretches::{CutBlocks, Stretches, entropy_of_fetches};
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
    /// Blocks of `block_size` cells, of which each fetch takes one at random from each of as many equal
    /// stretches of the file as it has blocks; cells shuffled in each fetch.
    StratifiedBlocks {
        /// Cells of a block.
        block_size: u64,
    },
}

impl Sampling {
    fn block_size(self) -> Option<u64> {
        match self {
            Self::Blocks { block_size } | Self::StratifiedBlocks { block_size } => Some(block_size),
            Self::Streaming | Self::StreamingShuffled => None,
        }
    }
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
/// - **Stratified blocks:** with `b` a divisor of `F` and at most 256 blocks a fetch, the label counts of
///   the blocks of each stretch as distributions, added up; else from blocks, by the second order
///   in the design effect, which is near 1 then.
///
/// In design effects two cells of different blocks have the correlation
/// `rho_x = -(1 + (b - 1) rho)/(n - b)`, since an epoch draws without replacement; without blocks all
/// correlations are those counted on disk. With stratified blocks, the labels of the stretches are
/// counted: see `docs/diversity.md`. If `f` minibatches are more than the store has, a fetch is
/// the store. The shorter last fetch of an epoch counts by its minibatches. Where `b` does not divide `F`
/// the mean is over the places at which fetches cut blocks, at most sixteen of them for `entropy`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a size of zero, a window of more
/// than 2^20 minibatches, and for a store with fewer cells than a minibatch.
pub fn expected(labels: &Labels, sampling: Sampling, m: u64, f: u64, w: u64) -> Result<Expected> {
    expected_of(labels, sampling, None, m, f, w)
}

/// [`expected`] of [`Sampling::StratifiedBlocks`] over a list of blocks in another order than that of
/// the file, as by another label: `order` has the number of each full block once.
///
/// # Errors
/// As [`expected`]; and if `order` is not of as many blocks, or names one that there is not.
pub fn expected_in_order(
    labels: &Labels,
    block_size: u64,
    order: &[u32],
    m: u64,
    f: u64,
    w: u64,
) -> Result<Expected> {
    let full = as_u64(labels.codes().len()).checked_div(block_size).unwrap_or(0);
    if as_u64(order.len()) != full || order.iter().any(|&block| u64::from(block) >= full) {
        return Err(Error::invalid_input(format!(
            "the order of blocks must list each of the {full} full blocks of {block_size} cells once"
        )));
    }
    expected_of(labels, Sampling::StratifiedBlocks { block_size }, Some(order), m, f, w)
}

fn expected_of(
    labels: &Labels,
    sampling: Sampling,
    order: Option<&[u32]>,
    m: u64,
    f: u64,
    w: u64,
) -> Result<Expected> {
    let n = as_u64(labels.codes().len());
    let block = sampling.block_size().unwrap_or(1);
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
        Sampling::StratifiedBlocks { block_size } => {
            let b = block_size.min(n);
            let per_fetch = (m * store.f / b).max(1);
            let strata = Strata::new(labels.codes(), labels.counts(), b, per_fetch, order);
            let apart = strata.apart();
            store.with_last(|f| store.stratified(b, f, per_fetch, strata, &apart))
        }
    };
    let Found { entropy, rho, deff_of_entropy, deff_1: one, deff_w: many } = found;
    let shares = normalised(&counts);
    let varies = shares.len() > 1;
    let bounds = |b: u64| entropy_bounds(&counts, m, b).0;
    let blocks = sampling.block_size();
    let entropy_store = shares_entropy(&counts);
    Ok(Expected {
        // What is estimated of blocks may pass in tiny stores what no mean over minibatches can.
        entropy: if blocks.is_some() { entropy.min(entropy_store) } else { entropy },
        entropy_pure_blocks: blocks.map(|b| expected_entropy_pure_blocks(&counts, m, b, store.f)),
        entropy_second_order: second_order(&shares, m, deff_of_entropy),
        lower_bound: blocks.map(bounds),
        upper_bound: expected_entropy_random(&counts, m),
        entropy_store,
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
        let alike = self.alike(b, f);
        // What cells of different blocks lack, since no block comes twice.
        let others = |rho: f64| {
            let rest = self.n.saturating_sub(b) as f64;
            if rest > 0.0 { -(1.0 + (b as f64 - 1.0) * rho) / rest } else { 0.0 }
        };
        let different = |e: usize, x: usize| (1.0 - alike.shared.at(e)) * others(alike.rho[x]);
        let found = alike.found(different);
        let (counts, m, fetch) = (self.labels.counts(), self.m, self.m * f);
        let entropy = if b == 1 {
            expected_entropy_without_replacement(counts, m)
        } else if b.is_multiple_of(fetch) {
            alike.stretches.entropy_of_draws(m)
        } else {
            let endless = alike.found(|_, _| 0.0).deff_of_entropy;
            let entropy = entropy_of_fetches(self.labels.codes(), counts.len(), b, fetch, m);
            entropy + self.slope(entropy, endless) * (endless - found.deff_of_entropy)
        };
        Found { entropy, ..found }
    }

    /// Stratified blocks; `per_fetch` of them in a fetch that is not the last.
    fn stratified(
        &self,
        b: u64,
        f: u64,
        per_fetch: u64,
        strata: Strata<'_>,
        apart: &Apart,
    ) -> Found {
        let uniform = self.blocks(b, f);
        if per_fetch == 1 {
            // One stretch, the whole list.
            return uniform;
        }
        let alike = self.alike(b, f);
        // A group of blocks, one of each stretch, is to a fetch what a block is.
        let group = SharedBlocks::new(b * per_fetch, self.m * self.f);
        let last = f < self.f;
        let found = alike.found(|e, x| {
            let shared = alike.shared.at(e);
            if last && e == 0 {
                return (1.0 - shared) * apart.in_last[x];
            }
            let together = group.at(e);
            (together - shared).max(0.0) * apart.in_fetch[x] + (1.0 - together) * apart.across[x]
        });
        let exact = (self.m * self.f).is_multiple_of(b).then_some(());
        let cells = if last { strata.rest() * b } else { self.m * f };
        let exact = exact.filter(|()| cells >= self.m);
        let exact = exact.and_then(|()| strata.entropy_of_fetches(cells, self.m, last));
        let entropy = exact.unwrap_or_else(|| {
            self.entropy_at(found.deff_of_entropy, uniform.entropy, uniform.deff_of_entropy)
        });
        Found { entropy, ..found }
    }

    /// What any order of blocks has in common: the cells of one block.
    fn alike(&self, b: u64, f: u64) -> Alike {
        let (codes, counts) = (self.labels.codes(), self.labels.counts());
        let fetch = self.m * f;
        let (one, many) = (Window::new(self.m, f, 1), Window::new(self.m, f, self.w));
        let shared = SharedBlocks::new(b, fetch);
        // Blocks of more than a fetch are read in stretches of a fetch.
        let reach = if b > fetch { many.reach() } else { 0 };
        let stretches = Stretches::count(codes, counts.len(), b.min(fetch), reach);
        let rho = [stretches.within(counts), stretches.within_for_entropy(counts)];
        let cut = (!fetch.is_multiple_of(b) && !b.is_multiple_of(fetch))
            .then(|| CutBlocks::count(codes, counts, b, fetch));
        let within = cut.map_or_else(|| rho.map(|rho| shared.at(0) * rho), |cut| cut.within);
        let across = |e: usize| match cut {
            Some(cut) if b < fetch && e == 1 => cut.next,
            _ if b > fetch => shared.at(e) * stretches.across(e, counts),
            _ => shared.at(e) * rho[0],
        };
        let across = (1..=many.reach()).map(across).collect();
        Alike { one, many, shared, stretches, rho, within, across }
    }

    /// The entropy where the design effect is `deff`, from another at which it is known. Above 1 it
    /// is about linear in the logarithm of the design effect, since that is to the entropy what the
    /// number of independent cells is.
    fn entropy_at(&self, deff: f64, known: f64, deff_of_known: f64) -> f64 {
        if deff_of_known <= 1.05 || deff <= 1.0 {
            return known + self.slope(known, deff_of_known) * (deff_of_known - deff);
        }
        let shares: Vec<f64> = self.labels.counts().iter().map(|&c| c as f64).collect();
        let independent = expected_entropy_random(&shares, self.m);
        independent + (known - independent) * deff.ln() / deff_of_known.ln()
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

/// Two cells of one block: how probably they are, and how alike they then are.
struct Alike {
    one: Window,
    many: Window,
    shared: SharedBlocks,
    stretches: Stretches,
    /// The correlation of labels within blocks: plain, and with labels weighed as the entropy does.
    rho: [f64; 2],
    /// The same times the probability that two cells of a fetch are of one block.
    within: [f64; 2],
    /// The same for two cells of fetches that are one, two .. apart.
    across: Vec<f64>,
}

impl Alike {
    /// Design effects, given what cells of different blocks add, with the probability that they are:
    /// for fetches so far apart, and plain (0) or as the entropy weighs labels (1). The entropy is
    /// left to be found.
    fn found(&self, different: impl Fn(usize, usize) -> f64) -> Found {
        let correlation = |e: usize| {
            let same = if e == 0 {
                self.within[0]
            } else {
                self.across.get(e - 1).copied().unwrap_or(0.0)
            };
            same + different(e, 0)
        };
        Found {
            entropy: f64::NAN,
            rho: self.rho[0],
            deff_of_entropy: self.one.deff(|_| self.within[1] + different(0, 1)),
            deff_1: self.one.deff(correlation),
            deff_w: self.many.deff(correlation),
        }
    }
}
