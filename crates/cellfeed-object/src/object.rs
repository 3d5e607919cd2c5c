//! An object as a byte source: near ranges are one request, long ones several, all of them under way at
//! once; what comes goes straight to its place in one pooled buffer.

use crate::address::Address;
use crate::attempt::{Failure, Tries, changed, judge};
use crate::cache::Group;
use crate::client::Client;
use crate::pieces::{Piece, as_u64, cut, end_to_end, index, place, split};
use crate::through::Through;
use async_trait::async_trait;
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, Engine, coalesce};
use cellfeed_core::spans::Origin;
use cellfeed_core::{Error, Result};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The first bytes of an object, which come with what is to be known of it.
const HEAD: u64 = 64 << 10;

/// What an object was when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) size: u64,
    /// In seconds.
    pub(crate) modified: i64,
    pub(crate) tag: Option<String>,
}

impl Seen {
    /// Whether another look shows the same object.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.tag, &other.tag) {
                (Some(a), Some(b)) => bare(a) == bare(b),
                _ => self.modified == other.modified,
            }
    }

    /// The condition that it is still so, if the tag is one that may stand in it.
    fn condition(&self) -> Option<String> {
        let strong = self.tag.as_ref().filter(|tag| !tag.starts_with("W/"))?;
        Some(format!("\"{}\"", bare(strong)))
    }

    /// What tells it from any other object of its key, for as long as a cache lives; none if nothing
    /// does: without a strong tag an object that was changed lately, or nobody knows when, may be changed
    /// again and look the same.
    pub(crate) fn version(&self, settled: i64) -> Option<String> {
        let tag = self.tag.as_deref().map(bare).unwrap_or_default();
        if self.condition().is_some() {
            return Some(format!("{} {tag}", self.size));
        }
        let known = self.modified > 0 && self.modified <= settled;
        known.then(|| format!("{} {} {tag}", self.size, self.modified))
    }
}

/// An entity tag without the quotes, which some listings leave out, and without W/: whether bytes or only
/// their meaning are the same makes no difference where one object was seen.
fn bare(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

/// An object.
#[derive(Debug)]
pub(crate) struct Object {
    inner: Arc<Inner>,
    client: Arc<Client>,
    engine: Arc<Engine>,
    /// The way through the cache, if there is one.
    through: Option<Through>,
}

pub(crate) struct Inner {
    store: Arc<dyn ObjectStore>,
    address: Address,
    location: String,
    seen: Seen,
    /// The first bytes, if they came with the rest.
    head: Bytes,
}

/// Without the store, whose own form may show credentials.
impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("location", &self.location)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Object {
    /// An object of which is known what it is.
    pub(crate) fn known(
        client: &Arc<Client>,
        store: &Arc<dyn ObjectStore>,
        engine: &Arc<Engine>,
        group: Option<&Arc<Group>>,
        address: Address,
        seen: Seen,
    ) -> Self {
        Self::new(client, store, engine, group, address, (seen, Bytes::new()))
    }

    fn new(
        client: &Arc<Client>,
        store: &Arc<dyn ObjectStore>,
        engine: &Arc<Engine>,
        group: Option<&Arc<Group>>,
        address: Address,
        (seen, head): (Seen, Bytes),
    ) -> Self {
        let location = address.to_string();
        let cached = group.and_then(|group| group.object(&address, &seen));
        let inner = Arc::new(Inner { store: Arc::clone(store), address, location, seen, head });
        let (client, engine) = (Arc::clone(client), Arc::clone(engine));
        let through = cached.map(|cached| Through {
            inner: Arc::clone(&inner),
            client: Arc::clone(&client),
            engine: Arc::clone(&engine),
            cached,
        });
        Self { inner, client, engine, through }
    }

    /// Asks what an object is; its first bytes come along. Blocks.
    pub(crate) fn open(
        client: &Arc<Client>,
        store: &Arc<dyn ObjectStore>,
        engine: &Arc<Engine>,
        group: Option<&Arc<Group>>,
        address: Address,
    ) -> Result<Self> {
        let (asked, at, limit) = (Arc::clone(store), address.clone(), Arc::clone(client));
        let found = client.block(async move {
            let mut tries = Tries::new(&at, limit.options.attempts);
            loop {
                match first(&limit, &*asked, &at).await {
                    Ok(found) => return Ok(found),
                    Err(failure) => tries.again(failure).await?,
                }
            }
        })?;
        Ok(Self::new(client, store, engine, group, address, found))
    }

    pub(crate) fn size(&self) -> u64 {
        self.inner.seen.size
    }

    /// A whole object of known size.
    #[allow(clippy::single_range_in_vec_init)] // one range is meant
    pub(crate) async fn whole(&self) -> Result<Bytes> {
        self.get_ranges(vec![0..self.inner.seen.size]).await
    }

    fn fetch(
        &self,
        ranges: Vec<Range<u64>>,
        wanted: usize,
    ) -> impl Future<Output = Result<Bytes>> + Send + 'static {
        let (inner, client, engine) =
            (Arc::clone(&self.inner), Arc::clone(&self.client), Arc::clone(&self.engine));
        let origin = Origin::here();
        async move {
            let mut buffer = engine.buffers().take(wanted);
            let pieces = cut(&end_to_end(&ranges), buffer.as_mut_slice());
            let (requests, read) = inner.fill(&client, &origin, pieces).await?;
            engine.stats().add_read(as_u64(ranges.len()), requests, as_u64(wanted), read);
            Ok(buffer.freeze())
        }
    }
}

/// The first bytes, and what the object is; of an empty one the latter.
async fn first(
    client: &Client,
    store: &dyn ObjectStore,
    address: &Address,
) -> std::result::Result<(Seen, Bytes), Failure> {
    let _permit = client.permits.acquire().await.map_err(|_| Failure::Final(Error::cancelled()))?;
    let options = GetOptions { range: Some(GetRange::Bounded(0..HEAD)), ..GetOptions::default() };
    match store.get_opts(&address.key, options).await {
        Ok(found) => {
            let (seen, range) = (Seen::from(&found.meta), found.range.clone());
            let bytes = found.bytes().await.map_err(|e| judge(&e, address))?;
            let expected = seen.size.min(HEAD);
            if range != (0..expected) || u64::try_from(bytes.len()).ok() != Some(expected) {
                return Err(Failure::Passing(format!(
                    "the answer was cut short: {} bytes of {expected}",
                    bytes.len()
                )));
            }
            Ok((seen, bytes))
        }
        Err(error) => {
            // A range of an empty object cannot be had.
            if error.to_string().contains("status code: 416") {
                let found = store.head(&address.key).await.map_err(|e| judge(&e, address))?;
                if found.size == 0 {
                    return Ok((Seen::from(&found), Bytes::new()));
                }
            }
            Err(judge(&error, address))
        }
    }
}

#[async_trait]
impl ByteSource for Object {
    fn location(&self) -> &str {
        &self.inner.location
    }

    fn len(&self) -> u64 {
        self.inner.seen.size
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX));
        let range = offset..end;
        let wanted = self.inner.check(std::slice::from_ref(&range))?;
        if wanted == 0 {
            return Ok(());
        }
        let bytes = match (self.inner.in_head(&range), &self.through) {
            (Some(bytes), _) => bytes,
            (None, Some(through)) => {
                through.clone().get_here(std::slice::from_ref(&range), wanted)?
            }
            (None, None) => self.client.block(self.fetch(vec![range], wanted))?,
        };
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<u8>> {
        let wanted = self.inner.check(ranges)?;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let bytes = match &self.through {
            Some(through) => through.clone().get_here(ranges, wanted)?,
            None => self.client.block(self.fetch(ranges.to_vec(), wanted))?,
        };
        Ok(bytes.to_vec())
    }

    fn is_far(&self) -> bool {
        true
    }

    async fn get_ranges(&self, ranges: Vec<Range<u64>>) -> Result<Bytes> {
        let wanted = self.inner.check(&ranges)?;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        match &self.through {
            Some(through) => through.clone().get(ranges, wanted).await,
            None => self.client.run(self.fetch(ranges, wanted)).await,
        }
    }
}

impl Inner {
    /// Refuses ranges past the end before anything is allocated; answers the bytes in all.
    fn check(&self, ranges: &[Range<u64>]) -> Result<usize> {
        let mut total = 0u64;
        for range in ranges {
            if range.start > range.end || range.end > self.seen.size {
                return Err(Error::corrupt(format!(
                    "bytes {}..{} are wanted, but the object has {}; it is truncated or damaged",
                    range.start, range.end, self.seen.size
                ))
                .with("file", &self.location)
                .with("offset", range.start));
            }
            total = total.saturating_add(range.end - range.start);
        }
        usize::try_from(total)
            .map_err(|_| Error::invalid_input("the request is larger than the address space"))
    }

    pub(crate) fn size(&self) -> u64 {
        self.seen.size
    }

    pub(crate) fn in_head(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, end) = (index(range.start), index(range.end));
        (end <= self.head.len()).then(|| self.head.slice(start..end))
    }

    /// Fills pieces; answers requests and bytes read.
    pub(crate) async fn fill(
        &self,
        client: &Client,
        origin: &Origin,
        wanted: Vec<Piece<'_>>,
    ) -> Result<(u64, u64)> {
        let options = client.coalesce();
        // Long ranges in parts.
        let mut pieces: Vec<Piece<'_>> = Vec::with_capacity(wanted.len());
        for mut rest in wanted {
            while rest.0.start < rest.0.end {
                let end = rest.0.end.min(rest.0.start.saturating_add(options.run()));
                let (piece, tail) = split(rest, end);
                rest = tail;
                match self.in_head(&piece.0) {
                    Some(bytes) => piece.1.copy_from_slice(&bytes),
                    None => pieces.push(piece),
                }
            }
        }
        pieces.sort_unstable_by_key(|(range, _)| range.start);
        let sorted: Vec<Range<u64>> = pieces.iter().map(|(range, _)| range.clone()).collect();
        let runs = coalesce(&sorted, options);
        let requests = as_u64(runs.len());
        let read = runs.iter().map(|run| run.span.end - run.span.start).sum();
        let mut work: Vec<BoxFuture<'_, Result<()>>> = Vec::with_capacity(runs.len());
        for run in runs {
            let tail = pieces.split_off(run.members.len());
            let pieces = std::mem::replace(&mut pieces, tail);
            work.push(self.request(client, origin, run.span, pieces).boxed());
        }
        // All wait in line for a connection, and the line is served in order: what was asked for first,
        // as a fetch that is wanted sooner, comes first, and is decoded while the next one comes.
        work.into_iter().collect::<FuturesUnordered<_>>().try_collect::<()>().await?;
        Ok((requests, read))
    }

    /// One request, as often as it takes; what came of an answer that broke off is kept.
    pub(crate) async fn request(
        &self,
        client: &Client,
        origin: &Origin,
        span: Range<u64>,
        mut pieces: Vec<Piece<'_>>,
    ) -> Result<()> {
        let _doing = origin.request(&self.location, span.end - span.start);
        let mut done = span.start;
        let mut tries = Tries::new(&self.address, client.options.attempts);
        loop {
            let answer = {
                let _permit = client.permits.acquire().await.map_err(|_| Error::cancelled())?;
                self.attempt(&mut done, span.end, &mut pieces).await
            };
            match answer {
                Ok(()) => return Ok(()),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    async fn attempt(
        &self,
        done: &mut u64,
        end: u64,
        pieces: &mut [Piece<'_>],
    ) -> std::result::Result<(), Failure> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(*done..end)),
            if_match: self.seen.condition(),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&self.address.key, options).await;
        let GetResult { payload: _, meta, range, .. } = match &answer {
            Ok(found) => found,
            Err(error) => return Err(self.judge(error)),
        };
        if !self.seen.is(&Seen::from(meta)) {
            return Err(Failure::Final(changed(&self.address)));
        }
        if *range != (*done..end) {
            return Err(Failure::Passing(format!("bytes {range:?} came for {done}..{end}")));
        }
        let Ok(found) = answer else { return Ok(()) };
        let mut body = found.into_stream();
        while let Some(part) = body.next().await {
            let part = part.map_err(|e| self.judge(&e))?;
            let at = *done;
            *done += as_u64(part.len());
            if *done > end {
                return Err(Failure::Final(
                    Error::corrupt("the store sends more than was asked for")
                        .with("file", &self.address),
                ));
            }
            place(&part, at, pieces);
        }
        if *done < end {
            return Err(Failure::Passing(format!(
                "the answer was cut short at byte {done} of {end}"
            )));
        }
        Ok(())
    }

    /// As [`judge`], of an object that was there: one that is gone or shorter was changed.
    fn judge(&self, error: &object_store::Error) -> Failure {
        let gone = matches!(error, object_store::Error::NotFound { .. });
        if gone || error.to_string().contains("status code: 416") {
            return Failure::Final(changed(&self.address));
        }
        judge(error, &self.address)
    }
}

#[cfg(test)]
mod tests;
