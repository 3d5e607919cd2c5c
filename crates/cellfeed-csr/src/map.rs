//! The memory map: the one place of this crate with unsafe code.
#![allow(unsafe_code)]

use bytes::Bytes;
use cellfeed_core::{Error, ErrorKind, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// A file as memory.
///
/// **The hole in any map.** Nobody can promise that a mapped file stays as it is. A file that is cut
/// short while it is mapped ends the process with SIGBUS when a page that is gone is touched; one that
/// is written to changes under whoever reads it. So the length is held against the header when the
/// map is made, and [`check`](Self::check) looks again before each read, which turns nearly every such
/// change into an error; a change during a read remains. Where files may be cut short by others (a
/// network file system, a folder that is synchronised), [`Access::Read`](crate::Access::Read) is safe.
#[derive(Debug, Clone)]
pub(crate) struct MappedFile {
    bytes: Bytes,
    file: std::sync::Arc<File>,
}

impl MappedFile {
    /// Maps a whole file of `len` bytes.
    pub(crate) fn open(path: &Path, len: u64) -> Result<Self> {
        let io = |e| Error::io("cannot map", e).with("file", path.display());
        let file = File::open(path).map_err(io)?;
        let mapped = Self { bytes: Bytes::new(), file: std::sync::Arc::new(file) };
        mapped.check(len, &path.display().to_string())?;
        if len == 0 {
            return Ok(mapped);
        }
        // SAFETY: the map is read-only and private to this value. What cannot be proven, that nobody
        // changes the file while it is mapped, is said above and looked at before each read. Every bit
        // pattern is a valid value of the integer and float types that the bytes are viewed as, and
        // what is an index or an offset is checked after it was read.
        let map = unsafe { Mmap::map(&*mapped.file) }.map_err(io)?;
        #[cfg(unix)]
        {
            // Blocks are far apart: reading ahead around them would only waste the disk. Advice.
            let _ = map.advise(memmap2::Advice::Random);
        }
        if u64::try_from(map.len()).ok() != Some(len) {
            return Err(changed(&path.display().to_string()));
        }
        Ok(Self { bytes: Bytes::from_owner(map), ..mapped })
    }

    /// The bytes, shared.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Refuses a file whose length is no longer `len`.
    pub(crate) fn check(&self, len: u64, place: &str) -> Result<()> {
        let found = self.file.metadata();
        let found = found.map_err(|e| Error::io("cannot look at", e).with("file", place))?;
        if found.len() == len { Ok(()) } else { Err(changed(place)) }
    }
}

fn changed(place: &str) -> Error {
    Error::new(
        ErrorKind::Changed,
        "the file's length is not what it was when the store was opened; open it again once nobody \
         writes to it",
    )
    .with("file", place)
}
