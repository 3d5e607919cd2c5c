//! The `cellfeed` command: look into a store, stream minibatches from it, convert it, compare it with
//! another, make a synthetic one. A library, so that the Python package can have the command too.

#![forbid(unsafe_code)]

mod atlas;
mod convert;
mod demo;
mod entropy;
mod generate;
mod inspect;
mod interrupt;
mod output;
mod people;
mod plan;
mod remote;
mod sampling;
mod stream;
mod trace;
mod transforming;
mod tune;
mod tune_print;
mod usage;
mod verify;
mod waits;

/// What `cellfeed tune` says of a result and of its work, for the Python package, which says the same.
pub use tune::{doing as tune_stage, to_json as tune_json};

use cellfeed::{Error, ErrorKind};
use clap::{Arg, CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;
use std::path::Path;

/// Quasi-random minibatches of single-cell data, straight from files that do not fit in memory.
///
/// Cellfeed reads AnnData in HDF5 (.h5ad) and Zarr (.zarr), 10x Genomics .h5, annbatch's collections, Parquet
/// (.parquet, and shards as Tahoe-100M has), raw CSR stores (.csr) and SCDL folders as they are, on this
/// machine and, but for SCDL, behind URLs (s3://, gs://, az://, https://). It shuffles blocks of
/// neighbouring cells, reads many blocks at once, and shuffles the cells in memory: nearly as diverse
/// as true random sampling, at a small part of its cost.
#[derive(Debug, Parser)]
#[command(
    name = "cellfeed",
    version,
    max_term_width = 100,
    after_help = "Start with `cellfeed demo`, then try your own file:\n  \
    cellfeed inspect atlas.h5ad\n  \
    cellfeed stream atlas.h5ad --label cell_type\n  \
    cellfeed tune atlas.h5ad --label cell_type\n  \
    cellfeed convert atlas.h5ad atlas.csr\n\n\
    Ctrl-C, SIGTERM and SIGHUP end the work in an orderly way, and leave nothing half done; a second \n\
    one ends it at once. Exit codes: 0 done; 1 failed, as by a damaged file or a full disk; 2 the \n\
    command line is wrong, or names what there is not; 130, 143 and 129 for the three signals."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Inspect(inspect::InspectArgs),
    Stream(Box<stream::StreamArgs>),
    Entropy(entropy::EntropyArgs),
    Plan(plan::PlanArgs),
    Tune(Box<tune::TuneArgs>),
    Convert(Box<convert::ConvertArgs>),
    Verify(verify::VerifyArgs),
    Generate(Box<generate::GenerateArgs>),
}

/// Runs the command with these arguments, the first of which is its own name, and gives the exit code
/// of the process. Takes over Ctrl-C, SIGTERM and SIGHUP.
pub fn main_with_args(args: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = args.into_iter().collect();
    let parsed = grammar().try_get_matches_from(&words);
    let command = match parsed.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli.command,
        Err(usage) => {
            // Help and version come this way too. If nobody reads, nothing can be said.
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).unwrap_or(2);
        }
    };
    interrupt::listen();
    let result = match command {
        Command::Demo(args) => demo::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Stream(args) => stream::run(&args),
        Command::Entropy(args) => entropy::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Verify(args) => match verify::run(&args) {
            Ok(code) => return code,
            Err(error) => {
                people::complain(&error);
                // 1 is for stores that differ.
                return match exit_code(&error, &words) {
                    1 => verify::NOT_COMPARED,
                    code => code,
                };
            }
        },
        Command::Generate(args) => generate::run(&args),
    };
    match result {
        Ok(()) => 0,
        // Whoever reads our output has closed it, as `head` does: nothing is wrong.
        Err(error) if people::is_broken_pipe(&error) => 0,
        Err(error) => {
            people::complain(&error);
            exit_code(&error, &words)
        }
    }
}

/// The command line, with what is the same for all options.
fn grammar() -> clap::Command {
    // Else clap says of `--seed -1` that `-- -1` will do.
    let negative = |arg: Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    Cli::command()
        .mut_subcommands(|command| command.mut_args(negative))
        .mut_subcommand("tune", |command| command.mut_args(remote::hidden))
}

/// The exit code of a command that failed: 2 for what the user can mend by another command line, as usage
/// errors have.
fn exit_code(error: &Error, words: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::Cancelled => interrupt::exit_code(),
        ErrorKind::InvalidInput | ErrorKind::NotFound if !is_damage(error, words) => 2,
        _ => 1,
    }
}

/// Whether what is wrong is a part of a store that was named, and not what was named.
fn is_damage(error: &Error, words: &[OsString]) -> bool {
    let context = |key| error.context().find(|(k, _)| *k == key).map(|(_, value)| value);
    let named = |what: &str| words.iter().any(|word| word == what);
    let inside = context("file").filter(|file| !named(file)).is_some_and(|file| {
        let mut folders = Path::new(file).ancestors().skip(1).filter(|f| !f.as_os_str().is_empty());
        folders.any(|folder| words.iter().any(|word| Path::new(word) == folder))
    });
    // Elements of a file are named by what is behind #, by the names of layers and columns, and the matrix by
    // that of a gene which it lacks.
    let words_name = |element: &str| {
        let last = element.rsplit('/').next().unwrap_or(element);
        let mut text = words.iter().map(|word| word.to_string_lossy());
        text.any(|word| word == last || word.contains('#') || word.starts_with("--genes"))
    };
    let lacks = context("element").is_some_and(|element| !words_name(element));
    inside || (error.kind() == ErrorKind::NotFound && lacks)
}
