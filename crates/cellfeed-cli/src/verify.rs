//! `cellfeed verify`: whether two stores hold the same.

use crate::interrupt;
use crate::people::{progress_bar, say, say_json, shown};
use crate::remote::{self, Remote};
use cellfeed::{OpenOptions, Result, Verified, verify};
use serde_json::json;

/// Compare two stores, cell by cell, whatever their formats.
///
/// Names, X, layers, raw, obs and var are compared. Numbers are equal if they are the same number,
/// whatever their types; values that are not stored are zeros; categories are compared by their text.
/// The first difference is shown with its row, gene and both values. The exit code is 0 if the stores
/// are equal, 1 if they differ, 2 if the command line is wrong or names what there is not, 3 if a store
/// could not be read, so that nothing is known.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed verify atlas.h5ad atlas.csr\n  \
    cellfeed verify a.h5ad b.h5ad --json")]
pub(crate) struct VerifyArgs {
    /// A store.
    first: String,
    /// Another.
    second: String,
    /// Only what both have need be equal: what one store alone has is listed, no more.
    #[arg(long)]
    common: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
}

/// The exit code where nothing is known, as of a damaged store.
pub(crate) const NOT_COMPARED: u8 = 3;

pub(crate) fn run(args: &VerifyArgs) -> Result<u8> {
    let options = args.remote.apply(OpenOptions::default())?;
    let open = |uri: &str| cellfeed::open(uri, &options);
    let (first, second) = (open(&args.first)?, open(&args.second)?);
    let bar = progress_bar(args.quiet || args.json, Some(0), "rows");
    let found = verify(&first, &second, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !interrupt::pressed()
    });
    bar.finish_and_clear();
    remote::warn(&first);
    remote::warn(&second);
    interrupt::check()?;
    let found = found?;
    let equal = if args.common { found.difference.is_none() } else { found.equal() };
    if args.json {
        let difference = found.difference.as_ref().map(|d| {
            json!({
                "element": d.element, "row": d.row, "name": d.name, "gene": d.gene,
                "first": d.first, "second": d.second,
            })
        });
        say_json(&json!({
            "equal": equal, "difference": difference, "compared": found.compared,
            "only_first": found.only_first, "only_second": found.only_second,
        }))?;
    } else {
        print(args, &found, equal)?;
    }
    Ok(u8::from(!equal))
}

fn print(args: &VerifyArgs, found: &Verified, equal: bool) -> Result<()> {
    if let Some(difference) = &found.difference {
        let mut difference = difference.clone();
        for text in [&mut difference.element, &mut difference.first, &mut difference.second] {
            *text = shown(text);
        }
        for text in [&mut difference.name, &mut difference.gene].into_iter().flatten() {
            *text = shown(text);
        }
        say(format_args!("different: {difference}"))?;
    } else if equal {
        say(format_args!("equal: {}", list(&found.compared)))?;
    } else {
        say(format_args!("different: what both have is equal, but one has more"))?;
    }
    for (store, only) in [(&args.first, &found.only_first), (&args.second, &found.only_second)] {
        if !only.is_empty() {
            say(format_args!("  only in {store}: {}", list(only)))?;
        }
    }
    Ok(())
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}
