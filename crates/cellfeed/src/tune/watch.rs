//! Tells the caller how far tuning is, and asks whether to go on.

use cellfeed_core::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// What tuning is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TuneStage {
    /// Opens the store and reads the label.
    Reading,
    /// Runs plans over the label.
    Diversity,
    /// Times the loader with the store on the disk.
    Cold,
    /// Reads the store into the page cache.
    Warming,
    /// Times the loader with the store in the page cache.
    Warm,
    /// Runs the best setting against its prediction.
    Checking,
    /// Tries threads and fetches read ahead.
    Trying,
}

/// How far tuning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TuneProgress {
    /// What is being done.
    pub stage: TuneStage,
    /// Steps of the stage that are done.
    pub done: u64,
    /// Steps of the stage.
    pub total: u64,
}

/// How often the caller is asked.
const EVERY: Duration = Duration::from_millis(40);

pub(super) struct Watch<'a> {
    progress: &'a mut dyn FnMut(TuneProgress) -> bool,
    now: TuneProgress,
    start: Instant,
    limit: Duration,
    asked: Option<Instant>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(progress: &'a mut dyn FnMut(TuneProgress) -> bool, limit: Duration) -> Self {
        let now = TuneProgress { stage: TuneStage::Reading, done: 0, total: 1 };
        Self { progress, now, start: Instant::now(), limit, asked: None }
    }

    /// Begins a stage.
    pub(super) fn stage(&mut self, stage: TuneStage, total: u64) -> Result<()> {
        self.now = TuneProgress { stage, done: 0, total };
        self.asked = None;
        self.tick()
    }

    /// A step is done.
    pub(super) fn step(&mut self) {
        self.now.done = (self.now.done + 1).min(self.now.total);
    }

    /// Asks whether to go on, if it is time.
    ///
    /// # Errors
    /// `Cancelled` if not.
    pub(super) fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now - asked < EVERY) {
            return Ok(());
        }
        self.asked = Some(now);
        if (self.progress)(self.now) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, "tuning was cancelled"))
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// When a share of the time will be over.
    pub(super) fn at(&self, share: f64) -> Instant {
        self.start + self.limit.mul_f64(share)
    }

    /// What is left until a share of the time is over, over some runs.
    pub(super) fn each(&self, share: f64, runs: usize) -> Duration {
        let left = self.at(share).saturating_duration_since(Instant::now());
        left / u32::try_from(runs.max(1)).unwrap_or(u32::MAX)
    }
}
