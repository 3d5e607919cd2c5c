//! Many files below one folder as byte sources: opened when first read, so that a store of thousands
//! of shards opens at once, and closed again when too many are open.

use super::{ByteSource, Engine, LocalFile};
use crate::{Error, ErrorKind, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Files that are open at a time; common limits are 1024 a process.
const OPEN_FILES: usize = 256;

/// The files of a store below its folder.
#[derive(Debug)]
pub struct FileSet {
    root: PathBuf,
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
        Self { root: root.to_path_buf(), engine, state: Mutex::default() }
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
        if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(Error::invalid_input(format!("{name:?} is no path below a folder"))
                .with("file", self.root.display()));
        }
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
        // 0 was closed meanwhile.
        std::fs::write(root.path().join("0"), "longer").unwrap();
        assert_eq!(files.open("0").unwrap_err().kind(), ErrorKind::Changed);
    }
}
