//! The memory map, which needs unsafe code.
#![allow(unsafe_code)]

use super::ByteSource;
use super::Engine;
#[cfg(target_os = "linux")]
use super::fault::{self, Region};
use super::local::OpenFile;
use crate::{Error, ErrorKind, Result, as_u64};
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
    /// The map to read a file by: none by [`Access::Read`], and where [`Access::Auto`] finds that the file
    /// cannot be mapped.
    ///
    /// # Errors
    /// As [`ByteSource::map`].
    pub fn map_of(self, source: &dyn ByteSource) -> Result<Option<MappedFile>> {
        if self == Self::Read {
            return Ok(None);
        }
        match source.map() {
            // A file system without maps, or a limit on addresses: reads may do.
            Err(e) if self == Self::Auto && e.kind() == ErrorKind::Io => Ok(None),
            done => done,
        }
    }

    /// How to read rows for somebody who keeps them, and does not look whether a file behind them is
    /// changed meanwhile: by [`Access::Map`] only where that was asked for.
    #[must_use]
    pub fn of_kept(self) -> Self {
        if self == Self::Map { Self::Map } else { Self::Read }
    }

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
/// **The hole in any map.** Nobody can promise that a mapped file stays as it is. One that is written to
/// changes under whoever reads it; one that is cut short has no bytes any more where some are wanted, and
/// the kernel ends a process that touches them (SIGBUS). So whoever reads a map does so within
/// [`reading`](Self::reading), which on Linux makes an error of that, and asks [`check`](Self::check)
/// before and after, which sees nearly every other change: those that leave the file as long as it was
/// and the time of its last change as well are not seen, by reads neither.
#[derive(Debug, Clone)]
pub struct MappedFile {
    bytes: Bytes,
    file: Arc<OpenFile>,
    #[cfg(target_os = "linux")]
    region: Option<Arc<Region>>,
}

impl MappedFile {
    /// Maps a whole file.
    pub(super) fn new(file: Arc<OpenFile>) -> Result<Self> {
        let mapped = Self {
            bytes: Bytes::new(),
            file,
            #[cfg(target_os = "linux")]
            region: None,
        };
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
        #[cfg(target_os = "linux")]
        let mapped = Self { region: Some(Arc::new(Region::of(&map))), ..mapped };
        Ok(Self { bytes: Bytes::from_owner(map), ..mapped })
    }

    /// Runs work that reads these maps, on this thread alone. Where bytes cannot be had any more, it sees
    /// zeros, and what it answers is thrown away for an error.
    ///
    /// On Linux, by a handler of SIGBUS, which the process has once a file was mapped; what has nothing to
    /// do with these maps it leaves to the handler before it.
    ///
    /// # Errors
    /// Of kind `Changed` if one of the files was cut short, `Io` if its disk failed; else those of the
    /// work.
    pub fn reading<T>(maps: &[Self], work: impl FnOnce() -> Result<T>) -> Result<T> {
        #[cfg(target_os = "linux")]
        {
            let done = fault::watching(maps, work);
            maps.iter().try_for_each(Self::check_whole)?;
            done
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = maps;
            work()
        }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn region(&self) -> Option<&Region> {
        self.region.as_deref()
    }

    /// Refuses a map of which pages were lost: there are zeros in their place.
    #[cfg(target_os = "linux")]
    fn check_whole(&self) -> Result<()> {
        if !self.region().is_some_and(Region::is_lost) {
            return Ok(());
        }
        self.file.check_unchanged()?;
        let failed = std::io::Error::other("a page of the mapped file could not be read");
        Err(Error::io("cannot read", failed).with("file", &self.file.location))
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
    /// Of kind `Changed`; `Io` if that cannot be seen, or a page could not be read.
    pub fn check(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        self.check_whole()?;
        self.file.check_unchanged()
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::LocalFile;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const LEN: usize = 1 << 20;

    fn mapped() -> (tempfile::NamedTempFile, MappedFile) {
        let mut temp = tempfile::NamedTempFile::new().unwrap();
        temp.write_all(&vec![7; LEN]).unwrap();
        let file = LocalFile::open(temp.path(), Arc::new(Engine::default())).unwrap();
        let map = file.map().unwrap().unwrap();
        (temp, map)
    }

    fn sum(map: &MappedFile) -> u64 {
        map.bytes().iter().map(|&b| u64::from(b)).sum()
    }

    #[test]
    fn what_is_cut_short_while_it_is_read_is_an_error_from_then_on() {
        let (whole, other) = mapped();
        let (temp, map) = mapped();
        let maps = [other.clone(), map.clone()];
        let all = 7 * as_u64(LEN);
        assert_eq!(MappedFile::reading(&maps, || Ok(sum(&map))).unwrap(), all);
        for len in [LEN / 2 + 5, 0] {
            temp.as_file().set_len(as_u64(len)).unwrap();
            let mut seen = None;
            let error = MappedFile::reading(&maps, || {
                seen = Some((sum(&map), sum(&other)));
                Ok(())
            });
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Changed);
            assert!(error.to_string().contains(temp.path().to_str().unwrap()), "{error}");
            // It went on, and the other map is as it was.
            assert!(seen.is_some_and(|(cut, whole)| cut < all && whole == all), "{seen:?}");
        }
        // Whoever reads it without a look at the file.
        let again = MappedFile::reading(std::slice::from_ref(&map), || Ok(()));
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Changed);
        // As long as before, but zeros are in the map.
        temp.as_file().set_len(as_u64(LEN)).unwrap();
        assert_eq!(map.check().unwrap_err().kind(), ErrorKind::Changed);
        MappedFile::reading(std::slice::from_ref(&other), || Ok(sum(&other))).unwrap();
        drop(whole);
    }

    #[test]
    fn of_many_threads_each_has_the_error() {
        let (temp, map) = mapped();
        temp.as_file().set_len(0).unwrap();
        std::thread::scope(|scope| {
            let read = || {
                let maps = [map.clone()];
                // The innermost says what is read, and what was said before holds again after it.
                MappedFile::reading(&maps, || {
                    MappedFile::reading(&[], || Ok(()))?;
                    Ok(sum(&map))
                })
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Changed);
            }
        });
    }

    #[test]
    fn after_a_panic_nothing_is_watched() {
        let (_temp, map) = mapped();
        let maps = [map];
        let work = std::panic::AssertUnwindSafe(|| {
            MappedFile::reading(&maps, || -> Result<()> { panic!("as a test") })
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert!(!fault::is_watching());
    }

    const CHILD: &str = "CELLFEED_TEST_BUS_ERROR";

    /// Runs in a process of its own, which it ends: see below.
    #[test]
    #[ignore = "a child of another test"]
    fn child() {
        let Ok(how) = std::env::var(CHILD) else { return };
        let (temp, map) = mapped();
        // No core file, whatever the limits here.
        rustix::process::setrlimit(
            rustix::process::Resource::Core,
            rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
        )
        .unwrap();
        match how.as_str() {
            "sent" => {
                let pid = rustix::process::getpid();
                // The handler of the standard library, which is asked, lets the first one pass; and of two
                // that are sent at once only one may come.
                for _ in 0..1000 {
                    rustix::process::kill_process(pid, rustix::process::Signal::BUS).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
            "outside" => {
                temp.as_file().set_len(0).unwrap();
                std::hint::black_box(sum(&map));
            }
            _ => {
                temp.as_file().set_len(0).unwrap();
                let (_other, other) = mapped();
                let read = || Ok(std::hint::black_box(sum(&map)));
                let _ = MappedFile::reading(std::slice::from_ref(&other), read);
            }
        }
    }

    #[test]
    fn what_is_none_of_ours_ends_the_process_as_ever() {
        let program = std::env::current_exe().unwrap();
        for how in ["sent", "outside", "within another"] {
            let child = ["--exact", "io::map::tests::child", "--ignored", "--test-threads", "1"];
            let ran = Command::new(&program).args(child).env(CHILD, how).output().unwrap();
            assert_eq!(ran.status.signal(), Some(libc::SIGBUS), "{how}: {ran:?}");
        }
    }
}
