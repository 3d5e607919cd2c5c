//! The one error of every Cellfeed crate: a kind to match on, a message to read, context that
//! says where. No dependency's error type is public; backends convert at their edge.

use std::fmt;

/// `Result` with Cellfeed's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in few enough kinds to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file, element, column or layer that does not exist.
    NotFound,
    /// Well-formed, but of an encoding, filter or type that Cellfeed does not read.
    Unsupported,
    /// The bytes contradict themselves or the format: truncated, damaged or hostile.
    Corrupt,
    /// A row past `n_obs`, or a gene past `n_vars`.
    OutOfBounds,
    /// An option or argument that makes no sense.
    InvalidInput,
    /// The store was changed after it was opened.
    Changed,
    /// The operating system refused or failed.
    Io,
    /// The work would need more memory than the budget allows.
    OverBudget,
    /// The work was given up because its consumer went away.
    Cancelled,
    /// A defect in Cellfeed or in a library below it; please report it.
    Internal,
}

impl ErrorKind {
    /// The kind in lower-case words, as shown to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Unsupported => "unsupported",
            Self::Corrupt => "corrupt",
            Self::OutOfBounds => "out of bounds",
            Self::InvalidInput => "invalid input",
            Self::Changed => "changed",
            Self::Io => "i/o",
            Self::OverBudget => "over budget",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

/// A Cellfeed error. Messages are lower case without a full stop and say what was wrong and what
/// would be right; the context names file, element, row or offset.
///
/// ```
/// use cellfeed_core::{Error, ErrorKind};
///
/// let error = Error::corrupt("indptr falls from 7 to 5")
///     .with("file", "atlas.h5ad")
///     .with("element", "X/indptr")
///     .with("row", 41);
/// assert_eq!(error.kind(), ErrorKind::Corrupt);
/// assert_eq!(
///     error.to_string(),
///     "indptr falls from 7 to 5 (file atlas.h5ad, element X/indptr, row 41)"
/// );
/// ```
#[derive(Debug)]
pub struct Error(Box<Inner>);

impl Error {
    /// An error of the given kind.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: Vec::new(), source: None }))
    }

    /// A [`ErrorKind::NotFound`] error.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A [`ErrorKind::Unsupported`] error.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// A [`ErrorKind::Corrupt`] error.
    #[must_use]
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// An [`ErrorKind::OutOfBounds`] error.
    #[must_use]
    pub fn out_of_bounds(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::OutOfBounds, message)
    }

    /// An [`ErrorKind::InvalidInput`] error.
    #[must_use]
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// An [`ErrorKind::Internal`] error.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// A [`ErrorKind::Cancelled`] error.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the work was given up")
    }

    /// Wraps an operating-system error; `what` says what was being done, as in "cannot open".
    #[must_use]
    pub fn io(what: &str, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{what}: {source}")).caused_by(source)
    }

    /// Adds a piece of context: where the error arose. Earlier pieces stay in front.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds a piece of context unless that key is there already.
    #[must_use]
    pub fn with_default(self, key: &'static str, value: impl fmt::Display) -> Self {
        if self.0.context.iter().any(|(k, _)| *k == key) { self } else { self.with(key, value) }
    }

    /// Sets the underlying cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without its context.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The context, oldest first.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(k, v)| (*k, v.as_str()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key} {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}
