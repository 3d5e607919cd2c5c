//! The files of a store: their row groups as one sequence of rows, their columns under one schema, and
//! which bytes hold which rows. Data are read through core's byte source alone.

use crate::codec::Codec;
use crate::footer::{ChunkMeta, Footer, Leaf};
use crate::index::PageTable;
use bytes::Bytes;
use cellfeed_core::io::{ByteSource, Engine, Folder};
use cellfeed_core::{Error, Result, RowRanges};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A row group.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) shard: u32,
    pub(crate) first_row: u64,
    pub(crate) n_rows: u32,
}

/// A column chunk.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) plain: u64,
    pub(crate) n_values: u64,
    pub(crate) codec: Codec,
    /// Where its pages are: by the page index, or learned when it was first read.
    pub(crate) pages: OnceLock<Box<PageTable>>,
}

/// What is known of all files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) set: Arc<dyn Folder>,
    pub(crate) names: Vec<String>,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) groups: Vec<Group>,
    /// Group by group, as many as leaves in each.
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) n_rows: u64,
}

/// Rows of one group.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) group: usize,
    pub(crate) rows: Vec<Range<u32>>,
}

/// The bytes of a chunk that hold wanted rows.
#[derive(Debug, Clone)]
pub(crate) struct ChunkPlan {
    /// The dictionary, where it is apart.
    pub(crate) dictionary: Option<Range<u64>>,
    /// Runs of pages.
    pub(crate) runs: Vec<PageRun>,
}

/// Bytes that are read together.
#[derive(Debug, Clone)]
pub(crate) struct PageRun {
    pub(crate) bytes: Range<u64>,
    /// Which pages; none where that is not known, and it is the whole chunk.
    pub(crate) pages: Option<Range<usize>>,
}

impl ChunkPlan {
    /// The ranges in the order in which their bytes are expected.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.dictionary.iter().cloned().chain(self.runs.iter().map(|run| run.bytes.clone()))
    }

    pub(crate) fn n_bytes(&self) -> u64 {
        self.ranges().map(|r| r.end - r.start).sum()
    }
}

/// Reads a footer: blocks.
pub(crate) fn read_footer(file: &dyn ByteSource) -> Result<Footer> {
    let parse = || {
        let len = file.len();
        if len < 12 {
            return Err(Error::corrupt(format!("a Parquet file of {len} bytes is too short")));
        }
        // Nearly every footer is had with the first read.
        let guess = len.min(64 << 10);
        let mut tail = vec![0; usize::try_from(guess).unwrap_or(0)];
        file.read_exact_at(len - guess, &mut tail)?;
        let (rest, end) = tail.split_last_chunk::<8>().ok_or_else(|| Error::internal("a tail"))?;
        match &end[4..] {
            b"PAR1" => {}
            b"PARE" => return Err(Error::unsupported("the file is encrypted")),
            _ => {
                return Err(Error::corrupt(
                    "it does not end with PAR1: no Parquet file, or a truncated one",
                ));
            }
        }
        let n = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
        if n > len - 12 {
            return Err(Error::corrupt(format!("a footer of {n} bytes in a file of {len}")));
        }
        let at = usize::try_from(n).unwrap_or(usize::MAX);
        if at <= rest.len() {
            return Footer::parse(&rest[rest.len() - at..], len - 8 - n);
        }
        let mut whole = vec![0; at];
        file.read_exact_at(len - 8 - n, &mut whole)?;
        Footer::parse(&whole, len - 8 - n)
    };
    parse().map_err(|e: Error| e.with_default("file", file.location()))
}

/// Parses a whole file in memory.
pub(crate) fn footer_of(bytes: &[u8]) -> Result<Footer> {
    let bad = || Error::corrupt("an embedded Parquet file is damaged");
    let (rest, end) = bytes.split_last_chunk::<8>().ok_or_else(bad)?;
    let n = usize::try_from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    let start = n.ok().and_then(|n| rest.len().checked_sub(n)).ok_or_else(bad)?;
    if &end[4..] != b"PAR1" {
        return Err(bad());
    }
    Footer::parse(&rest[start..], u64::try_from(start).unwrap_or(u64::MAX))
}

impl Chunk {
    pub(crate) fn new(meta: &ChunkMeta) -> Self {
        Self {
            start: meta.start,
            len: meta.len,
            plain: meta.plain,
            n_values: meta.n_values,
            codec: meta.codec,
            pages: OnceLock::new(),
        }
    }

    /// Which bytes hold rows, which ascend.
    pub(crate) fn plan(&self, rows: &[Range<u32>]) -> ChunkPlan {
        let Some(table) = self.pages.get() else {
            let run = PageRun { bytes: self.start..self.start + self.len, pages: None };
            return ChunkPlan { dictionary: None, runs: vec![run] };
        };
        let mut pages: Vec<Range<usize>> = Vec::new();
        for range in rows.iter().filter(|r| !r.is_empty()) {
            let wanted = table.page_of(range.start)..table.page_of(range.end - 1) + 1;
            match pages.last_mut() {
                Some(last) if wanted.start <= last.end => last.end = last.end.max(wanted.end),
                _ => pages.push(wanted),
            }
        }
        let dictionary = (table.start() > self.start).then(|| self.start..table.start());
        let run = |pages: Range<usize>| PageRun { bytes: table.bytes(&pages), pages: Some(pages) };
        ChunkPlan { dictionary, runs: pages.into_iter().map(run).collect() }
    }
}

impl Files {
    /// Puts files together, of which `footers` are the footers in the same order: columns are those of
    /// the first, and must be the same in all. Reads page indexes: blocks.
    pub(crate) fn open(
        set: Arc<dyn Folder>,
        names: Vec<String>,
        footers: &[Footer],
    ) -> Result<Self> {
        let leaves = footers.first().map(|f| f.leaves.clone()).unwrap_or_default();
        let mut files =
            Self { set, names, leaves, groups: Vec::new(), chunks: Vec::new(), n_rows: 0 };
        for (shard, footer) in footers.iter().enumerate() {
            let name = &files.names[shard];
            let blame = |e: Error| e.with_default("file", files.set.place(name));
            let order = order(&files.leaves, &footer.leaves).map_err(blame)?;
            let tables = read_indexes(&*files.set, name, footer).map_err(blame)?;
            let mut tables = tables.into_iter();
            for group in &footer.groups {
                let mut read: Vec<Chunk> = group.chunks.iter().map(Chunk::new).collect();
                for chunk in &mut read {
                    if let Some(table) = tables.next().flatten() {
                        chunk.pages = OnceLock::from(Box::new(table));
                    }
                }
                let n_rows = u32::try_from(group.n_rows).unwrap_or(u32::MAX);
                let shard = u32::try_from(shard).unwrap_or(u32::MAX);
                files.groups.push(Group { shard, first_row: files.n_rows, n_rows });
                files.chunks.extend(order.iter().map(|&i| read[i].clone()));
                files.n_rows = files
                    .n_rows
                    .checked_add(group.n_rows)
                    .ok_or_else(|| blame(Error::corrupt("too many rows")))?;
            }
        }
        files.chunks.shrink_to_fit();
        Ok(files)
    }

    pub(crate) fn chunk(&self, group: usize, leaf: usize) -> &Chunk {
        &self.chunks[group * self.leaves.len() + leaf]
    }

    /// The chunks of a column.
    pub(crate) fn column(&self, leaf: usize) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().skip(leaf).step_by(self.leaves.len().max(1))
    }

    /// Cuts rows by groups.
    pub(crate) fn split(&self, rows: &RowRanges) -> Vec<Want> {
        let mut wants: Vec<Want> = Vec::new();
        let mut group = 0;
        for range in rows.as_slice() {
            let mut start = range.start;
            // From where the last range ended; far ones are searched for.
            group += self.groups[group..].partition_point(|g| g.first_row <= start).max(1) - 1;
            while start < range.end {
                let Some(found) = self.groups.get(group) else { break };
                let end = found.first_row + u64::from(found.n_rows);
                if start >= end {
                    group += 1;
                    continue;
                }
                let stop = range.end.min(end);
                let local = |row: u64| u32::try_from(row - found.first_row).unwrap_or(u32::MAX);
                let part = local(start)..local(stop);
                match wants.last_mut() {
                    Some(want) if want.group == group => want.rows.push(part),
                    _ => wants.push(Want { group, rows: vec![part] }),
                }
                start = stop;
            }
        }
        wants
    }

    /// Rows of the store, of rows of a group.
    pub(crate) fn global<'a>(&self, want: &'a Want) -> impl Iterator<Item = Range<u64>> + 'a {
        let first = self.groups[want.group].first_row;
        want.rows.iter().map(move |r| first + u64::from(r.start)..first + u64::from(r.end))
    }

    /// Names the file and the row group of an error.
    pub(crate) fn blame(&self, error: Error, group: usize) -> Error {
        let name = self
            .groups
            .get(group)
            .and_then(|g| self.names.get(usize::try_from(g.shard).unwrap_or(usize::MAX)));
        let error = error.with_default("row group", group);
        match name {
            Some(name) => error.with_default("file", self.set.place(name)),
            None => error,
        }
    }

    /// Reads byte ranges, given with the group that each belongs to, in ascending order of groups;
    /// answers one buffer a range.
    pub(crate) async fn fetch(
        self: &Arc<Self>,
        engine: &Engine,
        wanted: Vec<(usize, Range<u64>)>,
    ) -> Result<Vec<Bytes>> {
        let mut by_shard: Vec<(u32, Vec<Range<u64>>)> = Vec::new();
        for (group, range) in wanted {
            let shard = self.groups[group].shard;
            match by_shard.last_mut() {
                Some((last, ranges)) if *last == shard => ranges.push(range),
                _ => by_shard.push((shard, vec![range])),
            }
        }
        let mut out = Vec::new();
        for part in by_shard.chunks(AT_ONCE) {
            let this = Arc::clone(self);
            let shards: Vec<u32> = part.iter().map(|(shard, _)| *shard).collect();
            // Opening blocks for a moment.
            let opened = engine
                .blocking(move || {
                    let name = |&shard: &u32| {
                        this.set.open(&this.names[usize::try_from(shard).unwrap_or(usize::MAX)])
                    };
                    shards.iter().map(name).collect::<Result<Vec<_>>>()
                })
                .await?;
            let reads = opened.iter().zip(part).map(|(file, (_, ranges))| {
                let ranges = ranges.clone();
                async move { file.get_ranges(ranges).await }
            });
            let buffers = futures::future::try_join_all(reads).await?;
            for (buffer, (_, ranges)) in buffers.into_iter().zip(part) {
                let mut at = 0;
                for range in ranges {
                    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                    out.push(buffer.slice(at..at + len));
                    at += len;
                }
            }
        }
        Ok(out)
    }
}

/// Where each leaf of a store is among those of one of its files.
fn order(leaves: &[Leaf], found: &[Leaf]) -> Result<Vec<usize>> {
    if leaves == found {
        return Ok((0..leaves.len()).collect());
    }
    let place = |leaf: &Leaf| {
        found.iter().position(|f| f == leaf && f.siblings == 1).ok_or_else(|| {
            Error::corrupt(format!(
                "the column {:?} is not here, or of another type than in the first file",
                leaf.name
            ))
        })
    };
    leaves.iter().map(place).collect()
}

/// Files that are read at a time: as many are open, whatever the number of shards.
const AT_ONCE: usize = 128;

/// Page indexes are read together where no more than this lies between.
const GAP: u64 = 64 << 10;
/// As much is read at once.
const WINDOW: u64 = 8 << 20;

/// The page tables of a file's chunks, group by group.
fn read_indexes(set: &dyn Folder, name: &str, footer: &Footer) -> Result<Vec<Option<PageTable>>> {
    let chunks = || {
        footer.groups.iter().flat_map(|g| {
            g.chunks.iter().map(move |c| (c, u32::try_from(g.n_rows).unwrap_or(u32::MAX)))
        })
    };
    let mut tables: Vec<Option<PageTable>> = chunks().map(|_| None).collect();
    let mut places: Vec<(u64, u64, usize)> = chunks()
        .enumerate()
        .filter(|(_, (_, n_rows))| *n_rows > 0)
        .filter_map(|(i, (c, _))| c.index.map(|(start, len)| (start, start + len, i)))
        .collect();
    if places.is_empty() {
        return Ok(tables);
    }
    places.sort_unstable();
    let all: Vec<(&ChunkMeta, u32)> = chunks().collect();
    let file = set.open(name)?;
    let mut buffer = Vec::new();
    let mut rest = places.as_slice();
    while let Some(&(start, mut end, _)) = rest.first() {
        let mut n = 1;
        while let Some(&(next, next_end, _)) = rest.get(n) {
            if next > end + GAP || next_end.max(end) - start > WINDOW {
                break;
            }
            end = end.max(next_end);
            n += 1;
        }
        buffer.resize(usize::try_from(end - start).unwrap_or(usize::MAX), 0);
        file.read_exact_at(start, &mut buffer)?;
        for &(at, at_end, i) in &rest[..n] {
            let offset = |n: u64| usize::try_from(n - start).unwrap_or(usize::MAX);
            let (chunk, n_rows) = all[i];
            let range = chunk.start..chunk.start + chunk.len;
            let table = PageTable::parse(&buffer[offset(at)..offset(at_end)], &range, n_rows);
            tables[i] = table?;
        }
        rest = &rest[n..];
    }
    Ok(tables)
}
