//! The files of a store, put to where it is to be: small ones by one request, long ones in parts, many
//! at once in bounded memory. What makes the store open goes last, when a listing has shown that all
//! else is there; until then nothing opens, and what fails is taken back.

use crate::address::Address;
use crate::attempt::{Failure, Tries};
use crate::object::Seen;
use crate::writing::{Destination, Found};
use bytes::Bytes;
use cellfeed_core::{Error, ErrorKind, Result};
use futures::future::{AbortHandle, Abortable};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{MultipartId, ObjectStoreExt, PutPayload};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use tokio::sync::Semaphore;

const MIB: u64 = 1 << 20;
/// The length of a part, and of the longest file that is put by one request. Stores take parts from 5 MiB
/// on, some of them of one length alone, and up to ten thousand.
const PART: u64 = 8 * MIB;
const MOST_PARTS: u64 = 10_000;
/// The longest part that all stores take.
const LONGEST_PART: u64 = 4000 * MIB;
/// MiB of files in memory.
const ROOM: u32 = 128;
/// Files that are being put at once, and parts of each.
const AT_ONCE: usize = 64;
/// Objects that one request removes.
const REMOVED: usize = 1000;
/// How often progress is told, and giving up is asked for.
const TICK: Duration = Duration::from_millis(100);

/// A file to be put.
#[derive(Debug, Clone)]
struct Local {
    path: PathBuf,
    at: Address,
    size: u64,
}

/// One upload.
struct Job {
    to: Destination,
    files: Vec<Local>,
    /// The file that makes the store open.
    last: Local,
    done: AtomicU64,
    room: Semaphore,
    begun: Mutex<Begun>,
}

/// What is to be taken back if it comes to nothing.
#[derive(Debug, Default)]
struct Begun {
    objects: BTreeSet<Key>,
    uploads: Vec<(Key, MultipartId)>,
}

/// A file that is one request away from being there.
enum Ready {
    Put,
    Parts(MultipartId, Vec<PartId>),
}

/// Why the last request has failed.
struct Missed {
    error: Error,
    /// Whether it may have been carried out all the same.
    doubt: bool,
}

impl Destination {
    /// Puts a store there that is on this machine: a file, or a folder with all that is in it. `told` has
    /// the bytes that are there and those in all, and ends the work by answering false. Blocks.
    ///
    /// A store of one object appears, or takes the place of the old one, when it is complete. Of one of
    /// many, the old one is removed first; the new one opens when all of it is there. What fails or is
    /// given up is taken back as far as the store lets it; what stays does not open.
    ///
    /// # Errors
    /// As [`Remote::destination`](crate::Remote::destination), which is asked again; `Cancelled`;
    /// `Io` if the store fails or refuses.
    pub fn upload(&self, from: &Path, told: &mut dyn FnMut(u64, u64) -> bool) -> Result<()> {
        let (files, last) = self.gather(from)?;
        let total = files.iter().map(|f| f.size).sum::<u64>() + last.size;
        let job = Arc::new(Job {
            to: self.clone(),
            files,
            last,
            done: AtomicU64::new(0),
            room: Semaphore::new(usize::try_from(ROOM).unwrap_or(1)),
            begun: Mutex::default(),
        });
        let (end, registration) = AbortHandle::new_pair();
        let (sender, receiver) = mpsc::sync_channel(1);
        let work = Arc::clone(&job);
        self.client.spawn(async move {
            // Nobody waits any more: nobody is to be told.
            let _ = sender.send(work.run(registration).await);
            Ok(())
        })?;
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(answer) => {
                    told(job.done.load(Relaxed), total);
                    return answer;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if !told(job.done.load(Relaxed), total) {
                        end.abort();
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal(
                        "an upload ended without an answer; please report this",
                    ));
                }
            }
        }
    }

    /// The files of a store, and apart from them the one that makes it open.
    fn gather(&self, from: &Path) -> Result<(Vec<Local>, Local)> {
        let io = |e| Error::io("cannot look at", e).with("file", from.display());
        let Some(opener) = self.opener else {
            let size = from.metadata().map_err(io)?.len();
            return Ok((
                Vec::new(),
                Local { path: from.to_path_buf(), at: self.address.clone(), size },
            ));
        };
        let (mut files, mut last) = (Vec::new(), None);
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(from.join(&folder)).map_err(io)? {
                let entry = entry.map_err(io)?;
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(|| {
                    Error::invalid_input("a file's name is no text, and keys are")
                        .with("file", entry.path().display())
                })?;
                let name =
                    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                let meta = entry.metadata().map_err(io)?;
                if meta.is_dir() {
                    folders.push(name);
                    continue;
                }
                let file = Local { path: entry.path(), at: self.at(&name)?, size: meta.len() };
                if name == opener { last = Some(file) } else { files.push(file) }
            }
        }
        // Long ones first: they take longest.
        files.sort_by_key(|f| std::cmp::Reverse(f.size));
        let last = last.ok_or_else(|| Error::internal("a store was written without its root"))?;
        Ok((files, last))
    }

    /// Removes objects that are there.
    async fn remove(&self, mut keys: Vec<Key>) -> Result<()> {
        let mut tries = Tries::new(&self.address, self.client.options.attempts);
        while !keys.is_empty() {
            let part = keys[..keys.len().min(REMOVED)].to_vec();
            let n = part.len();
            match self.once(&self.address, 0, self.remove_once(part).boxed()).await {
                Ok(()) => drop(keys.drain(..n)),
                Err(failure) => {
                    tries.again(failure).await?;
                    // The answer may have been lost, and some stores have none for what is not there.
                    let there: BTreeSet<Key> =
                        self.list().await?.into_iter().map(|meta| meta.location).collect();
                    keys.retain(|key| there.contains(key));
                }
            }
        }
        Ok(())
    }

    async fn remove_once(&self, keys: Vec<Key>) -> object_store::Result<()> {
        let mut removed = self.to.store.delete_stream(stream::iter(keys).map(Ok).boxed());
        while let Some(key) = removed.next().await {
            match key {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The length of an object's parts.
fn part_size(size: u64) -> Result<u64> {
    let part = size.div_ceil(MOST_PARTS).next_multiple_of(MIB).max(PART);
    if part > LONGEST_PART {
        return Err(Error::invalid_input(format!(
            "a file of {size} bytes is longer than an object may be"
        )));
    }
    Ok(part)
}

impl Job {
    async fn run(&self, end: futures::future::AbortRegistration) -> Result<()> {
        let error = match Abortable::new(self.prepare(), end).await {
            Ok(Ok((found, ready))) => {
                match self.finish(&self.last, ready, found.object.as_ref()).await {
                    Ok(()) => return Ok(()),
                    // Nothing is taken from a store that may be whole. An upload that was completed can
                    // be aborted no more.
                    Err(Missed { error, doubt: true }) => {
                        self.begun().objects.clear();
                        let _ = self.take_back().await;
                        return Err(error.with(
                            "state",
                            "all but the last request was carried out, and of that it is not known: the \
                             new store is there and whole, or a single file is as it was before, and a \
                             store of many does not open",
                        ));
                    }
                    Err(Missed { error, doubt: false }) => error,
                }
            }
            Ok(Err(error)) => error,
            Err(_) => Error::cancelled(),
        };
        Err(match self.take_back().await {
            Ok(()) => error,
            Err(_) => error.with(
                "state",
                "what was written so far could not be removed; it does not open, and is replaced when \
                 the store is written again with --force, or overwrite",
            ),
        })
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All but the last request.
    async fn prepare(&self) -> Result<(Found, Ready)> {
        // Hours may have passed.
        let found = self.to.look().await?;
        if self.to.opener.is_some() {
            self.clear(&found).await?;
            let put = self.files.iter().map(|file| {
                async move {
                    self.begun().objects.insert(file.at.key.clone());
                    let ready = self.ready(file).await?;
                    self.finish(file, ready, None).await.map_err(|missed| missed.error)
                }
                .boxed()
            });
            let put: Vec<_> = put.collect();
            stream::iter(put).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            self.check().await?;
            self.begun().objects.insert(self.last.at.key.clone());
        }
        Ok((found, self.ready(&self.last).await?))
    }

    /// Removes the old store: first what makes it open.
    async fn clear(&self, found: &Found) -> Result<()> {
        if found.is_free() {
            return Ok(());
        }
        let there: Vec<Key> = self.to.list().await?.into_iter().map(|m| m.location).collect();
        for opener in ["zarr.json", "header.json", ".zgroup", ".zmetadata"] {
            let opener = self.to.at(opener)?.key;
            if there.contains(&opener) {
                self.to.remove(vec![opener]).await?;
            }
        }
        let rest = self.to.list().await?;
        self.to.remove(rest.into_iter().map(|meta| meta.location).collect()).await
    }

    /// Whether a listing shows just the files that were put, with their lengths.
    async fn check(&self) -> Result<()> {
        let listed = self.to.list().await?;
        let there: BTreeMap<&Key, u64> = listed.iter().map(|m| (&m.location, m.size)).collect();
        for file in &self.files {
            match there.get(&file.at.key) {
                Some(size) if *size == file.size => {}
                size => {
                    return Err(Error::new(
                        ErrorKind::Changed,
                        format!(
                            "an object of {} bytes was put, but {} is there; does something else write to \
                             this store?",
                            file.size,
                            size.map_or("none".to_owned(), |s| format!("one of {s}"))
                        ),
                    )
                    .with("file", &file.at));
                }
            }
        }
        if there.len() != self.files.len() {
            let wanted: BTreeSet<&Key> = self.files.iter().map(|f| &f.at.key).collect();
            let other = there.keys().find(|key| !wanted.contains(**key));
            return Err(Error::new(
                ErrorKind::Changed,
                format!(
                    "there is an object that was not put, {}: something else writes to this store",
                    other.map_or("", |key| key.as_ref())
                ),
            )
            .with("url", &self.to.address));
        }
        Ok(())
    }

    /// A file's bytes, in memory as long as there is room.
    async fn read(&self, file: &Local, start: u64, length: u64) -> Result<Bytes> {
        let path = file.path.clone();
        let read = move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            std::fs::File::open(&path)?.read_exact_at(&mut bytes, start)?;
            Ok(Bytes::from(bytes))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| Error::cancelled())?;
        read.map_err(|e: std::io::Error| {
            Error::io("cannot read", e).with("file", file.path.display())
        })
    }

    /// Waits until bytes may be in memory.
    async fn room(&self, bytes: u64) -> Result<tokio::sync::SemaphorePermit<'_>> {
        let mib = u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX).clamp(1, ROOM);
        self.room.acquire_many(mib).await.map_err(|_| Error::cancelled())
    }

    /// All of a file but the last request.
    async fn ready(&self, file: &Local) -> Result<Ready> {
        if file.size <= PART {
            return Ok(Ready::Put);
        }
        let (to, key, size) = (&self.to, &file.at.key, file.size);
        let part = part_size(size).map_err(|e| e.with("file", &file.at))?;
        let id = to.ask(&file.at, 0, &|| to.to.parts.create_multipart(key).boxed()).await?;
        self.begun().uploads.push((key.clone(), id.clone()));
        let put = |number: u64| {
            let id = &id;
            async move {
                let start = number * part;
                let length = part.min(size - start);
                let _room = self.room(length).await?;
                let bytes = self.read(file, start, length).await?;
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                let put = || {
                    to.to.parts.put_part(key, id, index, PutPayload::from(bytes.clone())).boxed()
                };
                let put = to.ask(&file.at, length, &put).await?;
                self.done.fetch_add(length, Relaxed);
                Ok::<_, Error>(put)
            }
            .boxed()
        };
        let numbers = 0..size.div_ceil(part);
        let parts: Vec<PartId> =
            stream::iter(numbers.map(put)).buffered(AT_ONCE).try_collect().await?;
        Ok(Ready::Parts(id, parts))
    }

    /// The last request of a file, after which it is there.
    async fn finish(
        &self,
        file: &Local,
        ready: Ready,
        before: Option<&Seen>,
    ) -> Result<(), Missed> {
        let sure = |error| Missed { error, doubt: false };
        let (to, key) = (&self.to, &file.at.key);
        let mut tries = Tries::new(&file.at, to.client.options.attempts);
        let (_room, bytes) = match &ready {
            Ready::Put => {
                let room = self.room(file.size).await.map_err(sure)?;
                (Some(room), self.read(file, 0, file.size).await.map_err(sure)?)
            }
            Ready::Parts(..) => (None, Bytes::new()),
        };
        let mut doubt = false;
        loop {
            let (length, request) = match &ready {
                Ready::Put => (file.size, to.to.store.put(key, bytes.clone().into()).boxed()),
                // Stores take a while to put long objects together.
                Ready::Parts(id, parts) => (
                    file.size >> 14,
                    to.to.parts.complete_multipart(key, id, parts.clone()).boxed(),
                ),
            };
            let failure = match to.once(&file.at, length, request).await {
                Ok(_) => break,
                Err(failure) => failure,
            };
            doubt |= matches!(failure, Failure::Passing(_));
            // What was carried out, and its answer lost, cannot be asked for again.
            if doubt && self.is_there(file, before).await {
                break;
            }
            if let Err(error) = tries.again(failure).await {
                return Err(Missed { error, doubt });
            }
        }
        match ready {
            Ready::Put => {
                self.done.fetch_add(file.size, Relaxed);
            }
            Ready::Parts(id, _) => self.begun().uploads.retain(|(_, other)| *other != id),
        }
        Ok(())
    }

    /// Whether an object is the one that was put.
    async fn is_there(&self, file: &Local, before: Option<&Seen>) -> bool {
        let head = self.to.to.store.head(&file.at.key).boxed();
        let Ok(meta) = self.to.once(&file.at, 0, head).await else { return false };
        let seen = Seen::from(&meta);
        meta.size == file.size && before.is_none_or(|before| !seen.is(before))
    }

    /// Aborts uploads and removes what was put, first what makes the store open; tries each once, within
    /// the time of one request.
    async fn take_back(&self) -> object_store::Result<()> {
        let Begun { objects, uploads } = std::mem::take(&mut *self.begun());
        let (to, root) = (&self.to, &self.last.at.key);
        let work = async {
            let mut worst = Ok(());
            if !objects.is_empty() {
                // Requests that were given up may be carried out still: what comes late goes too.
                for wait in [0, 300, 600] {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    // Some stores have no answer for what is not there.
                    let there: Vec<_> =
                        to.to.store.list(Some(&to.address.key)).try_collect().await?;
                    let mut there: Vec<Key> = there.into_iter().map(|meta| meta.location).collect();
                    there.retain(|key| objects.contains(key));
                    let (root, rest): (Vec<_>, Vec<_>) =
                        there.into_iter().partition(|key| key == root);
                    for keys in [&root[..]].into_iter().chain(rest.chunks(REMOVED)) {
                        if !keys.is_empty() {
                            worst = to.remove_once(keys.to_vec()).await.and(worst);
                        }
                    }
                }
            }
            for (key, id) in &uploads {
                match to.to.parts.abort_multipart(key, id).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => worst = Err(e),
                }
            }
            worst
        };
        let limit = to.client.options.timeout;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(object_store::Error::Generic { store: "", source: "no answer".into() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_within_what_stores_take() {
        assert_eq!(part_size(PART + 1).unwrap(), PART);
        for size in [PART * MOST_PARTS, PART * MOST_PARTS + 1, 1 << 40, 5 << 40, 30 << 40] {
            let part = part_size(size).unwrap();
            assert!((PART..=LONGEST_PART).contains(&part) && size.div_ceil(part) <= MOST_PARTS);
            assert!(part.is_multiple_of(MIB));
        }
        assert!(part_size(u64::MAX / 2).is_err());
    }
}
