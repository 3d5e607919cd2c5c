//! Where a store is: a folder, on this machine or not, and the file in it that is the store, if it is one.

use cellfeed_core::io::{Engine, FileSet, Folder};
use std::path::Path;
use std::sync::Arc;

/// A file in a folder, or a folder as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) folder: Arc<dyn Folder>,
    /// Empty if the folder itself is meant.
    pub(crate) name: String,
    /// For messages.
    pub(crate) location: String,
}

impl Place {
    /// A path on this machine.
    pub(crate) fn local(path: &Path, engine: &Arc<Engine>) -> Self {
        let location = path.display().to_string();
        let set = |folder: &Path| Arc::new(FileSet::new(folder, Arc::clone(engine)));
        if path.is_dir() {
            return Self { folder: set(path), name: String::new(), location };
        }
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { folder: set(parent), name, location }
    }
}
