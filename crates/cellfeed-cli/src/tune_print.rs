//! What `cellfeed tune` found, for people.

use crate::people::{bytes, count, rate, say};
use cellfeed::Result;
use cellfeed::tune::{Candidate, PageCache, Sampler, Speed, Target, TuneReport};

/// Rows of the frontier that are shown at most.
const SHOWN: usize = 14;

/// The command that runs what is recommended.
pub(crate) fn command(r: &TuneReport, store: &str) -> String {
    let best = r.best();
    // What a shell would take apart is quoted.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=,@%".contains(c);
    let quoted = |text: &str| {
        if !text.is_empty() && text.chars().all(plain) {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let batch =
        if r.batch_size == 64 { String::new() } else { format!(" --batch-size {}", r.batch_size) };
    let strategy = match best.sampler {
        Sampler::StratifiedByLabel => format!("stratified --by {}", quoted(&r.label.column)),
        sampler => sampler.to_string(),
    };
    format!(
        "cellfeed stream {} --strategy {} --block-size {} --fetch-factor {}{batch} --memory {} \
         --read-ahead {} --threads {} --label {}",
        quoted(store),
        strategy,
        best.block_size,
        best.fetch_factor,
        memory(r.memory),
        r.read_ahead,
        r.threads,
        quoted(&r.label.column)
    )
}

/// A size as options take it.
fn memory(n: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB")] {
        if n >= 1 << shift && n.is_multiple_of(1 << shift) {
            return format!("{}{unit}", n >> shift);
        }
    }
    n.to_string()
}

fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) => format!("{:.0} %", 100.0 * share),
    }
}

fn deff(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(d) if d >= 99.95 => format!("{d:.0}"),
        Some(d) if d >= 9.995 => format!("{d:.1}"),
        Some(d) => format!("{d:.2}"),
    }
}

/// Rounded to three digits: more would not be true.
fn about(cells_per_second: f64) -> String {
    if cells_per_second <= 0.0 {
        return "0".to_owned();
    }
    let step = 10f64.powf(cells_per_second.log10().floor() - 2.0).max(1.0);
    rate((cells_per_second / step).round() * step)
}

pub(crate) fn print(r: &TuneReport, store: &str, all: bool) -> Result<()> {
    head(r)?;
    recommended(r)?;
    table(r, all)?;
    sure(r)?;
    say(format_args!("try it     {}", command(r, store)))
}

fn head(r: &TuneReport) -> Result<()> {
    say(format_args!(
        "{}: {} cells, {}, {}; minibatches of {}",
        r.location,
        count(r.n_cells),
        r.format,
        bytes(r.store_bytes),
        count(r.batch_size)
    ))?;
    let l = &r.label;
    let missing = if l.n_missing > 0 {
        format!("; {} cells without count as one more", count(l.n_missing))
    } else {
        String::new()
    };
    say(format_args!(
        "label      {}: {} labels, {:.2} bits, the most frequent has {:.0} % of the cells{missing}",
        l.column,
        count(l.n_labels as u64),
        l.entropy,
        100.0 * l.largest_share
    ))?;
    say(format_args!(
        "on disk    {} runs of one label; a cell's run has {} cells, the longest {}",
        count(l.n_runs),
        rate(l.mean_run_of_a_cell),
        count(l.longest_run)
    ))?;
    let target = match r.target {
        Target::Deff(most) => format!("DEFF_{} of at most {most}", r.window),
        Target::Entropy(share) => format!(
            "{:.2} bits in a minibatch, {} % of the {:.2} of true random",
            share * l.entropy_random,
            share * 100.0,
            l.entropy_random
        ),
        _ => String::new(),
    };
    say(format_args!("target     {target}, within {} of memory", bytes(r.memory)))?;
    say(format_args!("page cache {} decides: {}", r.page_cache.as_str(), r.page_cache_reason))?;
    if let Some(note) = &r.cold_note {
        say(format_args!("           cold: {note}"))?;
    }
    if l.n_labels + usize::from(l.n_missing > 0) < 2 {
        say(
            "note       the label has one value, so nothing can be mixed: the choice is by speed alone;",
        )?;
        say("           name a column that varies, such as the plate, the donor or the drug")?;
    }
    Ok(())
}

fn recommended(r: &TuneReport) -> Result<()> {
    let best = r.best();
    say("")?;
    if r.meets {
        say(format_args!(
            "RECOMMENDED  {}, block_size {}, fetch_factor {}, read_ahead {}, threads {}",
            best.sampler, best.block_size, best.fetch_factor, r.read_ahead, r.threads
        ))?;
    } else {
        say(format_args!(
            "NOTHING MEETS THE TARGET within the memory. The most diverse that fits is:\n             \
             {}, block_size {}, fetch_factor {}, read_ahead {}, threads {}",
            best.sampler, best.block_size, best.fetch_factor, r.read_ahead, r.threads
        ))?;
        match r.would_meet.and_then(|i| r.candidates.get(i)) {
            Some(c) => say(format_args!(
                "             {}, block_size {}, fetch_factor {} would meet it, with --memory {}",
                c.sampler,
                c.block_size,
                c.fetch_factor,
                memory(c.memory.div_ceil(1 << 20) << 20)
            ))?,
            None => {
                say("             no setting that was looked at would meet it with more memory")?;
            }
        }
    }
    match best.sampler {
        Sampler::StratifiedByLabel => say(format_args!(
            "  it needs the labels: --by {}, which reads the column when the run begins",
            r.label.column
        ))?,
        Sampler::Stratified => say("  stratified by position: it needs no labels")?,
        _ => {}
    }
    let c = &r.check;
    let line = |what: &str, predicted: &str, measured: &str| {
        say(format_args!("  {what:<24}{predicted:>16}{measured:>16}"))
    };
    line("", "predicted", "measured")?;
    line("cells/s", &about(c.predicted), &about(c.measured))?;
    let e = |error: Option<f64>| error.map(|e| format!(" +-{e:.2}")).unwrap_or_default();
    let d = |d: &cellfeed::tune::Diversity| format!("{}{}", deff(d.deff_w), e(d.deff_w_error));
    line(&format!("DEFF_{}", r.window), &d(&c.expected), &d(&c.seen))?;
    let bits = |bits: f64| format!("{bits:.3}");
    line("entropy, bits", &bits(c.expected.entropy), &bits(c.seen.entropy))?;
    say(format_args!(
        "  measured in {} runs over {} cells: {} to {} cells/s; true random has {:.3} bits",
        c.runs,
        count(c.cells),
        about(c.range.0),
        about(c.range.1),
        r.label.entropy_random
    ))?;
    say(format_args!(
        "  a fetch of {} cells needs a memory limit of {}",
        count(best.fetch_size(r.batch_size)),
        bytes(best.memory)
    ))?;
    against(r)
}

/// What is gained over what one would have taken.
fn against(r: &TuneReport) -> Result<()> {
    let find = |sampler: Sampler, b: u64, f: u64| {
        r.candidates
            .iter()
            .find(|c| c.sampler == sampler && c.block_size == b && c.fetch_factor == f)
    };
    let best = r.best();
    let default = find(Sampler::Stratified, 16, 256);
    let random = find(Sampler::BlockShuffling, 1, best.fetch_factor);
    for (what, c) in [
        (format!("true random, fetch_factor {}", best.fetch_factor), random),
        ("stratified 16 x 256, the default".to_owned(), default),
    ] {
        let Some(c) = c.filter(|c| !std::ptr::eq(*c, best)) else { continue };
        let Some(speed) = c.speed(r.page_cache) else { continue };
        let how = if speed.measured.is_some() { "measured" } else { "predicted" };
        say(format_args!(
            "  {:<36} {:>10} cells/s ({how}), {} {}: this is {:.1} times as fast",
            what,
            about(speed.best()),
            match r.target {
                Target::Entropy(_) => "bits".to_owned(),
                _ => format!("DEFF_{}", r.window),
            },
            match r.target {
                Target::Entropy(_) => format!("{:.3}", c.diversity.entropy),
                _ => deff(c.diversity.deff_w),
            },
            r.check.measured / speed.best().max(1e-9)
        ))?;
    }
    Ok(())
}

fn table(r: &TuneReport, all: bool) -> Result<()> {
    let both = r.candidates.iter().any(|c| c.cold.is_some())
        && r.candidates.iter().any(|c| c.warm.is_some());
    let mut rows: Vec<(usize, &Candidate)> = r
        .candidates
        .iter()
        .enumerate()
        .filter(|(i, c)| all || c.frontier || *i == r.recommended)
        .collect();
    let speed = |c: &Candidate| c.speed(r.page_cache).map_or(0.0, |s| s.best());
    rows.sort_by(|a, b| speed(b.1).total_cmp(&speed(a.1)));
    if !all && rows.len() > SHOWN {
        // The most diverse, and every other of the rest.
        let cut = rows.iter().position(|(i, _)| *i == r.recommended).unwrap_or(0);
        let from = cut.saturating_sub(SHOWN / 2).min(rows.len() - SHOWN);
        rows = rows.split_off(from);
        rows.truncate(SHOWN);
    }
    say("")?;
    say(if all {
        "SETTINGS, the fastest first"
    } else {
        "FRONTIER: no other setting that fits is both faster and more diverse (--all shows all)"
    })?;
    let states: &[PageCache] = match (both, r.page_cache) {
        (true, PageCache::Warm) => &[PageCache::Warm, PageCache::Cold],
        (true, PageCache::Cold) => &[PageCache::Cold, PageCache::Warm],
        (false, PageCache::Warm) => &[PageCache::Warm],
        (false, PageCache::Cold) => &[PageCache::Cold],
    };
    let speeds: String =
        states.iter().map(|s| format!("{:>17}", format!("cells/s {}", s.as_str()))).collect();
    say(format_args!(
        "    strategy              block  fetch{:>10}{:>8}{:>8}{speeds}{:>12}",
        format!("DEFF_{}", r.window),
        "theory",
        "bits",
        "memory"
    ))?;
    for (i, c) in rows {
        let mark = match (i == r.recommended, c.fits, c.meets) {
            (true, ..) => ">>",
            (_, false, _) => " -",
            (_, _, true) => " *",
            _ => "  ",
        };
        let cell = |s: Option<Speed>| match s {
            None => format!("{:>17}", "-"),
            Some(s) => {
                let how = if s.measured.is_some() { " m" } else { "  " };
                format!("{:>15}{how}", about(s.best()))
            }
        };
        let speeds: String = states.iter().map(|s| cell(c.speed(*s))).collect();
        let name = if c.block_size == 1 { "true-random" } else { c.sampler.as_str() };
        say(format_args!(
            "{mark}  {name:<21}{:>6}{:>7}{:>10}{:>8}{:>8.3}{speeds}{:>12}",
            c.block_size,
            c.fetch_factor,
            deff(c.diversity.deff_w),
            deff(c.theory.and_then(|t| t.deff_w)),
            c.diversity.entropy,
            bytes(c.memory)
        ))?;
    }
    say("    >> recommended, * meets the target, - needs more memory; m measured, else predicted")
}

fn sure(r: &TuneReport) -> Result<()> {
    let e = &r.effort;
    say("")?;
    say(format_args!(
        "HOW SURE   {} cells were timed in {} runs; it took {:.0} s",
        count(e.cells),
        count(e.runs),
        e.seconds
    ))?;
    say(format_args!(
        "           repeats differ by {} (median), {} at most; predictions are off by {} (rms), {} at",
        percent(e.spread),
        percent(e.worst_spread),
        percent(r.model.error),
        percent(r.model.worst)
    ))?;
    say(format_args!(
        "           most, when each of {} timed settings is predicted from the others",
        r.model.n_points
    ))?;
    if e.worst_spread.is_some_and(|s| s > 0.3) {
        say(
            "           repeats differ much: something else runs on this machine, or the disk is unsteady",
        )?;
    }
    if let Some(share) = e.warm_share {
        say(format_args!(
            "           {} of the store was in the page cache for warm runs",
            percent(Some(share))
        ))?;
    }
    if let (Some(share), true) = (e.cold_share, r.candidates.iter().any(|c| c.cold.is_some())) {
        say(format_args!(
            "           {} of it was left there for cold runs",
            percent(Some(share))
        ))?;
    }
    let trials = |trials: &[(usize, f64)]| {
        let list: Vec<String> =
            trials.iter().map(|(n, rate)| format!("{n}: {}", about(*rate))).collect();
        list.join(", ")
    };
    say(format_args!("read_ahead {} cells/s", trials(&r.read_ahead_trials)))?;
    say(format_args!("threads    {} cells/s", trials(&r.thread_trials)))
}
