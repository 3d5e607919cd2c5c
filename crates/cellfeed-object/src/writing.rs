//! Where a store is to be written: found out, and tried, before the work for it begins.

use crate::address::Address;
use crate::attempt::{Failure, Tries, judge};
use crate::client::{Client, Remote};
use crate::connect::{Writable, connect_to_write};
use crate::object::Seen;
use cellfeed_core::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt, PutPayload};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes a second below which a request that sends has failed: sixteen at once are 4 Mbit/s.
const SLOWEST: u64 = 32 << 10;
/// What stores consist of, by the first part of their keys: AnnData in Zarr, and raw CSR. Nothing else is
/// ever removed.
const OURS: [&str; 16] = [
    "X",
    "layers",
    "obs",
    "obsm",
    "obsp",
    "raw",
    "uns",
    "var",
    "varm",
    "varp",
    "raw_var",
    "zarr.json",
    "header.json",
    ".zgroup",
    ".zattrs",
    ".zmetadata",
];

/// Where a store is to be written.
#[derive(Clone)]
pub struct Destination {
    pub(crate) client: Arc<Client>,
    pub(crate) to: Writable,
    pub(crate) address: Address,
    /// Of a store of many files, the one without which it does not open.
    pub(crate) opener: Option<&'static str>,
    pub(crate) overwrite: bool,
}

/// Without the store, whose own form may show credentials.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination")
            .field("address", &self.address)
            .field("opener", &self.opener)
            .field("overwrite", &self.overwrite)
            .finish_non_exhaustive()
    }
}

/// What is at a destination.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// An object of that very key.
    pub(crate) object: Option<Seen>,
    /// The first parts of names below it.
    members: Vec<String>,
}

impl Found {
    /// Whether nothing is there.
    pub(crate) fn is_free(&self) -> bool {
        self.object.is_none() && self.members.is_empty()
    }
}

impl Remote {
    /// Looks at a destination, and tries whether it may be written: a multipart upload of one byte is
    /// begun and aborted, so that nothing is left. Blocks.
    ///
    /// `opener` is the file without which a store of many files does not open; none for a store of one.
    ///
    /// # Errors
    /// Of kind `InvalidInput` for a URL that names no object, and for a destination that exists and is
    /// not to be replaced, or is something else than a store; `Unsupported` for what is not written to;
    /// `NotFound` if there is no such bucket; `Io` if the store refuses or is not reached.
    pub fn destination(
        &self,
        url: &str,
        opener: Option<&'static str>,
        overwrite: bool,
    ) -> Result<Destination> {
        let address = Address::parse(url)?;
        let odd = |what: &str| Err(Error::invalid_input(what).with("url", &address));
        if url.contains('#') {
            return odd("a # names a part of a file, and a store is written as a whole");
        }
        if address.key.as_ref().is_empty() {
            return odd("the URL names a bucket, and nothing in it: give the store a name");
        }
        if address.folder && opener.is_none() {
            return odd("the URL ends with /, as that of a folder, but the store is a single file");
        }
        let client = Arc::clone(&self.0);
        let to = connect_to_write(&address, &client.options)?;
        let destination = Destination { client, to, address, opener, overwrite };
        let asked = destination.clone();
        self.0.block(async move {
            asked.look().await?;
            asked.probe().await
        })?;
        Ok(destination)
    }
}

impl Destination {
    /// Whether a URL leads to the same object as this one, or one is below the other.
    #[must_use]
    pub fn overlaps(&self, url: &str) -> bool {
        let url = url.split_once('#').map_or(url, |(url, _)| url);
        let Ok(other) = Address::parse(url) else { return false };
        // An endpoint, or a scheme of the same meaning, makes no other bucket.
        let bucket = |a: &Address| {
            let (_, bucket) = a.store.split_once("://").unwrap_or_default();
            bucket.split('@').next().unwrap_or_default().to_owned()
        };
        let (a, b) = (&self.address, &other);
        a.kind == b.kind
            && bucket(a) == bucket(b)
            && (a.key.prefix_matches(&b.key) || b.key.prefix_matches(&a.key))
    }

    /// The last part of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        self.address.key.filename().unwrap_or("store")
    }

    /// What is there, unless that forbids to write.
    pub(crate) async fn look(&self) -> Result<Found> {
        let key = &self.address.key;
        // Where folders come first, an object of the same name does no harm.
        let object = if self.opener.is_some() && self.address.folder_first() {
            None
        } else {
            let head = || self.to.store.head(key).boxed();
            match self.ask(&self.address, 0, &head).await {
                Ok(meta) => Some(Seen::from(&meta)),
                Err(e) if e.kind() == ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            }
        };
        // Tells a bucket that is not there too.
        let list = || self.to.store.list_with_delimiter(Some(key)).boxed();
        let listed = self.ask(&self.address, 0, &list).await?;
        let paths = listed.objects.iter().map(|o| &o.location).chain(&listed.common_prefixes);
        let mut members: Vec<String> =
            paths.filter_map(|p| Some(p.prefix_match(key)?.next()?.as_ref().to_owned())).collect();
        members.sort_unstable();
        members.dedup();
        let found = Found { object, members };
        self.judge(&found)?;
        Ok(found)
    }

    fn judge(&self, found: &Found) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid_input(what).with("url", &self.address));
        if found.is_free() {
            return Ok(());
        }
        if !self.overwrite {
            return refuse(
                "the destination exists already, and is not to be replaced: --force, or overwrite, does"
                    .to_owned(),
            );
        }
        if self.opener.is_none() && !found.members.is_empty() {
            return refuse(
                "there are objects below this name, and a single file is to be written: remove them, or \
                 give another name"
                    .to_owned(),
            );
        }
        if self.opener.is_some() && found.object.is_some() {
            return refuse(
                "there is an object of this name, and a store of many is to be written: remove it, or \
                 give another name"
                    .to_owned(),
            );
        }
        let numbered = |m: &str| {
            let number = m.strip_prefix("layer-");
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let other = found.members.iter().find(|m| !OURS.contains(&m.as_str()) && !numbered(m));
        if let Some(other) = other {
            return refuse(format!(
                "there is {other:?} below this name, which is no part of a store: only stores are \
                 replaced; remove it, or give another name"
            ));
        }
        Ok(())
    }

    /// Whether it may be written: found out now, not after hours of work.
    async fn probe(&self) -> Result<()> {
        let (key, at) = (&self.address.key, &self.address);
        let id = self.ask(at, 0, &|| self.to.parts.create_multipart(key).boxed()).await?;
        // Azure asks for nothing before the first part.
        let part = || self.to.parts.put_part(key, &id, 0, PutPayload::from_static(b"x")).boxed();
        let put = self.ask(at, 0, &part).await;
        let aborted = self.ask(at, 0, &|| self.to.parts.abort_multipart(key, &id).boxed()).await;
        put.and(aborted)
    }

    /// Every object below.
    pub(crate) async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let mut tries = Tries::new(&self.address, self.client.options.attempts);
        'again: loop {
            let (mut list, mut found) = (self.to.store.list(Some(&self.address.key)), Vec::new());
            loop {
                let next = async { Ok(list.next().await) }.boxed();
                let failure = match self.once(&self.address, 0, next).await {
                    Ok(None) => return Ok(found),
                    Ok(Some(Ok(meta))) => {
                        found.push(meta);
                        continue;
                    }
                    Ok(Some(Err(e))) => judge(&e, &self.address),
                    Err(failure) => failure,
                };
                tries.again(failure).await?;
                continue 'again;
            }
        }
    }

    /// A request that sends so many bytes, as often as it takes.
    pub(crate) async fn ask<'a, T>(
        &self,
        at: &Address,
        bytes: u64,
        request: &(dyn Fn() -> BoxFuture<'a, object_store::Result<T>> + Sync),
    ) -> Result<T> {
        let mut tries = Tries::new(at, self.client.options.attempts);
        loop {
            match self.once(at, bytes, request()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    /// A request that sends so many bytes, once.
    pub(crate) async fn once<T>(
        &self,
        at: &Address,
        bytes: u64,
        request: BoxFuture<'_, object_store::Result<T>>,
    ) -> std::result::Result<T, Failure> {
        let permit = self.client.permits.acquire().await;
        let _permit = permit.map_err(|_| Failure::Final(Error::cancelled()))?;
        let limit = self.client.options.timeout + Duration::from_secs(bytes / SLOWEST);
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(|e| judge(&e, at)),
            Err(_) => Err(Failure::Passing(format!("no answer within {} s", limit.as_secs()))),
        }
    }

    /// The address of one of the store's files.
    pub(crate) fn at(&self, name: &str) -> Result<Address> {
        let key = Path::parse(format!("{}/{name}", self.address.key)).map_err(|_| {
            Error::invalid_input(format!("{name:?} is no part of a key")).with("url", &self.address)
        })?;
        Ok(self.address.at(key))
    }
}
