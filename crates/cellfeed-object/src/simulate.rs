//! A store in front of a store, that is as far away and as unreliable as one says, with a seed: for tests
//! and benchmarks. It counts what it is asked.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How a network and a store behave.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour {
    /// Until the first byte of any answer.
    pub latency: Duration,
    /// Bytes a second that one answer comes at; none for as fast as it can.
    pub connection_rate: Option<u64>,
    /// Bytes a second that all answers together come at.
    pub link_rate: Option<u64>,
    /// Of how many requests in a thousand the store says that it is too busy.
    pub throttled: u32,
    /// Of how many answers in a thousand the connection breaks off with an error.
    pub reset: u32,
    /// Of how many answers in a thousand the body ends too soon, without an error.
    pub truncated: u32,
    /// Of what is drawn.
    pub seed: u64,
    /// After so many requests that write, the store is not reached any more.
    pub dead_after: Option<u64>,
    /// Whether the first request that it is not reached by is carried out, and its answer lost.
    pub lost: bool,
}

impl Default for Behaviour {
    /// No delay and no fault.
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            connection_rate: None,
            link_rate: None,
            throttled: 0,
            reset: 0,
            truncated: 0,
            seed: 0,
            dead_after: None,
            lost: false,
        }
    }
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Counts {
    gets: AtomicU64,
    lists: AtomicU64,
    bytes: AtomicU64,
    writes: AtomicU64,
    faults: AtomicU64,
}

impl Counts {
    /// Requests for objects or parts of them, or of what is known of them.
    #[must_use]
    pub fn gets(&self) -> u64 {
        self.gets.load(Relaxed)
    }

    /// Requests for lists of objects.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.lists.load(Relaxed)
    }

    /// Bytes of objects that were asked for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Requests that write: objects, parts of them, or that they be removed.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.writes.load(Relaxed)
    }

    /// Requests that went wrong on purpose.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults.load(Relaxed)
    }

    /// Begins anew.
    pub fn reset(&self) {
        for count in [&self.gets, &self.lists, &self.bytes, &self.writes, &self.faults] {
            count.store(0, Relaxed);
        }
    }
}

/// The store in front; or what takes objects in parts, in front of that.
pub struct Simulated<S: ?Sized = dyn ObjectStore> {
    inner: Arc<S>,
    net: Arc<Net>,
}

/// What is between.
struct Net {
    behaviour: Behaviour,
    counts: Arc<Counts>,
    random: Mutex<ChaCha8Rng>,
    link: Arc<Link>,
}

/// When the link is free again.
#[derive(Debug, Default)]
struct Link(Mutex<Option<Instant>>);

impl Link {
    /// Waits until bytes have gone through, after those of others before.
    async fn pass(&self, bytes: usize, rate: Option<u64>) {
        let Some(rate) = rate else { return };
        let free = {
            let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let free = until.map_or(now, |t| t.max(now)) + takes(bytes, rate);
            *until = Some(free);
            free
        };
        tokio::time::sleep_until(free).await;
    }
}

fn takes(bytes: usize, rate: u64) -> Duration {
    #[allow(clippy::cast_precision_loss)] // a simulation
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Reset,
    Truncated,
}

impl<S: ?Sized> fmt::Debug for Simulated<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("behaviour", &self.net.behaviour).finish_non_exhaustive()
    }
}

impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Simulated({})", self.inner)
    }
}

fn wrong(what: &str) -> Error {
    Error::Generic { store: "Simulated", source: what.into() }
}

impl<S: ?Sized> Simulated<S> {
    /// Puts a network in front of a store.
    #[must_use]
    pub fn new(inner: Arc<S>, behaviour: Behaviour, counts: Arc<Counts>) -> Self {
        let random = Mutex::new(ChaCha8Rng::seed_from_u64(behaviour.seed));
        Self { inner, net: Arc::new(Net { behaviour, counts, random, link: Arc::default() }) }
    }
}

impl Net {
    /// Where in a thousand a request falls, and where an answer is cut.
    fn draw(&self) -> (u32, u32) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        (random.next_u32() % 1000, random.next_u32())
    }

    /// Whether requests that write have come to their end.
    fn is_dead(&self) -> bool {
        self.behaviour.dead_after.is_some_and(|last| self.counts.writes() > last)
    }

    async fn ask(&self) -> Result<(Fault, u32)> {
        tokio::time::sleep(self.behaviour.latency).await;
        if self.is_dead() {
            return Err(wrong("connection refused"));
        }
        let (place, cut) = self.draw();
        let Behaviour { throttled, reset, truncated, .. } = self.behaviour;
        if place < throttled + reset + truncated {
            self.counts.faults.fetch_add(1, Relaxed);
        }
        if place < throttled {
            return Err(wrong(
                "Server returned non-2xx status code: 503 Service Unavailable: SlowDown",
            ));
        }
        let fault = match place - throttled {
            p if p < reset => Fault::Reset,
            p if p < reset + truncated => Fault::Truncated,
            _ => Fault::None,
        };
        Ok((fault, cut))
    }

    /// A request that writes: it may fail before it is carried out, or after.
    async fn write<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.counts.writes.fetch_add(1, Relaxed);
        if let Some(last) = self.behaviour.dead_after.filter(|last| number >= *last) {
            if number == last && self.behaviour.lost {
                request.await?;
            }
            return Err(wrong("connection refused"));
        }
        let (fault, _) = self.ask().await?;
        let answer = request.await?;
        match fault {
            Fault::None => Ok(answer),
            _ => Err(wrong("connection reset by peer")),
        }
    }

    /// An answer's bytes, as slowly and as badly as they come.
    fn body(
        &self,
        bytes: BoxStream<'static, Result<Bytes>>,
        range: &Range<u64>,
        fault: Fault,
        cut: u32,
    ) -> BoxStream<'static, Result<Bytes>> {
        let Behaviour { connection_rate, link_rate, .. } = self.behaviour;
        let link = Arc::clone(&self.link);
        let length = range.end - range.start;
        let most = match fault {
            Fault::None => u64::MAX,
            _ => u64::from(cut) % length.max(1),
        };
        let state = (bytes, most, link, Instant::now());
        let step = move |state: (BoxStream<'static, Result<Bytes>>, u64, Arc<Link>, Instant)| async move {
            let (mut bytes, left, link, came) = state;
            if left == 0 {
                let end = (fault == Fault::Reset).then(|| Err(wrong("connection reset by peer")));
                return end.map(|e| (e, (stream::empty().boxed(), 1, link, came)));
            }
            let mut part = match bytes.next().await? {
                Ok(part) => part,
                Err(e) => return Some((Err(e), (bytes, left, link, came))),
            };
            part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let came =
                came + connection_rate.map_or(Duration::ZERO, |rate| takes(part.len(), rate));
            link.pass(part.len(), link_rate).await;
            tokio::time::sleep_until(came).await;
            let left = left - u64::try_from(part.len()).unwrap_or(left);
            Some((Ok(part), (bytes, left, link, came)))
        };
        stream::unfold(state, step).boxed()
    }
}

#[async_trait]
impl ObjectStore for Simulated {
    async fn put_opts(
        &self,
        at: &Path,
        bytes: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.net.write(self.inner.put_opts(at, bytes, options)).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.net.counts.gets.fetch_add(1, Relaxed);
        let (fault, cut) = self.net.ask().await?;
        let head = options.head;
        let found = self.inner.get_opts(at, options).await?;
        if head {
            return Ok(found);
        }
        let (meta, range) = (found.meta.clone(), found.range.clone());
        self.net.counts.bytes.fetch_add(range.end - range.start, Relaxed);
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let body = self.net.body(found.into_stream(), &range, fault, cut);
        Ok(GetResult {
            payload: GetResultPayload::Stream(body),
            meta,
            range,
            attributes,
            extensions,
        })
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // One request, as far as its faults go.
        let (inner, net) = (Arc::clone(&self.inner), Arc::clone(&self.net));
        let removed = async move {
            let remove = async { Ok(inner.delete_stream(at).collect::<Vec<_>>().await) };
            match net.write(remove).await {
                Ok(removed) => removed,
                Err(e) => vec![Err(e)],
            }
        };
        stream::once(removed).flat_map(stream::iter).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.net.counts.lists.fetch_add(1, Relaxed);
        let (net, found) = (Arc::clone(&self.net), self.inner.list(prefix));
        // Nothing, or an error before what is found.
        stream::once(async move { net.ask().await.err() })
            .filter_map(|failed| async move { failed.map(Err) })
            .chain(found)
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.net.counts.lists.fetch_add(1, Relaxed);
        self.net.ask().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Simulated<dyn MultipartStore> {
    async fn create_multipart(&self, at: &Path) -> Result<MultipartId> {
        self.net.write(self.inner.create_multipart(at)).await
    }

    async fn put_part(
        &self,
        at: &Path,
        id: &MultipartId,
        index: usize,
        bytes: PutPayload,
    ) -> Result<PartId> {
        self.net.write(self.inner.put_part(at, id, index, bytes)).await
    }

    async fn complete_multipart(
        &self,
        at: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.net.write(self.inner.complete_multipart(at, id, parts)).await
    }

    async fn abort_multipart(&self, at: &Path, id: &MultipartId) -> Result<()> {
        self.net.write(self.inner.abort_multipart(at, id)).await
    }
}
