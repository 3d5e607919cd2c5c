//! A prefix as a folder. One listing tells names, lengths and tags of all objects below it; where there
//! are too many for that, or none can be listed, each is asked for.

use crate::address::{Address, Kind};
use crate::attempt::{Failure, Tries, judge};
use crate::cache::Group;
use crate::client::Client;
use crate::object::{Object, Seen};
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, Engine, Entry, Folder, check_name};
use cellfeed_core::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Objects of a listing: about a thousand come with each request.
const LISTED: usize = 20_000;
/// What [`Folder::read_soon`] gets: files of at most so many bytes, so many of them, and in all.
const SMALL: u64 = 1 << 20;
const MANY: usize = 4096;
const KEPT: u64 = 64 << 20;
/// More bytes than are below any folder: what is said of one that was not listed.
const UNKNOWN: u64 = 1 << 60;

/// Objects below a prefix.
pub(crate) struct Prefix {
    client: Arc<Client>,
    store: Arc<dyn ObjectStore>,
    engine: Arc<Engine>,
    /// Where what is read of it is kept.
    group: Option<Arc<Group>>,
    address: Address,
    location: String,
    listing: OnceLock<Option<BTreeMap<String, Seen>>>,
    opened: Mutex<HashMap<String, Arc<Object>>>,
    kept: Mutex<HashMap<String, Bytes>>,
}

/// Without the store, whose own form may show credentials.
impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefix").field("location", &self.location).finish_non_exhaustive()
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Prefix {
    pub(crate) fn new(
        client: Arc<Client>,
        store: Arc<dyn ObjectStore>,
        engine: Arc<Engine>,
        group: Option<Arc<Group>>,
        address: Address,
    ) -> Self {
        let location = address.to_string();
        Self {
            client,
            store,
            engine,
            group,
            address,
            location,
            listing: OnceLock::new(),
            opened: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// Takes an object that was opened before.
    pub(crate) fn keep(&self, name: &str, object: Object) -> Arc<dyn ByteSource> {
        let object = Arc::new(object);
        lock(&self.opened).insert(name.to_owned(), Arc::clone(&object));
        object
    }

    fn at(&self, name: &str) -> Result<Address> {
        let name = name.trim_matches('/');
        let key = match (self.address.key.as_ref(), name) {
            (root, "") => root.to_owned(),
            ("", name) => name.to_owned(),
            (root, name) => format!("{root}/{name}"),
        };
        let key = Path::parse(&key).map_err(|_| {
            Error::invalid_input(format!("{name:?} is no part of a key"))
                .with("file", &self.location)
        })?;
        Ok(self.address.at(key))
    }

    /// All objects; none if they are too many to be listed, or cannot be.
    fn listing(&self) -> Result<Option<&BTreeMap<String, Seen>>> {
        if let Some(listing) = self.listing.get() {
            return Ok(listing.as_ref());
        }
        if self.address.kind == Kind::Http {
            return Ok(self.listing.get_or_init(|| None).as_ref());
        }
        let (store, address, attempts) =
            (Arc::clone(&self.store), self.address.clone(), self.client.options.attempts);
        let found = self.client.block(async move {
            let mut tries = Tries::new(&address, attempts);
            loop {
                match list_all(&*store, &address).await {
                    Ok(found) => return Ok(found),
                    Err(failure) => tries.again(failure).await?,
                }
            }
        })?;
        let listing = (found.len() <= LISTED).then(|| {
            let below = |meta: &object_store::ObjectMeta| {
                let key = meta.location.as_ref();
                let name = key.strip_prefix(self.address.key.as_ref())?.trim_start_matches('/');
                Some((name.to_owned(), Seen::from(meta)))
            };
            found.iter().filter_map(below).filter(|(name, _)| !name.is_empty()).collect()
        });
        Ok(self.listing.get_or_init(|| listing).as_ref())
    }

    fn object(&self, name: &str) -> Result<Arc<Object>> {
        check_name(name, &self.location)?;
        if let Some(object) = lock(&self.opened).get(name) {
            return Ok(Arc::clone(object));
        }
        let address = self.at(name)?;
        let (client, store, engine) = (&self.client, &self.store, &self.engine);
        let group = self.group.as_ref();
        let object = match self.listing.get() {
            Some(Some(listing)) => {
                let seen = listing.get(name).ok_or_else(|| {
                    Error::not_found("there is no such object").with("file", &address)
                })?;
                Object::known(client, store, engine, group, address, seen.clone())
            }
            _ => Object::open(client, store, engine, group, address)?,
        };
        let object = Arc::new(object);
        Ok(Arc::clone(lock(&self.opened).entry(name.to_owned()).or_insert(object)))
    }

    /// What is directly below a folder, by asking for that alone.
    fn ask(&self, name: &str) -> Result<Vec<(String, Entry)>> {
        let address = self.at(name)?;
        if self.address.kind == Kind::Http {
            return Err(Error::unsupported(
                "a web server does not tell what a folder has in it: open a single file of it, a .csr \
                 store, or the same store through s3://, gs:// or az://",
            )
            .with("file", address));
        }
        let (store, attempts) = (Arc::clone(&self.store), self.client.options.attempts);
        self.client.block(async move {
            let mut tries = Tries::new(&address, attempts);
            let list = loop {
                let prefix = (!address.key.as_ref().is_empty()).then_some(&address.key);
                match store.list_with_delimiter(prefix).await {
                    Ok(list) => break list,
                    Err(e) => tries.again(judge(&e, &address)).await?,
                }
            };
            let last = |path: &Path| path.filename().unwrap_or_default().to_owned();
            let files = list.objects.iter().map(|o| (last(&o.location), Entry::File(o.size)));
            let folders = list.common_prefixes.iter().map(|p| (last(p), Entry::Folder));
            Ok(files.chain(folders).filter(|(name, _)| !name.is_empty()).collect())
        })
    }
}

/// Objects below a key, up to one more than a listing holds.
async fn list_all(
    store: &dyn ObjectStore,
    address: &Address,
) -> std::result::Result<Vec<object_store::ObjectMeta>, Failure> {
    let prefix = (!address.key.as_ref().is_empty()).then_some(&address.key);
    let mut objects = store.list(prefix).take(LISTED + 1);
    let mut found = Vec::new();
    while let Some(object) = objects.next().await {
        found.push(object.map_err(|e| judge(&e, address))?);
    }
    Ok(found)
}

/// The part of a listing that is below a folder, with names relative to it.
fn below<'a>(
    listing: &'a BTreeMap<String, Seen>,
    folder: &str,
) -> impl Iterator<Item = (&'a str, &'a Seen)> {
    let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let (from, start) = (start.clone(), start);
    listing
        .range(from..)
        .map_while(move |(name, seen)| name.strip_prefix(start.as_str()).map(|name| (name, seen)))
}

impl Folder for Prefix {
    fn location(&self) -> &str {
        &self.location
    }

    fn place(&self, name: &str) -> String {
        if name.is_empty() { self.location.clone() } else { format!("{}/{name}", self.location) }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        self.object(name).map(|object| object as Arc<dyn ByteSource>)
    }

    fn look(&self, name: &str) -> Result<Option<Entry>> {
        if let Some(listing) = self.listing()? {
            if let Some(seen) = listing.get(name) {
                return Ok(Some(Entry::File(seen.size)));
            }
            return Ok(below(listing, name).next().map(|_| Entry::Folder));
        }
        if name.is_empty() {
            return Ok(Some(Entry::Folder));
        }
        match self.object(name) {
            Ok(object) => Ok(Some(Entry::File(object.size()))),
            Err(e) if e.kind() == ErrorKind::NotFound => match self.ask(name) {
                Ok(inside) => Ok((!inside.is_empty()).then_some(Entry::Folder)),
                Err(e) if e.kind() == ErrorKind::Unsupported => Ok(None),
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    fn list(&self, name: &str) -> Result<Vec<(String, Entry)>> {
        let Some(listing) = self.listing()? else { return self.ask(name) };
        let mut found: Vec<(String, Entry)> = Vec::new();
        for (name, seen) in below(listing, name) {
            match name.split_once('/') {
                None => found.push((name.to_owned(), Entry::File(seen.size))),
                Some((folder, _)) if found.last().is_some_and(|(last, _)| last == folder) => {}
                Some((folder, _)) => found.push((folder.to_owned(), Entry::Folder)),
            }
        }
        Ok(found)
    }

    fn bytes_below(&self, name: &str) -> u64 {
        match self.listing() {
            Ok(Some(listing)) => below(listing, name).map(|(_, seen)| seen.size).sum(),
            _ => UNKNOWN,
        }
    }

    fn parent(&self) -> Option<Arc<dyn Folder>> {
        let key = self.address.key.as_ref();
        if key.is_empty() {
            return None;
        }
        let up = key.rsplit_once('/').map_or("", |(up, _)| up);
        let address = self.address.at(Path::parse(up).ok()?);
        let (client, store) = (Arc::clone(&self.client), Arc::clone(&self.store));
        let (engine, group) = (Arc::clone(&self.engine), self.group.clone());
        let parent = Self::new(client, store, engine, group, address);
        // It may hold anything: what is asked of it is a file or two.
        let _ = parent.listing.set(None);
        Some(Arc::new(parent))
    }

    fn is_far(&self) -> bool {
        true
    }

    fn read_soon(&self, wanted: &dyn Fn(&str) -> bool) {
        let Ok(Some(listing)) = self.listing() else { return };
        let mut total = 0;
        let picked = listing.iter().filter(|(name, seen)| seen.size <= SMALL && wanted(name));
        let picked = picked.take(MANY).take_while(|(_, seen)| {
            total += seen.size;
            total <= KEPT
        });
        let objects = picked.filter_map(|(name, _)| Some((name.clone(), self.object(name).ok()?)));
        let objects: Vec<(String, Arc<Object>)> = objects.collect();
        let connections = self.client.options.connections;
        let read = self.client.block(async move {
            let read = |(name, object): (String, Arc<Object>)| {
                async move { object.whole().await.ok().map(|b| (name, b)) }.boxed()
            };
            let reads: Vec<BoxFuture<'static, _>> = objects.into_iter().map(read).collect();
            let reads = stream::iter(reads).buffer_unordered(connections);
            Ok(reads.collect::<Vec<_>>().await)
        });
        // What could not be read is read again, and fails, where it is wanted.
        lock(&self.kept).extend(read.unwrap_or_default().into_iter().flatten());
    }

    fn read(&self, name: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = lock(&self.kept).get(name)
            && u64::try_from(bytes.len()).is_ok_and(|n| n <= longest)
        {
            return Ok(Some(bytes.to_vec()));
        }
        let Some(Entry::File(size)) = self.look(name)? else { return Ok(None) };
        let file = self.object(name)?;
        if size > longest || file.size() > longest {
            return Err(Error::corrupt(format!(
                "the object has {size} bytes, more than the {longest} that one of its kind may have"
            ))
            .with("file", file.location()));
        }
        let mut bytes = vec![0; usize::try_from(file.size()).unwrap_or(usize::MAX)];
        file.read_exact_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }
}
