//! The file under construction: bytes appended through a buffer, places filled in later, a
//! temporary name until it is complete.

use cellfeed_core::io::Staging;
use cellfeed_core::{Error, Result};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

/// Appended bytes are collected up to this many.
const BUFFER: usize = 1 << 20;

/// A file that is written under a temporary name and renamed when complete. Dropped before
/// [`publish`](Self::publish), it is removed.
#[derive(Debug)]
pub(super) struct Sink {
    staging: Staging,
    buffer: Vec<u8>,
    /// The file's length, the buffer's bytes included.
    end: u64,
}

impl Sink {
    /// Creates the temporary file next to `path`.
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let staging = Staging::file(path, overwrite)?;
        Ok(Self { staging, buffer: Vec::with_capacity(BUFFER), end: 0 })
    }

    /// Appends bytes and returns their address.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let address = self.end;
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            let written = self.staging.handle().write_all(bytes);
            written.map_err(|e| self.failed("cannot write", e))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.end += bytes.len() as u64;
        Ok(address)
    }

    /// Appends bytes at the next multiple of eight.
    pub(super) fn append_aligned(&mut self, bytes: &[u8]) -> Result<u64> {
        self.align()?;
        self.append(bytes)
    }

    /// Sets `bytes` bytes aside, zero until written, at the next multiple of eight.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<u64> {
        self.align()?;
        self.flush()?;
        let address = self.end;
        self.end += bytes;
        let sought = self.staging.handle().seek(SeekFrom::Start(self.end));
        sought.map_err(|e| self.failed("cannot seek", e))?;
        Ok(address)
    }

    /// Writes bytes into a reserved place.
    pub(super) fn write_at(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        let mut file = self.staging.handle();
        file.seek(SeekFrom::Start(address))
            .and_then(|_| file.write_all(bytes))
            .and_then(|()| file.seek(SeekFrom::Start(self.end)))
            .map_err(|e| self.failed("cannot write", e))?;
        Ok(())
    }

    /// The file's length so far.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn align(&mut self) -> Result<()> {
        let padding = usize::try_from(self.end.next_multiple_of(8) - self.end).unwrap_or(0);
        self.append(&[0; 8][..padding]).map(|_| ())
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.staging.handle().write_all(&self.buffer);
        written.map_err(|e| self.failed("cannot write", e))?;
        self.buffer.clear();
        Ok(())
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::io(what, error).with("file", self.staging.path().display())
    }

    /// Brings everything to the disk, then the file to its name, then the name to the disk.
    pub(super) fn publish(mut self) -> Result<()> {
        self.flush()?;
        // A place that was reserved last and never written is not in the file yet.
        let sized = self.staging.handle().set_len(self.end);
        sized.map_err(|e| self.failed("cannot size", e))?;
        self.staging.publish()
    }
}
