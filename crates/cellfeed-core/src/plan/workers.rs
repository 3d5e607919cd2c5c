//! What of a rank's epoch is a worker's, where several share its fetches.

use super::Plan;
use crate::{Error, Result};

impl Plan {
    /// The fetches that one of several workers of this rank has of an epoch: of all fetches every
    /// `n_workers`-th. Where the plan was [resumed](Self::resume) in it, those that are still to come, from
    /// [`first_fetch`](Self::first_fetch) on. Fetch `k` has the same number of minibatches on every rank,
    /// so workers of the same number do too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a worker that there is not.
    pub fn worker_fetches(
        &self,
        epoch: u64,
        worker: u64,
        n_workers: u64,
    ) -> Result<impl Iterator<Item = u64> + use<>> {
        check(worker, n_workers)?;
        let (first, n) = (self.fetch_of_worker(epoch, worker, n_workers), self.n_fetches_of(epoch));
        Ok(std::iter::successors(Some(first), move |k| k.checked_add(n_workers))
            .take_while(move |&k| k < n))
    }

    /// Where a worker begins in an epoch when it has yielded `skip` minibatches of what it has of it:
    /// the fetch, and the number of the minibatch in the epoch. How many fetches and minibatches the
    /// epoch has, if nothing is left.
    ///
    /// # Errors
    /// As [`worker_fetches`](Self::worker_fetches).
    pub fn worker_first(
        &self,
        epoch: u64,
        worker: u64,
        n_workers: u64,
        skip: u64,
    ) -> Result<(u64, u64)> {
        check(worker, n_workers)?;
        Ok(self.first_of_worker(epoch, worker, n_workers, skip))
    }

    /// [`worker_first`](Self::worker_first) of a worker that there is.
    pub(crate) fn first_of_worker(
        &self,
        epoch: u64,
        worker: u64,
        n_workers: u64,
        mut skip: u64,
    ) -> (u64, u64) {
        let (fetches, minibatches) = (self.n_fetches_of(epoch), self.n_minibatches_of(epoch));
        let done = self.first_minibatch(epoch);
        let mut fetch = self.fetch_of_worker(epoch, worker, n_workers);
        while fetch < fetches {
            let start = (fetch * self.fetch_factor()).max(done);
            // The last may have one minibatch more than the others.
            let end =
                if fetch + 1 == fetches { minibatches } else { (fetch + 1) * self.fetch_factor() };
            let len = end.saturating_sub(start);
            if skip < len {
                return (fetch, start + skip);
            }
            skip -= len;
            fetch = fetch.saturating_add(n_workers);
        }
        (fetches, minibatches)
    }

    /// The worker's first fetch that is not wholly done.
    fn fetch_of_worker(&self, epoch: u64, worker: u64, n_workers: u64) -> u64 {
        let behind = self.first_fetch(epoch).saturating_sub(worker).div_ceil(n_workers);
        behind.saturating_mul(n_workers).saturating_add(worker)
    }
}

fn check(worker: u64, n_workers: u64) -> Result<()> {
    if worker >= n_workers {
        return Err(Error::invalid_input(format!(
            "worker {worker} does not exist among {n_workers}; workers count from 0"
        )));
    }
    Ok(())
}
