//! From stored bytes to `String`s.

use std::ops::Range;

use cellfeed_core::{Error, ErrorKind, Result};

/// Collects the strings of some rows under a limit, naming the row of a bad one.
#[derive(Debug)]
pub(crate) struct StringRows {
    strings: Vec<String>,
    first_row: u64,
    per_row: u64,
    left: u64,
    limit: u64,
}

impl StringRows {
    /// `per_row` strings for each of `rows`, together at most `limit` bytes.
    pub(crate) fn new(rows: &Range<u64>, per_row: u64, limit: u64) -> Result<Self> {
        let count = rows.end.saturating_sub(rows.start).saturating_mul(per_row);
        // A `String` itself takes 24 bytes.
        let Some(left) = limit.checked_sub(count.saturating_mul(24)) else {
            return Err(over(limit));
        };
        Ok(Self {
            strings: Vec::new(),
            first_row: rows.start,
            per_row: per_row.max(1),
            left,
            limit,
        })
    }

    /// Adds a string that ends at its first NUL, if it has one.
    pub(crate) fn push_terminated(&mut self, bytes: &[u8]) -> Result<()> {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        self.push(bytes.get(..end).unwrap_or_default())
    }

    /// Adds a string of fixed length, padded with NULs, or with spaces if `spaces`.
    pub(crate) fn push_padded(&mut self, bytes: &[u8], spaces: bool) -> Result<()> {
        let pad = |b: &u8| *b == 0 || (spaces && *b == b' ');
        let end = bytes.iter().rposition(|b| !pad(b)).map_or(0, |last| last + 1);
        self.push(bytes.get(..end).unwrap_or_default())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let row = || {
            let done = u64::try_from(self.strings.len()).unwrap_or(u64::MAX);
            self.first_row.saturating_add(done / self.per_row)
        };
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let Some(left) = self.left.checked_sub(len) else { return Err(over(self.limit)) };
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let shown = bytes.get(..bytes.len().min(64)).unwrap_or_default();
            Error::corrupt(format!("a string is not UTF-8: {}", String::from_utf8_lossy(shown)))
                .with("row", row())
                .caused_by(e)
        })?;
        self.strings.push(text.to_owned());
        self.left = left;
        Ok(())
    }

    /// The strings.
    pub(crate) fn finish(self) -> Vec<String> {
        self.strings
    }
}

/// The error for more than may be read in one call.
pub(crate) fn over(limit: u64) -> Error {
    Error::new(
        ErrorKind::OverBudget,
        format!("more than {limit} bytes in one read; read fewer rows at a time"),
    )
}

/// The rows asked for, checked against those there are.
pub(crate) fn check_rows(rows: &Range<u64>, have: u64) -> Result<()> {
    if rows.start > rows.end || rows.end > have {
        return Err(Error::out_of_bounds(format!(
            "rows {}..{} of a dataset of {have} rows",
            rows.start, rows.end
        )));
    }
    Ok(())
}
