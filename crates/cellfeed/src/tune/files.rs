//! The store's files, and whether the system's page cache holds them.

use cellfeed_core::io::{ByteSource, Engine, LocalFile};
use cellfeed_core::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Files that are looked for at most, and folders within folders.
const MOST_FILES: usize = 1 << 20;
const DEPTH: usize = 16;
/// Places that are looked at to tell how much of the store is in the page cache.
const PROBES: u64 = 128;

/// The files of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    files: Vec<(PathBuf, u64)>,
    pub(super) bytes: u64,
}

impl Files {
    /// Of the places that a store names.
    pub(super) fn of(locations: &[String]) -> Result<Self> {
        let mut found = Self::default();
        for location in locations {
            if location.contains("://") && !Path::new(location).exists() {
                return Err(Error::unsupported(
                    "only stores on this machine are tuned: how far a bucket is changes from one moment \
                     to the next; docs/object-stores.md says what to choose for one",
                )
                .with("url", location));
            }
            // A group inside a file comes behind a #.
            let path = match location.rsplit_once('#') {
                Some((path, _)) if !Path::new(location).exists() => path,
                _ => location,
            };
            found.walk(Path::new(path), 0)?;
        }
        Ok(found)
    }

    fn walk(&mut self, path: &Path, depth: usize) -> Result<()> {
        let io = |e| Error::io("cannot look at", e).with("file", path.display());
        let metadata = path.metadata().map_err(io)?;
        if metadata.is_file() {
            self.bytes = self.bytes.saturating_add(metadata.len());
            self.files.push((path.to_path_buf(), metadata.len()));
        } else if metadata.is_dir() && depth < DEPTH && self.files.len() < MOST_FILES {
            let mut entries: Vec<PathBuf> = Vec::new();
            for entry in path.read_dir().map_err(io)? {
                entries.push(entry.map_err(io)?.path());
            }
            entries.sort();
            for entry in entries {
                self.walk(&entry, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Asks the system to forget the files' pages. What is mapped or was not written yet stays, so the
    /// answer is [`resident`](Self::resident) afterwards.
    #[cfg(target_os = "linux")]
    pub(super) fn forget(&self) -> Result<()> {
        use rustix::fs::{Advice, fadvise};
        for (path, _) in &self.files {
            let io = |e: std::io::Error| Error::io("cannot open", e).with("file", path.display());
            let file = File::open(path).map_err(io)?;
            // Pages that are not on the disk yet are not forgotten. What cannot be synced stays.
            let _ = file.sync_data();
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    /// The system has no such advice.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn forget(&self) -> Result<()> {
        Ok(())
    }

    /// The share of the files in the page cache, as far as reads of single bytes tell that may not
    /// wait.
    pub(super) fn resident(&self) -> f64 {
        let engine = Arc::new(Engine::default());
        let step = (self.bytes / PROBES).max(1);
        let (mut at, mut start, mut probes, mut there) = (step / 2, 0u64, 0u32, 0u32);
        for (path, len) in &self.files {
            let end = start + len;
            let mut file = None;
            while at < end {
                let open = || LocalFile::open(path, Arc::clone(&engine)).ok();
                let offset = at - start;
                if let Some(file) = file.get_or_insert_with(open) {
                    let byte = offset..offset + 1;
                    there += u32::from(file.resident(std::slice::from_ref(&byte)));
                }
                probes += 1;
                at += step;
            }
            start = end;
        }
        f64::from(there) / f64::from(probes.max(1))
    }

    /// Reads the files until all are read or it is too late; `tick` may end it.
    pub(super) fn read_all(
        &self,
        deadline: Instant,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0u8; 1 << 20];
        for (path, _) in &self.files {
            let io = |e: std::io::Error| Error::io("cannot read", e).with("file", path.display());
            let mut file = File::open(path).map_err(io)?;
            while file.read(&mut buffer).map_err(io)? > 0 {
                tick()?;
                if Instant::now() >= deadline {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Bytes of memory of the machine, or what this process may have of it; `None` where the system does
/// not tell.
pub(super) fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let total = kib.saturating_mul(1024);
    // A container's own limit, where it sees one.
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    Some(limit.map_or(total, |limit| limit.min(total)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_are_found_in_folders_and_behind_groups() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("x"), [1; 300_000]).unwrap();
        std::fs::write(folder.path().join("y#z"), [1; 7]).unwrap();
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let all = Files::of(&[name(folder.path())]).unwrap();
        assert_eq!((all.files.len(), all.bytes), (2, 300_007));
        let one = Files::of(&[name(&inner.join("x")) + "#mod/rna"]).unwrap();
        assert_eq!(one.bytes, 300_000);
        let odd = Files::of(&[name(&folder.path().join("y#z"))]).unwrap();
        assert_eq!(odd.bytes, 7);
        assert!(Files::of(&[name(&folder.path().join("no"))]).is_err());

        let late = Instant::now() + Duration::from_secs(60);
        all.read_all(late, &mut || Ok(())).unwrap();
        // Where the system tells, what was just read is there.
        let share = all.resident();
        assert!((0.0..=1.0).contains(&share));
        all.forget().unwrap();
        assert!(all.resident() <= share);
        let stop = &mut || Err(Error::invalid_input("stop"));
        assert!(all.read_all(late, stop).is_err());
    }
}
