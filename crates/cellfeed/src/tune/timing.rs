//! Runs of the real loader, timed over whole fetches.

use super::watch::Watch;
use crate::Store;
use cellfeed_core::diversity::{DiversityMeter, Labels};
use cellfeed_core::{LoaderOptions, Minibatch, Plan, Result};
use std::time::{Duration, Instant};

/// The share of a run that is for starting: threads, buffers, the first fetch.
const STARTING: f64 = 0.15;
/// A run ends in the middle of a fetch when it has taken so many times as long as it should.
const PATIENCE: f64 = 2.5;

/// What a run took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Timed {
    /// Cells of the fetches that were timed.
    pub(super) cells: u64,
    /// Seconds that they took.
    pub(super) seconds: f64,
    /// All cells that the run handed out.
    pub(super) all_cells: u64,
}

impl Timed {
    pub(super) fn rate(&self) -> f64 {
        self.cells as f64 / self.seconds.max(1e-9)
    }
}

/// The labels of minibatches that the loader hands out.
pub(super) struct Seen<'a> {
    labels: &'a Labels,
    pub(super) meter: DiversityMeter,
    codes: Vec<u32>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(labels: &'a Labels, batch_size: u64, window: u64) -> Self {
        let meter = DiversityMeter::new(labels.counts(), batch_size, window);
        Self { labels, meter, codes: Vec::new() }
    }

    /// Takes a minibatch by its row numbers. One that is not full is left out.
    fn take(&mut self, minibatch: &Minibatch, batch_size: u64) {
        if minibatch.rows().len() as u64 != batch_size {
            return;
        }
        let code = |&row: &u64| {
            usize::try_from(row).ok().and_then(|row| self.labels.codes().get(row)).copied()
        };
        self.codes.clear();
        self.codes.extend(minibatch.rows().iter().filter_map(code));
        self.meter.push(&self.codes);
    }
}

/// How long a run is, and over which epochs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) duration: Duration,
    pub(super) epoch: u64,
    /// Whether it ends with its epoch, as it must where what was read once is in the page cache.
    pub(super) one_epoch: bool,
}

/// Runs the loader as a training loop would, touching every value, and times whole fetches once the
/// first are through.
pub(super) fn run(
    store: &Store,
    plan: &Plan,
    options: &LoaderOptions,
    span: Span,
    mut seen: Option<&mut Seen<'_>>,
    watch: &mut Watch<'_>,
) -> Result<Timed> {
    let loader = store.loader(plan.clone(), options.clone())?;
    let end_epoch = if span.one_epoch { span.epoch.saturating_add(1) } else { u64::MAX };
    let (start, mut cells) = (Instant::now(), 0u64);
    let (mut first, mut last) = (None, None);
    for minibatch in loader.epochs(span.epoch..end_epoch)? {
        let minibatch = minibatch?;
        cells += minibatch.n_cells() as u64;
        std::hint::black_box(minibatch.x().data().sum_f64());
        if let Some(seen) = seen.as_deref_mut() {
            seen.take(&minibatch, plan.batch_size());
        }
        watch.tick()?;
        let now = Instant::now();
        let elapsed = now - start;
        let next = minibatch.number() + 1;
        if next == plan.n_minibatches() || next.is_multiple_of(plan.fetch_factor()) {
            if first.is_some() {
                last = Some((now, cells));
                if elapsed >= span.duration {
                    break;
                }
            } else if elapsed >= span.duration.mul_f64(STARTING) {
                first = Some((now, cells));
            }
        }
        if elapsed >= span.duration.mul_f64(PATIENCE) {
            // Whole fetches, if there was one, count alone.
            last = last.or(first.map(|_| (now, cells)));
            break;
        }
    }
    let (from, to) = match (first, last) {
        (Some(first), Some(last)) if last.1 > first.1 => (first, last),
        // Too short for more than to time all of it.
        _ => ((start, 0), (Instant::now(), cells)),
    };
    Ok(Timed { cells: to.1 - from.1, seconds: (to.0 - from.0).as_secs_f64(), all_cells: cells })
}

/// The middle of some numbers; 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The largest less the smallest, over the median.
pub(super) fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let middle = median(values);
    if values.len() > 1 && middle > 0.0 { (most - least) / middle } else { 0.0 }
}
