//! Rows as a store has them: gene indices that nobody has looked at, rows that are still encoded. They
//! become canonical one by one, where they are copied, or all at once.

use super::check::ascends;
use super::row::{Genes, Row, RowBuffer};
use super::{CsrRows, CsrSegment, RowCheck};
use crate::io::{Engine, MappedFile, prefetch};
use crate::rows::RowRanges;
use crate::value::{Indices, Values};
use crate::{Error, Result};
use arrow_buffer::ScalarBuffer;
use rayon::prelude::*;
use std::fmt;
use std::sync::Arc;

/// Rows that a store encodes each by itself. Whoever copies a row decodes it then, while the processor's
/// cache holds it: a decoded fetch would have to go to memory and come back.
pub trait EncodedRows: Send + Sync + fmt::Debug {
    /// Offsets of the decoded rows: one more than there are rows, starting at 0, never falling.
    fn indptr(&self) -> &[u64];

    /// The bytes of a row, of which the processor is told before they are needed.
    fn encoded(&self, row: usize) -> &[u8];

    /// Decodes a row in canonical form, into [`places`](RowBuffer::places) for as many non-zeros as
    /// `indptr` says.
    ///
    /// # Errors
    /// Of kind `Corrupt`, naming file, element and row, if its bytes are.
    fn decode(&self, row: usize, into: &mut RowBuffer) -> Result<()>;

    /// Decodes all rows, in parallel on the rayon threads of the caller.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), of the first row that is not sound.
    fn decode_all(&self) -> Result<CsrSegment>;

    /// Bytes of memory that they hold, but for what they share with a map.
    fn n_bytes(&self) -> usize;
}

/// Consecutive rows of a [`StoredRows`].
#[derive(Debug, Clone)]
pub struct StoredSegment {
    form: Form,
    /// Rows of other stores that are numbered before those of its own, where several are one.
    before: u64,
}

#[derive(Debug, Clone)]
enum Form {
    Canonical(CsrSegment),
    /// The one place where the indices of a segment may be anything.
    Unchecked(CsrSegment, Arc<RowCheck>),
    Encoded(Arc<dyn EncodedRows>),
}

impl From<CsrSegment> for StoredSegment {
    fn from(segment: CsrSegment) -> Self {
        Self { form: Form::Canonical(segment), before: 0 }
    }
}

impl StoredSegment {
    /// Rows whose gene indices are left to whoever copies them, or to [`StoredRows::canonical`].
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) if the arrays disagree in length, or `indptr`
    /// falls.
    pub fn unchecked(
        indptr: ScalarBuffer<u64>,
        indices: Indices,
        values: Values,
        check: &Arc<RowCheck>,
    ) -> Result<Self> {
        let segment = CsrSegment::shaped(indptr, indices, values)?;
        Ok(Self { form: Form::Unchecked(segment, Arc::clone(check)), before: 0 })
    }

    /// Rows that are still encoded.
    #[must_use]
    pub fn encoded(rows: Arc<dyn EncodedRows>) -> Self {
        Self { form: Form::Encoded(rows), before: 0 }
    }

    fn indptr(&self) -> &[u64] {
        match &self.form {
            Form::Canonical(csr) | Form::Unchecked(csr, _) => &csr.indptr,
            Form::Encoded(rows) => rows.indptr(),
        }
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.indptr().len().saturating_sub(1)
    }

    fn nnz(&self) -> usize {
        usize::try_from(self.indptr().last().copied().unwrap_or(0)).unwrap_or(usize::MAX)
    }

    fn n_bytes(&self) -> usize {
        match &self.form {
            Form::Canonical(csr) | Form::Unchecked(csr, _) => csr.n_bytes(),
            Form::Encoded(rows) => rows.n_bytes(),
        }
    }

    /// Where each row lies, in terms of [`row`](Self::row), and how many non-zeros it has.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, u64)> {
        let by_number = matches!(self.form, Form::Encoded(_));
        let rows = self.indptr().windows(2).zip(0u64..);
        rows.map(move |(w, number)| (if by_number { number } else { w[0] }, w[1] - w[0]))
    }

    /// The row at a place, in canonical form: here, or in the buffer. `number` is its number in the
    /// store.
    ///
    /// # Errors
    /// As [`StoredRows::canonical`], for this row.
    #[inline]
    pub(crate) fn row<'a>(
        &'a self,
        place: usize,
        len: usize,
        number: u64,
        buffer: &'a mut RowBuffer,
    ) -> Result<Row<'a>> {
        let span = place..place + len;
        match &self.form {
            Form::Canonical(csr) => Ok(csr.row(span)),
            Form::Unchecked(csr, check) => {
                let row = csr.row(span);
                let fine = match row.genes {
                    Genes::U16(genes) => ascends(genes, check.n_vars),
                    Genes::U32(genes) => ascends(genes, check.n_vars),
                };
                if fine {
                    return Ok(row);
                }
                let alone = CsrSegment {
                    indptr: vec![0, crate::as_u64(len)].into(),
                    indices: csr.indices.slice(place, len),
                    values: csr.values.slice(place, len),
                };
                let number = RowRanges::single(number..number.saturating_add(1));
                let alone = canonical(alone, check, &number, 0, self.before)?;
                buffer.fill(alone.row(0..len));
                Ok(buffer.row())
            }
            Form::Encoded(rows) => {
                rows.decode(place, buffer)?;
                let row = buffer.row();
                if row.len() != len {
                    return Err(Error::internal(format!(
                        "a row of {len} non-zeros was decoded to {}; please report this",
                        row.len()
                    )));
                }
                Ok(row)
            }
        }
    }

    /// Tells the processor that the row at a place comes next.
    #[inline]
    pub(crate) fn prefetch(&self, place: usize, len: usize) {
        match &self.form {
            Form::Canonical(csr) | Form::Unchecked(csr, _) => {
                let row = csr.row(place..place + len);
                prefetch(row.bytes);
                match row.genes {
                    Genes::U16(genes) => prefetch(bytemuck::cast_slice(genes)),
                    Genes::U32(genes) => prefetch(bytemuck::cast_slice(genes)),
                }
            }
            Form::Encoded(rows) => prefetch(rows.encoded(place)),
        }
    }

    /// `rows` are the rows of which these follow the first `skipped`.
    fn canonical(self, rows: &RowRanges, skipped: usize) -> Result<CsrSegment> {
        match self.form {
            Form::Canonical(csr) => Ok(csr),
            Form::Unchecked(csr, check) => canonical(csr, &check, rows, skipped, self.before),
            Form::Encoded(encoded) => encoded.decode_all(),
        }
    }
}

/// What a check makes of rows that follow the first `skipped` of `rows`.
fn canonical(
    csr: CsrSegment,
    check: &RowCheck,
    rows: &RowRanges,
    skipped: usize,
    before: u64,
) -> Result<CsrSegment> {
    let checked = match csr.check_indices(check.n_vars) {
        Err(_) if check.sorting => {
            let CsrSegment { indptr, indices, values } = csr;
            CsrSegment::try_new_sorting(indptr, &indices, &values, check.n_vars)
        }
        done => done.map(|()| csr),
    };
    checked.map_err(|e| check.blame(rows.name_row_after(skipped, before, e)))
}

/// Rows as a store has them, in the order of the rows asked for.
#[derive(Debug, Clone, Default)]
pub struct StoredRows {
    segments: Vec<StoredSegment>,
    /// What the segments are views of.
    maps: Vec<MappedFile>,
}

impl From<CsrRows> for StoredRows {
    fn from(rows: CsrRows) -> Self {
        Self::new(rows.segments.into_iter().map(StoredSegment::from).collect())
    }
}

impl StoredRows {
    /// Joins segments in the order of the rows asked for.
    #[must_use]
    pub fn new(segments: Vec<StoredSegment>) -> Self {
        Self { segments, maps: Vec::new() }
    }

    /// Says that the rows are views of maps, or are decoded out of them: that whoever copies them has to
    /// see to it that they are still what was read.
    #[must_use]
    pub fn within(mut self, maps: impl IntoIterator<Item = MappedFile>) -> Self {
        self.maps.extend(maps);
        self
    }

    /// Answers end to end.
    #[must_use]
    pub fn join(answers: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for rows in answers {
            all.segments.extend(rows.segments);
            all.maps.extend(rows.maps);
        }
        all
    }

    /// Runs work that copies rows, on this thread alone, and refuses what it has copied if a file that
    /// they are views of was changed meanwhile, or could not be read.
    pub(crate) fn copying<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = MappedFile::reading(&self.maps, work);
        // What looks wrong may look so because it was changed.
        self.maps.iter().try_for_each(MappedFile::check)?;
        done
    }

    /// In canonical form: what [`Backend::read_rows`](crate::Backend::read_rows) answers. `rows` are the
    /// rows that these are. In parallel, on the rayon threads of the caller.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming file, element and row, if indices do not
    /// strictly ascend below the number of genes, or a row cannot be decoded.
    pub fn canonical(self, rows: &RowRanges) -> Result<CsrRows> {
        let mut first = 0;
        let mut skipped = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            skipped.push(first);
            first += segment.n_rows();
        }
        let Self { segments, maps } = self;
        let segments = segments.into_par_iter().zip(skipped).map(|(segment, skipped)| {
            MappedFile::reading(&maps, || segment.canonical(rows, skipped))
        });
        Ok(CsrRows::new(segments.collect::<Result<_>>()?))
    }

    /// As [`canonical`](Self::canonical), on the threads of an engine, unless nothing is to be done.
    ///
    /// # Errors
    /// As `canonical`.
    pub async fn canonical_on(self, engine: &Engine, rows: &RowRanges) -> Result<CsrRows> {
        match self.canonical_already() {
            Ok(done) => Ok(done),
            Err(this) => {
                let rows = rows.clone();
                engine.compute(move || this.canonical(&rows)).await
            }
        }
    }

    /// The rows as they are, if nothing is to be done.
    fn canonical_already(self) -> std::result::Result<CsrRows, Self> {
        if !self.segments.iter().all(|s| matches!(s.form, Form::Canonical(_))) {
            return Err(self);
        }
        let done = self.segments.into_iter().filter_map(|s| match s.form {
            Form::Canonical(csr) => Some(csr),
            _ => None,
        });
        Ok(CsrRows::new(done.collect()))
    }

    /// The rows at `order`, positions among these rows that may repeat, each made canonical when it is
    /// copied, into one segment: as the loader copies them into minibatches.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfBounds`](crate::ErrorKind::OutOfBounds) for a position past the end,
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if the segments' values differ in type; as
    /// [`canonical`](Self::canonical), with positions for row numbers; as [`MappedFile::check`].
    pub fn gather(&self, order: &[u32]) -> Result<CsrRows> {
        self.copying(|| self.gathered(order))
    }

    fn gathered(&self, order: &[u32]) -> Result<CsrRows> {
        let places = self.segments.iter().flat_map(|s| s.places().map(move |place| (s, place)));
        let places: Vec<_> = places.collect();
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut buffer = RowBuffer::default();
        let (mut indptr, mut indices, mut bytes) = (vec![0u64], Vec::new(), Vec::new());
        let mut value_type = None;
        for &position in order {
            let found = usize::try_from(position).ok().and_then(|p| places.get(p));
            let &(segment, (place, len)) = found.ok_or_else(|| {
                Error::out_of_bounds(format!("row {position} of {} rows", places.len()))
            })?;
            let row = segment.row(at(place), at(len), position.into(), &mut buffer)?;
            if *value_type.get_or_insert(row.value_type) != row.value_type {
                return Err(Error::internal("segments of different types cannot be gathered"));
            }
            match row.genes {
                Genes::U16(genes) => indices.extend(genes.iter().map(|&g| u32::from(g))),
                Genes::U32(genes) => indices.extend_from_slice(genes),
            }
            bytes.extend_from_slice(row.bytes);
            indptr.push(crate::as_u64(indices.len()));
        }
        let Some(value_type) = value_type else { return Ok(CsrRows::default()) };
        let values = Values::from_bytes(value_type, bytes.into())?;
        // The rows are canonical now.
        let all = CsrSegment::try_new(indptr.into(), indices.into(), values, u64::MAX)?;
        Ok(CsrRows::new(vec![all]))
    }

    /// The same rows where they are numbered after `rows` of other stores: an error in one of them names
    /// its number in its own store, beside its file.
    pub(crate) fn numbered_after(mut self, rows: u64) -> Self {
        self.segments.iter_mut().for_each(|segment| segment.before += rows);
        self
    }

    /// The segments.
    pub(crate) fn segments(&self) -> &[StoredSegment] {
        &self.segments
    }

    /// How many rows in all.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.segments.iter().map(StoredSegment::n_rows).sum()
    }

    /// How many non-zeros in all, once they are decoded.
    #[must_use]
    pub fn nnz(&self) -> usize {
        self.segments.iter().map(StoredSegment::nnz).sum()
    }

    /// Bytes that the segments refer to; of encoded ones, those that they hold.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.segments.iter().map(StoredSegment::n_bytes).sum()
    }
}
