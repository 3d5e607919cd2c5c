//! The client: one runtime, one bound on requests, the stores that were connected to.

use crate::address::{Address, Kind};
use crate::cache::Cache;
use crate::connect::{Connected, connect};
use crate::folder::Prefix;
use crate::object::{Object, Seen};
use crate::options::RemoteOptions;
use cellfeed_core::io::{ByteSource, CoalesceOptions, Engine, Folder};
use cellfeed_core::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Threads that speak to stores: they decrypt and copy; decoding is the engine's.
const THREADS: usize = 2;

/// Opens what is behind a URL. Cheap to clone: clones share threads, connections and their bound.
#[derive(Debug, Clone)]
pub struct Remote(pub(crate) Arc<Client>);

/// What a URL leads to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Located {
    /// An object: the folder it is in, its name there, and itself.
    File {
        /// Where it is.
        folder: Arc<dyn Folder>,
        /// Its name there.
        name: String,
        /// Its bytes.
        source: Arc<dyn ByteSource>,
    },
    /// A prefix that objects share.
    Folder(Arc<dyn Folder>),
}

/// What objects and folders share.
pub(crate) struct Client {
    pub(crate) options: RemoteOptions,
    pub(crate) permits: Semaphore,
    /// Always there until it is dropped.
    runtime: Option<Runtime>,
    stores: Mutex<HashMap<String, Connected>>,
    cache: Option<Arc<Cache>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Remote {
    /// A client with two threads of its own, and no connection yet.
    ///
    /// # Errors
    /// Of kind `InvalidInput` if the cache cannot be written, or its folder is something else's;
    /// `Internal` if threads cannot be started.
    pub fn new(options: RemoteOptions) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(8)
            .thread_name("cellfeed-net")
            .enable_all()
            .build()
            .map_err(|e| Error::internal("cannot start the network's threads").caused_by(e))?;
        let permits = Semaphore::new(options.connections.min(Semaphore::MAX_PERMITS));
        let cache = options.cache.as_ref().map(|(dir, bytes)| Cache::open(dir, *bytes));
        let cache = cache.transpose()?;
        let stores = Mutex::default();
        Ok(Self(Arc::new(Client { options, permits, runtime: Some(runtime), stores, cache })))
    }

    /// Finds out what a URL leads to. Blocks.
    ///
    /// # Errors
    /// Of kind `NotFound` if there is nothing; `InvalidInput` for what is no URL or a wrong setting,
    /// `Unsupported` for a scheme that is not read, or not in this build; `Io` if the store refuses or
    /// is not reached.
    pub fn locate(&self, url: &str, engine: &Arc<Engine>) -> Result<Located> {
        let address = Address::parse(url)?;
        let (store, place) = self.0.store(&address)?;
        let cache = self.0.cache.as_ref();
        let group = cache.and_then(|cache| cache.group(&place, &address, engine.stats()));
        let prefix = |address: Address| {
            let (client, store) = (Arc::clone(&self.0), Arc::clone(&store));
            Arc::new(Prefix::new(client, store, Arc::clone(engine), group.clone(), address))
        };
        if address.folder_first() {
            let folder = prefix(address.clone());
            if address.folder || folder.look("")?.is_some() {
                return Ok(Located::Folder(folder));
            }
        }
        let opened = Object::open(&self.0, &store, engine, group.as_ref(), address.clone());
        let missing = match opened {
            Ok(source) => {
                let (parent, name) =
                    address.key.as_ref().rsplit_once('/').unwrap_or(("", address.key.as_ref()));
                let parent = object_store::path::Path::parse(parent)
                    .map_err(|e| Error::internal("a part of a key is none").caused_by(e))?;
                let folder = prefix(address.at(parent));
                let source = folder.keep(name, source);
                return Ok(Located::File { folder, name: name.to_owned(), source });
            }
            Err(e) => e,
        };
        // A web server lists nothing: whether this could be a folder is not known.
        if address.kind == Kind::Http {
            return Err(missing);
        }
        // Where keys may not be listed, a key that is not there is one that may not be read.
        let folder = prefix(address.clone());
        match folder.look("") {
            Ok(Some(_)) => Ok(Located::Folder(folder)),
            Ok(None)
                if missing.kind() == ErrorKind::NotFound
                    && !missing.message().contains("bucket") =>
            {
                Err(Error::not_found("there is no such object, and none whose name begins so")
                    .with("file", address))
            }
            _ => Err(missing),
        }
    }
}

impl Client {
    fn store(&self, address: &Address) -> Result<Connected> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&address.store) {
            return Ok(store.clone());
        }
        let store = connect(address, &self.options)?;
        stores.insert(address.store.clone(), store.clone());
        Ok(store)
    }

    pub(crate) fn coalesce(&self) -> CoalesceOptions {
        CoalesceOptions::new(self.options.gap, self.options.run)
    }

    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let runtime = self.runtime.as_ref().ok_or_else(Error::cancelled)?;
        Ok(runtime.spawn(work))
    }

    /// Runs network work on the client's threads; whoever drops the future ends it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        struct Abort<T>(JoinHandle<T>);
        impl<T> Drop for Abort<T> {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let mut task = Abort(self.spawn(work)?);
        (&mut task.0).await.unwrap_or_else(|e| Err(ended(e)))
    }

    /// As [`run`](Self::run), and waits.
    pub(crate) fn block<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = self.spawn(async move {
            // Nobody waits any more: nobody is to be told.
            let _ = sender.send(work.await);
            Ok(())
        })?;
        // A task that panicked drops the sender.
        receiver.recv().unwrap_or_else(|_| {
            task.abort();
            Err(Error::internal("a request ended without an answer; please report this"))
        })
    }
}

fn ended(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::cancelled();
    }
    Error::internal("a request panicked; please report this").caused_by(error)
}

impl Drop for Client {
    fn drop(&mut self) {
        // The last share may go on any thread, one of the runtime's own among them: nothing is waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is known of an object without asking.
impl From<&object_store::ObjectMeta> for Seen {
    fn from(meta: &object_store::ObjectMeta) -> Self {
        Self {
            size: meta.size,
            // Seconds: headers have no finer ones, listings do.
            modified: meta.last_modified.timestamp(),
            tag: meta.e_tag.clone(),
        }
    }
}
