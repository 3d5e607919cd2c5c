//! The file of one object: a header that says which version of the object it is of, a checksum for each
//! block, zero for one that is not there, then the blocks, in a sparse file.
//!
//! A checksum is seeded by the version and the block's number. Bytes of another version, of another
//! object, of another place, torn or damaged are thereby no blocks, but misses.

use super::{Cache, Group};
use crate::pieces::{Part, Piece, as_u64, cut, index};
use cellfeed_core::io::ReadStats;
use rayon::prelude::*;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What is stored and checked as one.
pub(crate) const BLOCK: u64 = 16 << 10;
/// What one thread reads at once: it stays in the core's own cache while it is checked and copied.
const WINDOW: u64 = 16 * BLOCK;
const HEADER: usize = 32;
/// Blocks begin at one, and what disks give is counted in them.
const PAGE: u64 = 4096;
const MAGIC: &[u8; 8] = b"CELLFEED";
/// Files that stay open between reads; more than that are opened for each.
const OPEN_FILES: usize = 256;

/// What is cached of an object.
#[derive(Debug)]
pub(crate) struct Cached {
    group: Arc<Group>,
    path: PathBuf,
    header: [u8; HEADER],
    seed: u64,
    size: u64,
    file: Mutex<Option<Arc<File>>>,
}

/// Where the checksum of a block is.
fn sum_at(block: u64) -> u64 {
    as_u64(HEADER) + block * 8
}

/// A window of the object: what is wanted of it, and the checksums of its blocks.
struct Window<'a> {
    number: u64,
    pieces: Vec<(usize, Piece<'a>)>,
    sums: [u64; (WINDOW / BLOCK) as usize],
}

impl Window<'_> {
    /// The blocks of the window that something is wanted of, as far as they are there.
    fn stretches(&self) -> Vec<Range<u64>> {
        let first = self.number * (WINDOW / BLOCK);
        let wanted = |block: u64| {
            let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
            self.pieces.iter().any(|(_, (range, _))| range.start < end && range.end > start)
        };
        let mut stretches: Vec<Range<u64>> = Vec::new();
        for (block, sum) in (first..).zip(self.sums) {
            if sum == 0 || !wanted(block) {
                continue;
            }
            match stretches.last_mut() {
                Some(last) if last.end == block => last.end += 1,
                _ => stretches.push(block..block + 1),
            }
        }
        stretches
    }
}

impl Cached {
    pub(super) fn new(group: Arc<Group>, path: PathBuf, version: u128, size: u64) -> Self {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..24].copy_from_slice(&version.to_le_bytes());
        header[24..].copy_from_slice(&size.to_le_bytes());
        // Half of the version is as good a seed as all of it.
        let seed = u64::try_from(version & u128::from(u64::MAX)).unwrap_or(0);
        Self { group, path, header, seed, size, file: Mutex::default() }
    }

    fn cache(&self) -> &Cache {
        &self.group.cache
    }

    /// Whether more of it is stored.
    pub(crate) fn admits(&self) -> bool {
        self.cache().admits()
    }

    fn blocks_at(&self) -> u64 {
        sum_at(self.size.div_ceil(BLOCK)).next_multiple_of(PAGE)
    }

    /// The bytes that a block has: the last one may have fewer than the others.
    fn span(&self, block: u64) -> Range<u64> {
        block * BLOCK..self.size.min((block + 1) * BLOCK)
    }

    fn sum(&self, block: u64, bytes: &[u8]) -> u64 {
        // Zero is for blocks that are not there.
        xxh3_64_with_seed(bytes, self.seed.wrapping_add(block)).max(1)
    }

    /// The file, if there is one of this version, or if it is to be made.
    fn file(&self, make: bool) -> io::Result<Option<Arc<File>>> {
        let mut kept = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*kept {
            return Ok(Some(Arc::clone(file)));
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).truncate(false).mode(0o600);
        let file = match options.open(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound && !make => return Ok(None),
            other => other?,
        };
        let mut header = [0; HEADER];
        if file.read_exact_at(&mut header, 0).is_err() || header != self.header {
            let room = if make { self.cache().reserve(PAGE)? } else { 0 };
            if room == 0 {
                return Ok(None);
            }
            // Of another version, or new. Who still reads the other finds no blocks of it any more.
            let begun = file.set_len(0).and_then(|()| file.write_all_at(&self.header, 0));
            self.cache().written(room);
            begun?;
        }
        let file = Arc::new(file);
        let open = &self.cache().open_files;
        if open.fetch_add(1, Relaxed) < OPEN_FILES {
            *kept = Some(Arc::clone(&file));
        } else {
            open.fetch_sub(1, Relaxed);
        }
        Ok(Some(file))
    }

    /// Copies what is here to its places in an answer; parts ascend in it. Answers the parts that are
    /// missing. Blocks; inside a rayon pool it uses that pool's threads.
    pub(crate) fn read(&self, parts: &[Part], buffer: &mut [u8]) -> Vec<Part> {
        let Ok(Some(file)) = self.file(false) else { return parts.to_vec() };
        let parts = in_windows(parts);
        let mut pieces: Vec<(usize, Piece<'_>)> =
            parts.iter().map(|p| p.at).zip(cut(&parts, buffer)).collect();
        pieces.sort_by_key(|(_, (range, _))| range.start);
        let mut windows: Vec<Window<'_>> = Vec::new();
        for piece in pieces {
            let number = piece.1.0.start / WINDOW;
            match windows.last_mut() {
                Some(window) if window.number == number => window.pieces.push(piece),
                _ => windows.push(Window { number, pieces: vec![piece], sums: [0; _] }),
            }
        }
        windows.par_iter_mut().for_each(|window| window.sums = self.sums(&file, window.number));
        self.will_need(&file, &windows);
        let missing = windows
            .into_par_iter()
            .map_init(Vec::new, |scratch, window| self.read_window(&file, window, scratch))
            .reduce(Vec::new, |mut a, mut b| {
                a.append(&mut b);
                a
            });
        in_one(missing)
    }

    /// The checksums of a window; zeros where there is none.
    fn sums(&self, file: &File, window: u64) -> [u64; (WINDOW / BLOCK) as usize] {
        let mut bytes = [0; (WINDOW / BLOCK) as usize * 8];
        read_what_is_there(file, &mut bytes, sum_at(window * (WINDOW / BLOCK)));
        let mut sums = [0; _];
        for (sum, bytes) in sums.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *sum = u64::from_le_bytes(*bytes);
        }
        sums
    }

    /// Tells the disk of all that is going to be read.
    fn will_need(&self, file: &File, windows: &[Window<'_>]) {
        #[cfg(target_os = "linux")]
        for stretch in windows.iter().flat_map(Window::stretches) {
            use rustix::fs::{Advice, fadvise};
            let length = std::num::NonZeroU64::new((stretch.end - stretch.start) * BLOCK);
            // Advice: a file system that does not take it reads on demand.
            let _ =
                fadvise(file, self.blocks_at() + stretch.start * BLOCK, length, Advice::WillNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (file, windows);
    }

    fn read_window(&self, file: &File, window: Window<'_>, scratch: &mut Vec<u8>) -> Vec<Part> {
        let first = window.number * (WINDOW / BLOCK);
        let mut valid = [false; (WINDOW / BLOCK) as usize];
        scratch.resize(index(WINDOW), 0);
        let place = |at: u64| index(at - window.number * WINDOW);
        for stretch in window.stretches() {
            let span = stretch.start * BLOCK..self.span(stretch.end - 1).end;
            let Some(bytes) = scratch.get_mut(place(span.start)..place(span.end)) else { continue };
            read_what_is_there(file, bytes, self.blocks_at() + span.start);
            // Where the file had nothing is what was read before: the checksum tells.
            for block in stretch {
                let (span, slot) = (self.span(block), index(block - first));
                let bytes = scratch.get(place(span.start)..place(span.end)).unwrap_or_default();
                valid[slot] = window.sums[slot] == self.sum(block, bytes);
            }
        }
        let mut missing = Vec::new();
        for (at, (range, piece)) in window.pieces {
            let mut from = range.start;
            while from < range.end {
                let block = from / BLOCK;
                let to = range.end.min((block + 1) * BLOCK);
                let inside = index(from - range.start)..index(to - range.start);
                if valid[index(block - first)] {
                    piece[inside].copy_from_slice(&scratch[place(from)..place(to)]);
                } else {
                    missing.push(Part { range: from..to, at: at + inside.start });
                }
                from = to;
            }
        }
        missing
    }

    /// Stores whole blocks that begin at `at`. What fails ends the cache, and nothing else. Blocks.
    pub(crate) fn write(&self, at: u64, bytes: &[u8], stats: &ReadStats) {
        if let Err(e) = self.try_write(at, bytes) {
            self.cache().fail(&e, stats);
        }
    }

    fn try_write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.admits() {
            return Ok(());
        }
        let Some(file) = self.file(true)? else { return Ok(()) };
        let room = self.cache().reserve(as_u64(bytes.len()).next_multiple_of(PAGE))?;
        let stored = self.store(&file, at, &bytes[..bytes.len().min(index(room))]);
        self.cache().written(room);
        stored
    }

    fn store(&self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let first = at / BLOCK;
        let blocks = (first..).zip(bytes.chunks(index(BLOCK)));
        let sums: Vec<u8> = blocks.flat_map(|(n, b)| self.sum(n, b).to_le_bytes()).collect();
        // In this order, so that other processes seldom look for a block that has not come.
        file.write_all_at(bytes, self.blocks_at() + at)?;
        file.write_all_at(&sums, sum_at(first))
    }
}

impl Drop for Cached {
    fn drop(&mut self) {
        let kept = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        if kept.take().is_some() {
            self.group.cache.open_files.fetch_sub(1, Relaxed);
        }
    }
}

/// Parts that lie in one window each, in the order of the answer.
fn in_windows(parts: &[Part]) -> Vec<Part> {
    let mut out = Vec::with_capacity(parts.len());
    for Part { range, at } in parts {
        let mut from = range.start;
        while from < range.end {
            let to = range.end.min((from / WINDOW + 1) * WINDOW);
            out.push(Part { range: from..to, at: at + index(from - range.start) });
            from = to;
        }
    }
    out
}

/// Parts in the order of the answer, those that follow each other as one.
fn in_one(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_unstable_by_key(|part| part.at);
    let mut out: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        match out.last_mut() {
            Some(last)
                if last.range.end == part.range.start
                    && last.at + index(last.range.end - last.range.start) == part.at =>
            {
                last.range.end = part.range.end;
            }
            _ => out.push(part),
        }
    }
    out
}

/// Reads what a file has of a range: one that ends or cannot be read has none of the rest.
fn read_what_is_there(file: &File, bytes: &mut [u8], at: u64) {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + as_u64(done)) {
            Ok(n) if n > 0 => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}
