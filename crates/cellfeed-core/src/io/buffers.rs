//! Large buffers that are kept and used again.
//!
//! Fresh memory from the system costs a page fault per 4 KiB, which was measured to cost as much
//! as decoding does. So fetch buffers are kept when their last user drops them, and are asked for
//! in huge pages where the system gives them.

use crate::as_u64;
use bytes::Bytes;
use memmap2::MmapMut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Smaller buffers than this are left to the allocator, which keeps them itself.
const POOLED_FROM: usize = 256 << 10;
/// Smaller buffers than this gain nothing from huge pages.
const HUGE_FROM: usize = 4 << 20;

#[derive(Debug)]
enum Memory {
    // `u64` words, so that every value type is aligned.
    Small(Vec<u64>),
    Mapped(MmapMut),
}

impl Memory {
    fn new(capacity: usize) -> Self {
        if capacity >= POOLED_FROM
            && let Ok(map) = MmapMut::map_anon(capacity)
        {
            #[cfg(target_os = "linux")]
            if capacity >= HUGE_FROM {
                // Advice: where the system refuses, ordinary pages serve.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            return Self::Mapped(map);
        }
        Self::Small(vec![0; capacity.div_ceil(8)])
    }

    fn capacity(&self) -> usize {
        match self {
            Self::Small(words) => words.len() * 8,
            Self::Mapped(map) => map.len(),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Small(words) => bytemuck::cast_slice(words),
            Self::Mapped(map) => map,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Self::Small(words) => bytemuck::cast_slice_mut(words),
            Self::Mapped(map) => map,
        }
    }
}

/// A pool of large buffers. Free ones are kept up to a limit.
#[derive(Debug, Clone)]
pub struct BufferPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    keep: u64,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Memory>,
    bytes: u64,
}

impl BufferPool {
    /// A pool that keeps at most `keep` bytes of buffers nobody uses.
    #[must_use]
    pub fn new(keep: u64) -> Self {
        Self(Arc::new(Pool { keep, free: Mutex::default() }))
    }

    /// A buffer of exactly `len` bytes with unspecified contents, aligned to at least eight bytes.
    #[must_use]
    pub fn take(&self, len: usize) -> Buffer {
        if len < POOLED_FROM {
            return Buffer { memory: Some(Memory::new(len)), len, pool: None };
        }
        let kept = {
            let mut free = self.0.lock();
            let fits = |m: &Memory| m.capacity() >= len && m.capacity() / 2 <= len;
            let best = (0..free.buffers.len())
                .filter(|&i| fits(&free.buffers[i]))
                .min_by_key(|&i| free.buffers[i].capacity());
            best.map(|i| {
                let memory = free.buffers.swap_remove(i);
                free.bytes -= as_u64(memory.capacity());
                memory
            })
        };
        // An eighth of slack, in whole huge pages where there may be some, so that the next fetch, a
        // few percent larger, fits the same buffer. Untouched pages cost no memory, but count as kept;
        // and what is more than twice as long as a request does not serve it.
        let unit = if len < HUGE_FROM / 2 { POOLED_FROM } else { HUGE_FROM / 2 };
        let memory = kept.unwrap_or_else(|| Memory::new((len + len / 8).next_multiple_of(unit)));
        Buffer { memory: Some(memory), len, pool: Some(Arc::clone(&self.0)) }
    }

    /// Bytes of buffers that are kept for use.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.0.lock().bytes
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, memory: Memory) {
        let bytes = as_u64(memory.capacity());
        if bytes > self.keep {
            return;
        }
        let mut dropped = Vec::new();
        {
            let mut free = self.lock();
            // The newest is the likeliest to fit what comes next: the oldest go first.
            while free.bytes + bytes > self.keep && !free.buffers.is_empty() {
                let old = free.buffers.remove(0);
                free.bytes -= as_u64(old.capacity());
                dropped.push(old);
            }
            free.bytes += bytes;
            free.buffers.push(memory);
        }
    }
}

/// A buffer from a [`BufferPool`]: writable while owned, shareable once frozen, given back to the
/// pool when the last share is dropped.
#[derive(Debug)]
pub struct Buffer {
    memory: Option<Memory>,
    len: usize,
    pool: Option<Arc<Pool>>,
}

impl Buffer {
    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes, to write.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], |m| &mut m.as_mut_slice()[..self.len])
    }

    /// Shares it, without a copy.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |m| &m.as_slice()[..self.len])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(memory), Some(pool)) = (self.memory.take(), &self.pool) {
            pool.put(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_used_again() {
        let pool = BufferPool::new(64 << 20);
        let mut buffer = pool.take(5 << 20);
        buffer.as_mut_slice()[0] = 7;
        let shared = buffer.freeze();
        assert_eq!((shared.len(), shared[0]), (5 << 20, 7));
        assert_eq!(shared.as_ptr().align_offset(8), 0);
        let view = shared.slice(1..4);
        drop(shared);
        assert_eq!(pool.kept_bytes(), 0, "a view keeps it alive");
        drop(view);
        let kept = pool.kept_bytes();
        assert!(kept >= 5 << 20);
        // A slightly larger request is served by the same buffer.
        let again = pool.take((5 << 20) + 4096);
        assert_eq!(pool.kept_bytes(), 0);
        drop(again);
        assert_eq!(pool.kept_bytes(), kept);
        // So is one of any length.
        for len in (POOLED_FROM..10 << 20).step_by(77_777) {
            let pool = BufferPool::new(64 << 20);
            drop(pool.take(len));
            drop(pool.take(len));
            let kept = usize::try_from(pool.kept_bytes()).unwrap();
            assert!((len..=len * 17 / 8).contains(&kept), "{kept} bytes are kept of {len}");
        }
    }

    #[test]
    fn the_limit_holds() {
        let pool = BufferPool::new(6 << 20);
        let buffers: Vec<_> = (0..4).map(|_| pool.take(2 << 20)).collect();
        drop(buffers);
        assert!(pool.kept_bytes() <= 6 << 20);
        drop(pool.take(100 << 20));
        assert!(pool.kept_bytes() <= 6 << 20);
        assert!(pool.take(0).is_empty());
        assert_eq!(pool.take(17).freeze().len(), 17);
    }
}
