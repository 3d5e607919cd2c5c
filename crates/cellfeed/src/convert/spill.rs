//! Rows set aside on the disk, sorted by the batch that writes them, so that a source which cannot be
//! read in the wanted order is read once, from end to end.
//!
//! The wanted order is cut into buckets that fit the memory. One pass over the source appends to a
//! file, for each bucket, a piece of the rows (or, of a matrix by columns, of the non-zeros) that
//! belong to it; where pieces lie is kept in memory. A batch is then a bucket: its pieces are read,
//! which are large and in file order, and put in order in memory. All reading and writing is of long
//! runs, and each byte is written once and read once.

use super::batch::{BatchRows, CELL_BYTES, Order, Part, fit};
use crate::Store;
use crate::transpose::at;
use cellfeed_core::io::{ByteSource, LocalFile, Staging};
use cellfeed_core::{
    CsrRows, CsrSegment, Error, Indices, Result, RowRanges, ValueType, Values, typed,
};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of all matrices, by bucket. The file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Spill {
    /// Where in the order the buckets begin, and its end.
    starts: Vec<u64>,
    matrices: Vec<Set>,
    _folder: Staging,
}

/// One matrix.
#[derive(Debug)]
struct Set {
    shape: Shape,
    /// The pieces of each bucket, in the order in which the source was read.
    buckets: Vec<Vec<Piece>>,
    file: Arc<LocalFile>,
}

/// What a piece's bytes are.
#[derive(Debug, Clone, Copy)]
struct Shape {
    value_type: ValueType,
    n_vars: u64,
    by_columns: bool,
}

/// Bytes of a file. By rows: the rows' lengths, their indices, their values. By columns: the places of
/// cells in the bucket, the genes, the values. Each of the three begins at a multiple of eight.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    n_rows: u64,
    nnz: u64,
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(8)
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Shape {
    fn of(store: &Store, part: &Part) -> Result<Self> {
        let found = store.schema().find(&part.key);
        let found = found.ok_or_else(|| Error::internal("the matrix is not there"))?;
        let by_columns = part.transposed.is_some();
        // Rows are set aside with the genes that were asked for; non-zeros are by their whole column.
        let n_vars = if by_columns { found.n_vars() } else { part.n_vars(found.n_vars()) };
        Ok(Self { value_type: found.value_type, n_vars, by_columns })
    }

    fn index(self) -> u64 {
        if self.by_columns || self.n_vars > 1 << 16 { 4 } else { 2 }
    }

    fn value(self) -> u64 {
        wide(self.value_type.size())
    }

    /// Lengths of the three parts of a piece.
    fn lengths(self, piece: &Piece) -> [u64; 3] {
        let first = if self.by_columns { piece.nnz } else { piece.n_rows };
        [padded(first * 4), padded(piece.nnz * self.index()), padded(piece.nnz * self.value())]
    }

    /// Bytes that a bucket of these non-zeros holds while it is put in order.
    fn held(self, n_rows: u64, nnz: u64) -> u64 {
        let first = if self.by_columns { nnz * 4 } else { n_rows * 4 };
        let made = nnz * (4 + self.value()) + n_rows * 16;
        (first + nnz * (self.index() + self.value())).saturating_add(made)
    }
}

type WritePart<'a> = &'a dyn Fn(&mut BufWriter<File>) -> std::io::Result<()>;

/// A file that pieces are appended to.
#[derive(Debug)]
struct SetWriter {
    path: PathBuf,
    shape: Shape,
    file: BufWriter<File>,
    end: u64,
    buckets: Vec<Vec<Piece>>,
}

impl SetWriter {
    fn create(folder: &Path, number: usize, shape: Shape, n_buckets: usize) -> Result<Self> {
        let path = folder.join(format!("rows-{number}"));
        let file = File::create(&path)
            .map_err(|e| Error::io("cannot create", e).with("file", path.display()))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path, shape, file, end: 0, buckets: vec![Vec::new(); n_buckets] })
    }

    /// Appends a piece; its three parts write themselves.
    fn put(
        &mut self,
        bucket: usize,
        n_rows: usize,
        nnz: usize,
        parts: [WritePart<'_>; 3],
    ) -> Result<()> {
        let piece = Piece { offset: self.end, n_rows: wide(n_rows), nnz: wide(nnz) };
        let first = if self.shape.by_columns { piece.nnz } else { piece.n_rows };
        let exact = [first * 4, piece.nnz * self.shape.index(), piece.nnz * self.shape.value()];
        for (part, bytes) in parts.into_iter().zip(exact) {
            let padding = at(padded(bytes) - bytes);
            part(&mut self.file)
                .and_then(|()| self.file.write_all(&[0; 8][..padding]))
                .map_err(|e| Error::io("cannot write", e).with("file", self.path.display()))?;
            self.end += padded(bytes);
        }
        let pieces = self.buckets.get_mut(bucket);
        pieces.ok_or_else(|| Error::internal("a row has no bucket"))?.push(piece);
        Ok(())
    }

    fn finish(mut self, store: &Store) -> Result<Set> {
        let flushed = self.file.flush();
        flushed.map_err(|e| Error::io("cannot write", e).with("file", self.path.display()))?;
        let file = Arc::new(LocalFile::open(&self.path, Arc::clone(store.engine()))?);
        Ok(Set { shape: self.shape, buckets: self.buckets, file })
    }

    /// Appends rows to their buckets. `numbers` are the rows' buckets.
    fn put_rows(&mut self, rows: &CsrRows, numbers: &[u32]) -> Result<()> {
        let spans: Vec<(&CsrSegment, Range<usize>)> = rows.spans().collect();
        if spans.len() != numbers.len() {
            return Err(Error::internal("the rows are not those that were asked for"));
        }
        // Stable: rows of a bucket stay in file order.
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by_key(|&i| numbers[i]);
        for group in order.chunk_by(|&a, &b| numbers[a] == numbers[b]) {
            let bucket = group.first().map_or(0, |&i| at(numbers[i].into()));
            let nnz = group.iter().map(|&i| spans[i].1.len()).sum();
            let narrow = self.shape.index() == 2;
            let value = self.shape.value();
            let lengths = |f: &mut BufWriter<File>| {
                group.iter().try_for_each(|&i| {
                    let len = u32::try_from(spans[i].1.len()).unwrap_or(u32::MAX);
                    f.write_all(&len.to_ne_bytes())
                })
            };
            let indices = |f: &mut BufWriter<File>| {
                let mut row = Vec::new();
                group.iter().try_for_each(|&i| {
                    let (segment, span) = &spans[i];
                    row.clear();
                    write_indices(&mut row, segment.indices(), span.clone(), narrow);
                    f.write_all(&row)
                })
            };
            let values = |f: &mut BufWriter<File>| {
                group.iter().try_for_each(|&i| {
                    let (segment, span) = &spans[i];
                    let bytes = segment.values().as_bytes();
                    f.write_all(&bytes[span.start * at(value)..span.end * at(value)])
                })
            };
            self.put(bucket, group.len(), nnz, [&lengths, &indices, &values])?;
        }
        Ok(())
    }

    /// Appends the non-zeros of columns, from `first` on, to the buckets of their cells.
    fn put_columns(&mut self, first: u64, part: &CsrRows, cells: &Cells) -> Result<()> {
        let size = self.shape.value();
        let mut groups: Vec<[Vec<u8>; 3]> = vec![Default::default(); self.buckets.len()];
        for (gene, segment, span) in crate::transpose::columns(first, part) {
            let gene = u32::try_from(gene).unwrap_or(u32::MAX).to_ne_bytes();
            let bytes = segment.values().as_bytes();
            for i in span {
                let cell = crate::transpose::index_at(segment.indices(), i);
                let (Some(&bucket), Some(place)) =
                    (cells.buckets.get(cell), cells.places.get(cell))
                else {
                    return Err(Error::internal("a cell that is not there"));
                };
                let group = groups.get_mut(at(bucket.into()));
                let group = group.ok_or_else(|| Error::internal("a cell has no bucket"))?;
                group[0].extend_from_slice(&place.to_ne_bytes());
                group[1].extend_from_slice(&gene);
                group[2].extend_from_slice(&bytes[i * at(size)..(i + 1) * at(size)]);
            }
        }
        for (bucket, group) in groups.iter().enumerate().filter(|(_, g)| !g[0].is_empty()) {
            let [places, genes, values] =
                [0, 1, 2].map(|k: usize| move |f: &mut BufWriter<File>| f.write_all(&group[k]));
            self.put(bucket, 0, group[0].len() / 4, [&places, &genes, &values])?;
        }
        Ok(())
    }
}

fn write_indices(row: &mut Vec<u8>, indices: &Indices, span: Range<usize>, narrow: bool) {
    match (indices, narrow) {
        (Indices::U16(b), true) => b[span].iter().for_each(|i| row.extend(i.to_ne_bytes())),
        (Indices::U16(b), false) => {
            b[span].iter().for_each(|&i| row.extend(u32::from(i).to_ne_bytes()));
        }
        (Indices::U32(b), true) => b[span]
            .iter()
            .for_each(|&i| row.extend(u16::try_from(i).unwrap_or(u16::MAX).to_ne_bytes())),
        (Indices::U32(b), false) => b[span].iter().for_each(|i| row.extend(i.to_ne_bytes())),
        _ => {}
    }
}

/// The bucket of each cell, and its place among the bucket's cells in file order.
#[derive(Debug)]
struct Cells {
    buckets: Vec<u32>,
    places: Vec<u32>,
}

impl Cells {
    fn new(order: &Order, starts: &[u64], with_places: bool) -> Result<Self> {
        let n_obs = at(order.n_obs());
        let mut this =
            Self { buckets: vec![0; n_obs], places: vec![0; if with_places { n_obs } else { 0 }] };
        for (bucket, w) in starts.windows(2).enumerate() {
            let rows = order.rows(w[0], w[1] - w[0])?.rows;
            for (place, row) in rows.iter_rows().enumerate() {
                this.buckets[at(row)] = u32::try_from(bucket).unwrap_or(u32::MAX);
                if with_places {
                    this.places[at(row)] = u32::try_from(place).unwrap_or(u32::MAX);
                }
            }
        }
        Ok(this)
    }
}

impl Spill {
    /// Reads the whole source, once, and sets its rows aside beside `destination`.
    pub(super) async fn fill(
        store: &Store,
        parts: &[Part],
        order: &Order,
        destination: &Path,
        memory: u64,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Self> {
        let shapes: Vec<Shape> =
            parts.iter().map(|p| Shape::of(store, p)).collect::<Result<_>>()?;
        let starts = cut(store, parts, &shapes, order, memory)?;
        let cells = Cells::new(order, &starts, shapes.iter().any(|s| s.by_columns))?;
        let cells = Arc::new(cells);
        let folder = Staging::scratch(destination)?;
        let mut matrices = Vec::with_capacity(parts.len());
        let share = |done: u64, number: usize| {
            let all = order.n_obs().saturating_mul(wide(number)) + done;
            all / wide(parts.len()).max(1)
        };
        for (number, (part, shape)) in parts.iter().zip(shapes).enumerate() {
            let mut writer = SetWriter::create(folder.path(), number, shape, starts.len() - 1)?;
            let mut told = |done| progress(share(done, number));
            if let Some(transposed) = &part.transposed {
                let n_vars = shape.n_vars.max(1);
                transposed
                    .each_part(store, &mut |first, columns| {
                        writer.put_columns(first, columns, &cells)?;
                        let done = u128::from(first) * u128::from(order.n_obs());
                        let done = u64::try_from(done / u128::from(n_vars)).unwrap_or(0);
                        if told(done) { Ok(()) } else { Err(Error::cancelled()) }
                    })
                    .await?;
            } else {
                writer = set_aside(store, part, writer, &cells, memory, &mut told).await?;
            }
            matrices.push(writer.finish(store)?);
        }
        Ok(Self { starts, matrices, _folder: folder })
    }

    /// The rows of the bucket that begins at `start`.
    pub(super) fn batch(&self, order: &Order, start: u64) -> Result<BatchRows> {
        let bucket = self.bucket(start)?;
        order.rows(start, self.starts[bucket + 1] - start)
    }

    fn bucket(&self, start: u64) -> Result<usize> {
        let found = self.starts.binary_search(&start).ok().filter(|b| b + 1 < self.starts.len());
        found.ok_or_else(|| Error::internal("no bucket begins there"))
    }

    /// The rows of a bucket, in file order, of one matrix.
    pub(super) async fn read(
        &self,
        number: usize,
        part: &Part,
        start: u64,
        rows: &RowRanges,
    ) -> Result<CsrRows> {
        let set = self
            .matrices
            .get(number)
            .ok_or_else(|| Error::internal("a matrix is not set aside"))?;
        let pieces = set.buckets[self.bucket(start)?].clone();
        let length = |p: &Piece| set.shape.lengths(p).iter().sum::<u64>();
        let ranges = pieces.iter().map(|p| p.offset..p.offset + length(p)).collect();
        let bytes = set.file.get_ranges(ranges).await?;
        let mut from = 0;
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let sections = set.shape.lengths(piece).map(|length| {
                from += at(length);
                bytes.slice(from - at(length)..from)
            });
            parts.push((*piece, sections));
        }
        if let Some(transposed) = &part.transposed {
            return part.select(transposed.rows_of(rows, parts.iter().map(|(p, s)| (p.nnz, s)))?);
        }
        let segments =
            parts.into_iter().map(|(piece, sections)| segment(set.shape, &piece, sections));
        Ok(CsrRows::new(segments.collect::<Result<_>>()?))
    }
}

fn segment(
    shape: Shape,
    piece: &Piece,
    [lengths, indices, values]: [bytes::Bytes; 3],
) -> Result<CsrSegment> {
    let mut indptr = Vec::with_capacity(at(piece.n_rows) + 1);
    let mut end = 0u64;
    indptr.push(end);
    for length in typed::<u32>(lengths)?.iter().take(at(piece.n_rows)) {
        end += u64::from(*length);
        indptr.push(end);
    }
    let exact = |bytes: bytes::Bytes, size: u64| bytes.slice(..at(piece.nnz * size));
    let indices = exact(indices, shape.index());
    let indices = if shape.index() == 2 {
        Indices::U16(typed(indices)?)
    } else {
        Indices::U32(typed(indices)?)
    };
    let values = Values::from_bytes(shape.value_type, exact(values, shape.value()))?;
    CsrSegment::try_new(indptr.into(), indices, values, shape.n_vars)
}

/// Where buckets begin: each fits half of the memory.
fn cut(
    store: &Store,
    parts: &[Part],
    shapes: &[Shape],
    order: &Order,
    memory: u64,
) -> Result<Vec<u64>> {
    let n_obs = order.n_obs();
    // Of a matrix by rows the mean, and a quarter more: shuffled rows are alike.
    let mean = |part: &Part, shape: &Shape| -> Result<f64> {
        let found = store.schema().find(&part.key);
        let nnz = match found.and_then(|m| m.nnz) {
            Some(nnz) => nnz,
            None => {
                let whole = store.backend().cost(&part.key, &RowRanges::single(0..n_obs))?;
                whole.bytes_kept / (2 + shape.value())
            }
        };
        Ok(nnz as f64 / n_obs.max(1) as f64)
    };
    let means = parts.iter().zip(shapes).map(|(p, s)| mean(p, s)).collect::<Result<Vec<_>>>()?;
    let held = |batch: &BatchRows| -> Result<u64> {
        let n = batch.rows.n_rows();
        let mut held = n.saturating_mul(CELL_BYTES);
        for ((part, shape), mean) in parts.iter().zip(shapes).zip(&means) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let nnz = match &part.transposed {
                Some(transposed) => transposed.non_zeros(&batch.rows),
                None => (n as f64 * mean * 1.25) as u64,
            };
            held = held.saturating_add(shape.held(n, nnz));
        }
        Ok(held)
    };
    let mut starts = vec![0];
    let mut most = n_obs;
    while let Some(&start) = starts.last().filter(|s| **s < n_obs) {
        let n = fit(order, start, most.min(n_obs - start), memory / 2, held)?.rows.n_rows();
        most = n.saturating_add(n / 4);
        starts.push(start + n);
    }
    Ok(starts)
}

/// Reads a matrix by rows from end to end, the next rows while the last are set aside.
async fn set_aside(
    store: &Store,
    part: &Part,
    mut writer: SetWriter,
    cells: &Arc<Cells>,
    memory: u64,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<SetWriter> {
    let n_obs = store.n_obs();
    let straight = Order::new(n_obs, None)?;
    let next = |start: u64| {
        let held = |batch: &BatchRows| part.held(store, &batch.rows, false);
        let rows = fit(&straight, start, super::batch::MOST_ROWS, memory / 2, held);
        async move {
            let rows = rows?.rows;
            let found = part.read(store, &rows).await?;
            Ok::<_, Error>((rows.end(), found))
        }
    };
    let mut start = 0;
    let mut ahead = Some(next(0).await?);
    while let Some((end, rows)) = ahead.take() {
        let cells = Arc::clone(cells);
        let write = store.engine().compute(move || {
            writer.put_rows(&rows, &cells.buckets[at(start)..at(end)])?;
            Ok(writer)
        });
        let read = async { if end < n_obs { next(end).await.map(Some) } else { Ok(None) } };
        // Both to their end, as in conversion: what is set aside goes with its writer.
        let (returned, following) = futures::join!(write, read);
        (writer, ahead) = (returned?, following?);
        start = end;
        if !progress(end) {
            return Err(Error::cancelled());
        }
    }
    Ok(writer)
}
