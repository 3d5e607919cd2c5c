//! Counters of what was read and decoded.

use crate::as_u64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Counters that a store's byte sources and decoders add to. Cheap enough to be always on.
#[derive(Debug, Default)]
pub struct ReadStats {
    ranges: AtomicU64,
    reads: AtomicU64,
    bytes_wanted: AtomicU64,
    bytes_read: AtomicU64,
    bytes_decoded: AtomicU64,
    bytes_cached: AtomicU64,
    warnings: Mutex<Vec<String>>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatsSnapshot {
    /// Byte ranges that were asked for.
    pub ranges: u64,
    /// Reads that were made for them, after near ranges were merged.
    pub reads: u64,
    /// Bytes that were asked for.
    pub bytes_wanted: u64,
    /// Bytes that were read, gaps between merged ranges included; of a mapped file those handed on.
    pub bytes_read: u64,
    /// Bytes that decoding produced; for stores that need none, the bytes handed on.
    pub bytes_decoded: u64,
    /// Of the bytes that were asked for, those that a cache on a local disk had.
    pub bytes_cached: u64,
}

impl ReadStats {
    /// Adds one answered request of `ranges` ranges.
    pub fn add_read(&self, ranges: u64, reads: u64, bytes_wanted: u64, bytes_read: u64) {
        self.ranges.fetch_add(ranges, Relaxed);
        self.reads.fetch_add(reads, Relaxed);
        self.bytes_wanted.fetch_add(bytes_wanted, Relaxed);
        self.bytes_read.fetch_add(bytes_read, Relaxed);
    }

    /// Adds ranges that are taken out of a map, as if each were read.
    pub fn add_mapped(&self, ranges: &[Range<u64>]) {
        let n = as_u64(ranges.len());
        let bytes = ranges.iter().map(|r| r.end - r.start).sum();
        self.add_read(n, n, bytes, bytes);
    }

    /// Adds decoded bytes.
    pub fn add_decoded(&self, bytes: u64) {
        self.bytes_decoded.fetch_add(bytes, Relaxed);
    }

    /// Adds bytes that a cache had; they are among those wanted, and not among those read.
    pub fn add_cached(&self, bytes: u64) {
        self.bytes_cached.fetch_add(bytes, Relaxed);
    }

    /// Keeps something to be told that is no error, as a cache that is off: nothing here prints.
    pub fn warn(&self, what: impl Into<String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// What there was to be told since this was asked last.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        StatsSnapshot {
            ranges: self.ranges.load(Relaxed),
            reads: self.reads.load(Relaxed),
            bytes_wanted: self.bytes_wanted.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
            bytes_decoded: self.bytes_decoded.load(Relaxed),
            bytes_cached: self.bytes_cached.load(Relaxed),
        }
    }
}

impl StatsSnapshot {
    /// What was added since an earlier snapshot.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            ranges: self.ranges.saturating_sub(earlier.ranges),
            reads: self.reads.saturating_sub(earlier.reads),
            bytes_wanted: self.bytes_wanted.saturating_sub(earlier.bytes_wanted),
            bytes_read: self.bytes_read.saturating_sub(earlier.bytes_read),
            bytes_decoded: self.bytes_decoded.saturating_sub(earlier.bytes_decoded),
            bytes_cached: self.bytes_cached.saturating_sub(earlier.bytes_cached),
        }
    }
}
