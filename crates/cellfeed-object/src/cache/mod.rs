//! A cache of ranges on a local disk, so that the second epoch over a bucket is local. Why it is laid out
//! so: `docs/decisions/0013-cache-of-ranges.md`.
//!
//! ```text
//! DIR/cellfeed-cache   the marker: without it a folder that is not empty is refused
//! DIR/space            bytes that were granted, changed under a lock
//! DIR/HASH/store       of one opened URL: its lock, and its text for people
//! DIR/HASH/HASH        of one object: a header, checksums of blocks, blocks (see blocks.rs)
//! ```
//!
//! Nothing read from it is trusted: a block is what its checksum says, or it is fetched again. So there
//! is no lock between readers and writers, and a crash leaves nothing to mend.

mod blocks;
mod space;

pub(crate) use blocks::{BLOCK, Cached};

use crate::address::{Address, shown};
use crate::object::Seen;
use cellfeed_core::io::ReadStats;
use cellfeed_core::{Error, Result};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_128;

const MARKER: &str = "cellfeed-cache";
const MARKED: &str = "a cache of Cellfeed, version 1\n";
/// What an empty disk has.
const OF_THE_DISK: &str = "lost+found";
/// The most that a cache whose size is not given takes.
const DEFAULT: u64 = 64 << 30;
/// An object without an entity tag is known by its time of change, in seconds: one that was changed so
/// lately might be changed again within the same second, as clocks go.
const SETTLED: i64 = 60;

/// The cache of one client.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    limit: u64,
    left: Mutex<space::Left>,
    /// Nothing more is written.
    off: AtomicBool,
    /// Files of objects that stay open.
    open_files: AtomicUsize,
}

/// What belongs to one URL that was opened. As long as it lives nothing of it is evicted.
#[derive(Debug)]
pub(crate) struct Group {
    cache: Arc<Cache>,
    path: PathBuf,
    /// Scheme, bucket, and what else tells one store from another.
    place: String,
    /// Its shared lock says that it is in use.
    lock: File,
}

impl Cache {
    /// Opens a folder, and makes it if it is not there. `limit` of none: half of what its disk has free,
    /// and at most 64 GiB.
    pub(crate) fn open(dir: &Path, limit: Option<u64>) -> Result<Arc<Self>> {
        let unusable = |what: &str, e: io::Error| {
            Error::invalid_input(format!("{what} ({e}); name another folder, or use no cache"))
                .with("cache", dir.display())
        };
        // What is in a bucket may not be for everybody on this machine.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| unusable("the folder of the cache cannot be made", e))?;
        let dir = dir.canonicalize().map_err(|e| unusable("the cache cannot be opened", e))?;
        check_marker(&dir)?;
        let mut cache = Self {
            dir: dir.clone(),
            limit: limit.unwrap_or(0),
            left: Mutex::default(),
            off: AtomicBool::new(false),
            open_files: AtomicUsize::new(0),
        };
        let begun = cache.begin(limit);
        begun.map_err(|e| unusable("the folder of the cache cannot be written", e))?;
        Ok(Arc::new(cache))
    }

    /// The part of a URL that is opened. If it cannot be made, there is no cache for it, and that is said.
    pub(crate) fn group(
        self: &Arc<Self>,
        place: &str,
        root: &Address,
        stats: &ReadStats,
    ) -> Option<Arc<Group>> {
        let name = name(&format!("{place} {}", root.key));
        match lock_group(&self.dir.join(name), &root.to_string()) {
            Ok((path, lock)) => {
                let (cache, place) = (Arc::clone(self), place.to_owned());
                Some(Arc::new(Group { cache, path, place, lock }))
            }
            Err(e) => {
                self.fail(&e, stats);
                None
            }
        }
    }

    /// Whether it takes more: else nothing need be fetched that is not wanted.
    pub(crate) fn admits(&self) -> bool {
        !self.off.load(Relaxed) && !self.is_full()
    }

    /// After this nothing is written any more; said once.
    fn fail(&self, error: &io::Error, stats: &ReadStats) {
        if !self.off.swap(true, Relaxed) {
            stats.warn(format!(
                "the cache in {} takes nothing more: {error}; what it lacks comes from the store",
                self.dir.display()
            ));
        }
    }
}

impl Group {
    /// The cache of one object; none if nothing tells this object from another under the same key.
    pub(crate) fn object(self: &Arc<Self>, address: &Address, seen: &Seen) -> Option<Arc<Cached>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let settled = i64::try_from(now.as_secs()).ok()? - SETTLED;
        let version = seen.version(settled)?;
        let key = format!("{} {}", self.place, address.key);
        let version = xxh3_128(format!("{key} {version}").as_bytes());
        Some(Arc::new(Cached::new(
            Arc::clone(self),
            self.path.join(name(&key)),
            version,
            seen.size,
        )))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // When it was used last: whoever makes room goes by it. The lock goes with the file.
        let _ = self.lock.set_modified(SystemTime::now());
    }
}

/// A file's name for a key.
fn name(key: &str) -> String {
    format!("{:032x}", xxh3_128(key.as_bytes()))
}

/// Whether a name is one of ours.
fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Takes the lock of a group, which others may be about to remove.
fn lock_group(path: &Path, url: &str) -> io::Result<(PathBuf, File)> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let at = path.join("store");
        let opened = OpenOptions::new().read(true).append(true).create(true).open(&at);
        let mut lock = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        lock.lock_shared()?;
        let same = at.metadata().is_ok_and(|m| {
            lock.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (m.dev(), m.ino()))
        });
        if !same {
            continue;
        }
        if lock.metadata()?.len() == 0 {
            lock.write_all(format!("{}\n", shown(url)).as_bytes())?;
        }
        lock.set_modified(SystemTime::now())?;
        return Ok((path.to_path_buf(), lock));
    }
    Err(io::Error::new(ErrorKind::ResourceBusy, "others remove it again and again"))
}

/// Refuses a folder that is somebody else's; marks an empty one.
fn check_marker(dir: &Path) -> Result<()> {
    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    let refuse = |what: &str| Err(Error::invalid_input(what).with("cache", dir.display()));
    let io = |e| Error::io("cannot look into the cache", e).with("cache", dir.display());
    let path = dir.join(MARKER);
    loop {
        let mut text = Vec::new();
        match File::open(&path).and_then(|f| f.take(256).read_to_end(&mut text)) {
            Ok(_) if text == MARKED.as_bytes() => return Ok(()),
            Ok(_) => {
                return refuse(
                    "this is a cache of another version of Cellfeed, or none; remove it, or name another \
                     folder",
                );
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        for entry in std::fs::read_dir(dir).map_err(io)? {
            let found = entry.map_err(io)?.file_name();
            // The marker of somebody who begins just now.
            let ours = found.as_encoded_bytes().starts_with(MARKER.as_bytes());
            if !ours && found != OF_THE_DISK {
                return refuse(
                    "the folder holds other files and is no cache of Cellfeed's; name one that is empty or \
                     not there yet",
                );
            }
        }
        // Of a name that nobody else has: clients of one process begin at once too.
        let number = BEGUN.fetch_add(1, Relaxed);
        let temporary = dir.join(format!("{MARKER}.{}-{number}", std::process::id()));
        let marked =
            std::fs::write(&temporary, MARKED).and_then(|()| std::fs::rename(&temporary, &path));
        marked.map_err(|e| {
            Error::invalid_input(format!(
                "the folder of the cache cannot be written ({e}); name another folder, or use no cache"
            ))
            .with("cache", dir.display())
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_process_may_begin_a_cache_at_once() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        check_marker(folder.path()).unwrap();
                    });
                }
            });
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 1, "the marker, and nothing beside it");
        }
    }
}
