//! The file under construction: bytes appended through a buffer, places filled in later, a
//! temporary name until it is complete.

use cellfeed_core::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Appended bytes are collected up to this many.
const BUFFER: usize = 1 << 20;

/// A file that is written under a temporary name and renamed when complete. Dropped before
/// [`publish`](Self::publish), it is removed.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    buffer: Vec<u8>,
    /// The file's length, the buffer's bytes included.
    end: u64,
    temporary: PathBuf,
    path: PathBuf,
    overwrite: bool,
    published: bool,
}

impl Sink {
    /// Creates the temporary file next to `path`, under a hidden name that ends in `.partial`.
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<Self> {
        refuse_existing(path, overwrite)?;
        let name = path.file_name().ok_or_else(|| {
            Error::invalid_input("the path names no file").with("file", path.display())
        })?;
        for attempt in 0u32.. {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}-{attempt}.partial", std::process::id()));
            let temporary = path.with_file_name(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    return Ok(Self {
                        file,
                        buffer: Vec::with_capacity(BUFFER),
                        end: 0,
                        temporary,
                        path: path.to_path_buf(),
                        overwrite,
                        published: false,
                    });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::io("cannot create", e).with("file", temporary.display()));
                }
            }
        }
        Err(Error::internal("no temporary name is free").with("file", path.display()))
    }

    /// Appends bytes and returns their address.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let address = self.end;
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            self.file.write_all(bytes).map_err(|e| self.failed("cannot write", e))?;
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
        self.file.seek(SeekFrom::Start(self.end)).map_err(|e| self.failed("cannot seek", e))?;
        Ok(address)
    }

    /// Writes bytes into a reserved place.
    pub(super) fn write_at(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.flush()?;
        self.file
            .seek(SeekFrom::Start(address))
            .and_then(|_| self.file.write_all(bytes))
            .and_then(|()| self.file.seek(SeekFrom::Start(self.end)))
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
        self.file.write_all(&self.buffer).map_err(|e| self.failed("cannot write", e))?;
        self.buffer.clear();
        Ok(())
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::io(what, error).with("file", self.temporary.display())
    }

    /// Brings everything to the disk, then the file to its name, then the name to the disk.
    pub(super) fn publish(mut self) -> Result<()> {
        self.flush()?;
        // A place that was reserved last and never written is not in the file yet.
        self.file.set_len(self.end).map_err(|e| self.failed("cannot size", e))?;
        self.file.sync_all().map_err(|e| self.failed("cannot sync", e))?;
        refuse_existing(&self.path, self.overwrite)?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| {
            Error::io("cannot rename into place", e).with("file", self.path.display())
        })?;
        self.published = true;
        sync_folder(&self.path)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to tell; the name says that the file is incomplete.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn refuse_existing(path: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(Error::invalid_input("the file exists already and is not to be overwritten")
            .with("file", path.display()));
    }
    Ok(())
}

/// Only Unix lets a folder be opened and synced.
fn sync_folder(path: &Path) -> Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| Error::io("cannot sync the folder", e).with("file", folder.display()))?;
    }
    Ok(())
}
