//! The memory map, which needs unsafe code.
#![allow(unsafe_code)]

use super::Engine;
use super::local::OpenFile;
use crate::{Error, Result, as_u64};
use bytes::Bytes;
use memmap2::Mmap;
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

/// A file as memory: what [`ByteSource::map`](super::ByteSource::map) answers.
///
/// **The hole in any map.** Nobody can promise that a mapped file stays as it is. A file that is cut
/// short while it is mapped ends the process with SIGBUS when a page that is gone is touched; one that
/// is written to changes under whoever reads it. So the file is looked at when the map is made, and
/// [`check`](Self::check) looks again before each read, which turns nearly every such change into an
/// error; a change during a read remains. Where files may be cut short by others (a network file system,
/// a folder that is synchronised), [`Access::Read`] is safe.
#[derive(Debug, Clone)]
pub struct MappedFile {
    bytes: Bytes,
    file: Arc<OpenFile>,
}

impl MappedFile {
    /// Maps a whole file.
    pub(super) fn new(file: Arc<OpenFile>) -> Result<Self> {
        let mapped = Self { bytes: Bytes::new(), file };
        mapped.check()?;
        let OpenFile { file, location, len, .. } = &*mapped.file;
        if *len == 0 {
            return Ok(mapped);
        }
        let io = |e| Error::io("cannot map", e).with("file", location);
        // SAFETY: the map is read-only and private to this value. What cannot be proven, that nobody
        // changes the file while it is mapped, is said above and looked at before each read. Every bit
        // pattern is a valid value of the integer and float types that the bytes are viewed as, and
        // what is an index or an offset is checked after it was read.
        let map = unsafe { Mmap::map(file) }.map_err(io)?;
        #[cfg(unix)]
        {
            // Blocks are far apart: reading ahead around them would only waste the disk. Advice.
            let _ = map.advise(memmap2::Advice::Random);
        }
        if as_u64(map.len()) != *len {
            return Err(mapped.file.changed());
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
    pub fn slice(&self, range: &Range<u64>) -> Result<Bytes> {
        let part = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let within = |&(start, end): &(usize, usize)| start <= end && end <= self.bytes.len();
        let Some((start, end)) = part.filter(within) else {
            return Err(self.file.past_the_end(range));
        };
        Ok(self.bytes.slice(start..end))
    }

    /// Refuses a file that was written to since it was opened, as reads do. Blocks for a moment.
    ///
    /// # Errors
    /// Of kind `Changed`; `Io` if that cannot be seen.
    pub fn check(&self) -> Result<()> {
        self.file.check_unchanged()
    }
}
