//! Files and folders under construction: a temporary name until they are complete, then the real one.

use crate::{Error, Result};
use rustix::fs::{FlockOperation, RenameFlags, flock, renameat_with};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The ending of temporary names.
const SUFFIX: &str = ".partial";

/// A file or folder that is written under a hidden name next to its own, `.NAME.PID-N.partial`, and
/// gets its own when it is complete. Dropped before [`publish`](Self::publish), it is removed. What a
/// killed process left behind is removed when the same destination is written again.
#[derive(Debug)]
pub struct Staging {
    temporary: PathBuf,
    destination: PathBuf,
    overwrite: bool,
    published: bool,
    /// Locked as long as we live: how others know that the temporary is not a leftover.
    lock: File,
}

impl Staging {
    /// Makes an empty file. It may replace a file, but no folder; where the path is a link, the file that
    /// it leads to.
    ///
    /// # Errors
    /// Of kind `InvalidInput` if the destination exists and is not, or cannot be, replaced; `NotFound`
    /// or `Io` if the file cannot be made.
    pub fn file(path: &Path, overwrite: bool) -> Result<Self> {
        let make = |temporary: &Path| {
            File::options().read(true).write(true).create_new(true).open(temporary)
        };
        let path = followed(path);
        refuse_existing(&path, overwrite, |_| false)?;
        Self::begin(&path, overwrite, make)
    }

    /// Makes an empty folder. It may replace a file, a folder with nothing in it, and one that
    /// `is_store` says is a store: not whatever else somebody has in a folder of that name. Where the
    /// path is a link, what it leads to.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn folder(path: &Path, overwrite: bool, is_store: fn(&Path) -> bool) -> Result<Self> {
        let path = followed(path);
        refuse_existing(&path, overwrite, is_store)?;
        Self::begin(&path, overwrite, make_folder)
    }

    /// Makes an empty folder next to a path, for what is in the way only for a time: it is never given
    /// that name, but removed when this is dropped.
    ///
    /// # Errors
    /// As [`file`](Self::file).
    pub fn scratch(beside: &Path) -> Result<Self> {
        Self::begin(&followed(beside), false, make_folder)
    }

    fn begin(
        path: &Path,
        overwrite: bool,
        make: impl Fn(&Path) -> std::io::Result<File>,
    ) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| {
            Error::invalid_input("the path names no file").with("file", path.display())
        })?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|p| !p.is_dir()) {
            return Err(Error::not_found("there is no such folder; make it first")
                .caused_by(std::io::Error::new(std::io::ErrorKind::NotFound, "no such folder"))
                .with("file", folder.display()));
        }
        remove_leftovers(path, name);
        for attempt in 0u32.. {
            let mut hidden = prefix(name);
            hidden.push(format!("{}-{attempt}{SUFFIX}", std::process::id()));
            let temporary = path.with_file_name(hidden);
            match make(&temporary) {
                Ok(lock) => {
                    // Somebody who looks for leftovers was quicker with the lock, or has removed it.
                    if !is_ours(&lock, &temporary) {
                        continue;
                    }
                    let destination = path.to_path_buf();
                    return Ok(Self { temporary, destination, overwrite, published: false, lock });
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::io("cannot create", e).with("file", temporary.display()));
                }
            }
        }
        Err(Error::internal("no temporary name is free").with("file", path.display()))
    }

    /// Where to write: the temporary file or folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// The file made by [`file`](Self::file), or the folder's handle.
    #[must_use]
    pub fn handle(&self) -> &File {
        &self.lock
    }

    /// Brings everything to the disk, gives it its name, and brings the name to the disk.
    ///
    /// # Errors
    /// Of kind `Io` if the disk fails, `InvalidInput` if the destination has come to exist and is
    /// not to be replaced, also in the last moment where the system can see to that. The temporary is
    /// removed then.
    pub fn publish(mut self) -> Result<()> {
        let io = |what: &str, path: &Path, e| Error::io(what, e).with("file", path.display());
        sync_all(&self.temporary).map_err(|e| io("cannot sync", &self.temporary, e))?;
        let is_folder = |path: &Path| path.symlink_metadata().ok().map(|m| m.is_dir());
        let renamed = match (is_folder(&self.destination), is_folder(&self.temporary)) {
            _ if !self.overwrite => rename_new(&self.temporary, &self.destination),
            // A file is put in the place of a file at once by any system.
            (Some(old), new) if old || new == Some(true) => {
                replace_folder(&self.temporary, &self.destination)
            }
            _ => std::fs::rename(&self.temporary, &self.destination),
        };
        if renamed.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AlreadyExists) {
            return Err(exists(&self.destination));
        }
        renamed.map_err(|e| io("cannot rename into place", &self.destination, e))?;
        self.published = true;
        let folder = self.destination.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| io("cannot sync the folder", folder, e))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to tell; the name says that it is incomplete.
            remove(&self.temporary);
        }
    }
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".");
    prefix
}

fn make_folder(temporary: &Path) -> std::io::Result<File> {
    std::fs::create_dir(temporary)?;
    File::open(temporary)
}

/// The path, or if it is a link to something what that is.
fn followed(path: &Path) -> PathBuf {
    let is_link = path.symlink_metadata().is_ok_and(|m| m.is_symlink());
    let real = if is_link { path.canonicalize().ok() } else { None };
    real.unwrap_or_else(|| path.to_path_buf())
}

fn refuse_existing(path: &Path, overwrite: bool, is_store: fn(&Path) -> bool) -> Result<()> {
    let Ok(found) = path.symlink_metadata() else { return Ok(()) };
    if !overwrite {
        return Err(exists(path));
    }
    let what = if found.is_dir() {
        let is_empty = std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty || is_store(path) {
            return Ok(());
        }
        "the destination is a folder, and no store that this would replace; remove it, or give another \
         name"
    } else if found.is_file() || found.is_symlink() {
        return Ok(());
    } else {
        "the destination is a device, a pipe or a socket; give another name"
    };
    Err(Error::invalid_input(what).with("file", path.display()))
}

fn exists(path: &Path) -> Error {
    Error::invalid_input(
        "the destination exists already; give another name, or allow it to be replaced (--force, \
         overwrite=True)",
    )
    .with("file", path.display())
}

/// Locks a temporary that was just made. Where locks are not to be had, a leftover stays a leftover.
fn is_ours(lock: &File, temporary: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    if flock(lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
        return false;
    }
    let file = |m: std::fs::Metadata| (m.dev(), m.ino());
    let same = (lock.metadata().map(file).ok(), temporary.symlink_metadata().map(file).ok());
    same.0.is_some() && same.0 == same.1
}

/// Gives a name that nobody has.
fn rename_new(new: &Path, name: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::Errno;
        let cwd = rustix::fs::CWD;
        match renameat_with(cwd, new, cwd, name, RenameFlags::NOREPLACE) {
            // A file system that cannot: it was looked at a moment ago.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return done.map_err(Into::into),
        }
    }
    std::fs::rename(new, name)
}

fn remove(path: &Path) {
    let _ = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        _ => std::fs::remove_file(path),
    };
}

/// Removes what a killed process left of the same destination: temporaries that nobody has locked.
fn remove_leftovers(path: &Path, name: &OsStr) {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = prefix(name);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let found = found.as_encoded_bytes();
        let Some(rest) = found.strip_prefix(prefix.as_encoded_bytes()) else { continue };
        let Some(middle) = rest.strip_suffix(SUFFIX.as_bytes()) else { continue };
        // Just what `begin` makes: digits, a dash, digits.
        let ours = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        let mut parts = middle.splitn(2, |&b| b == b'-');
        if !(parts.next().is_some_and(ours) && parts.next().is_some_and(ours)) {
            continue;
        }
        let stale = File::open(entry.path())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if stale {
            remove(&entry.path());
        }
    }
}

/// Puts a folder in the place of another or of a file, or a file in that of a folder, at once where the system can exchange names.
fn replace_folder(new: &Path, old: &Path) -> std::io::Result<()> {
    let cwd = rustix::fs::CWD;
    #[cfg(target_os = "linux")]
    if renameat_with(cwd, new, cwd, old, RenameFlags::EXCHANGE).is_ok() {
        remove(new);
        return Ok(());
    }
    let mut aside = new.as_os_str().to_owned();
    aside.push(".replaced");
    let aside = PathBuf::from(aside);
    std::fs::rename(old, &aside)?;
    std::fs::rename(new, old).inspect_err(|_| {
        let _ = std::fs::rename(&aside, old);
    })?;
    remove(&aside);
    Ok(())
}

/// Syncs a file, or a folder with all that is below it.
fn sync_all(path: &Path) -> std::io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        for entry in std::fs::read_dir(path)? {
            sync_all(&entry?.path())?;
        }
    }
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &Path) -> bool {
        true
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn nothing_has_its_name_until_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.store");
        let staging = Staging::folder(&path, false, any).unwrap();
        std::fs::write(staging.path().join("x"), b"1").unwrap();
        assert!(!path.exists());
        drop(staging);
        assert!(names(root.path()).is_empty());
        let staging = Staging::folder(&path, false, any).unwrap();
        std::fs::write(staging.path().join("x"), b"2").unwrap();
        staging.publish().unwrap();
        assert_eq!(names(root.path()), ["a.store"]);
        assert!(Staging::folder(&path, false, any).is_err());
        // Replacing: the old one stays until the new one is complete.
        let staging = Staging::folder(&path, true, any).unwrap();
        std::fs::write(staging.path().join("y"), b"3").unwrap();
        assert_eq!(names(&path), ["x"]);
        staging.publish().unwrap();
        assert_eq!(
            (names(&path), names(root.path())),
            (vec!["y".to_owned()], vec!["a.store".to_owned()])
        );
    }

    #[test]
    fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.h5");
        for name in [".a.h5.123-0.partial", ".a.h5.notes.partial", ".b.h5.123-0.partial"] {
            std::fs::write(root.path().join(name), b"").unwrap();
        }
        let first = Staging::file(&path, false).unwrap();
        let second = Staging::file(&path, false).unwrap();
        assert_eq!(names(root.path()).len(), 4);
        assert!(!names(root.path()).contains(&".a.h5.123-0.partial".to_owned()));
        first.publish().unwrap();
        // Somebody was faster.
        assert!(second.publish().is_err());
        assert_eq!(names(root.path()), [".a.h5.notes.partial", ".b.h5.123-0.partial", "a.h5"]);
    }

    #[test]
    fn folders_take_the_place_of_files_and_of_what_links_lead_to() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        std::fs::write(&path, b"a file").unwrap();
        let staging = Staging::folder(&path, true, any).unwrap();
        std::fs::write(staging.path().join("x"), b"1").unwrap();
        staging.publish().unwrap();
        assert_eq!(
            (names(&path), names(root.path())),
            (vec!["x".to_owned()], vec!["a".to_owned()])
        );
        // Of a link what it leads to.
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Staging::folder(&link, true, any).unwrap().publish().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(names(&path).is_empty());
        assert_eq!(names(root.path()), ["a", "link"]);
    }

    #[test]
    fn what_is_no_store_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("thesis");
        std::fs::create_dir(&path).unwrap();
        let none = |_: &Path| false;
        drop(Staging::folder(&path, true, none).unwrap());
        std::fs::write(path.join("chapter"), b"1").unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link] {
            for staging in [Staging::folder(path, true, none), Staging::file(path, true)] {
                let error = staging.unwrap_err();
                assert!(error.to_string().contains("is a folder"), "{error}");
            }
        }
        let error = Staging::file(Path::new("/dev/null"), true).unwrap_err();
        assert!(error.to_string().contains("a device"), "{error}");
        drop(Staging::scratch(&path).unwrap());
        assert_eq!(names(&path), ["chapter"]);
        assert_eq!(names(root.path()), ["link", "thesis"]);
    }

    #[test]
    fn a_name_that_somebody_takes_in_the_last_moment_stays_his() {
        let root = tempfile::tempdir().unwrap();
        let (new, name) = (root.path().join("new"), root.path().join("name"));
        for path in [&new, &name] {
            std::fs::write(path, path.as_os_str().as_encoded_bytes()).unwrap();
        }
        if cfg!(target_os = "linux") {
            let error = rename_new(&new, &name).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        }
        std::fs::remove_file(&name).unwrap();
        rename_new(&new, &name).unwrap();
        assert_eq!(names(root.path()), ["name"]);
    }

    #[test]
    fn a_temporary_that_somebody_else_has_locked_or_removed_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        let file = File::create(&path).unwrap();
        assert!(is_ours(&file, &path));
        let other = File::open(&path).unwrap();
        assert!(!is_ours(&other, &path));
        drop(file);
        assert!(is_ours(&other, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_ours(&other, &path));
        File::create(&path).unwrap();
        assert!(!is_ours(&other, &path));
    }
}
