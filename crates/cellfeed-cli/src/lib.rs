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

use cellfeed::ErrorKind;
use clap::Parser;
use std::ffi::OsString;

/// Quasi-random minibatches of single-cell data, straight from files that do not fit in memory.
///
/// Cellfeed reads AnnData (.h5ad) and 10x Genomics (.h5) files as they are, and raw CSR stores (.csr). It shuffles blocks of
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
    let command = match Cli::try_parse_from(args) {
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
            Err(error) => Err(error),
        },
        Command::Generate(args) => generate::run(&args),
    };
    match result {
        Ok(()) => 0,
        // Whoever reads our output has closed it, as `head` does: nothing is wrong.
        Err(error) if people::is_broken_pipe(&error) => 0,
        Err(error) => {
            people::complain(&error);
            // 2 for what the user can mend by another command line, as usage errors have.
            match error.kind() {
                ErrorKind::Cancelled => interrupt::exit_code(),
                ErrorKind::InvalidInput | ErrorKind::NotFound => 2,
                _ => 1,
            }
        }
    }
}
