//! Where the bytes of a file come from: positioned reads and a length.

use std::io;
use std::ops::Range;
#[cfg(test)]
use std::{fs::File, os::unix::fs::FileExt, path::Path};

#[cfg(test)]
use cellfeed_core::{Error, Result};

/// Positioned reads of something that does not change while it is open.
pub(crate) trait ReadAt: Send + Sync {
    /// Bytes in all. Allocations are bounded by it, so it must be true.
    fn len(&self) -> u64;

    /// Whether each read waits long: then large pages are worth their bytes.
    fn is_far(&self) -> bool {
        false
    }

    /// Fills `buf` from `offset` on, or fails.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// The bytes of ranges, end to end; of a source that is far all at once.
    fn read_ranges(&self, ranges: &[Range<u64>]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for range in ranges {
            let start = all.len();
            all.resize(start + usize::try_from(range.end - range.start).unwrap_or(usize::MAX), 0);
            self.read_exact_at(range.start, all.get_mut(start..).unwrap_or_default())?;
        }
        Ok(all)
    }
}

/// A file of the local file system, with its length when it was opened. The backend reads local
/// files through its byte source; tests read them here.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct LocalFile {
    file: File,
    len: u64,
}

#[cfg(test)]
impl LocalFile {
    /// Opens a file for reading.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            if meta.is_dir() {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
            }
            Ok(Self { file, len: meta.len() })
        };
        open().map_err(|e| Error::io("cannot open", e).with("file", path.display()))
    }
}

#[cfg(test)]
impl ReadAt for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        u64::try_from(Self::len(self)).unwrap_or(u64::MAX)
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}
