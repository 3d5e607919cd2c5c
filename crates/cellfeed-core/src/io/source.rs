//! The byte source: how a backend's planned byte ranges become bytes.

use super::MappedFile;
use crate::Result;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;

/// When ranges near each other are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoalesceOptions {
    gap: u64,
    run: u64,
}

impl CoalesceOptions {
    /// Ranges at most `gap` bytes apart are read together, as long as the run is at most `run`
    /// bytes long.
    #[must_use]
    pub fn new(gap: u64, run: u64) -> Self {
        Self { gap, run: run.max(1) }
    }

    /// For files on local disks: a gap of one page, runs of at most 2 MiB, so that several threads
    /// share the work.
    #[must_use]
    pub fn local() -> Self {
        Self::new(4 << 10, 2 << 20)
    }

    /// The longest run.
    #[must_use]
    pub fn run(self) -> u64 {
        self.run
    }
}

/// Bytes that can be read at offsets: a local file, or an object in a store.
#[async_trait]
pub trait ByteSource: Send + Sync + fmt::Debug {
    /// Where the bytes are, for messages.
    fn location(&self) -> &str;

    /// How many bytes there are.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads metadata: fills `buf` from `offset`. Blocks.
    ///
    /// # Errors
    /// As [`get_ranges`](Self::get_ranges).
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Reads metadata: the bytes of ranges, end to end, which are few and small. Where reads wait long
    /// all are under way at once. Blocks.
    ///
    /// # Errors
    /// As [`get_ranges`](Self::get_ranges).
    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for range in ranges {
            let len = range.end.saturating_sub(range.start);
            let mut part = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            self.read_exact_at(range.start, &mut part)?;
            all.append(&mut part);
        }
        Ok(all)
    }

    /// Whether memory holds these ranges already, as far as a few of them tell. False if that cannot be
    /// known.
    fn resident(&self, _ranges: &[Range<u64>]) -> bool {
        false
    }

    /// All bytes as memory, where they are a file of this machine. Blocks for a moment.
    ///
    /// # Errors
    /// Of kind `Io` if the system does not map it, `Changed` if it was written to since it was opened.
    fn map(&self) -> Result<Option<MappedFile>> {
        Ok(None)
    }

    /// Whether a read waits long for its first byte, as one over a network does: then few large reads
    /// are better than many, and several fetches are worth reading at once.
    fn is_far(&self) -> bool {
        false
    }

    /// The bytes of all ranges, end to end in the order given, in one buffer that is aligned to
    /// eight bytes. Ranges may come in any order; near ones are read together.
    ///
    /// # Errors
    /// Of kind `Corrupt` if a range is past the end, `Io` if the read fails.
    async fn get_ranges(&self, ranges: Vec<Range<u64>>) -> Result<Bytes>;

    /// Says that these ranges will be asked for soon. Advice: it may do nothing, and fails silently.
    async fn will_need(&self, _ranges: Vec<Range<u64>>) {}
}

/// Ranges that one read serves: indices into the request in ascending file order.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Positions in the list of ranges, by file offset.
    pub members: Range<usize>,
    /// The file range that covers them.
    pub span: Range<u64>,
}

/// Groups ranges, which must be sorted by start, into runs.
#[must_use]
pub fn coalesce(sorted: &[Range<u64>], options: CoalesceOptions) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, range) in sorted.iter().enumerate() {
        if let Some(run) = runs.last_mut() {
            let follows = range.start >= run.span.end; // overlapping ranges are read apart
            let near = range.start.saturating_sub(run.span.end) <= options.gap;
            if follows && near && range.end - run.span.start <= options.run {
                run.members.end = i + 1;
                run.span.end = range.end;
                continue;
            }
        }
        runs.push(Run { members: i..i + 1, span: range.clone() });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_make_runs() {
        let ranges = [0..10, 10..20, 24..30, 100..110, 105..120, 121..400];
        let runs = coalesce(&ranges, CoalesceOptions::new(4, 64));
        let spans: Vec<_> = runs.iter().map(|r| r.span.clone()).collect();
        assert_eq!(spans, [0..30, 100..110, 105..120, 121..400]);
        assert_eq!(runs[0].members, 0..3);
    }
}
