//! Law 4: many calls in flight at once, on one thread and on several, are all answered right.

use super::{matrices, read_right, read_right_obs, read_right_rows};
use crate::compare::readable;
use crate::fixtures::Rng;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::RowRanges;
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt, try_join_all};
use std::thread;

const LAW: Law = Law::Concurrency;
const THREADS: u64 = 4;

/// Law 4, concurrency: reads in flight together do not disturb each other.
///
/// # Errors
/// The first wrong answer.
pub fn law_4_concurrency(subject: &Subject) -> Result<(), Violation> {
    let requests = subject.requests();
    thread::scope(|scope| {
        let (requests, seed) = (&requests, subject.limits.seed);
        let work = |k: u64| move || block_on(together(subject, requests, seed ^ k));
        let threads: Vec<_> = (0..THREADS).map(|k| scope.spawn(work(k))).collect();
        threads.into_iter().try_for_each(|thread| {
            let panicked = |_| Err(Violation::new(LAW, "a read panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    })
    .map_err(|v| v.of(subject.name()))
}

/// All requests at once, in an order of the thread's own.
async fn together(subject: &Subject, requests: &[RowRanges], seed: u64) -> Result<(), Violation> {
    let backend = subject.backend.as_ref();
    let columns = readable(&subject.oracle);
    let mut reads: Vec<BoxFuture<'_, Result<(), Violation>>> = Vec::new();
    for rows in requests {
        for matrix in matrices(backend, &subject.oracle) {
            let read = read_right_rows(LAW, backend, matrix, rows);
            reads.push(async move { read.await.map(|_| ()) }.boxed());
        }
        reads.push(read_right_obs(LAW, backend, &columns, rows).boxed());
    }
    let mut rng = Rng::new(seed);
    for i in 0..reads.len() {
        let rest = u64::try_from(reads.len() - i).unwrap_or(1);
        reads.swap(i, i + usize::try_from(rng.below(rest)).unwrap_or(0));
    }
    try_join_all(reads).await?;
    read_right(LAW, subject, &RowRanges::single(0..subject.oracle.n_obs)).await
}
