//! An allocator that counts, so that law 7 can see an allocation which an unchecked header sized.
//!
//! The one place of the workspace's test code with `unsafe`: a global allocator cannot be written
//! without.
#![allow(unsafe_code)]

use crate::laws::damage_in_progress;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static CURRENT: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LARGE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of the bytes in use. A test binary installs it:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: cellfeed_testkit::PeakAlloc = cellfeed_testkit::PeakAlloc;
///
/// assert!(cellfeed_testkit::PeakAlloc::is_installed());
/// ```
///
/// The count is the whole process's: tests that run beside law 7 add to what it sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakAlloc;

impl PeakAlloc {
    /// Whether this binary allocates through it.
    #[must_use]
    pub fn is_installed() -> bool {
        PEAK.load(Relaxed) > 0
    }

    /// Bytes in use.
    #[must_use]
    pub fn current() -> usize {
        CURRENT.load(Relaxed)
    }

    /// The most bytes in use, refused requests included, since the last [`reset`](Self::reset).
    #[must_use]
    pub fn peak() -> usize {
        PEAK.load(Relaxed)
    }

    /// Starts counting the peak anew, and returns the bytes in use.
    pub fn reset() -> usize {
        let current = CURRENT.load(Relaxed);
        PEAK.store(current, Relaxed);
        current
    }

    /// How often [`LARGE_BYTES`](Self::LARGE_BYTES) or more were asked for at once.
    #[must_use]
    pub fn large() -> usize {
        LARGE.load(Relaxed)
    }

    /// What [`large`](Self::large) counts: what holds data, rather than what keeps books.
    pub const LARGE_BYTES: usize = 48 << 10;

    fn add(pointer: *mut u8, bytes: usize) {
        if bytes >= Self::LARGE_BYTES {
            LARGE.fetch_add(1, Relaxed);
        }
        if !pointer.is_null() {
            let current = CURRENT.fetch_add(bytes, Relaxed).wrapping_add(bytes);
            PEAK.fetch_max(current, Relaxed);
            return;
        }
        // What was refused was asked for all the same. Whoever asked may end the process now, and
        // whoever looks wants to know by which damage.
        PEAK.fetch_max(CURRENT.load(Relaxed).saturating_add(bytes), Relaxed);
        let during = damage_in_progress();
        let during = during.as_deref().map_or("a read", |d| d.as_str());
        let _ = writeln!(std::io::stderr(), "cannot allocate {bytes} bytes, during {during}");
    }

    fn sub(bytes: usize) {
        CURRENT.fetch_sub(bytes, Relaxed);
    }
}

// SAFETY: every call goes to `System` with the caller's own arguments, so `System`'s guarantees are
// this allocator's; the counters are atomics and touch no allocated memory.
unsafe impl GlobalAlloc for PeakAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises about `layout` are passed on.
        let pointer = unsafe { System.alloc(layout) };
        Self::add(pointer, layout.size());
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        Self::add(pointer, layout.size());
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise that `pointer` came from here, hence from `System`, with
        // this layout is passed on.
        unsafe { System.dealloc(pointer, layout) };
        Self::sub(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        Self::add(moved, new_size);
        if !moved.is_null() {
            Self::sub(layout.size());
        }
        moved
    }
}
