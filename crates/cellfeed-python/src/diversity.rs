//! How diverse the minibatches of a plan are: measured on the labels alone, and as theory expects.

use crate::errors::raise;
use crate::plan::{Plan, labels_of};
use crate::store::Store;
use crate::wait::blocking;
use crate::work::{Told, Work};
use cellfeed::diversity::{
    DiversityMeter, Expected, LabelStructure, Sampling, expected, expected_in_order, shares_entropy,
};
use cellfeed::{Error, ErrorKind, Result, Strategy};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

const MEASURING: &str = "running the plan over the label";
const NO_THEORY: &str = "there is no closed form for weighted sampling; DEFF is measured against the \
     shares that labels have in what is drawn";
const RANKS: &str = "no DEFF of a window is expected for streaming on several ranks: fetches that \
     follow each other on a rank do not in the file";

/// A label of each cell of a store.
#[pyclass(frozen, module = "cellfeed._native")]
pub(crate) struct Labels(Arc<cellfeed::diversity::Labels>);

#[pymethods]
impl Labels {
    /// Those of an obs column.
    #[staticmethod]
    fn of_column(py: Python<'_>, store: &Store, column: String) -> PyResult<Self> {
        let backend = Arc::clone(store.get()?.backend());
        let read = move || cellfeed::diversity::Labels::read(backend.as_ref(), &column);
        Ok(Self(Arc::new(blocking(py, read)?)))
    }

    /// Those of codes, which are negative where a cell has none.
    #[staticmethod]
    fn of_codes(codes: PyReadonlyArray1<'_, i64>) -> PyResult<Self> {
        let codes = codes.as_array().to_vec();
        Ok(Self(Arc::new(labels_of(&codes).map_err(raise)?)))
    }
}

/// Begins to run a plan over labels, from an epoch on: what it has of one epoch, or so many minibatches.
#[pyfunction]
#[pyo3(signature = (plan, labels, *, window, epoch, minibatches))]
pub(crate) fn diversity(
    plan: &Plan,
    labels: &Labels,
    window: u64,
    epoch: u64,
    minibatches: Option<u64>,
) -> PyResult<Work> {
    let refuse = |what: String| Err(raise(Error::invalid_input(what)));
    if !(1..=1 << 20).contains(&window) {
        return refuse(format!("a window of {window} minibatches is not between 1 and 2^20"));
    }
    if labels.0.codes().len() as u64 != plan.0.n_obs() {
        return refuse(format!(
            "there are labels of {} cells, and the plan is over {}; give one for each",
            labels.0.codes().len(),
            plan.0.n_obs()
        ));
    }
    let left = plan.0.n_minibatches_of(epoch) - plan.0.first_minibatch(epoch);
    if plan.0.n_minibatches() == 0 || minibatches.unwrap_or(left) == 0 {
        return refuse("an epoch has no minibatch; lower batch_size".to_owned());
    }
    let order = plan.1.as_ref().map(|strata| strata.blocks().to_vec());
    let run = Run {
        plan: plan.0.clone(),
        order,
        labels: Arc::clone(&labels.0),
        window,
        epoch,
        wanted: minibatches.unwrap_or(left),
    };
    Work::begin(move |told| run.report(told))
}

struct Run {
    plan: cellfeed::Plan,
    /// The blocks in their order, if they are sorted by labels.
    order: Option<Vec<u32>>,
    labels: Arc<cellfeed::diversity::Labels>,
    window: u64,
    epoch: u64,
    wanted: u64,
}

impl Run {
    fn report(&self, told: &Told) -> Result<Value> {
        let plan = &self.plan;
        let chosen = self.labels.of_subset(plan.subset())?;
        let mut theory = self.theory(&chosen)?;
        let mut note = None;
        let counts = if theory.is_some() {
            chosen.counts().to_vec()
        } else {
            note = Some(NO_THEORY);
            // Labels come as often as weights say.
            let mut counts = vec![0; self.labels.counts().len()];
            self.minibatches(told, |codes| {
                codes.iter().filter_map(|&c| usize::try_from(c).ok()).for_each(|c| counts[c] += 1);
            })?;
            counts
        };
        let streaming = matches!(plan.strategy(), Strategy::Streaming { .. });
        if streaming && self.window > 1 && plan.world_size() > 1 {
            note = Some(RANKS);
            theory = theory.map(|t| Expected { deff_w: None, ..t });
        }
        let mut meter = DiversityMeter::new(&counts, plan.batch_size(), self.window);
        self.minibatches(told, |codes| meter.push(codes))?;
        let mut structure = LabelStructure::new([]);
        structure.extend(chosen.codes());
        let missing = chosen.n_missing();
        let present = chosen.counts().iter().filter(|&&c| c > 0).count();
        let shares: Vec<f64> = chosen.counts().iter().map(|&c| c as f64).collect();
        Ok(json!({
            "n_cells": plan.subset().n_cells(),
            "n_labels": present - usize::from(missing > 0),
            "n_missing": missing,
            "strategy": plan.describe(),
            "window": self.window,
            "n_minibatches": meter.n_minibatches(),
            "n_partial": meter.n_partial(),
            "entropy": meter.entropy_mean(),
            "entropy_spread": meter.entropy_spread(),
            "deff_1": meter.deff_1(),
            "deff_w": meter.deff_w(),
            "entropy_store": shares_entropy(&shares),
            "n_runs": structure.n_runs(),
            "mean_run": structure.mean_run(),
            "longest_run": structure.longest_run(),
            "expected": theory.map(|t| json!({
                "entropy": t.entropy,
                "entropy_lower_bound": t.lower_bound,
                "entropy_upper_bound": t.upper_bound,
                "rho": t.rho,
                "deff_1": t.deff_1,
                "deff_w": t.deff_w,
            })),
            "note": note,
        }))
    }

    /// What is expected, for strategies that have a closed form.
    fn theory(&self, labels: &cellfeed::diversity::Labels) -> Result<Option<Expected>> {
        let (m, f, w) = (self.plan.batch_size(), self.plan.fetch_factor(), self.window);
        let sampling = match self.plan.strategy() {
            Strategy::BlockShuffling { block_size } => Sampling::Blocks { block_size },
            Strategy::StratifiedBlockShuffling { block_size } => match &self.order {
                Some(order) => {
                    return expected_in_order(labels, block_size, order, m, f, w).map(Some);
                }
                None => Sampling::StratifiedBlocks { block_size },
            },
            Strategy::Streaming { shuffle: false } => Sampling::Streaming,
            Strategy::Streaming { shuffle: true } => Sampling::StreamingShuffled,
            Strategy::TrueRandom => Sampling::Blocks { block_size: 1 },
            _ => return Ok(None),
        };
        expected(labels, sampling, m, f, w).map(Some)
    }

    /// The codes of each minibatch, one after the other.
    fn minibatches(&self, told: &Told, mut take: impl FnMut(&[u32])) -> Result<()> {
        let plan = &self.plan;
        let (mut codes, mut of_one): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut done = 0;
        let mut epoch = self.epoch;
        while done < self.wanted {
            let first = plan.first_minibatch(epoch);
            for k in plan.first_fetch(epoch)..plan.n_fetches_of(epoch) {
                if !told.tell(MEASURING, done, self.wanted) {
                    return Err(Error::new(ErrorKind::Cancelled, "measuring was given up"));
                }
                let fetch = plan.fetch(epoch, k)?;
                codes.clear();
                for range in fetch.rows().as_slice() {
                    let at = |row: u64| usize::try_from(row).unwrap_or(usize::MAX);
                    let part = self.labels.codes().get(at(range.start)..at(range.end));
                    codes.extend_from_slice(part.unwrap_or_default());
                }
                let usize_of = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
                // Where the plan was resumed in it, a fetch may be partly done.
                let before = usize_of(first.saturating_sub(fetch.first_minibatch()));
                let left = usize_of(self.wanted - done);
                for minibatch in fetch.minibatches().skip(before).take(left) {
                    of_one.clear();
                    let position = |&p: &u32| usize::try_from(p).unwrap_or(usize::MAX);
                    of_one.extend(minibatch.iter().map(position).filter_map(|p| codes.get(p)));
                    take(&of_one);
                    done += 1;
                }
                if done >= self.wanted {
                    break;
                }
            }
            epoch = epoch.wrapping_add(1);
        }
        Ok(())
    }
}
