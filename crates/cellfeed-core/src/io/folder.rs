//! Where the files of a store are: below a folder of this machine, or below a prefix of an object store.
//! Backends name files relative to it, and read them as byte sources.

use super::ByteSource;
use crate::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What a name below a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
}

/// The files of a store, by their names below a root: parts with `/` between, `""` for the root. All
/// calls block: make them on the engine's threads, or while a store is opened.
pub trait Folder: Send + Sync + fmt::Debug {
    /// Where the root is, for messages.
    fn location(&self) -> &str;

    /// Where a file is, for messages.
    fn place(&self, name: &str) -> String;

    /// A file, to be read.
    ///
    /// # Errors
    /// Of kind `NotFound` if there is none, `InvalidInput` for a name that leads out of the folder,
    /// `Changed` if the file is not as it was when it was first seen, `Io` for what else fails.
    fn open(&self, name: &str) -> Result<Arc<dyn ByteSource>>;

    /// What a name stands for; none if there is nothing.
    ///
    /// # Errors
    /// Of kind `Io` if that cannot be found out.
    fn look(&self, name: &str) -> Result<Option<Entry>>;

    /// What a folder has directly in it, in no order.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io` if it cannot be listed; `Unsupported` where nothing can be.
    fn list(&self, name: &str) -> Result<Vec<(String, Entry)>>;

    /// Bytes of all files below a folder, as far as they can be looked at.
    fn bytes_below(&self, name: &str) -> u64;

    /// The root on this machine, if it is there.
    fn local(&self) -> Option<&Path> {
        None
    }

    /// The folder that the root is in, if it can be looked at: only asked where the root is not on this
    /// machine.
    fn parent(&self) -> Option<Arc<dyn Folder>> {
        None
    }

    /// Whether each file takes long to begin with: see [`ByteSource::is_far`].
    fn is_far(&self) -> bool {
        false
    }

    /// Says that the files that `wanted` picks will be read whole: a folder that is far gets them
    /// together, and keeps them. Advice: what fails here fails when it is read.
    fn read_soon(&self, _wanted: &dyn Fn(&str) -> bool) {}

    /// A whole file of at most `longest` bytes; none if there is no such file.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `NotFound`; of kind `Corrupt` if the file is longer.
    fn read(&self, name: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        let Some(Entry::File(_)) = self.look(name)? else { return Ok(None) };
        let file = self.open(name)?;
        check_length(file.len(), longest).map_err(|e| e.with("file", file.location()))?;
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(usize::MAX)];
        file.read_exact_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// Refuses a file that is longer than one of its kind may be.
pub(super) fn check_length(length: u64, longest: u64) -> Result<()> {
    if length <= longest {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the file has {length} bytes, more than the {longest} that one of its kind may have"
    )))
}

/// Refuses a name that leads out of a folder, or is none.
///
/// # Errors
/// Of kind `InvalidInput`.
pub fn check_name(name: &str, location: impl fmt::Display) -> Result<()> {
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if name.split('/').any(odd) {
        return Err(Error::invalid_input(format!("{name:?} is no path below a folder"))
            .with("file", location));
    }
    Ok(())
}
