//! Diversity of settings: their real plans, run over the codes of the label. No matrix is read.

use super::candidates::Setting;
use super::report::Diversity;
use super::watch::Watch;
use cellfeed_core::diversity::{DiversityMeter, Labels};
use cellfeed_core::{Error, Plan, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::Instant;

/// Minibatches of a sample at least, in windows; and fetches at least.
const WINDOWS: u64 = 8;
const FETCHES: u64 = 2;
/// Fetches of an epoch that is not cut off.
const WHOLE_EPOCHS: u64 = 16;
/// Samples of a setting: at least, for a standard error, and at most.
const LEAST_SAMPLES: u64 = 2;
const MOST_SAMPLES: u64 = 24;
/// A standard error of the design effect, as a share of it, that is small enough.
const SMALL_ERROR: f64 = 0.02;

/// What is measured of one setting, sample by sample.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    deffs: Vec<f64>,
    sum: Diversity,
    n: u32,
}

impl Samples {
    /// Runs the plan over labels for one sample more: of an epoch that no other sample has.
    pub(super) fn add(&mut self, plan: &Plan, labels: &Labels, window: u64) -> Result<()> {
        let mut meter = DiversityMeter::new(labels.counts(), plan.batch_size(), window);
        // An epoch of its own for each sample, or as many as it takes; the loader's are others.
        let wanted = (window * WINDOWS).max(FETCHES * plan.fetch_factor());
        let mut epoch = (u64::from(self.n) + 1) << 32;
        let (mut codes, mut minibatch_codes) = (Vec::new(), Vec::new());
        'sample: loop {
            for k in 0..plan.n_fetches() {
                let fetch = plan.fetch(epoch, k)?;
                codes.clear();
                for range in fetch.rows().as_slice() {
                    let at = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
                    let stretch = labels.codes().get(at(range.start)..at(range.end));
                    codes.extend_from_slice(stretch.ok_or_else(|| {
                        Error::internal("the obs column is shorter than the store")
                    })?);
                }
                for minibatch in fetch.minibatches() {
                    // What is left over in an epoch would only end the window.
                    if minibatch.len() as u64 != plan.batch_size() {
                        continue;
                    }
                    minibatch_codes.clear();
                    let position = |&p: &u32| usize::try_from(p).unwrap_or(usize::MAX);
                    minibatch_codes
                        .extend(minibatch.iter().map(position).filter_map(|p| codes.get(p)));
                    meter.push(&minibatch_codes);
                }
                // Short epochs are seen to their ends: the last fetch is smaller than others there, and
                // less diverse.
                let cut = k + 1 == plan.n_fetches() || plan.n_fetches() > WHOLE_EPOCHS;
                if cut && meter.n_minibatches() >= wanted {
                    break 'sample;
                }
            }
            epoch += 1;
        }
        self.take(&meter);
        Ok(())
    }

    /// Takes what a meter has seen, as one sample.
    pub(super) fn take(&mut self, meter: &DiversityMeter) {
        self.n += 1;
        // Of each minibatch alike: samples that were cut off are smaller than others.
        self.sum.entropy += meter.entropy_mean().unwrap_or(0.0) * meter.n_minibatches() as f64;
        self.sum.n_minibatches += meter.n_minibatches();
        let sum = |sum: Option<f64>, more: Option<f64>| more.map(|more| sum.unwrap_or(0.0) + more);
        self.sum.deff_1 = sum(self.sum.deff_1, meter.deff_1());
        self.sum.deff_w = sum(self.sum.deff_w, meter.deff_w());
        self.deffs.extend(meter.deff_w());
    }

    /// The mean over the samples: of the entropy over all their minibatches.
    pub(super) fn mean(&self) -> Diversity {
        let n = f64::from(self.n.max(1));
        let count = self.deffs.len() as f64;
        let mean = self.deffs.iter().sum::<f64>() / count;
        let squares: f64 = self.deffs.iter().map(|d| (d - mean).powi(2)).sum();
        Diversity {
            entropy: self.sum.entropy / self.sum.n_minibatches.max(1) as f64,
            deff_1: self.sum.deff_1.map(|d| d / n),
            deff_w: self.sum.deff_w.map(|d| d / n),
            deff_w_error: (count > 1.0).then(|| (squares / (count - 1.0) / count).sqrt()),
            n_minibatches: self.sum.n_minibatches,
        }
    }

    /// Whether more samples would tell more, after those that there must be.
    fn enough(&self) -> bool {
        let mean = self.mean();
        match (mean.deff_w, mean.deff_w_error) {
            (Some(deff), Some(error)) => error <= SMALL_ERROR * deff,
            // A label with one value: nothing varies.
            (None, _) => u64::from(self.n) >= LEAST_SAMPLES,
            _ => false,
        }
    }
}

/// Measures the diversity of all settings on as many threads, in turns: a sample of each, then another
/// of those that are not sure enough, until the deadline.
pub(super) fn simulate(
    settings: &[Setting],
    labels: &Labels,
    window: u64,
    threads: usize,
    deadline: Instant,
    watch: &mut Watch<'_>,
) -> Result<Vec<Samples>> {
    let mut samples = vec![Samples::default(); settings.len()];
    for turn in 0..MOST_SAMPLES {
        let todo: Vec<usize> =
            (0..settings.len()).filter(|&i| turn < LEAST_SAMPLES || !samples[i].enough()).collect();
        if todo.is_empty() || (turn >= LEAST_SAMPLES && Instant::now() >= deadline) {
            break;
        }
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (sender, answers) = mpsc::channel();
        let before = &samples;
        let found = std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, todo.len()) {
                let (sender, next, stop, todo) = (sender.clone(), &next, &stop, &todo);
                scope.spawn(move || {
                    while let Some(&i) = todo.get(next.fetch_add(1, Relaxed)) {
                        let late = turn >= LEAST_SAMPLES && Instant::now() >= deadline;
                        if late || stop.load(Relaxed) {
                            break;
                        }
                        let mut sample = before[i].clone();
                        let done = sample.add(&settings[i].plan, labels, window);
                        // Nobody listens once there is an error.
                        if sender.send(done.map(|()| (i, sample))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut found = Vec::with_capacity(todo.len());
            for answer in answers {
                let answer = answer.and_then(|answer| watch.tick().map(|()| answer));
                match answer {
                    Ok(answer) => found.push(answer),
                    Err(error) => {
                        stop.store(true, Relaxed);
                        return Err(error);
                    }
                }
                if turn < LEAST_SAMPLES {
                    watch.step();
                }
            }
            Ok(found)
        })?;
        for (i, sample) in found {
            samples[i] = sample;
        }
    }
    Ok(samples)
}

/// How many steps [`simulate`] reports.
pub(super) fn steps(settings: usize) -> u64 {
    settings as u64 * LEAST_SAMPLES
}
