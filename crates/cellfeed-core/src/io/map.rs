//! The memory map: the one place of the libraries with unsafe code.
#![allow(unsafe_code)]

use super::Engine;
use crate::{Error, ErrorKind, Result, as_u64};
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

/// How bytes that are stored as they are wanted come out of a local file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// By the map where the page cache holds the rows, else by reads: looked at anew for each fetch.
    #[default]
    Auto,
    /// By the map alone: no copy, but a page that is not in memory is waited for, one after the other.
    Map,
    /// By positional reads alone, many at once.
    Read,
}

impl FromStr for Access {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "map" => Ok(Self::Map),
            "read" => Ok(Self::Read),
            _ => Err(Error::invalid_input(format!(
                "no access is called {s:?}; there are auto, map, read"
            ))),
        }
    }
}

impl Access {
    /// Whether to take the map, if there is one; `resident` tells whether memory holds what is wanted,
    /// and may block.
    ///
    /// # Errors
    /// As [`Engine::blocking`].
    pub async fn by_map(
        self,
        engine: &Engine,
        resident: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool> {
        match self {
            Self::Map => Ok(true),
            Self::Read => Ok(false),
            Self::Auto => engine.blocking(move || Ok(resident())).await,
        }
    }
}

/// A file as memory.
///
/// **The hole in any map.** Nobody can promise that a mapped file stays as it is. A file that is cut
/// short while it is mapped ends the process with SIGBUS when a page that is gone is touched; one that
/// is written to changes under whoever reads it. So the length is held against the header when the
/// map is made, and [`check`](Self::check) looks again before each read, which turns nearly every such
/// change into an error; a change during a read remains. Where files may be cut short by others (a
/// network file system, a folder that is synchronised), [`Access::Read`] is safe.
#[derive(Debug, Clone)]
pub struct MappedFile {
    bytes: Bytes,
    file: Arc<File>,
}

impl MappedFile {
    /// Maps a whole file of `len` bytes, which is called `place` in messages.
    ///
    /// # Errors
    /// Of kind `Io` if the system does not map it, `Changed` if it is not of this length.
    pub fn new(file: File, len: u64, place: &str) -> Result<Self> {
        let io = |e| Error::io("cannot map", e).with("file", place);
        let mapped = Self { bytes: Bytes::new(), file: Arc::new(file) };
        mapped.check(len, place)?;
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
            return Err(changed(place));
        }
        Ok(Self { bytes: Bytes::from_owner(map), ..mapped })
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// A part of the bytes, shared.
    ///
    /// # Errors
    /// Of kind `Corrupt` if it is not within the file.
    pub fn slice(&self, range: &Range<u64>, place: &str) -> Result<Bytes> {
        let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let within = |&(start, end): &(usize, usize)| start <= end && end <= self.bytes.len();
        let Some((start, end)) = part.filter(within) else {
            return Err(Error::past_the_end(range, as_u64(self.bytes.len()), place));
        };
        Ok(self.bytes.slice(start..end))
    }

    /// Refuses a file whose length is no longer `len`.
    ///
    /// # Errors
    /// Of kind `Changed`; `Io` if that cannot be seen.
    pub fn check(&self, len: u64, place: &str) -> Result<()> {
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
