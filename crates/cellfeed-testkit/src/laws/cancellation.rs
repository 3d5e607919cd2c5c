//! Law 5: futures that are dropped before, while and after they work leave the store usable.

use super::{matrices, names, read_right};
use crate::compare::readable;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::RowRanges;
use futures::executor::block_on;
use futures::task::noop_waker;
use std::future::Future;
use std::task::Context;
use std::thread::sleep;
use std::time::Duration;

const LAW: Law = Law::Cancellation;

/// Most often that a future is polled before it is dropped.
const POLLS: usize = 6;

/// Futures dropped in a row: more than a store has places in any queue of its own.
const DROPS: usize = 200;

/// Law 5, cancellation: a dropped future leaves the backend usable.
///
/// A store that keeps a lock hangs in the next read: run this through
/// [`run`](crate::suite::run), which gives up in time.
///
/// # Errors
/// The first wrong answer after a dropped read.
pub fn law_5_cancellation(subject: &Subject) -> Result<(), Violation> {
    let backend = subject.backend.as_ref();
    let n_obs = subject.oracle.n_obs;
    let all = RowRanges::single(0..n_obs);
    let end = RowRanges::single(n_obs.saturating_sub(1)..n_obs);
    let columns = names(&readable(&subject.oracle));
    let usable = |rows: &RowRanges, how: String| {
        let read = block_on(read_right(LAW, subject, rows));
        read.map_err(|v| v.when(how).of(subject.name()))
    };
    for matrix in matrices(backend, &subject.oracle) {
        for polls in 0..POLLS {
            drop_after(polls, backend.read_rows(&matrix.key, &all));
            usable(&all, format!("after a read of {} dropped at poll {polls}", matrix.key))?;
        }
        for i in 0..DROPS {
            drop_after(1 + i % 2, backend.read_rows(&matrix.key, &all));
        }
        usable(&end, format!("after {DROPS} reads of {} were dropped", matrix.key))?;
    }
    for polls in 0..POLLS {
        drop_after(polls, backend.read_obs(&columns, &all));
        usable(&all, format!("after a read of obs dropped at poll {polls}"))?;
    }
    for i in 0..DROPS {
        drop_after(1 + i % 2, backend.read_obs(&columns, &all));
    }
    usable(&end, format!("after {DROPS} reads of obs were dropped"))
}

/// Polls a future so often, with a pause that grows, and drops it.
fn drop_after(polls: usize, future: impl Future) {
    let waker = noop_waker();
    let mut future = Box::pin(future);
    for poll in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        if poll > 0 {
            sleep(Duration::from_micros(30 << poll));
        }
    }
}
