//! The settings that are looked at, and what each costs by the store's metadata alone.

use super::model::Features;
use super::options::TuneOptions;
use super::report::Sampler;
use crate::Store;
use cellfeed_core::diversity::Labels;
use cellfeed_core::{Plan, PlanOptions, Result, Strata, StrataBuilder, Subset};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Block sizes and fetch factors that are looked at.
const BLOCKS: [u64; 10] = [1, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const FETCHES: [u64; 9] = [1, 4, 16, 32, 64, 128, 256, 512, 1024];
/// Rows of fetches that are planned to learn what a setting costs, and how many fetches at most.
const SAMPLED_ROWS: u64 = 1 << 17;
const SAMPLED_FETCHES: u64 = 8;

/// A setting, with what it costs.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) sampler: Sampler,
    pub(super) block_size: u64,
    pub(super) fetch_factor: u64,
    pub(super) plan: Plan,
    /// The blocks sorted by the label, if the plan goes by it.
    pub(super) strata: Option<Strata>,
    pub(super) features: Features,
    /// The loader's limit that one fetch needs, with one more read ahead.
    pub(super) memory: u64,
    /// What one more takes.
    pub(super) memory_ahead: u64,
}

/// All settings for a store. Those that would be alike come once.
pub(super) fn settings(
    store: &Store,
    labels: &Labels,
    options: &TuneOptions,
    tick: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Setting>> {
    let subset = Arc::new(Subset::all(store.n_obs()));
    let mut strata = BTreeMap::new();
    let mut settings = Vec::new();
    for (block_size, fetch_factor) in grid(store.n_obs(), options.batch_size) {
        for sampler in Sampler::ALL {
            // With blocks of one cell there is little to stratify, and true random has a name.
            if block_size == 1 && sampler != Sampler::BlockShuffling {
                continue;
            }
            let sizes = PlanOptions::default()
                .with_batch_size(options.batch_size)
                .with_fetch_factor(fetch_factor)
                .with_seed(options.seed);
            let strategy = sampler.strategy(block_size);
            let mut by_label = None;
            let plan = if sampler == Sampler::StratifiedByLabel {
                // Nothing to sort by, or too many blocks to sort.
                let made = strata
                    .entry(block_size)
                    .or_insert_with(|| strata_of(&subset, labels, block_size).ok());
                let Some(made) = made.as_ref().filter(|_| labels.names().len() > 1) else {
                    continue;
                };
                by_label = Some(made.clone());
                Plan::stratified(Arc::clone(&subset), made.clone(), strategy, &sizes)?
            } else {
                Plan::over(Arc::clone(&subset), strategy, &sizes)?
            };
            let setting = Setting::new(store, options, sampler, (block_size, fetch_factor), plan)?;
            settings.push(Setting { strata: by_label, ..setting });
            tick()?;
        }
    }
    Ok(settings)
}

fn strata_of(subset: &Subset, labels: &Labels, block_size: u64) -> Result<Strata> {
    let mut builder = StrataBuilder::new(subset, block_size, "the label")?;
    builder.push(&[labels.codes()])?;
    builder.finish()
}

/// Pairs of block size and fetch factor: blocks no larger than a fetch, and no fetch that is larger
/// than the store, but one that holds it.
pub(super) fn grid(n: u64, m: u64) -> Vec<(u64, u64)> {
    let whole = n.div_ceil(m).max(1);
    // A fetch must have fewer than 2^32 cells.
    let most = (u64::from(u32::MAX) / m).max(1);
    let mut fetches: Vec<u64> =
        FETCHES.iter().map(|&f| f.min(whole)).filter(|&f| f <= most).collect();
    fetches.dedup();
    let pairs = |f: u64| {
        BLOCKS.iter().filter(move |&&b| b <= (m.saturating_mul(f)).min(n)).map(move |&b| (b, f))
    };
    fetches.into_iter().flat_map(pairs).collect()
}

impl Setting {
    fn new(
        store: &Store,
        options: &TuneOptions,
        sampler: Sampler,
        (block_size, fetch_factor): (u64, u64),
        plan: Plan,
    ) -> Result<Self> {
        let fetches = (SAMPLED_ROWS / plan.fetch_size().max(1))
            .clamp(1, SAMPLED_FETCHES)
            .min(plan.n_fetches());
        let mut sum = Sum::default();
        for k in 0..fetches {
            // Spread over the epoch.
            let fetch = plan.fetch(0, k * (plan.n_fetches() / fetches.max(1)))?;
            let cost = store.backend().cost(&options.matrix, fetch.rows())?;
            sum.rows += fetch.rows().n_rows() as f64;
            sum.runs += fetch.rows().as_slice().len() as f64;
            sum.read += cost.bytes_read as f64;
            sum.decoded += cost.bytes_decoded as f64;
            sum.held = sum.held.max(cost.bytes_held);
            sum.kept = sum.kept.max(cost.bytes_kept);
        }
        let rows = sum.rows.max(1.0);
        let cells = (sum.rows / fetches.max(1) as f64).max(1.0);
        let features = Features {
            runs: sum.runs / rows,
            read: sum.read / rows,
            decoded: sum.decoded / rows,
            cells,
            block: block_size as f64,
        };
        Ok(Self {
            sampler,
            block_size,
            fetch_factor,
            plan,
            strata: None,
            features,
            memory: needed(sum.held.saturating_add(sum.kept)),
            memory_ahead: needed(sum.kept),
        })
    }
}

/// The limit whose share for fetches, five eighths, holds so many bytes, and a twentieth more, since
/// not every fetch was looked at.
fn needed(bytes: u64) -> u64 {
    let more = bytes.saturating_add(bytes / 20);
    (more / 5).saturating_add(1).saturating_mul(8)
}

#[derive(Debug, Default)]
struct Sum {
    rows: f64,
    runs: f64,
    read: f64,
    decoded: f64,
    held: u64,
    kept: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_ends_with_a_fetch_that_is_the_store() {
        let small = grid(300, 64);
        assert_eq!(small.iter().map(|&(_, f)| f).max(), Some(5));
        assert!(small.contains(&(256, 5)) && !small.contains(&(512, 5)));
        // No block is larger than its fetch.
        assert!(small.contains(&(64, 1)) && !small.contains(&(128, 1)));
        let mut once = small.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), small.len());
        let large = grid(1 << 40, 64);
        assert!(large.contains(&(1024, 1024)) && large.contains(&(1, 1)));
        assert_eq!(grid(1, 64), [(1, 1)]);
        // Fetches that no plan takes are left out.
        assert!(grid(1 << 40, 1 << 30).iter().all(|&(_, f)| f <= 3));
        // The loader's share of the limit holds what is needed.
        assert!(needed(1000) / 8 * 5 >= 1000);
    }
}
