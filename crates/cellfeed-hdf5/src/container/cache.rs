//! The pages of a file that hold its metadata, kept; and the budget of one call.
//!
//! The pure reader can cache metadata itself, entry by entry. Pages of our own do two things more:
//! neighbouring small reads (headers, B-tree nodes, heap objects lie together) become one read of
//! the source, which counts when the source is far away; and every read is charged, also one that
//! the cache answers, so that a loop in hostile metadata ends when the budget does.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cellfeed_core::{Error, Result};
use hdf5_pure::FormatError;

use super::ahead::Ahead;
use super::guard;
use super::source::ReadAt;

/// Bytes of a page; of one of a source that is far.
const PAGE: u64 = 32 << 10;
const FAR_PAGE: u64 = 256 << 10;
/// Bytes of pages that are kept; of a source that is far, where a page read again costs much.
const KEPT: u64 = 16 << 20;
const FAR_KEPT: u64 = 64 << 20;
/// Reads up to this size go through the pages.
const PAGED_READ: usize = 256 << 10;
/// No structure of a sane file is larger, decoded chunks aside, which have their own limit.
const LARGEST_READ: usize = 512 << 20;
/// What a read costs beside its bytes: a loop over empty reads ends too.
const READ_COST: u64 = 128;

#[derive(Default)]
struct Pages {
    by_number: HashMap<u64, Arc<[u8]>>,
    oldest_first: VecDeque<u64>,
}

/// A source with a page cache in front. Cheap to share behind an `Arc`.
pub(crate) struct Paged {
    source: Box<dyn ReadAt>,
    page: u64,
    kept: usize,
    pages: Mutex<Pages>,
    /// Of a source that is far.
    ahead: Option<Mutex<Ahead>>,
}

impl fmt::Debug for Paged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paged").field("len", &self.source.len()).finish_non_exhaustive()
    }
}

impl Paged {
    pub(crate) fn new(source: Box<dyn ReadAt>) -> Self {
        let (page, kept) =
            if source.is_far() { (FAR_PAGE, FAR_KEPT / FAR_PAGE) } else { (PAGE, KEPT / PAGE) };
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        let ahead = source.is_far().then(Mutex::default);
        Self { source, page, kept, pages: Mutex::default(), ahead }
    }

    pub(crate) fn len(&self) -> u64 {
        self.source.len()
    }

    /// Reads metadata: charged, through the pages unless it is large.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.check(offset, len)?;
        let mut buf = vec![0; len];
        self.fill(offset, &mut buf)?;
        Ok(buf)
    }

    fn check(&self, offset: u64, len: usize) -> Result<()> {
        let long = u64::try_from(len).unwrap_or(u64::MAX);
        if offset.checked_add(long).is_none_or(|end| end > self.len()) {
            return Err(Error::corrupt(format!(
                "{len} bytes at {offset} lie past the end of the file, which has {} bytes",
                self.len()
            )));
        }
        if len > LARGEST_READ {
            return Err(Error::corrupt(format!("a structure of {len} bytes is beyond reason")));
        }
        guard::charge(long.saturating_add(READ_COST))
    }

    fn fill(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        if buf.len() > PAGED_READ {
            return self.direct(offset, buf);
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let page = self.page(at / self.page)?;
            let start = usize::try_from(at % self.page).unwrap_or(0);
            let bytes = page.get(start..).unwrap_or_default();
            let n = bytes.len().min(rest.len());
            let (Some(from), true) = (bytes.get(..n), n > 0) else {
                return Err(Error::internal("a page is shorter than the file"));
            };
            let (to, tail) = rest.split_at_mut(n);
            to.copy_from_slice(from);
            rest = tail;
            at = at.saturating_add(u64::try_from(n).unwrap_or(0));
        }
        Ok(())
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        {
            let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(page) = pages.by_number.get(&number) {
                return Ok(Arc::clone(page));
            }
        }
        // The lock is not held while reading; two readers may both read a page, which is harmless.
        let start = number.saturating_mul(self.page);
        let len = self.len().saturating_sub(start).min(self.page);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.direct(start, &mut bytes)?;
        let page: Arc<[u8]> = bytes.into();
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.by_number.insert(number, Arc::clone(&page)).is_none() {
            pages.oldest_first.push_back(number);
            if pages.oldest_first.len() > self.kept
                && let Some(oldest) = pages.oldest_first.pop_front()
            {
                pages.by_number.remove(&oldest);
            }
        }
        Ok(page)
    }

    /// As [`fill`](Self::fill), what may be a node of a B-tree.
    fn fill_node(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let Some(ahead) = &self.ahead else { return self.fill(offset, buf) };
        let lock = || ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = lock().fill(offset, buf);
        if !waited {
            self.fill(offset, buf)?;
        }
        let wanted = lock().after(offset, buf, self.len());
        if !wanted.is_empty()
            && let Ok(bytes) = self.source.read_ranges(&wanted)
        {
            // What could not be had is read again, and fails, when its turn comes.
            lock().take(&wanted, &bytes);
        }
        Ok(())
    }

    fn direct(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.source
            .read_exact_at(offset, buf)
            .map_err(|e| Error::io("cannot read", e).with("offset", offset))
    }
}

/// The same pages as the pure reader sees them. Errors of ours travel past it: see
/// [`guard::remember`].
#[derive(Debug, Clone)]
pub(crate) struct PureSource(pub(crate) Arc<Paged>);

/// By which way bytes are read.
#[derive(Debug, Clone, Copy)]
enum How {
    /// Metadata, which may lead to more of it.
    Node,
    Paged,
    Direct,
}

impl How {
    fn of(len: usize) -> Self {
        if len <= 4096 { Self::Paged } else { Self::Direct }
    }
}

impl PureSource {
    fn run(&self, offset: u64, buf: &mut [u8], how: How) -> Result<(), FormatError> {
        let mut read = || {
            self.0.check(offset, buf.len())?;
            match how {
                How::Node => self.0.fill_node(offset, buf),
                How::Paged => self.0.fill(offset, buf),
                How::Direct => self.0.direct(offset, buf),
            }
        };
        read().map_err(refused)
    }

    fn owned(&self, offset: u64, len: usize, how: How) -> Result<Vec<u8>, FormatError> {
        // Before the allocation.
        let long = u64::try_from(len).unwrap_or(u64::MAX);
        if offset.checked_add(long).is_none_or(|end| end > self.0.len()) || len > LARGEST_READ {
            self.0.check(offset, len).map_err(refused)?;
        }
        let mut buf = vec![0; len];
        self.run(offset, &mut buf, how)?;
        Ok(buf)
    }
}

fn refused(error: Error) -> FormatError {
    let text = error.to_string();
    guard::remember(error);
    FormatError::Source(text)
}

impl hdf5_pure::Source for PureSource {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        // Signatures and other small things come this way, and chunks.
        self.run(offset, buf, How::of(buf.len()))
    }

    fn read_exact_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
        self.owned(offset, len, How::of(len))
    }

    fn read_metadata_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
        self.owned(offset, len, How::Node)
    }
}
