//! `cellfeed plan`: what a fetch would read, without a store.

use crate::people::{count, say, say_json};
use crate::sampling::Sampling;
use cellfeed::{FetchPlan, PLAN_VERSION, Plan, Result};
use serde_json::json;

/// Ranges that are printed for people.
const SHOWN: usize = 8;

/// Print what a fetch would read and how it is cut into minibatches, without a store.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed plan --n-obs 1000000 --fetch 3\n  \
    cellfeed plan --n-obs 1000000000000 --strategy stratified --epoch 2 --fetch 61035155 --json")]
pub(crate) struct PlanArgs {
    /// Cells of the store.
    #[arg(long, value_name = "CELLS")]
    n_obs: u64,
    /// Which fetch of the rank's epoch.
    #[arg(long, value_name = "FETCH", default_value_t = 0)]
    fetch: u64,
    #[command(flatten)]
    sampling: Sampling,
    /// Print rows and minibatches as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let plan = args.sampling.plan_of(args.n_obs)?;
    let fetch = plan.fetch(args.sampling.epoch, args.fetch)?;
    if args.json {
        return say_json(&to_json(&plan, &fetch));
    }
    say(format_args!(
        "{}; {} minibatches in {} fetches an epoch for rank {} of {}",
        plan.describe(),
        count(plan.n_minibatches()),
        count(plan.n_fetches()),
        plan.rank(),
        plan.world_size()
    ))?;
    let ranges = fetch.rows().as_slice();
    say(format_args!(
        "  fetch {} of epoch {} reads {} rows in {} ranges, for minibatches {} to {}",
        fetch.number(),
        fetch.epoch(),
        count(fetch.rows().n_rows()),
        count(u64::try_from(ranges.len()).unwrap_or(u64::MAX)),
        fetch.first_minibatch(),
        (fetch.first_minibatch() + u64::try_from(fetch.n_minibatches()).unwrap_or(0))
            .saturating_sub(1)
    ))?;
    let shown: Vec<String> =
        ranges.iter().take(SHOWN).map(|r| format!("{}..{}", r.start, r.end)).collect();
    let more = if ranges.len() > SHOWN { ", .." } else { "" };
    say(format_args!("  rows      {}{more}", shown.join(", ")))
}

fn to_json(plan: &Plan, fetch: &FetchPlan) -> serde_json::Value {
    let rows: Vec<u64> = fetch.rows().iter_rows().collect();
    let row = |p: &u32| usize::try_from(*p).ok().and_then(|p| rows.get(p)).copied();
    let minibatches: Vec<Vec<u64>> =
        fetch.minibatches().map(|m| m.iter().filter_map(row).collect()).collect();
    let ranges: Vec<[u64; 2]> = fetch.rows().as_slice().iter().map(|r| [r.start, r.end]).collect();
    json!({
        "plan_version": PLAN_VERSION,
        "strategy": plan.describe(),
        "n_obs": plan.n_obs(),
        "seed": plan.seed(),
        "rank": plan.rank(),
        "world_size": plan.world_size(),
        "n_minibatches": plan.n_minibatches(),
        "n_fetches": plan.n_fetches(),
        "epoch": fetch.epoch(),
        "fetch": fetch.number(),
        "first_minibatch": fetch.first_minibatch(),
        "ranges": ranges,
        "minibatches": minibatches,
    })
}
