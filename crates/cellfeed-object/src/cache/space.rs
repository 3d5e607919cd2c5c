//! How much the cache holds, and who goes if that is too much.
//!
//! A process takes room in advance, so that the lock over `space` is entered once in a while and not for
//! each block. What is counted there is what was granted; once that is all, what files really take is
//! looked at.
//!
//! What is in use by anybody stays: in an epoch each range is wanted once, so that throwing out what was
//! read first only loses what the next epoch begins with. Else the URL that was used last the longest ago
//! goes first, and no more of it than must.

use super::{BLOCK, Cache, is_name};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

/// Parts of the limit that are granted at once, and at most so many bytes.
const GRANTS: u64 = 256;
const GRANT: u64 = 64 << 20;
/// Parts of the limit that are made free together.
const FREED: u64 = 32;
/// How long a full cache is not asked again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much a file is shortened by at once.
const STEP: u64 = 64 << 20;

/// Room that this process was granted.
#[derive(Debug, Default)]
pub(super) struct Left {
    bytes: u64,
    /// What was taken of it and is being written: it may not be on the disk yet.
    writing: u64,
    full_until: Option<Instant>,
}

/// What one group takes on the disk.
struct Taken {
    path: PathBuf,
    used: SystemTime,
    files: Vec<(PathBuf, u64)>,
}

impl Cache {
    /// Settles the limit, and makes room if what is there is above it.
    pub(super) fn begin(&mut self, limit: Option<u64>) -> io::Result<()> {
        let file = self.lock_space()?;
        let groups = self.look()?;
        let held = held(&groups);
        self.limit = match limit {
            Some(limit) => limit,
            None => {
                let disk = rustix::fs::statvfs(&self.dir)?;
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                (free.saturating_add(held) / 2).min(super::DEFAULT)
            }
        };
        let held = held - if held > self.limit { evict(groups, held - self.limit) } else { 0 };
        file.write_all_at(&held.to_le_bytes(), 0)
    }

    pub(super) fn is_full(&self) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.full_until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes room for so many bytes, or for as many blocks of them as there is room for.
    pub(super) fn reserve(&self, bytes: u64) -> io::Result<u64> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let full = left.full_until.is_some_and(|until| Instant::now() < until);
        if left.bytes < bytes && !full {
            let wanted = (bytes - left.bytes).max(GRANT.min(self.limit / GRANTS));
            let granted = self.grant(wanted, left.bytes + left.writing)?;
            left.bytes += granted;
            left.full_until = (granted < wanted).then(|| Instant::now() + PATIENCE);
        }
        let taken = if left.bytes < bytes { left.bytes / BLOCK * BLOCK } else { bytes };
        left.bytes -= taken;
        left.writing += taken;
        Ok(taken)
    }

    /// What was reserved is written, or will not be.
    pub(super) fn written(&self, bytes: u64) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.writing = left.writing.saturating_sub(bytes);
    }

    /// Room for at most so many bytes, beside what this process has of it and has not used.
    fn grant(&self, wanted: u64, unused: u64) -> io::Result<u64> {
        let file = self.lock_space()?;
        let mut count = [0; 8];
        // One that is not complete is as good as none: what is there is looked at.
        let counted =
            file.read_exact_at(&mut count, 0).map_or(u64::MAX, |()| u64::from_le_bytes(count));
        let mut taken = counted;
        if taken.saturating_add(wanted) > self.limit {
            let groups = self.look()?;
            taken = held(&groups) + unused;
            let low = self.limit - self.limit / FREED;
            let above = taken.saturating_add(wanted).saturating_sub(low);
            if taken.saturating_add(wanted) > self.limit {
                taken = taken.saturating_sub(evict(groups, above.min(taken)));
            }
        }
        let granted = wanted.min(self.limit.saturating_sub(taken));
        file.write_all_at(&taken.saturating_add(granted).to_le_bytes(), 0)?;
        Ok(granted)
    }

    /// The count, for us alone until it is dropped.
    fn lock_space(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.dir.join("space"))?;
        file.lock()?;
        Ok(file)
    }

    /// What is there. What goes away meanwhile is not.
    fn look(&self) -> io::Result<Vec<Taken>> {
        let mut groups = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(is_name) {
                continue;
            }
            let path = entry.path();
            let mut group = Taken { path, used: SystemTime::UNIX_EPOCH, files: Vec::new() };
            for file in std::fs::read_dir(&group.path).into_iter().flatten().flatten() {
                let Ok(found) = file.metadata() else { continue };
                if file.file_name() == "store" {
                    group.used = found.modified().unwrap_or(group.used);
                } else {
                    group.files.push((file.path(), found.blocks() * 512));
                }
            }
            groups.push(group);
        }
        groups.sort_by_key(|group| group.used);
        Ok(groups)
    }
}

fn held(groups: &[Taken]) -> u64 {
    groups.iter().flat_map(|group| &group.files).map(|(_, bytes)| bytes).sum()
}

/// Makes so many bytes free, as far as nobody uses them; answers how many.
fn evict(groups: Vec<Taken>, wanted: u64) -> u64 {
    let mut freed = 0;
    for group in groups {
        if freed >= wanted {
            break;
        }
        let at = group.path.join("store");
        let opened = OpenOptions::new().append(true).create(true).open(&at);
        let Ok(lock) = opened else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        for (path, bytes) in group.files {
            if freed >= wanted {
                break;
            }
            freed += if bytes <= wanted - freed {
                std::fs::remove_file(&path).map_or(0, |()| bytes)
            } else {
                shorten(&path, wanted - freed).unwrap_or(0)
            };
        }
        // Only if nothing is left in it but the lock; whoever waits for that finds out that it is gone.
        let only = std::fs::read_dir(&group.path).is_ok_and(|files| files.count() == 1);
        if only && std::fs::remove_file(&at).is_ok() {
            let _ = std::fs::remove_dir(&group.path);
        }
    }
    freed
}

/// Cuts a file's end off until so much is free; answers how much that is.
fn shorten(path: &Path, wanted: u64) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).open(path)?;
    let found = file.metadata()?;
    let (before, mut length) = (found.blocks() * 512, found.len());
    let mut freed = 0;
    while freed < wanted && length > 0 {
        // Never more at once than is wanted: what is there lies scattered.
        length = length.saturating_sub(STEP.min(wanted - freed).max(1 << 16));
        file.set_len(length)?;
        freed = before.saturating_sub(file.metadata()?.blocks() * 512);
    }
    Ok(freed)
}
