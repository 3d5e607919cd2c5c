//! Law 8: blocking work never runs on the thread that polls.
//!
//! Observed from outside, on Linux: while a poll lasts, the polling thread must read no bytes, and
//! must not, as a habit, go to sleep. Reads through a memory map are beyond this check.

use super::{matrices, names};
use crate::compare::readable;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::RowRanges;
use futures::task::{ArcWake, waker};
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, Thread};

const LAW: Law = Law::NoBlocking;

/// How often each read is observed.
const RUNS: usize = 9;
/// How often one is observed that slept each time. A thread may be put to sleep by a lock that is held
/// for an instant, on some machines in most of the reads; one that sleeps by design sleeps in all.
const MOST: usize = 36;

/// Law 8, no blocking: the polling thread neither reads files nor waits while it polls.
///
/// Where the system does not say what a thread reads, it says so on the error output and passes.
///
/// # Errors
/// If the polling thread read bytes, or slept in each of the reads.
pub fn law_8_no_blocking(subject: &Subject) -> Result<(), Violation> {
    if !read_counters_work() {
        let _ = writeln!(std::io::stderr(), "law 8 is not checked: no read counters per thread");
        return Ok(());
    }
    let backend = subject.backend.as_ref();
    let columns = names(&readable(&subject.oracle));
    for rows in subject.requests().iter().chain([&RowRanges::single(0..subject.oracle.n_obs)]) {
        for matrix in matrices(backend, &subject.oracle) {
            observe(|| backend.read_rows(&matrix.key, rows))
                .map_err(|v| v.at(&matrix.key))
                .map_err(|v| v.of(subject.name()))?;
        }
        observe(|| backend.read_obs(&columns, rows)).map_err(|v| v.at("obs").of(subject.name()))?;
    }
    Ok(())
}

/// Polls a read to its end, several times, and watches the thread meanwhile.
fn observe<F: Future>(read: impl Fn() -> F) -> Result<(), Violation> {
    let mut slept = 0;
    for run_before in 0..MOST {
        let seen = run(read());
        if seen.bytes > 0 || seen.reads > 0 {
            let what = format!(
                "the polling thread read {} bytes in {} calls while it polled",
                seen.bytes, seen.reads
            );
            return Err(Violation::new(LAW, what));
        }
        slept += usize::from(seen.sleeps > 0);
        let runs = run_before + 1;
        if runs >= RUNS && slept < runs {
            return Ok(());
        }
    }
    let what = format!("the polling thread slept while it polled, in each of {MOST} reads");
    Err(Violation::new(LAW, what))
}

/// What a thread did.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    bytes: u64,
    reads: u64,
    sleeps: u64,
}

struct Unpark(Thread);

impl ArcWake for Unpark {
    fn wake_by_ref(arc_self: &Arc<Self>) {
        arc_self.0.unpark();
    }
}

fn run(future: impl Future) -> Seen {
    let waker = waker(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut total = Seen::default();
    loop {
        let (poll, seen) = watched(|| future.as_mut().poll(&mut context));
        total.bytes += seen.bytes;
        total.reads += seen.reads;
        total.sleeps += seen.sleeps;
        match poll {
            Poll::Ready(_) => return total,
            Poll::Pending => thread::park(),
        }
    }
}

/// Runs work and says what this thread did in it. Zeros where the system does not tell.
fn watched<T>(work: impl FnOnce() -> T) -> (T, Seen) {
    // The counters of reads are read last before and first after, so that only the reading of
    // `before` itself comes between.
    let slept_before = sleeps();
    let before = read_counters();
    let out = work();
    let after = read_counters();
    let slept_after = sleeps();
    let mut seen = Seen::default();
    if let (Some(before), Some(after)) = (before, after) {
        seen.bytes = after.bytes.saturating_sub(before.bytes).saturating_sub(before.own_bytes);
        seen.reads = after.reads.saturating_sub(before.reads).saturating_sub(1);
    }
    if let (Some(before), Some(after)) = (slept_before, slept_after) {
        seen.sleeps = after.saturating_sub(before);
    }
    (out, seen)
}

struct ReadCounters {
    bytes: u64,
    reads: u64,
    /// What reading these counters took.
    own_bytes: u64,
}

/// A small file of the system in one read.
fn in_one_read(path: &str) -> Option<String> {
    let mut buffer = [0; 4096];
    let n = File::open(path).ok()?.read(&mut buffer).ok()?;
    String::from_utf8(buffer.get(..n)?.to_vec()).ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn read_counters() -> Option<ReadCounters> {
    let text = in_one_read("/proc/thread-self/io")?;
    Some(ReadCounters {
        bytes: field(&text, "rchar:")?,
        reads: field(&text, "syscr:")?,
        own_bytes: u64::try_from(text.len()).ok()?,
    })
}

fn sleeps() -> Option<u64> {
    field(&in_one_read("/proc/thread-self/status")?, "voluntary_ctxt_switches:")
}

/// Whether this system counts what each thread reads, so that law 8 can be checked.
#[must_use]
pub fn read_counters_work() -> bool {
    let read = || in_one_read("/proc/thread-self/status").map_or(0, |text| text.len());
    let (n, seen) = watched(read);
    let (_, idle) = watched(|| ());
    n > 0 && u64::try_from(n).ok() == Some(seen.bytes) && idle.bytes == 0
}
