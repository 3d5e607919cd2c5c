//! How object stores are reached.

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

type Wrapper = Arc<dyn Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync>;
type PartsWrapper = Arc<dyn Fn(Arc<dyn MultipartStore>) -> Arc<dyn MultipartStore> + Send + Sync>;

/// Options of [`Remote`](crate::Remote).
#[derive(Clone)]
pub struct RemoteOptions {
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) connections: usize,
    pub(crate) gap: u64,
    pub(crate) run: u64,
    pub(crate) attempts: u32,
    pub(crate) timeout: Duration,
    pub(crate) cache: Option<(PathBuf, Option<u64>)>,
    pub(crate) wrapper: Option<Wrapper>,
    pub(crate) parts_wrapper: Option<PartsWrapper>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            connections: 256,
            gap: 64 << 10,
            run: 4 << 20,
            attempts: 6,
            timeout: Duration::from_secs(20),
            cache: None,
            wrapper: None,
            parts_wrapper: None,
        }
    }
}

/// Values of settings may be secrets: names alone are shown.
impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("RemoteOptions")
            .field("settings", &names)
            .field("connections", &self.connections)
            .field("gap", &self.gap)
            .field("run", &self.run)
            .field("attempts", &self.attempts)
            .field("timeout", &self.timeout)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl RemoteOptions {
    /// A setting of the store, as `region`, `endpoint` or `skip_signature`: it comes before the
    /// environment variable that means the same. `docs/object-stores.md` lists them.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Requests that are under way at once, in all. Default: 256: with 30 ms to the first byte, so many
    /// answers of 25 KB fill 200 MB/s. Divide it among the processes of one training.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Ranges at most so many bytes apart are one request. Default: 64 KiB.
    #[must_use]
    pub fn with_gap(mut self, bytes: u64) -> Self {
        self.gap = bytes;
        self
    }

    /// The most bytes that one request asks for; longer ranges are cut. Default: 4 MiB.
    #[must_use]
    pub fn with_request_bytes(mut self, bytes: u64) -> Self {
        self.run = bytes.max(1);
        self
    }

    /// How often a request is tried before it has failed. Default: 6, within about six seconds if the
    /// store answers at once.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// After so long without a byte an attempt has failed; half of it is for connecting. Default: 20 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Keeps what is read in a folder of a local disk, which may hold so many bytes, so that it is read
    /// from there the next time: by this process, others at the same time, and later ones. Of none: half
    /// of what the disk has free, and at most 64 GiB. Several processes should give the same number.
    ///
    /// The folder is made if it is not there; one that holds other files is refused. Objects are told
    /// apart by URL, length and entity tag (or time of change), so a changed one is read anew.
    #[must_use]
    pub fn with_cache(mut self, folder: impl Into<PathBuf>, bytes: impl Into<Option<u64>>) -> Self {
        self.cache = Some((folder.into(), bytes.into()));
        self
    }

    /// Puts something between Cellfeed and each store: for tests and benchmarks.
    #[doc(hidden)]
    #[must_use]
    pub fn with_wrapper(
        mut self,
        wrapper: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> + Send + Sync + 'static,
    ) -> Self {
        self.wrapper = Some(Arc::new(wrapper));
        self
    }

    /// As [`with_wrapper`](Self::with_wrapper), for what takes objects in parts.
    #[doc(hidden)]
    #[must_use]
    pub fn with_parts_wrapper(
        mut self,
        wrapper: impl Fn(Arc<dyn MultipartStore>) -> Arc<dyn MultipartStore> + Send + Sync + 'static,
    ) -> Self {
        self.parts_wrapper = Some(Arc::new(wrapper));
        self
    }
}
