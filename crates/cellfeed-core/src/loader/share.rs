//! Which fetches of an epoch a run reads: all that are left, or those of one of several workers.

use crate::plan::Plan;

/// What a run has of each epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) worker: u64,
    pub(super) n_workers: u64,
    /// Minibatches of the share that were yielded before.
    pub(super) skip: u64,
}

impl Share {
    /// All that is left of an epoch.
    pub(super) const WHOLE: Self = Self { worker: 0, n_workers: 1, skip: 0 };

    /// The first fetch, and the first minibatch of it, that are still to come; past the last if
    /// nothing is.
    pub(super) fn first(self, plan: &Plan, epoch: u64) -> (u64, u64) {
        plan.first_of_worker(epoch, self.worker, self.n_workers, self.skip)
    }

    /// The fetches, in order.
    pub(super) fn fetches(self, plan: &Plan, epoch: u64) -> impl Iterator<Item = u64> + use<> {
        let (n, step) = (plan.n_fetches_of(epoch), self.n_workers);
        let first = self.first(plan, epoch).0;
        std::iter::successors(Some(first), move |k| k.checked_add(step)).take_while(move |&k| k < n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PlanOptions, Strategy};

    #[test]
    fn shares_make_the_epoch_and_go_on_where_they_were() {
        for (n, world) in [(1000u64, 1u64), (997, 3), (64, 1), (3, 1), (0, 1)] {
            let options =
                PlanOptions::default().with_batch_size(4).with_fetch_factor(5).with_rank(0, world);
            let whole = Plan::new(n, Strategy::TrueRandom, &options).unwrap();
            for done in [0, 1, 5, 7] {
                let done = done.min(whole.n_minibatches().saturating_sub(1));
                let plan = whole.resume(&whole.state(2, done).unwrap()).unwrap();
                for n_workers in 1..4 {
                    let mut fetches = Vec::new();
                    for worker in 0..n_workers {
                        let share = Share { worker, n_workers, skip: 0 };
                        let mine: Vec<u64> = share.fetches(&plan, 2).collect();
                        // Minibatch by minibatch.
                        let mut numbers = Vec::new();
                        for &k in &mine {
                            let fetch = plan.fetch(2, k).unwrap();
                            let start = fetch.first_minibatch();
                            let end = start + fetch.n_minibatches() as u64;
                            numbers.extend((start.max(done)..end).map(|number| (k, number)));
                        }
                        for skip in 0..numbers.len() + 2 {
                            let share = Share { skip: skip as u64, ..share };
                            let end = (plan.n_fetches_of(2), plan.n_minibatches_of(2));
                            let want = numbers.get(skip).copied().unwrap_or(end);
                            assert_eq!(share.first(&plan, 2), want, "{n} {done} {share:?}");
                        }
                        fetches.extend(mine);
                    }
                    fetches.sort_unstable();
                    let want: Vec<u64> = (plan.first_fetch(2)..plan.n_fetches_of(2)).collect();
                    assert_eq!(fetches, want);
                }
            }
        }
    }
}
