//! Many files below one folder as byte sources: opened when first read, so that a store of thousands
//! of shards opens at once, and closed again when too many are open.

use super::folder::{Entry, Folder, check_length, check_name};
use super::{ByteSource, Engine, LocalFile};
use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Files that are open at a time; common limits are 1024 a process.
const OPEN_FILES: usize = 256;

/// The files of a store below its folder.
#[derive(Debug)]
pub struct FileSet {
    root: PathBuf,
    location: String,
    engine: Arc<Engine>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Files with the moment of their last use.
    open: HashMap<String, (Arc<LocalFile>, u64)>,
    now: u64,
    /// Length and time of change of files when they were first opened.
    seen: HashMap<String, (u64, Option<SystemTime>)>,
}

impl FileSet {
    /// The files below `root`. Nothing is opened yet.
    #[must_use]
    pub fn new(root: &Path, engine: Arc<Engine>) -> Self {
        let location = root.display().to_string();
        Self { root: root.to_path_buf(), location, engine, state: Mutex::default() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file by its path below the folder. Opening blocks for a moment: call it on the engine's
    /// threads.
    ///
    /// # Errors
    /// As [`LocalFile::open`]; of kind `Changed` if the file is not as it was when first opened, and
    /// `InvalidInput` for a path that leads out of the folder.
    pub fn open(&self, name: &str) -> Result<Arc<LocalFile>> {
        check_name(name, self.root.display())?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now += 1;
        let now = state.now;
        if let Some((file, used)) = state.open.get_mut(name) {
            *used = now;
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(LocalFile::open(&self.root.join(name), Arc::clone(&self.engine))?);
        let found = (file.len(), file.modified());
        if *state.seen.entry(name.to_owned()).or_insert(found) != found {
            return Err(Error::new(
                ErrorKind::Changed,
                "the file was changed since the store was opened; open it again once nobody writes \
                 to it",
            )
            .with("file", file.location()));
        }
        if state.open.len() >= OPEN_FILES
            && let Some(oldest) =
                state.open.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone())
        {
            state.open.remove(&oldest);
        }
        state.open.insert(name.to_owned(), (Arc::clone(&file), now));
        Ok(file)
    }
}

impl Folder for FileSet {
    fn location(&self) -> &str {
        &self.location
    }

    fn place(&self, name: &str) -> String {
        match name {
            "" => self.location.clone(),
            name => self.root.join(name).display().to_string(),
        }
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        Self::open(self, name).map(|file| file as Arc<dyn ByteSource>)
    }

    fn look(&self, name: &str) -> Result<Option<Entry>> {
        let path = self.root.join(name);
        match path.metadata() {
            Ok(found) if found.is_dir() => Ok(Some(Entry::Folder)),
            Ok(found) => Ok(Some(Entry::File(found.len()))),
            Err(e) if matches!(e.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
            Err(e) => Err(Error::io("cannot look at", e).with("file", path.display())),
        }
    }

    fn list(&self, name: &str) -> Result<Vec<(String, Entry)>> {
        let folder = self.root.join(name);
        let io = |e| Error::io("cannot list", e).with("file", folder.display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            // What leads nowhere is nothing.
            let Ok(what) = entry.path().metadata() else { continue };
            let what = if what.is_dir() { Entry::Folder } else { Entry::File(what.len()) };
            if let Ok(name) = entry.file_name().into_string() {
                found.push((name, what));
            }
        }
        Ok(found)
    }

    fn bytes_below(&self, name: &str) -> u64 {
        let mut total = 0;
        let mut folders = vec![self.root.join(name)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(m) if m.is_dir() => folders.push(entry.path()),
                    Ok(m) => total += m.len(),
                    Err(_) => {}
                }
            }
        }
        total
    }

    fn local(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn read(&self, name: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        // A file that is read once is not kept open.
        let Some(Entry::File(length)) = self.look(name)? else { return Ok(None) };
        check_length(length, longest).map_err(|e| e.with("file", self.place(name)))?;
        let read = std::fs::read(self.root.join(name));
        read.map(Some).map_err(|e| Error::io("cannot read", e).with("file", self.place(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn files_are_opened_once_and_again_after_many_others() {
        let root = tempfile::tempdir().unwrap();
        for i in 0..OPEN_FILES + 10 {
            std::fs::write(root.path().join(i.to_string()), i.to_string()).unwrap();
        }
        let files = FileSet::new(root.path(), Arc::new(Engine::default()));
        for _ in 0..2 {
            for i in 0..OPEN_FILES + 10 {
                let file = files.open(&i.to_string()).unwrap();
                let got = block_on(file.get_ranges(vec![0..file.len()])).unwrap();
                assert_eq!(&got[..], i.to_string().as_bytes());
            }
        }
        assert!(files.state.lock().unwrap().open.len() <= OPEN_FILES);
        assert_eq!(files.open("../x").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(files.open("none").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(files.look("7").unwrap(), Some(Entry::File(1)));
        assert_eq!((files.look("none").unwrap(), files.look("7/x").unwrap()), (None, None));
        assert_eq!(files.look("").unwrap(), Some(Entry::Folder));
        assert_eq!(files.list("").unwrap().len(), OPEN_FILES + 10);
        assert!(files.list("none").is_err());
        assert_eq!(files.bytes_below(""), 10 + 2 * 90 + 3 * 166);
        assert_eq!(files.read("100", 3).unwrap().as_deref(), Some(&b"100"[..]));
        assert_eq!(files.read("100", 2).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(files.read("none", 2).unwrap(), None);
        // 0 was closed meanwhile.
        std::fs::write(root.path().join("0"), "longer").unwrap();
        assert_eq!(files.open("0").unwrap_err().kind(), ErrorKind::Changed);
    }
}
