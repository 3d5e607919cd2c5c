//! `cellfeed entropy`: how diverse minibatches are, measured against theory. Reads one obs column.

use crate::interrupt;
use crate::people::{self, count, say, say_json};
use crate::remote::{self, Remote};
use crate::sampling::{Sampling as Options, StrategyName};
use crate::stream::JoinName;
use cellfeed::diversity::{
    DiversityMeter, Expected, LabelStructure, Labels, Sampling, expected, expected_in_order,
};
use cellfeed::{Error, OpenOptions, Plan, Result, Store, Strata, Strategy, Subset, open_many};
use clap::ValueEnum;
use serde::Serialize;

/// Measure how diverse minibatches are, against what theory expects.
///
/// Runs the plan of an epoch without reading the matrix: only the obs column is read. For a label,
/// such as the plate or the drug, it tells the entropy within minibatches (how many labels a
/// minibatch has, in bits) and the design effect DEFF: by how many times the variance of a mean over
/// cells is larger than with independent cells. DEFF_1 is that of one minibatch, DEFF_w that of w
/// consecutive ones, which is what an optimizer with a memory of w minibatches sees. 1 is as good as
/// true random; with DEFF 5 five times the cells are needed for the same certainty.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed entropy atlas.h5ad --label plate\n  \
    cellfeed entropy atlas.h5ad --label drug --block-size 64 --fetch-factor 64\n  \
    cellfeed entropy atlas.h5ad --label drug --strategy stratified --by drug\n  \
    cellfeed entropy atlas.h5ad --label drug --subset 'plate != plate14' --world-size 4\n  \
    cellfeed entropy atlas.h5ad --label drug --strategy streaming-shuffled --minibatches 5000\n  \
    cellfeed entropy atlas.h5ad --label cell_type --json | jq .measured\n\n\
    If DEFF is far above 1, stratify, raise --fetch-factor or lower --block-size. Minibatches that\n\
    are not full are not counted; cells without a label count as one more label.")]
pub(crate) struct EntropyArgs {
    /// The store, in any format that `stream` reads. Several are read as one.
    #[arg(required = true, value_name = "STORE")]
    stores: Vec<String>,
    /// The obs column: categories, text, whole numbers or booleans.
    #[arg(long, value_name = "COLUMN")]
    label: String,
    #[command(flatten)]
    sampling: Options,
    /// Only cells for which a condition on an obs column holds, such as 'plate != plate14', 'drug ==
    /// a,b' (any of them), 'n_genes >= 500' or 'cell_type is present' (or missing); may be given several
    /// times, all must hold.
    #[arg(long, value_name = "CONDITION")]
    subset: Vec<String>,
    /// Measure so many minibatches, of several epochs if one has fewer [default: one epoch].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    minibatches: Option<u64>,
    /// Consecutive minibatches w of the design effect DEFF_w.
    #[arg(long, value_name = "MINIBATCHES", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    window: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
}

/// The keys of `--json`. Entropies are in bits; what is not defined, as the design effect of a label
/// with one value, is null.
#[derive(Debug, Clone, Serialize)]
struct Report {
    label: String,
    n_cells: u64,
    n_labels: usize,
    /// Cells without a label; they count as one more label.
    n_missing: u64,
    strategy: String,
    by: Vec<String>,
    batch_size: u64,
    block_size: Option<u64>,
    fetch_factor: u64,
    rank: u64,
    world_size: u64,
    seed: u64,
    epoch: u64,
    window: u64,
    /// Of the label in the cells that are chosen from.
    entropy_store: f64,
    on_disk: OnDisk,
    measured: Measured,
    /// Null where there is no closed form.
    theory: Option<Theory>,
    /// What theory leaves out, and why.
    note: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
struct OnDisk {
    n_runs: u64,
    mean_run: f64,
    mean_run_of_a_cell: f64,
    longest_run: u64,
    autocorrelation: Vec<Lag>,
}

#[derive(Debug, Clone, Serialize)]
struct Lag {
    lag: u64,
    r: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Measured {
    n_minibatches: u64,
    n_partial: u64,
    entropy_mean: Option<f64>,
    entropy_spread: Option<f64>,
    deff_1: Option<f64>,
    deff_w: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Theory {
    entropy: f64,
    entropy_pure_blocks: Option<f64>,
    entropy_second_order: f64,
    entropy_lower_bound: Option<f64>,
    entropy_upper_bound: f64,
    entropy_store: f64,
    rho: f64,
    deff_1: Option<f64>,
    deff_w: Option<f64>,
}

impl From<Expected> for Theory {
    fn from(e: Expected) -> Self {
        Self {
            entropy: e.entropy,
            entropy_pure_blocks: e.entropy_pure_blocks,
            entropy_second_order: e.entropy_second_order,
            entropy_lower_bound: e.lower_bound,
            entropy_upper_bound: e.upper_bound,
            entropy_store: e.entropy_store,
            rho: e.rho,
            deff_1: e.deff_1,
            deff_w: e.deff_w,
        }
    }
}

/// Lags at which the autocorrelation is told.
const LAGS: [u64; 7] = [1, 4, 16, 64, 256, 1024, 4096];

pub(crate) fn run(args: &EntropyArgs) -> Result<()> {
    let report = report(args)?;
    if args.json { say_json(&report) } else { print(&report) }
}

const NO_THEORY: &str = "there is no closed form for weighted sampling; DEFF is measured against the \
     shares that labels have in what is drawn";
const RANKS: &str = "no DEFF of a window is expected for streaming on several ranks: fetches that \
     follow each other on a rank do not in the file";

fn report(args: &EntropyArgs) -> Result<Report> {
    let sampling = &args.sampling;
    let strategy = sampling.strategy()?;
    // Wrong sizes are told before anything is read.
    let blocks = Strategy::BlockShuffling { block_size: sampling.block_size };
    Plan::new(1 << 62, blocks, &sampling.options())?;
    // Genes play no part, so that stores which have none in common will do.
    let store = open_many(
        &args.stores,
        &args.remote.apply(OpenOptions::default())?,
        &JoinName::Outer.options(),
    )?;
    let subset = store.subset(&args.subset)?;
    let plan = sampling.plan(&store, subset.clone())?;
    let labels = Labels::read(store.backend().as_ref(), &args.label)?;
    let of_subset = labels.of_subset(&subset)?;
    remote::warn(&store);
    interrupt::check()?;
    let mut theory = theory(args, &store, &subset, strategy, &of_subset)?;
    interrupt::check()?;
    let mut structure = LabelStructure::new(LAGS);
    structure.extend(of_subset.codes());
    let weighted = theory.is_none();
    let counts = if weighted {
        // Labels come as often as weights say.
        let mut counts = vec![0; labels.counts().len()];
        minibatches(args, &plan, &labels, |codes| {
            codes.iter().filter_map(|&c| usize::try_from(c).ok()).for_each(|c| counts[c] += 1);
        })?;
        counts
    } else {
        of_subset.counts().to_vec()
    };
    let measured = measure(args, &plan, &labels, &counts)?;
    let streaming = matches!(strategy, Strategy::Streaming { .. });
    let mut note = weighted.then_some(NO_THEORY);
    if streaming && args.window > 1 && sampling.world_size > 1 {
        note = Some(RANKS);
        theory = theory.map(|t| Theory { deff_w: None, ..t });
    }
    let missing = of_subset.n_missing();
    let present = of_subset.counts().iter().filter(|&&c| c > 0).count();
    let shares: Vec<f64> = of_subset.counts().iter().map(|&c| c as f64).collect();
    let name = sampling.strategy.to_possible_value().map(|v| v.get_name().to_owned());
    Ok(Report {
        label: args.label.clone(),
        n_cells: subset.n_cells(),
        n_labels: present - usize::from(missing > 0),
        n_missing: missing,
        strategy: name.unwrap_or_default(),
        by: sampling.by.clone(),
        batch_size: sampling.batch_size,
        block_size: strategy.block_size().filter(|_| strategy != Strategy::TrueRandom),
        fetch_factor: sampling.fetch_factor,
        rank: sampling.rank,
        world_size: sampling.world_size,
        seed: sampling.seed,
        epoch: sampling.epoch,
        window: args.window,
        entropy_store: cellfeed::diversity::shares_entropy(&shares),
        on_disk: OnDisk {
            n_runs: structure.n_runs(),
            mean_run: structure.mean_run(),
            mean_run_of_a_cell: structure.mean_run_of_a_cell(),
            longest_run: structure.longest_run(),
            autocorrelation: structure.autocorrelation().map(|(lag, r)| Lag { lag, r }).collect(),
        },
        measured,
        theory,
        note,
    })
}

/// What is expected, for strategies that have a closed form.
fn theory(
    args: &EntropyArgs,
    store: &Store,
    subset: &Subset,
    strategy: Strategy,
    labels: &Labels,
) -> Result<Option<Theory>> {
    let options = &args.sampling;
    let (b, m, f) = (options.block_size, options.batch_size, options.fetch_factor);
    let sampling = match options.strategy {
        StrategyName::BlockShuffling => Sampling::Blocks { block_size: b },
        StrategyName::Stratified if !options.by.is_empty() => {
            let strata = Strata::read(store.backend().as_ref(), subset, b, &options.by)?;
            let expected = expected_in_order(labels, b, strata.blocks(), m, f, args.window)?;
            return Ok(Some(expected.into()));
        }
        StrategyName::Stratified => Sampling::StratifiedBlocks { block_size: b },
        StrategyName::Streaming => Sampling::Streaming,
        StrategyName::StreamingShuffled => Sampling::StreamingShuffled,
        StrategyName::TrueRandom => Sampling::Blocks { block_size: 1 },
        StrategyName::Weighted | StrategyName::ClassBalanced => return Ok(None),
    };
    debug_assert!(!matches!(strategy, Strategy::BlockWeighted { .. }));
    expected(labels, sampling, m, f, args.window).map(|e| Some(e.into()))
}

fn measure(args: &EntropyArgs, plan: &Plan, labels: &Labels, counts: &[u64]) -> Result<Measured> {
    let mut meter = DiversityMeter::new(counts, args.sampling.batch_size, args.window);
    minibatches(args, plan, labels, |codes| meter.push(codes))?;
    Ok(Measured {
        n_minibatches: meter.n_minibatches(),
        n_partial: meter.n_partial(),
        entropy_mean: meter.entropy_mean(),
        entropy_spread: meter.entropy_spread(),
        deff_1: meter.deff_1(),
        deff_w: meter.deff_w(),
    })
}

/// Runs the plan over the labels alone, minibatch by minibatch.
fn minibatches(
    args: &EntropyArgs,
    plan: &Plan,
    labels: &Labels,
    mut take: impl FnMut(&[u32]),
) -> Result<()> {
    let wanted = args.minibatches.unwrap_or_else(|| plan.n_minibatches());
    if plan.n_minibatches() == 0 {
        return Err(Error::invalid_input("an epoch has no minibatch; lower --batch-size"));
    }
    let bar = people::progress_bar(args.quiet || args.json, Some(wanted), "minibatches");
    let mut left = wanted;
    let mut codes: Vec<u32> = Vec::new();
    let mut minibatch_codes: Vec<u32> = Vec::new();
    let mut epoch = args.sampling.epoch;
    while left > 0 {
        for k in 0..plan.n_fetches() {
            interrupt::check()?;
            let fetch = plan.fetch(epoch, k)?;
            codes.clear();
            for range in fetch.rows().as_slice() {
                let at = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
                let stretch = labels.codes().get(at(range.start)..at(range.end));
                codes.extend_from_slice(
                    stretch.ok_or_else(|| {
                        Error::internal("the obs column is shorter than the store")
                    })?,
                );
            }
            for minibatch in fetch.minibatches().take(usize::try_from(left).unwrap_or(usize::MAX)) {
                minibatch_codes.clear();
                let position = |&p: &u32| usize::try_from(p).unwrap_or(usize::MAX);
                minibatch_codes.extend(minibatch.iter().map(position).filter_map(|p| codes.get(p)));
                take(&minibatch_codes);
                left -= 1;
                bar.inc(1);
            }
            if left == 0 {
                break;
            }
        }
        epoch = epoch.wrapping_add(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn print(r: &Report) -> Result<()> {
    let or_dash = |x: Option<f64>, digits: usize| {
        x.map_or_else(|| "-".to_owned(), |x| format!("{x:.digits$}"))
    };
    let blocks = r.block_size.map(|b| format!(", blocks of {b}")).unwrap_or_default();
    say(format_args!(
        "{} of {} cells: {} labels, {:.3} bits",
        r.label,
        count(r.n_cells),
        count(u64::try_from(r.n_labels).unwrap_or(u64::MAX)),
        r.entropy_store
    ))?;
    if r.n_missing > 0 {
        say(format_args!(
            "  missing   {} cells have no label; they count as one more label",
            count(r.n_missing)
        ))?;
    }
    let d = &r.on_disk;
    say(format_args!(
        "  on disk   {} runs of {:.1} cells, the longest {}; a cell's run has {:.1}",
        count(d.n_runs),
        d.mean_run,
        count(d.longest_run),
        d.mean_run_of_a_cell
    ))?;
    let lags: Vec<String> = d
        .autocorrelation
        .iter()
        .filter_map(|l| l.r.map(|value| format!("{:.2} at {}", value, count(l.lag))))
        .collect();
    if !lags.is_empty() {
        say(format_args!("            autocorrelation {}", lags.join(", ")))?;
    }
    let by = if r.by.is_empty() { String::new() } else { format!(" by {}", r.by.join(", ")) };
    let rank = if r.world_size > 1 {
        format!(", rank {} of {}", r.rank, r.world_size)
    } else {
        String::new()
    };
    say(format_args!(
        "  plan      {}{by}{blocks}{rank}, minibatches of {}, fetches of {} minibatches",
        r.strategy,
        count(r.batch_size),
        count(r.fetch_factor)
    ))?;
    let m = &r.measured;
    let partial = if m.n_partial > 0 {
        format!("; {} that were not full are not counted", count(m.n_partial))
    } else {
        String::new()
    };
    say(format_args!("            {} minibatches measured{partial}", count(m.n_minibatches)))?;
    let line = |what: &str, measured: &str, theory: Option<f64>, digits: usize| {
        let theory = or_dash(theory, digits);
        say(format_args!("  {what:<24}{measured:>18}{theory:>10}"))
    };
    let spread = m.entropy_spread.map(|s| format!(" +- {s:.3}")).unwrap_or_default();
    let mean = format!("{}{spread}", or_dash(m.entropy_mean, 4));
    let t = r.theory.as_ref();
    say(format_args!("  {:<24}{:>18}{:>10}", "", "measured", "theory"))?;
    line("entropy, bits", &mean, t.map(|t| t.entropy), 4)?;
    line("DEFF_1", &or_dash(m.deff_1, 3), t.and_then(|t| t.deff_1), 3)?;
    let window = format!("DEFF_{}", r.window);
    line(&window, &or_dash(m.deff_w, 3), t.and_then(|t| t.deff_w), 3)?;
    if let Some(note) = r.note {
        say(format_args!("  note      {note}"))?;
    }
    let Some(t) = t else { return Ok(()) };
    let range = match t.entropy_lower_bound {
        Some(low) => format!("{low:.3} to {:.3}", t.entropy_upper_bound),
        None => format!("at most {:.3}", t.entropy_upper_bound),
    };
    say(format_args!(
        "  bounds    {range} bits, by the fetch factor, if blocks are not stratified"
    ))?;
    let pure = match t.entropy_pure_blocks {
        Some(pure) => format!(", if each block had one label {pure:.3}"),
        None => String::new(),
    };
    say(format_args!(
        "  besides   to second order {:.3} bits{pure}; correlation within {} {:.3}",
        t.entropy_second_order,
        if t.entropy_pure_blocks.is_some() { "blocks" } else { "what is shuffled together" },
        t.rho
    ))
}
