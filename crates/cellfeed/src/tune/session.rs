//! One tuning in progress: the store, what was timed of it, and how it is timed.

use super::candidates::Setting;
use super::files::Files;
use super::model::{Model, Point};
use super::options::{PageCache, TuneOptions};
use super::report::{Effort, Speed};
use super::timing::{self, Seen, Span, Timed, median, spread};
use super::watch::Watch;
use crate::{OpenOptions, Store, open};
use cellfeed_core::{LoaderOptions, Result};
use std::time::Duration;

/// A run is no shorter, however little time there is, and no longer.
const SHORTEST: Duration = Duration::from_millis(150);
const LONGEST: Duration = Duration::from_secs(4);

/// The store, what was timed of it, and how.
pub(super) struct Session<'a> {
    pub(super) uri: &'a str,
    pub(super) label: &'a str,
    pub(super) options: &'a TuneOptions,
    pub(super) watch: Watch<'a>,
    pub(super) files: Files,
    pub(super) settings: Vec<Setting>,
    /// Kept open between warm runs; closed before cold ones, since what is mapped stays in memory.
    pub(super) store: Option<Store>,
    /// Cells a second of each run of each setting.
    pub(super) warm: Vec<Vec<f64>>,
    pub(super) cold: Vec<Vec<f64>>,
    pub(super) effort: Effort,
    /// No two runs are of one epoch.
    pub(super) epoch: u64,
}

/// What a run is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) setting: usize,
    pub(super) state: PageCache,
    pub(super) read_ahead: usize,
    /// As the store was opened if not said.
    pub(super) threads: Option<usize>,
    pub(super) duration: Duration,
}

impl Session<'_> {
    pub(super) fn open_options(&self) -> OpenOptions {
        // What the loader's own engine would keep.
        self.options.open.clone().with_keep_bytes(self.options.memory / 4)
    }

    /// Times one run.
    pub(super) fn time(&mut self, run: Run, seen: Option<&mut Seen<'_>>) -> Result<Timed> {
        let mut open_options = self.open_options();
        if let Some(threads) = run.threads {
            open_options = open_options.with_threads(threads);
        }
        let cold = run.state == PageCache::Cold;
        if cold {
            self.store = None;
            self.files.forget()?;
        }
        let store = match &self.store {
            Some(store) if run.threads.is_none() => store.clone(),
            _ => open(self.uri, &open_options)?,
        };
        if !cold && run.threads.is_none() {
            self.store = Some(store.clone());
        }
        let options = LoaderOptions::default()
            .with_matrix(self.options.matrix.clone())
            .with_obs([self.label])
            .with_layout(self.options.layout)
            .with_output(self.options.output)
            .with_memory(self.options.memory)
            .with_read_ahead(run.read_ahead);
        self.epoch += 1;
        let duration = run.duration.clamp(SHORTEST, LONGEST);
        let span = Span { duration, epoch: self.epoch, one_epoch: cold };
        let plan = &self.settings[run.setting].plan;
        let timed = timing::run(&store, plan, &options, span, seen, &mut self.watch)?;
        self.effort.runs += 1;
        self.effort.cells += timed.all_cells;
        Ok(timed)
    }

    /// Times settings in turns, so that what else the machine does meets all of them, until a share of
    /// the time is over; each once at least.
    pub(super) fn time_all(
        &mut self,
        chosen: &[usize],
        state: PageCache,
        turns: usize,
        share: f64,
    ) -> Result<()> {
        for turn in 0..turns {
            for (i, &setting) in chosen.iter().enumerate() {
                let left = (turns - turn) * chosen.len() - i;
                let duration = self.watch.each(share, left);
                if turn > 0 && duration < SHORTEST {
                    return Ok(());
                }
                let run = Run { setting, state, read_ahead: 1, threads: None, duration };
                let timed = self.time(run, None)?;
                self.rates(state)[setting].push(timed.rate());
                self.watch.step();
            }
        }
        Ok(())
    }

    pub(super) fn rates(&mut self, state: PageCache) -> &mut Vec<Vec<f64>> {
        match state {
            PageCache::Warm => &mut self.warm,
            PageCache::Cold => &mut self.cold,
        }
    }

    fn timed(&self, state: PageCache) -> &[Vec<f64>] {
        match state {
            PageCache::Warm => &self.warm,
            PageCache::Cold => &self.cold,
        }
    }

    /// The model of what was timed, one setting left out if it is to be predicted.
    pub(super) fn model(&self, state: PageCache, without: Option<usize>) -> Option<Model> {
        let timed = self.timed(state).iter().enumerate();
        let points: Vec<Point> = timed
            .filter(|(i, rates)| !rates.is_empty() && Some(*i) != without)
            .map(|(i, rates)| Point {
                features: self.settings[i].features,
                seconds: 1.0 / median(rates).max(1e-9),
            })
            .collect();
        Model::fit(&points)
    }

    /// The speed of every setting, as measured and as predicted.
    pub(super) fn speeds(&self, state: PageCache) -> Vec<Option<Speed>> {
        let Some(model) = self.model(state, None) else { return vec![None; self.settings.len()] };
        let of = |(setting, rates): (&Setting, &Vec<f64>)| {
            Some(Speed {
                predicted: 1.0 / model.seconds(&setting.features),
                measured: (!rates.is_empty()).then(|| median(rates)),
                runs: rates.len(),
                spread: spread(rates),
            })
        };
        self.settings.iter().zip(self.timed(state)).map(of).collect()
    }

    /// What repeats differ by: the median over settings, and the most.
    pub(super) fn spreads(&self, state: PageCache) -> (Option<f64>, Option<f64>) {
        let spreads: Vec<f64> =
            self.timed(state).iter().filter(|r| r.len() > 1).map(|r| spread(r)).collect();
        let most = spreads.iter().copied().reduce(f64::max);
        (most.map(|_| median(&spreads)), most)
    }
}
