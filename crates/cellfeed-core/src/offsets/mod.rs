//! Row offsets of a CSR matrix: kept in two to four bytes a row, or looked up in the file that has them.

mod viewed;

use crate::io::{ByteSource, Engine};
use crate::rows::RowRanges;
use crate::{Error, Result, as_u64};
use std::ops::Range;
use std::sync::Arc;
use viewed::Viewed;

/// Rows between two stored offsets.
const STRIDE: usize = 64;

/// The `indptr` of a whole matrix, in one of two forms that answer the same:
///
/// - **kept**, by [`builder`](Self::builder): two to four bytes a row of memory, for 10^8 rows 0.2 GB
///   instead of 0.8. All of it is read and checked when the store is opened. Looking an offset up adds
///   at most 63 row lengths to a stored one.
/// - **viewed**, by [`viewed`](Self::viewed): the file as it lies, 8 bytes a row, mapped. Nothing is
///   read but what is asked for, so that time and memory of opening are the same for any number of
///   rows; what is looked up is checked then, and an error of kind `Corrupt` names row and file.
///
/// Offsets count elements, not bytes. A read begins with [`element_ranges`](Self::element_ranges) or
/// [`find`](Self::find), which refuse a file that was changed; after it has waited for something,
/// [`check`](Self::check) looks again.
///
/// ```
/// use cellfeed_core::{RowOffsets, RowRanges};
///
/// let mut offsets = RowOffsets::builder();
/// offsets.extend([0, 2])?;
/// offsets.extend([2, 5])?;
/// let offsets = offsets.finish();
/// assert_eq!((offsets.n_rows(), offsets.nnz()), (3, 5));
/// assert_eq!(offsets.element_ranges(&RowRanges::single(0..3))?, [0..5]);
/// # Ok::<(), cellfeed_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RowOffsets(Form);

#[derive(Debug, Clone)]
enum Form {
    Kept(Kept),
    Viewed(Arc<Viewed>),
}

#[derive(Debug, Clone)]
struct Kept {
    stored: Vec<u64>,
    lengths: Lengths,
    nnz: u64,
}

#[derive(Debug, Clone)]
enum Lengths {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Lengths {
    fn len(&self) -> usize {
        match self {
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
        }
    }

    fn sum(&self, rows: Range<usize>) -> u64 {
        match self {
            Self::U16(v) => v[rows].iter().map(|&l| u64::from(l)).sum(),
            Self::U32(v) => v[rows].iter().map(|&l| u64::from(l)).sum(),
        }
    }

    fn push(&mut self, length: u32) {
        match (&mut *self, u16::try_from(length)) {
            (Self::U16(v), Ok(short)) => v.push(short),
            (Self::U16(v), Err(_)) => {
                let mut wide: Vec<u32> = v.iter().map(|&l| u32::from(l)).collect();
                wide.push(length);
                *self = Self::U32(wide);
            }
            (Self::U32(v), _) => v.push(length),
        }
    }
}

/// Rows that are not there.
fn outside(rows: &Range<u64>, n_rows: u64) -> Error {
    Error::out_of_bounds(format!(
        "rows {}..{} were asked for, but there are offsets of {n_rows}",
        rows.start, rows.end
    ))
}

impl Kept {
    fn n_rows(&self) -> u64 {
        as_u64(self.lengths.len())
    }

    fn span(&self, rows: &Range<u64>) -> Result<Range<usize>> {
        let bounds = usize::try_from(rows.start).ok().zip(usize::try_from(rows.end).ok());
        match bounds {
            Some((start, end)) if start <= end && end <= self.lengths.len() => Ok(start..end),
            _ => Err(outside(rows, self.n_rows())),
        }
    }

    fn start(&self, row: usize) -> u64 {
        match self.stored.get(row / STRIDE) {
            Some(base) if row < self.lengths.len() => {
                base + self.lengths.sum(row / STRIDE * STRIDE..row)
            }
            _ => self.nnz,
        }
    }
}

impl RowOffsets {
    /// Starts the kept form from nothing; feed it `indptr` in parts.
    #[must_use]
    pub fn builder() -> RowOffsetsBuilder {
        let lengths = Lengths::U16(Vec::new());
        RowOffsetsBuilder { offsets: Kept { stored: Vec::new(), lengths, nnz: 0 }, last: None }
    }

    /// The viewed form: a file of nothing but entries, little-endian numbers of 64 bits, one more than
    /// there are rows. None where the form cannot be had, so that the file is to be read whole: it is
    /// not of this machine, or not mapped, or this machine's numbers are big-endian. `longest` is how
    /// many values a row can have, as the number of genes; below 2^32 in any case.
    ///
    /// Looks at the first entry, the last, and some hundreds between. Blocks meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the file, if its length is not that of
    /// entries, the first is not 0, or those looked at fall or leave too many values between them;
    /// `Changed` if the file was written to since it was opened.
    pub fn viewed(file: &Arc<dyn ByteSource>, longest: u64) -> Result<Option<Self>> {
        let viewed = Viewed::open(file, longest)?;
        Ok(viewed.map(|v| Self(Form::Viewed(Arc::new(v)))))
    }

    /// How many rows.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        match &self.0 {
            Form::Kept(kept) => kept.n_rows(),
            Form::Viewed(viewed) => viewed.n_rows(),
        }
    }

    /// How many stored values.
    #[must_use]
    pub fn nnz(&self) -> u64 {
        match &self.0 {
            Form::Kept(kept) => kept.nnz,
            Form::Viewed(viewed) => viewed.nnz(),
        }
    }

    /// Refuses a file that was written to since it was opened, where there is one. Blocks for a moment.
    ///
    /// # Errors
    /// As [`MappedFile::check`](crate::io::MappedFile::check).
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Form::Kept(_) => Ok(()),
            Form::Viewed(viewed) => viewed.check(),
        }
    }

    /// Reads and checks every offset that was not checked when they were opened. Blocks.
    ///
    /// # Errors
    /// As [`relative`](Self::relative) of all rows; as reads of the file.
    pub fn check_all(&self) -> Result<()> {
        match &self.0 {
            Form::Kept(_) => Ok(()),
            Form::Viewed(viewed) => viewed.check_all(),
        }
    }

    /// The elements of consecutive rows. Does not look whether the file was changed.
    ///
    /// # Errors
    /// `OutOfBounds` for rows past `n_rows`. Of the viewed form `Corrupt`, naming row and file, if the
    /// two entries, or those next to them, fall, pass `nnz`, leave more values to the rows than they
    /// can have, or are not what the entries say that were looked at when the file was opened.
    pub fn elements(&self, rows: Range<u64>) -> Result<Range<u64>> {
        match &self.0 {
            Form::Kept(kept) => {
                kept.span(&rows).map(|span| kept.start(span.start)..kept.start(span.end))
            }
            Form::Viewed(viewed) => viewed.elements(&rows),
        }
    }

    /// The elements of rows, as ascending ranges; rows that touch give one range, empty ones none.
    ///
    /// # Errors
    /// As [`check`](Self::check) and [`elements`](Self::elements).
    pub fn element_ranges(&self, rows: &RowRanges) -> Result<Vec<Range<u64>>> {
        self.check()?;
        if let Form::Viewed(viewed) = &self.0 {
            return viewed.element_ranges(rows);
        }
        let found = rows.as_slice().iter().map(|r| self.elements(r.clone()));
        found.filter(|r| !r.as_ref().is_ok_and(Range::is_empty)).collect()
    }

    /// As [`element_ranges`](Self::element_ranges), for whoever must not wait: where offsets may have to
    /// come from the disk, it is told all of them, and they are looked up on the engine's I/O threads.
    ///
    /// # Errors
    /// As [`element_ranges`](Self::element_ranges) and [`Engine::blocking`].
    pub async fn find(&self, engine: &Engine, rows: &RowRanges) -> Result<Vec<Range<u64>>> {
        if let Form::Viewed(viewed) = &self.0 {
            viewed.file().will_need(Viewed::bytes_of(rows)).await;
            let (this, rows) = (self.clone(), rows.clone());
            return engine.blocking(move || this.element_ranges(&rows)).await;
        }
        self.element_ranges(rows)
    }

    /// The `indptr` of an answer that holds just these rows: starts at 0, one entry more than rows.
    /// Does not look whether the file was changed.
    ///
    /// # Errors
    /// As [`elements`](Self::elements), and the same of every row.
    pub fn relative(&self, rows: &RowRanges) -> Result<Vec<u64>> {
        // Before anything is sized by them.
        if let Some(last) = rows.as_slice().last()
            && last.end > self.n_rows()
        {
            return Err(outside(last, self.n_rows()));
        }
        let mut out = Vec::with_capacity(usize::try_from(rows.n_rows()).unwrap_or(0) + 1);
        let mut at = 0;
        out.push(at);
        for range in rows.as_slice() {
            match &self.0 {
                Form::Kept(kept) => {
                    let span = kept.span(range)?;
                    let mut add = |length: u64| {
                        at += length;
                        out.push(at);
                    };
                    match &kept.lengths {
                        Lengths::U16(v) => v[span].iter().for_each(|&l| add(l.into())),
                        Lengths::U32(v) => v[span].iter().for_each(|&l| add(l.into())),
                    }
                }
                Form::Viewed(viewed) => viewed.relative(range, &mut at, &mut out)?,
            }
        }
        Ok(out)
    }
}

/// Builds the kept form of [`RowOffsets`] from `indptr`, part by part, and checks it.
#[derive(Debug)]
pub struct RowOffsetsBuilder {
    offsets: Kept,
    last: Option<u64>,
}

impl RowOffsetsBuilder {
    /// Appends entries of `indptr`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), naming the row, if the first entry is not
    /// 0, or entries fall, or a row has 2^32 values or more.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = u64>) -> Result<()> {
        for entry in entries {
            let Some(last) = self.last.replace(entry) else {
                if entry != 0 {
                    return Err(Error::corrupt(format!("indptr starts at {entry} instead of 0")));
                }
                continue;
            };
            let rows = &mut self.offsets;
            let row = rows.lengths.len();
            let Some(length) = entry.checked_sub(last) else {
                return Err(
                    Error::corrupt(format!("indptr falls from {last} to {entry}")).with("row", row)
                );
            };
            let length = u32::try_from(length).map_err(|_| {
                Error::corrupt(format!("indptr gives a row {length} values")).with("row", row)
            })?;
            if row.is_multiple_of(STRIDE) {
                rows.stored.push(last);
            }
            rows.lengths.push(length);
            rows.nnz = entry;
        }
        Ok(())
    }

    /// Ends.
    #[must_use]
    pub fn finish(self) -> RowOffsets {
        RowOffsets(Form::Kept(self.offsets))
    }
}

#[cfg(test)]
mod tests;
