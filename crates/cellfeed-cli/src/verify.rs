//! `cellfeed verify`: whether two stores hold the same, or one is sound.

use crate::interrupt;
use crate::people::{bytes, parse_bytes, progress_bar, say, say_json, shown};
use crate::remote::{self, Remote};
use cellfeed::{
    Checked, Error, OpenOptions, Result, Unreadable, Verified, VerifyOptions, VerifyProgress,
    VerifyStage, check, verify_with,
};
use serde_json::json;

/// Compare two stores, cell by cell, whatever their formats.
///
/// Names, X, layers, raw, obs and var are compared. Numbers are equal if they are the same number,
/// whatever their types; values that are not stored are zeros; categories are compared by their text.
/// The first difference is shown with its row, gene and both values. What a store has and does not give,
/// since it is damaged or of a kind that is not read, is said, and is an error: whether the stores are
/// equal in it is not known. Before, the files of stores that keep checksums of them (.csr) are held
/// against those.
///
/// One store alone is read from end to end: every row, every column of obs and var, and its checksums.
///
/// The exit code is 0 if the stores are equal or the one is sound, 1 if they differ, 2 if the command
/// line is wrong or names what there is not, 3 if something could not be read, so that it is not known.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed verify atlas.h5ad atlas.csr\n  \
    cellfeed verify atlas.csr                       by itself\n  \
    cellfeed verify a.h5ad b.h5ad --json\n  \
    cellfeed verify a.h5ad b.h5ad --without layers/counts --without obs/plate")]
pub(crate) struct VerifyArgs {
    /// A store.
    first: String,
    /// Another, with which it is compared.
    second: Option<String>,
    /// Only what both have need be equal: what one store alone has is listed, no more.
    #[arg(long, requires = "second")]
    common: bool,
    /// Do not compare this: X, layers/NAME, raw/X, obs/NAME, var/NAME. Can be given several times.
    #[arg(long, value_name = "ELEMENT")]
    without: Vec<String>,
    /// Memory for the rows of both stores, as 512MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bytes)]
    memory: u64,
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
    let what = VerifyOptions::default().with_without(&args.without).with_memory(args.memory);
    let first = open(&args.first)?;
    let second = args.second.as_deref().map(open).transpose()?;
    let bar = progress_bar(args.quiet || args.json, Some(0), "rows");
    let progress = &mut |p: VerifyProgress| {
        bar.set_message(match p.stage {
            VerifyStage::Checksums => "bytes checked",
            _ => "rows",
        });
        bar.set_length(p.total);
        bar.set_position(p.done);
        !interrupt::pressed()
    };
    let found = match &second {
        Some(second) => verify_with(&first, second, &what, progress).map(Found::Two),
        None => check(&first, &what, progress).map(Found::One),
    };
    bar.finish_and_clear();
    remote::warn(&first);
    second.iter().for_each(remote::warn);
    interrupt::check()?;
    match found? {
        Found::One(found) => one(args, &found),
        Found::Two(found) => two(args, &found),
    }
}

enum Found {
    One(Checked),
    Two(Verified),
}

/// What came of one store.
fn one(args: &VerifyArgs, found: &Checked) -> Result<u8> {
    if args.json {
        say_json(&json!({
            "sound": found.sound(), "read": found.read, "checksum_bytes": found.checksum_bytes,
            "unreadable": found.unreadable.iter().map(|(element, why)| json!({
                "element": element, "why": why,
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        let verdict = if found.sound() { "sound" } else { "not sound: what was read is" };
        say(format_args!("{verdict}: {}", list(&found.read)))?;
        checksums(&args.first, found.checksum_bytes)?;
        if found.checksum_bytes.is_none() {
            say(format_args!(
                "  {} keeps no checksums of its files: damage that gives other values is not seen",
                args.first
            ))?;
        }
        for (element, why) in &found.unreadable {
            say(format_args!("  cannot be read: {}: {why}", shown(element)))?;
        }
    }
    match found.unreadable.first() {
        None => Ok(0),
        Some((element, why)) => Err(Error::unsupported(format!(
            "{element} cannot be read: {why}{}",
            more(found.unreadable.len() - 1)
        ))
        .with("file", &args.first)),
    }
}

fn more(n: usize) -> String {
    if n > 0 { format!(" ({n} more like it)") } else { String::new() }
}

/// Says that a store's checksums were right.
fn checksums(store: &str, checked: Option<u64>) -> Result<()> {
    match checked {
        Some(n) => say(format_args!("  checksums are right: {store}, {}", bytes(n))),
        None => Ok(()),
    }
}

/// What came of two.
fn two(args: &VerifyArgs, found: &Verified) -> Result<u8> {
    let equal = if args.common { found.common_equal() } else { found.equal() };
    if args.json {
        let difference = found.difference.as_ref().map(|d| {
            json!({
                "element": d.element, "row": d.row, "name": d.name, "gene": d.gene,
                "first": d.first, "second": d.second,
            })
        });
        say_json(&json!({
            "equal": equal, "difference": difference, "compared": found.compared,
            "checksum_bytes": found.checksum_bytes,
            "only_first": found.only_first, "only_second": found.only_second,
            "unreadable": found.unreadable.iter().map(|u| json!({
                "element": u.element, "first": u.first, "second": u.second,
            })).collect::<Vec<_>>(),
        }))?;
    } else {
        print(args, found, equal)?;
    }
    // A difference is an answer; without one, what was not compared leaves the question open.
    let mut open = found.unreadable.iter().filter(|u| u.in_both || !args.common);
    match open.next() {
        Some(unreadable) if found.difference.is_none() => {
            Err(not_known(args, unreadable, open.count()))
        }
        _ => Ok(u8::from(!equal)),
    }
}

fn second(args: &VerifyArgs) -> &str {
    args.second.as_deref().unwrap_or_default()
}

/// The stores in which something cannot be read, with the reasons.
fn reasons<'a>(args: &'a VerifyArgs, u: &'a Unreadable) -> Vec<(&'a str, &'a str)> {
    let first = u.first.iter().map(|why| (args.first.as_str(), why.as_str()));
    let second = u.second.iter().map(|why| (second(args), why.as_str()));
    first.chain(second).collect()
}

fn not_known(args: &VerifyArgs, unreadable: &Unreadable, others: usize) -> Error {
    let element = &unreadable.element;
    let reasons = reasons(args, unreadable);
    let (place, why) = reasons.first().copied().unwrap_or_default();
    let more = more(others);
    Error::unsupported(format!(
        "whether the stores are equal is not known, since {element} cannot be read: {why}{more}; to \
         compare the rest, leave it out: --without {element:?}"
    ))
    .with("file", place)
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
    } else if !found.unreadable.is_empty() {
        say(format_args!("not known: what was compared is equal: {}", list(&found.compared)))?;
    } else {
        say(format_args!("different: what both have is equal, but one has more"))?;
    }
    let stores = [args.first.as_str(), second(args)];
    for (store, checked) in stores.into_iter().zip(found.checksum_bytes) {
        checksums(store, checked)?;
    }
    for (store, only) in stores.into_iter().zip([&found.only_first, &found.only_second]) {
        if !only.is_empty() {
            say(format_args!("  only in {store}: {}", list(only)))?;
        }
    }
    for unreadable in &found.unreadable {
        for (store, why) in reasons(args, unreadable) {
            say(format_args!(
                "  cannot be read in {store}: {}: {why}",
                shown(&unreadable.element)
            ))?;
        }
    }
    Ok(())
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")
}
