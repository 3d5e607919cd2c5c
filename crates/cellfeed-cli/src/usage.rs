//! What this process has used: CPU time and memory, as the system counts them.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// CPU seconds of all threads so far.
pub(crate) fn cpu_seconds() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The most resident memory so far, in bytes; 0 where the system does not tell.
pub(crate) fn peak_rss_bytes() -> u64 {
    status_bytes("VmHWM:").unwrap_or(0)
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The resident memory that the process has for itself, without pages of mapped files, which are the page
/// cache's and given back when memory is short. The system keeps no peak of it: it is looked at now and
/// then.
#[derive(Debug)]
pub(crate) struct OwnMemory {
    most: Option<u64>,
    next: Instant,
}

const LOOK_EACH: Duration = Duration::from_millis(100);

impl OwnMemory {
    pub(crate) fn new() -> Self {
        Self { most: None, next: Instant::now() }
    }

    /// Looks, if it is time.
    pub(crate) fn look(&mut self, now: Instant) {
        if now >= self.next {
            self.next = now + LOOK_EACH;
            self.look_now();
        }
    }

    fn look_now(&mut self) {
        self.most = self.most.max(status_bytes("RssAnon:"));
    }

    /// Looks once more, and answers the most that was seen, in bytes; none where the system does not tell.
    pub(crate) fn most(&mut self) -> Option<u64> {
        self.look_now();
        self.most
    }
}
