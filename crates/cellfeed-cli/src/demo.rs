//! `cellfeed demo`: a small atlas made and streamed, each step explained in a line.

use crate::people::{bytes, count, rate, say};
use crate::{generate, stream};
use cellfeed::{Error, Result};
use clap::Parser;

/// Make a small synthetic atlas in a temporary folder and stream it, explaining each step.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Cells of the atlas.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    cells: usize,
}

/// Other commands' arguments, given as on the command line.
#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: LineCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LineCommand {
    Stream(Box<stream::StreamArgs>),
    Generate(Box<generate::GenerateArgs>),
}

fn parse(words: &[&str]) -> Result<LineCommand> {
    let words = std::iter::once("cellfeed").chain(words.iter().copied());
    Line::try_parse_from(words)
        .map(|line| line.command)
        .map_err(|e| Error::internal("the demo's own command line is wrong").caused_by(e))
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::io("cannot make a temporary folder", e))?;
    let path = folder.path().join("demo.h5ad");
    let path = path
        .to_str()
        .ok_or_else(|| Error::invalid_input("the temporary folder has an odd name"))?;

    say(format_args!(
        "1. Generating a synthetic atlas of {} cells: 14 plates one after the other, 380 drugs in \
         short runs,\n   50 cell lines at random, gzip'd, as a scientist would have it.",
        count(u64::try_from(args.cells).unwrap_or(u64::MAX))
    ))?;
    let cells = args.cells.to_string();
    let words = [
        "generate",
        path,
        "--cells",
        &cells,
        "--genes",
        "5000",
        "--compression",
        "gzip",
        "--quiet",
    ];
    let LineCommand::Generate(generate) = parse(&words)? else { return Ok(()) };
    let made = generate::generate(&generate, |_| {})?;
    say(format_args!("   {} in {:.1} s.\n", bytes(made.bytes), made.seconds))?;

    let run = |words: &[&str]| -> Result<stream::StreamReport> {
        let all: Vec<&str> =
            ["stream", path, "--label", "plate"].iter().chain(words).copied().collect();
        match parse(&all)? {
            LineCommand::Stream(args) => stream::stream(&args),
            LineCommand::Generate(_) => Err(Error::internal("the demo lost its way")),
        }
    };
    say(
        "2. Streaming in file order: cheap, but a minibatch comes from one plate, and models suffer.",
    )?;
    let report = run(&["--strategy", "streaming", "--fetch-factor", "64"])?;
    tell(&report)?;
    say(
        "3. True random cells, a fetch of 4 minibatches at a time: diverse, but each cell costs a chunk.",
    )?;
    let report = run(&["--strategy", "true-random", "--fetch-factor", "4", "--seconds", "2"])?;
    tell(&report)?;
    say(
        "4. Block shuffling: blocks of 16 neighbouring cells in random order, 64 minibatches read at \
         once,\n   cells shuffled in memory. Nearly as diverse, and fast.",
    )?;
    let words = ["--strategy", "block-shuffling", "--fetch-factor", "64"];
    tell(&run(&words)?)?;
    say(
        "5. Stratified, 256 minibatches read at once, each fetch with blocks from all over the file. \
         This is what\n   you get if you say nothing else: as diverse as true random, in fewer and \
         larger reads.",
    )?;
    let words = ["--digest"];
    let report = run(&words)?;
    tell(&report)?;
    let again = run(&words)?;
    let same = report.digest.is_some() && report.digest == again.digest;
    if !same {
        return Err(Error::internal("two runs with the same seed differ; please report this"));
    }
    say(format_args!(
        "   Once more: digest {}, twice.\n   Equal seeds give equal minibatches, whatever the machine is \
         doing.\n",
        report.digest.unwrap_or_default()
    ))?;
    say(
        "Now your own file:\n   cellfeed inspect FILE.h5ad\n   cellfeed stream FILE.h5ad --label COLUMN\n   cellfeed \
         tune FILE.h5ad --label COLUMN",
    )
}

fn tell(report: &stream::StreamReport) -> Result<()> {
    say(format_args!(
        "   {} cells/s, {:.2} bits of plate in a minibatch (log2 14 = 3.81 is the most), first \
         minibatch after {:.0} ms.\n",
        rate(report.cells_per_second),
        report.entropy_bits.unwrap_or(0.0),
        report.first_minibatch_seconds * 1e3
    ))
}
