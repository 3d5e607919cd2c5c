//! `cellfeed entropy`: how diverse minibatches are, measured against theory. Reads one obs column.

use crate::interrupt;
use crate::people::{self, count, say, say_json};
use cellfeed::diversity::{DiversityMeter, Expected, LabelStructure, Labels, Sampling, expected};
use cellfeed::{Error, OpenOptions, Plan, PlanOptions, Result, Strategy};
use serde::Serialize;

/// Strategies whose diversity theory knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Blocks of neighbouring cells in random order, cells shuffled in each fetch.
    BlockShuffling,
    /// File order.
    Streaming,
    /// File order, cells shuffled in each fetch.
    StreamingShuffled,
    /// Single cells in random order.
    TrueRandom,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Self::BlockShuffling => "block-shuffling",
            Self::Streaming => "streaming",
            Self::StreamingShuffled => "streaming-shuffled",
            Self::TrueRandom => "true-random",
        }
    }
}

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
    cellfeed entropy atlas.h5ad --label drug --strategy streaming-shuffled --minibatches 5000\n  \
    cellfeed entropy atlas.h5ad --label cell_type --json | jq .measured\n\n\
    If DEFF is far above 1, raise --fetch-factor or lower --block-size. Minibatches that are not\n\
    full are not counted; cells without a label count as one more label.")]
pub(crate) struct EntropyArgs {
    /// The store, in any format that `stream` reads.
    store: String,
    /// The obs column: categories, text, whole numbers or booleans.
    #[arg(long, value_name = "COLUMN")]
    label: String,
    /// How cells are chosen.
    #[arg(long, value_enum, default_value = "block-shuffling")]
    strategy: Name,
    /// Cells in a minibatch.
    #[arg(long, value_name = "CELLS", default_value_t = 64)]
    batch_size: u64,
    /// Cells next to each other on disk that stay together; for block-shuffling.
    #[arg(long, value_name = "CELLS", default_value_t = 16)]
    block_size: u64,
    /// Minibatches that are read and shuffled together.
    #[arg(long, value_name = "MINIBATCHES", default_value_t = 256)]
    fetch_factor: u64,
    /// Seed of every random choice.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// The epoch, or the first of several.
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    epoch: u64,
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
    strategy: &'static str,
    batch_size: u64,
    block_size: Option<u64>,
    fetch_factor: u64,
    seed: u64,
    epoch: u64,
    window: u64,
    on_disk: OnDisk,
    measured: Measured,
    theory: Theory,
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

fn report(args: &EntropyArgs) -> Result<Report> {
    let strategy = match args.strategy {
        Name::BlockShuffling => Strategy::BlockShuffling { block_size: args.block_size },
        Name::Streaming => Strategy::Streaming { shuffle: false },
        Name::StreamingShuffled => Strategy::Streaming { shuffle: true },
        Name::TrueRandom => Strategy::TrueRandom,
    };
    let sampling = match args.strategy {
        Name::BlockShuffling => Sampling::Blocks { block_size: args.block_size },
        Name::Streaming => Sampling::Streaming,
        Name::StreamingShuffled => Sampling::StreamingShuffled,
        Name::TrueRandom => Sampling::Blocks { block_size: 1 },
    };
    let options = PlanOptions::default()
        .with_batch_size(args.batch_size)
        .with_fetch_factor(args.fetch_factor)
        .with_seed(args.seed);
    // Wrong sizes are told before anything is read.
    Plan::new(0, strategy, &options)?;
    let store = cellfeed::open(&args.store, &OpenOptions::default())?;
    let plan = Plan::new(store.n_obs(), strategy, &options)?;
    let labels = Labels::read(store.backend().as_ref(), &args.label)?;
    interrupt::check()?;
    let theory = expected(&labels, sampling, args.batch_size, args.fetch_factor, args.window)?;
    interrupt::check()?;
    let mut structure = LabelStructure::new(LAGS);
    structure.extend(labels.codes());
    let measured = measure(args, &plan, &labels)?;
    let missing = labels.n_missing();
    Ok(Report {
        label: args.label.clone(),
        n_cells: plan.n_obs(),
        n_labels: labels.names().len() - usize::from(missing > 0),
        n_missing: missing,
        strategy: args.strategy.as_str(),
        batch_size: args.batch_size,
        block_size: (args.strategy == Name::BlockShuffling).then_some(args.block_size),
        fetch_factor: args.fetch_factor,
        seed: args.seed,
        epoch: args.epoch,
        window: args.window,
        on_disk: OnDisk {
            n_runs: structure.n_runs(),
            mean_run: structure.mean_run(),
            mean_run_of_a_cell: structure.mean_run_of_a_cell(),
            longest_run: structure.longest_run(),
            autocorrelation: structure.autocorrelation().map(|(lag, r)| Lag { lag, r }).collect(),
        },
        measured,
        theory: theory.into(),
    })
}

/// Runs the plan over the labels alone.
fn measure(args: &EntropyArgs, plan: &Plan, labels: &Labels) -> Result<Measured> {
    let wanted = args.minibatches.unwrap_or_else(|| plan.n_minibatches());
    let bar = people::progress_bar(args.quiet || args.json, Some(wanted), "minibatches");
    let mut meter = DiversityMeter::new(labels.counts(), args.batch_size, args.window);
    let mut left = wanted;
    let mut codes: Vec<u32> = Vec::new();
    let mut minibatch_codes: Vec<u32> = Vec::new();
    let mut epoch = args.epoch;
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
                meter.push(&minibatch_codes);
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
    Ok(Measured {
        n_minibatches: meter.n_minibatches(),
        n_partial: meter.n_partial(),
        entropy_mean: meter.entropy_mean(),
        entropy_spread: meter.entropy_spread(),
        deff_1: meter.deff_1(),
        deff_w: meter.deff_w(),
    })
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
        r.theory.entropy_store
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
    say(format_args!(
        "  plan      {}{blocks}, minibatches of {}, fetches of {} minibatches",
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
    let t = &r.theory;
    let line = |what: &str, measured: &str, theory: &str| {
        say(format_args!("  {what:<24}{measured:>18}{theory:>10}"))
    };
    let spread = m.entropy_spread.map(|s| format!(" +- {s:.3}")).unwrap_or_default();
    let mean = format!("{}{spread}", or_dash(m.entropy_mean, 4));
    line("", "measured", "theory")?;
    line("entropy, bits", &mean, &format!("{:.4}", t.entropy))?;
    line("DEFF_1", &or_dash(m.deff_1, 3), &or_dash(t.deff_1, 3))?;
    line(&format!("DEFF_{}", r.window), &or_dash(m.deff_w, 3), &or_dash(t.deff_w, 3))?;
    let range = match t.entropy_lower_bound {
        Some(low) => format!("{low:.3} to {:.3}", t.entropy_upper_bound),
        None => format!("at most {:.3}", t.entropy_upper_bound),
    };
    say(format_args!("  bounds    {range} bits, by the fetch factor"))?;
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
