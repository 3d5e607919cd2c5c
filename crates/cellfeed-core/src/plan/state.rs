//! Where a run is: small, serialisable, and enough to go on from.

use super::rounds::Rounds;
use super::{PLAN_VERSION, Plan};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The version of [`PlanState`]'s form.
const STATE_VERSION: u32 = 1;

/// Where a run is: which plan, and how many minibatches of which epoch have been yielded. It is the
/// same on every rank, since all yield the same number of minibatches.
///
/// ```
/// use cellfeed_core::{Plan, PlanOptions, Strategy};
///
/// let options = PlanOptions::default().with_batch_size(4).with_fetch_factor(2);
/// let plan = Plan::new(100, Strategy::BlockShuffling { block_size: 4 }, &options)?;
/// let state = plan.state(3, 7)?;
/// let resumed = plan.resume(&state)?;
/// assert_eq!((resumed.first_minibatch(3), resumed.n_minibatches_of(3)), (7, 25));
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanState {
    version: u32,
    plan_version: u32,
    strategy: String,
    n_obs: u64,
    n_cells: u64,
    /// A hash of the subset's rows, and of labels or weights where the strategy has them.
    cells: String,
    batch_size: u64,
    fetch_factor: u64,
    drop_last: bool,
    seed: u64,
    world_size: u64,
    epoch: u64,
    /// Where the epoch's rounds begin: past 0 if it was resumed on another world size.
    start: u64,
    /// Minibatches that each rank has yielded of these rounds.
    minibatch: u64,
}

impl PlanState {
    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many minibatches of the epoch each rank has yielded.
    #[must_use]
    pub fn minibatch(&self) -> u64 {
        self.minibatch
    }
}

/// An epoch that does not begin at its first minibatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resumed {
    pub(super) epoch: u64,
    pub(super) start: u64,
    pub(super) rounds: Rounds,
    pub(super) minibatch: u64,
}

impl Plan {
    /// The state after `minibatch` minibatches of an epoch.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) if the epoch has fewer.
    pub fn state(&self, epoch: u64, minibatch: u64) -> Result<PlanState> {
        let n = self.n_minibatches_of(epoch);
        if minibatch > n {
            return Err(Error::out_of_bounds(format!(
                "{minibatch} minibatches were yielded, but an epoch has {n}"
            )));
        }
        let start = self.resumed_in(epoch).map_or(0, |r| r.start);
        // The end of an epoch is the beginning of the next.
        let (epoch, start, minibatch) = if minibatch == n {
            (epoch.saturating_add(1), 0, 0)
        } else {
            (epoch, start, minibatch)
        };
        Ok(PlanState {
            version: STATE_VERSION,
            plan_version: PLAN_VERSION,
            strategy: self.describe(),
            n_obs: self.n_obs(),
            n_cells: self.n,
            cells: self.cells_digest(),
            batch_size: self.options.batch_size,
            fetch_factor: self.options.fetch_factor,
            drop_last: self.options.drop_last,
            seed: self.options.seed,
            world_size: self.options.world_size,
            epoch,
            start,
            minibatch,
        })
    }

    /// This plan, going on from a state: its epoch [`PlanState::epoch`] has the minibatches that are
    /// left, the others are whole. On another world size an epoch can go on between rounds of fetches;
    /// minibatches are then counted from there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the state is of another plan,
    /// saying what differs, or if it is not between rounds and the world size is another.
    pub fn resume(&self, state: &PlanState) -> Result<Self> {
        let bad = |what: String| Err(Error::invalid_input(what));
        if state.version != STATE_VERSION {
            return bad(format!(
                "the state is of form {}, but this version reads form {STATE_VERSION}",
                state.version
            ));
        }
        let now = Self { resumed: None, ..self.clone() }.state(0, 0)?;
        let mut differs = Vec::new();
        let mut compare = |name: &str, was: &dyn ToString, is: &dyn ToString| {
            let (was, is) = (was.to_string(), is.to_string());
            if was != is {
                differs.push(format!("{name} was {was} and is {is}"));
            }
        };
        compare("the plan version", &state.plan_version, &now.plan_version);
        compare("the strategy", &state.strategy, &now.strategy);
        compare("n_obs", &state.n_obs, &now.n_obs);
        compare("the number of cells", &state.n_cells, &now.n_cells);
        compare("the subset, labels or weights", &state.cells, &now.cells);
        compare("batch_size", &state.batch_size, &now.batch_size);
        compare("fetch_factor", &state.fetch_factor, &now.fetch_factor);
        compare("drop_last", &state.drop_last, &now.drop_last);
        compare("the seed", &state.seed, &now.seed);
        if !differs.is_empty() {
            return bad(format!("the state is of another plan: {}", differs.join(", ")));
        }
        if state.start > self.n
            || !state.start.is_multiple_of(self.fetch_size)
            || state.world_size == 0
        {
            return bad("the state is damaged: its position cannot be".to_owned());
        }
        let rounds = |start: u64, world_size: u64| {
            let rank = if world_size == self.options.world_size { self.options.rank } else { 0 };
            let options = self.options.clone().with_rank(rank, world_size);
            Rounds::new(start, self.n, self.fetch_size, &options)
        };
        let old = rounds(state.start, state.world_size);
        if state.minibatch > old.n_minibatches() {
            return bad(format!(
                "the state is damaged: it is after {} minibatches, but there were {}",
                state.minibatch,
                old.n_minibatches()
            ));
        }
        let f = self.options.fetch_factor;
        let (start, minibatch) = if state.world_size == self.options.world_size {
            (state.start, state.minibatch)
        } else {
            let start = Some(state.minibatch / f).filter(|_| state.minibatch.is_multiple_of(f));
            let Some(start) = start.and_then(|rounds| old.position_after(rounds)) else {
                return bad(format!(
                    "the state is {} minibatches into an epoch of {} ranks; on {} ranks it can go \
                     on only after a multiple of {f} minibatches, up to {}",
                    state.minibatch,
                    state.world_size,
                    self.options.world_size,
                    old.last_boundary()
                ));
            };
            let left = self.n - start;
            if !self.options.drop_last && left > 0 && left < self.options.world_size {
                return bad(format!(
                    "{left} cells of the epoch are left, too few for {} ranks; finish it on {}",
                    self.options.world_size, state.world_size
                ));
            }
            (start, 0)
        };
        let rounds = rounds(start, self.options.world_size);
        let resumed = Resumed { epoch: state.epoch, start, rounds, minibatch };
        Ok(Self { resumed: Some(resumed), ..self.clone() })
    }

    fn resumed_in(&self, epoch: u64) -> Option<&Resumed> {
        self.resumed.as_ref().filter(|r| r.epoch == epoch)
    }

    /// How the epoch is dealt.
    pub(super) fn rounds_of(&self, epoch: u64) -> &Rounds {
        self.resumed_in(epoch).map_or(&self.rounds, |r| &r.rounds)
    }

    /// The first minibatch of an epoch that is still to come: not 0 in one that was resumed.
    #[must_use]
    pub fn first_minibatch(&self, epoch: u64) -> u64 {
        self.resumed_in(epoch).map_or(0, |r| r.minibatch)
    }

    /// The fetch that [`first_minibatch`](Self::first_minibatch) is in. The last fetch of an epoch may
    /// have one minibatch more than the others.
    #[must_use]
    pub fn first_fetch(&self, epoch: u64) -> u64 {
        let last = self.n_fetches_of(epoch).saturating_sub(1);
        (self.first_minibatch(epoch) / self.options.fetch_factor).min(last)
    }

    /// Fetches in an epoch of each rank: fewer in one that was resumed on another world size.
    #[must_use]
    pub fn n_fetches_of(&self, epoch: u64) -> u64 {
        self.rounds_of(epoch).n_fetches()
    }

    /// Minibatches in an epoch of each rank, those before [`first_minibatch`](Self::first_minibatch)
    /// included.
    #[must_use]
    pub fn n_minibatches_of(&self, epoch: u64) -> u64 {
        self.rounds_of(epoch).n_minibatches()
    }
}
