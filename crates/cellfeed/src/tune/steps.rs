//! The steps of a tuning, one after the other.

use super::choose::{best, mark_frontier, spread_out};
use super::diversity::{self, Samples, simulate};
use super::files::machine_memory;
use super::model::Model;
use super::options::{PageCache, Target};
use super::report::{Candidate, Check, LabelFacts, ModelFacts, Sampler, Theory, TuneReport};
use super::session::{Run, Session};
use super::timing::{Seen, median};
use super::watch::TuneStage;
use crate::open;
use cellfeed_core::diversity::{Labels, Sampling, expected, expected_in_order};
use cellfeed_core::{Error, Result};
use std::time::{Duration, Instant};

/// Shares of the time at which steps end. Cold runs, where there are any, come before warm ones.
const DIVERSITY_ENDS: f64 = 0.18;
const COLD_ENDS: f64 = 0.38;
const WARMING_ENDS: f64 = 0.45;
const TIMING_ENDS: f64 = 0.66;
const CHECKING_ENDS: f64 = 0.84;
/// Settings that are timed for the model, and turns of those that decide.
const TIMED: usize = 9;
const TURNS: usize = 3;
/// Settings that are checked at most, each time the best by then.
const CHECKS: usize = 4;
/// Runs of a check.
const CHECK_RUNS: usize = 3;
/// Stores below this are in the page cache after the first fetches.
const SMALL: u64 = 64 << 20;
/// The share of pages that may stay in the page cache of a store that was thrown out.
const COLD: f64 = 0.1;
/// By how much more reading ahead or more threads must be faster to be recommended.
const WORTH: f64 = 0.05;

impl Session<'_> {
    pub(super) fn tune(mut self, labels: &Labels, facts: LabelFacts) -> Result<TuneReport> {
        let threads = self.store.as_ref().map_or(1, |s| s.engine().threads());
        let (location, format, n_cells) = self
            .store
            .as_ref()
            .map(|s| (s.schema().location.clone(), s.schema().format.clone(), s.n_obs()))
            .ok_or_else(|| Error::internal("the store was closed"))?;
        self.watch.stage(TuneStage::Diversity, diversity::steps(self.settings.len()))?;
        let deadline = self.watch.at(DIVERSITY_ENDS);
        let (window, batch_size) = (self.options.window, self.options.batch_size);
        let mut samples =
            simulate(&self.settings, labels, window, threads, deadline, &mut self.watch)?;

        let (mut state, mut reason) = self.page_cache();
        let mut cold_note = self.cannot_be_cold(state)?;
        if cold_note.is_some() && state == PageCache::Cold {
            state = PageCache::Warm;
            reason = "the store could not be timed cold".to_owned();
        }
        let with_cold = cold_note.is_none();
        let with_warm = state == PageCache::Warm;
        let chosen = self.choose_timed(if with_cold { PageCache::Cold } else { state })?;
        if with_cold {
            let decides = state == PageCache::Cold;
            let (turns, share) = if decides { (TURNS, TIMING_ENDS) } else { (1, COLD_ENDS) };
            self.watch.stage(TuneStage::Cold, (chosen.len() * turns) as u64)?;
            self.time_all(&chosen, PageCache::Cold, turns, share)?;
            if !decides {
                cold_note = Some("one run of each point, for comparison".to_owned());
            }
        }
        if with_warm {
            self.warm_up()?;
            self.watch.stage(TuneStage::Warm, (chosen.len() * TURNS) as u64)?;
            self.time_all(&chosen, PageCache::Warm, TURNS, TIMING_ENDS)?;
        } else {
            self.effort.warm_share = None;
        }

        let target_entropy = facts.entropy_random;
        let mut candidates = self.candidates(&samples, target_entropy);
        self.watch.stage(TuneStage::Checking, (CHECKS * CHECK_RUNS) as u64)?;
        let mut checks: Vec<(usize, Check)> = Vec::new();
        let (recommended, check) = loop {
            let wanted = best(&candidates, self.options.target, state)
                .ok_or_else(|| Error::internal("no setting fits, but one did"))?;
            if let Some(done) = checks.iter().find(|(i, _)| *i == wanted) {
                break *done;
            }
            let late = self.watch.each(CHECKING_ENDS, 1).is_zero();
            let last = !checks.is_empty() && (late || checks.len() >= CHECKS);
            let wanted = if last {
                // Of those that were run, the best: what was not may be a mistake of the model.
                let mut run: Vec<Candidate> = candidates.clone();
                for c in &mut run {
                    c.fits &= c.speed(state).is_some_and(|s| s.measured.is_some());
                }
                best(&run, self.options.target, state).unwrap_or(wanted)
            } else {
                wanted
            };
            if let Some(done) = checks.iter().find(|(i, _)| *i == wanted) {
                break *done;
            }
            let check = self.check(wanted, state, labels, &mut samples[wanted])?;
            checks.push((wanted, check));
            candidates = self.candidates(&samples, target_entropy);
            if last {
                break (wanted, check);
            }
        };
        self.watch.stage(TuneStage::Trying, 1)?;
        let read_ahead_trials = self.try_read_ahead(recommended, state)?;
        let read_ahead = least_worth(&read_ahead_trials);
        let thread_trials = self.try_threads(recommended, state, read_ahead, threads)?;
        let tuned_threads = least_worth(&thread_trials);

        mark_frontier(&mut candidates, self.options.target, state);
        self.add_theory(&mut candidates, labels);
        let (spread, worst_spread) = self.spreads(state);
        self.effort.spread = spread;
        self.effort.worst_spread = worst_spread;
        self.effort.seconds = self.watch.elapsed().as_secs_f64();
        let would_meet = (0..candidates.len())
            .filter(|&i| candidates[i].meets)
            .min_by_key(|&i| candidates[i].memory);
        let meets = candidates[recommended].meets;
        Ok(TuneReport {
            location,
            format,
            n_cells,
            store_bytes: self.files.bytes,
            batch_size,
            label: facts,
            target: self.options.target,
            window,
            memory: self.options.memory,
            page_cache: state,
            page_cache_reason: reason,
            cold_note,
            meets,
            would_meet: if meets { None } else { would_meet },
            candidates,
            recommended,
            check,
            read_ahead,
            read_ahead_trials,
            threads: tuned_threads,
            thread_trials,
            model: facts_of(self.model(state, None).as_ref()),
            effort: self.effort,
        })
    }

    /// Which state of the page cache decides, and why.
    fn page_cache(&self) -> (PageCache, String) {
        if let Some(state) = self.options.page_cache {
            return (state, "as asked for".to_owned());
        }
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let size = gib(self.files.bytes);
        match machine_memory() {
            None => {
                (PageCache::Warm, "this system does not tell how much memory it has".to_owned())
            }
            Some(memory) => {
                let needed = self.files.bytes.saturating_add(self.options.memory);
                let fits = needed <= memory / 5 * 4;
                let state = if fits { PageCache::Warm } else { PageCache::Cold };
                let how = if fits { "fits" } else { "does not fit" };
                let memory = gib(memory);
                (
                    state,
                    format!("the store, {size:.1} GiB, {how} in this machine's {memory:.1} GiB"),
                )
            }
        }
    }

    /// Why there can be no cold runs, if so. Throws the store out of the page cache to see.
    fn cannot_be_cold(&mut self, state: PageCache) -> Result<Option<String>> {
        if self.options.page_cache == Some(PageCache::Warm) {
            return Ok(Some("not timed cold, as asked for".to_owned()));
        }
        if self.files.bytes < SMALL && state == PageCache::Warm {
            return Ok(Some(
                "not timed cold: so small a store is in the page cache after its first fetches"
                    .to_owned(),
            ));
        }
        self.store = None;
        self.files.forget()?;
        let share = self.files.resident();
        self.effort.cold_share = Some(share);
        Ok((share > COLD).then(|| {
            format!(
                "not timed cold: {:.0} % of the store stayed in the page cache when it was asked to \
                 go (other programs may map it, or its file system keep it)",
                100.0 * share
            )
        }))
    }

    /// Reads the store into the page cache.
    fn warm_up(&mut self) -> Result<()> {
        self.watch.stage(TuneStage::Warming, 1)?;
        if self.files.resident() < 1.0 {
            let deadline = self.watch.at(WARMING_ENDS);
            let watch = &mut self.watch;
            self.files.read_all(deadline, &mut || watch.tick())?;
        }
        self.effort.warm_share = Some(self.files.resident());
        Ok(())
    }

    /// Settings to time: spread over the grid, but none whose fetches are too long to time. A first short
    /// run tells what is.
    fn choose_timed(&mut self, state: PageCache) -> Result<Vec<usize>> {
        let limit = self.options.memory;
        let usual = |i: &usize| {
            let s = &self.settings[*i];
            // Samplers read alike: one stands for all.
            (s.sampler == Sampler::Stratified || s.block_size == 1) && s.memory <= limit
        };
        let usable: Vec<usize> = (0..self.settings.len()).filter(usual).collect();
        let place = |i: usize| {
            let s = &self.settings[i];
            ((s.block_size as f64).log2(), (s.fetch_factor as f64).log2())
        };
        let places: Vec<_> = usable.iter().map(|&i| place(i)).collect();
        let off = |p: &(f64, f64)| (p.0 - 4.0).hypot(p.1 - 4.0);
        let first = (0..places.len())
            .min_by(|&a, &b| off(&places[a]).total_cmp(&off(&places[b])))
            .ok_or_else(|| Error::internal("no setting fits, but one did"))?;
        let turns = if state == PageCache::Cold { TURNS + 1 } else { TURNS };
        let duration = self.watch.each(TIMING_ENDS, TIMED * turns);
        let probe = Run {
            setting: usable[first],
            state,
            read_ahead: 1,
            threads: None,
            duration: duration / 2,
        };
        let rate = self.time(probe, None)?.rate();
        let bytes = |i: usize| {
            let x = &self.settings[usable[i]].features;
            x.read + x.decoded
        };
        // As if all the time went into bytes, which is the worst that it can.
        let seconds = |i: usize| {
            let more = (bytes(i) / bytes(first).max(1.0)).max(0.2);
            self.settings[usable[i]].features.cells * more / rate.max(1e-9)
        };
        let allowed = |i: usize| 3.0 * seconds(i) <= duration.as_secs_f64();
        let chosen = spread_out(&places, first, TIMED, allowed);
        Ok(chosen.into_iter().map(|i| usable[i]).collect())
    }

    /// All settings, with what is known of them.
    fn candidates(&self, samples: &[Samples], entropy_random: f64) -> Vec<Candidate> {
        let (warm, cold) = (self.speeds(PageCache::Warm), self.speeds(PageCache::Cold));
        let mut candidates = Vec::with_capacity(self.settings.len());
        for (i, setting) in self.settings.iter().enumerate() {
            let diversity = samples[i].mean();
            let meets = match self.options.target {
                Target::Deff(most) => diversity.deff_w.is_none_or(|deff| deff <= most),
                // A hair below is rounding.
                Target::Entropy(share) => diversity.entropy >= share * entropy_random - 1e-9,
            };
            candidates.push(Candidate {
                sampler: setting.sampler,
                block_size: setting.block_size,
                fetch_factor: setting.fetch_factor,
                memory: setting.memory,
                memory_ahead: setting.memory_ahead,
                fits: setting.memory <= self.options.memory,
                diversity,
                theory: None,
                meets,
                warm: warm[i],
                cold: cold[i],
                frontier: false,
            });
        }
        candidates
    }

    /// Runs a setting against its prediction from the others, and looks closer at its diversity.
    fn check(
        &mut self,
        setting: usize,
        state: PageCache,
        labels: &Labels,
        samples: &mut Samples,
    ) -> Result<Check> {
        let (window, batch_size) = (self.options.window, self.options.batch_size);
        let features = self.settings[setting].features;
        let predicted = self.model(state, Some(setting)).or_else(|| self.model(state, None));
        let predicted = predicted.map_or(0.0, |m| 1.0 / m.seconds(&features));
        for _ in 0..4 {
            samples.add(&self.settings[setting].plan, labels, window)?;
            self.watch.tick()?;
        }
        let (mut rates, mut cut, mut cells) = (Vec::new(), Vec::new(), 0);
        let mut seen = Samples::default();
        let each = self.watch.each(CHECKING_ENDS, CHECK_RUNS + 1);
        for _ in 0..CHECK_RUNS {
            let mut labels_seen = Seen::new(labels, batch_size, window);
            let run = Run { setting, state, read_ahead: 1, threads: None, duration: each };
            let timed = self.time(run, Some(&mut labels_seen))?;
            if timed.cut_off { &mut cut } else { &mut rates }.push(timed.rate());
            cells += timed.all_cells;
            seen.take(&labels_seen.meter);
            self.watch.step();
        }
        // Runs that were all cut off still say that it is slow.
        if rates.is_empty() {
            rates = cut;
        }
        let range = (
            rates.iter().copied().fold(f64::MAX, f64::min),
            rates.iter().copied().fold(0.0, f64::max),
        );
        let measured = median(&rates);
        self.rates(state)[setting].extend(&rates);
        Ok(Check {
            predicted,
            measured,
            range,
            runs: rates.len(),
            cells,
            expected: samples.mean(),
            seen: seen.mean(),
        })
    }

    /// Cells a second with one fetch read ahead and with more, as memory permits.
    fn try_read_ahead(&mut self, setting: usize, state: PageCache) -> Result<Vec<(usize, f64)>> {
        let (memory, ahead) = (self.settings[setting].memory, self.settings[setting].memory_ahead);
        let fits = |&r: &usize| {
            memory.saturating_add(ahead.saturating_mul(r as u64 - 1)) <= self.options.memory
        };
        let tried: Vec<usize> = [1, 2, 4].into_iter().filter(fits).collect();
        let run = |read_ahead| (read_ahead, None);
        self.trials(setting, state, 0.92, &tried, run)
    }

    /// Cells a second with all threads and with fewer.
    fn try_threads(
        &mut self,
        setting: usize,
        state: PageCache,
        read_ahead: usize,
        most: usize,
    ) -> Result<Vec<(usize, f64)>> {
        let mut tried = vec![most.div_ceil(4), most.div_ceil(2), most];
        tried.dedup();
        // An engine that is shared with others has the threads that it has.
        let open_options = self.open_options().with_threads(tried[0]);
        if open(self.uri, &open_options)?.engine().threads() != tried[0] {
            tried = vec![most];
        }
        self.trials(setting, state, 1.0, &tried, |threads| (read_ahead, Some(threads)))
    }

    /// Times a setting in several ways, in turns: for each the median.
    fn trials(
        &mut self,
        setting: usize,
        state: PageCache,
        share: f64,
        ways: &[usize],
        of: impl Fn(usize) -> (usize, Option<usize>),
    ) -> Result<Vec<(usize, f64)>> {
        if let [only] = ways {
            // Nothing to compare.
            let known = median(&self.rates(state)[setting]);
            return Ok(vec![(*only, known)]);
        }
        let turns = 3;
        let mut rates = vec![Vec::new(); ways.len()];
        for turn in 0..turns {
            for (i, &way) in ways.iter().enumerate() {
                let duration: Duration = self.watch.each(share, (turns - turn) * ways.len() - i);
                let (read_ahead, threads) = of(way);
                let run = Run { setting, state, read_ahead, threads, duration };
                let timed = self.time(run, None)?;
                if !timed.cut_off || rates[i].is_empty() {
                    rates[i].push(timed.rate());
                }
            }
            if self.watch.each(share, 1).is_zero() {
                break;
            }
        }
        Ok(ways.iter().copied().zip(rates.iter().map(|r| median(r))).collect())
    }

    /// What theory expects of the settings that it knows, while there is time: a part of a second for
    /// each on large stores.
    fn add_theory(&self, candidates: &mut [Candidate], labels: &Labels) {
        let until = Instant::now() + Duration::from_secs(2);
        let n = candidates.len();
        // Those that are shown come first.
        let mut order: Vec<usize> = (0..n).filter(|&i| candidates[i].frontier).collect();
        order.extend((0..n).filter(|&i| !candidates[i].frontier));
        for i in order {
            let c = &mut candidates[i];
            if Instant::now() >= until {
                break;
            }
            let (m, b, f) = (self.options.batch_size, c.block_size, c.fetch_factor);
            let w = self.options.window;
            let theory = match c.sampler {
                Sampler::BlockShuffling => {
                    expected(labels, Sampling::Blocks { block_size: b }, m, f, w)
                }
                Sampler::Stratified => {
                    expected(labels, Sampling::StratifiedBlocks { block_size: b }, m, f, w)
                }
                Sampler::StratifiedByLabel => {
                    let Some(strata) = &self.settings[i].strata else { continue };
                    expected_in_order(labels, b, strata.blocks(), m, f, w)
                }
            };
            c.theory = theory.ok().map(|e| Theory { entropy: e.entropy, deff_w: e.deff_w });
        }
    }
}

/// The least of some ways whose speed is near that of the best.
fn least_worth(trials: &[(usize, f64)]) -> usize {
    let most = trials.iter().map(|t| t.1).fold(0.0, f64::max);
    trials.iter().find(|t| t.1 >= most * (1.0 - WORTH)).map_or(1, |t| t.0)
}

fn facts_of(model: Option<&Model>) -> ModelFacts {
    let n_points = model.map_or(0, Model::n_points);
    ModelFacts {
        n_points,
        error: model.and_then(Model::error),
        worst: model.and_then(Model::worst),
        terms: model.map(Model::parts).unwrap_or_default(),
    }
}
