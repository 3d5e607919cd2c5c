//! The byte budget: a fair, asynchronous semaphore that counts bytes.

use futures::channel::oneshot;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that work in flight may hold. Requests are granted in the order in which they were made,
/// so a large one is never starved by small ones behind it.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: u64,
    waiting: VecDeque<(u64, oneshot::Sender<Permit>)>,
}

/// Bytes for people, in a unit in which they can be given back as a limit that is no smaller.
#[must_use]
pub fn as_limit(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0xA0_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let state = State { free: bytes, waiting: VecDeque::new() };
        Self(Arc::new(Shared { total: bytes, state: Mutex::new(state) }))
    }

    /// The whole budget.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.total
    }

    /// Waits until `bytes` are free and takes them. A request for more than the whole budget is
    /// granted when nothing else is held; whether that is tolerable is the caller's decision.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.0.total);
        let receiver = {
            let mut state = self.0.lock();
            if state.waiting.is_empty() && state.free >= bytes {
                state.free -= bytes;
                return Permit { shared: Arc::clone(&self.0), bytes };
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back((bytes, sender));
            receiver
        };
        match receiver.await {
            Ok(permit) => permit,
            // The sender lives in the queue until it is used, and the queue lives as long as self.
            Err(oneshot::Canceled) => Permit { shared: Arc::clone(&self.0), bytes: 0 },
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(self: &Arc<Self>, bytes: u64) {
        let mut granted = Vec::new();
        {
            let mut state = self.lock();
            state.free += bytes;
            while state.waiting.front().is_some_and(|(want, _)| *want <= state.free) {
                let Some((want, sender)) = state.waiting.pop_front() else { break };
                if !sender.is_canceled() {
                    state.free -= want;
                    granted.push((Permit { shared: Arc::clone(self), bytes: want }, sender));
                }
            }
        }
        for (permit, sender) in granted {
            // A receiver that went away drops its permit here, which releases it again.
            let _ = sender.send(permit);
        }
    }
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Permit {
    /// How many bytes are held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        if bytes < self.bytes {
            let back = self.bytes - bytes;
            self.bytes = bytes;
            self.shared.release(back);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    #[test]
    fn grants_in_order_and_takes_back() {
        let budget = Budget::new(10);
        let mut first = block_on(budget.acquire(6));
        let mut large = Box::pin(budget.acquire(8));
        let mut small = Box::pin(budget.acquire(1));
        assert!((&mut large).now_or_never().is_none());
        // One byte is free, but the large request came first.
        assert!((&mut small).now_or_never().is_none());
        first.shrink_to(2);
        let large = large.now_or_never().expect("eight are free");
        assert!((&mut small).now_or_never().is_none());
        drop(large);
        assert_eq!(small.now_or_never().expect("eight are free").bytes(), 1);
    }

    #[test]
    fn dropped_waiters_hold_nothing() {
        let budget = Budget::new(10);
        let held = block_on(budget.acquire(10));
        let mut waiter = Box::pin(budget.acquire(10));
        assert!((&mut waiter).now_or_never().is_none());
        drop(waiter);
        drop(held);
        assert_eq!(block_on(budget.acquire(100)).bytes(), 10);
    }
}
