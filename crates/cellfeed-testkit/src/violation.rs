//! What a law's check reports: which law was broken, in which store, where, and how.

use cellfeed_core::{Error, ErrorKind};
use std::fmt;

/// The laws of [`Backend`](cellfeed_core::Backend), by the names of its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Law {
    Agreement,
    CanonicalCsr,
    Purity,
    Concurrency,
    Cancellation,
    Bounds,
    Distrust,
    NoBlocking,
}

impl Law {
    /// Every law, in order.
    pub const ALL: [Self; 8] = [
        Self::Agreement,
        Self::CanonicalCsr,
        Self::Purity,
        Self::Concurrency,
        Self::Cancellation,
        Self::Bounds,
        Self::Distrust,
        Self::NoBlocking,
    ];

    /// Its number and name, as in `law 1 (agreement)`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreement => "law 1 (agreement)",
            Self::CanonicalCsr => "law 2 (canonical CSR)",
            Self::Purity => "law 3 (purity)",
            Self::Concurrency => "law 4 (concurrency)",
            Self::Cancellation => "law 5 (cancellation)",
            Self::Bounds => "law 6 (bounds)",
            Self::Distrust => "law 7 (distrust)",
            Self::NoBlocking => "law 8 (no blocking)",
        }
    }
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A broken law: prints as `law 1 (agreement): small: X: row 3: expected ..., got ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    law: Law,
    subject: Option<String>,
    element: Option<String>,
    row: Option<u64>,
    what: String,
    error_kind: Option<ErrorKind>,
}

impl Violation {
    /// A violation; `what` says what was expected and what came.
    #[must_use]
    pub fn new(law: Law, what: impl Into<String>) -> Self {
        let what = shorten(&what.into(), 600);
        Self { law, subject: None, element: None, row: None, what, error_kind: None }
    }

    /// A violation because `doing` something was refused with an error.
    #[must_use]
    pub fn refused(law: Law, doing: impl fmt::Display, error: &Error) -> Self {
        let what = format!("{doing}: expected an answer, got an error ({}): {error}", {
            error.kind().as_str()
        });
        Self { error_kind: Some(error.kind()), ..Self::new(law, what) }
    }

    /// A violation because something else came than was expected.
    #[must_use]
    pub fn differs(law: Law, expected: impl fmt::Debug, got: impl fmt::Debug) -> Self {
        let short = |value: String| shorten(&value, 200);
        let (expected, got) = (short(format!("{expected:?}")), short(format!("{got:?}")));
        Self::new(law, format!("expected {expected}, got {got}"))
    }

    /// Names the matrix or column, unless one is named already.
    #[must_use]
    pub fn at(mut self, element: impl fmt::Display) -> Self {
        self.element.get_or_insert_with(|| element.to_string());
        self
    }

    /// Names the row of the store.
    #[must_use]
    pub fn row(mut self, row: u64) -> Self {
        self.row.get_or_insert(row);
        self
    }

    /// Names the store, unless it is named already.
    #[must_use]
    pub fn of(mut self, subject: &str) -> Self {
        self.subject.get_or_insert_with(|| subject.to_owned());
        self
    }

    /// Says before what went wrong under which circumstances it did.
    #[must_use]
    pub fn when(mut self, circumstances: impl fmt::Display) -> Self {
        self.what = format!("{circumstances}: {}", self.what);
        self
    }

    /// Says that another law was being checked when this came to light.
    #[must_use]
    pub fn under(mut self, law: Law) -> Self {
        self.law = law;
        self
    }

    /// Which law is broken.
    #[must_use]
    pub fn law(&self) -> Law {
        self.law
    }

    /// The kind of the error that came where an answer was expected, if that is what happened. A
    /// test of foreign files may so let `Unsupported` pass where the store is known to be beyond
    /// the backend.
    #[must_use]
    pub fn error_kind(&self) -> Option<ErrorKind> {
        self.error_kind
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.law)?;
        for part in [&self.subject, &self.element].into_iter().flatten() {
            write!(f, ": {part}")?;
        }
        if let Some(row) = self.row {
            write!(f, ": row {row}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Violation {}

/// Cuts a text that is too long to read in a test's output.
fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit).chain(" ...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_says_where_and_what() {
        let violation = Violation::differs(Law::Agreement, [(3, 1.0)], [(3, 2.0)])
            .at("layers/counts")
            .at("X")
            .row(17)
            .of("small");
        assert_eq!(
            violation.to_string(),
            "law 1 (agreement): small: layers/counts: row 17: expected [(3, 1.0)], got [(3, 2.0)]"
        );
        let long = Violation::differs(Law::Bounds, "x".repeat(9999), 1).to_string();
        assert!(long.len() < 300, "{long}");
    }
}
