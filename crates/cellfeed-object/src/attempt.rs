//! Requests that are tried again: which failures are worth it, how long to wait, and what is said when
//! it was in vain.

use crate::address::Address;
use cellfeed_core::{Error, ErrorKind, Result};
use object_store::Error as StoreError;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The first wait is at most this; each further one at most twice as long, up to a limit.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// May go better the next time.
    Passing(String),
    /// Will not.
    Final(Error),
}

/// The attempts at one request.
pub(crate) struct Tries<'a> {
    what: &'a Address,
    most: u32,
    tried: u32,
    waits: Waits,
}

impl<'a> Tries<'a> {
    pub(crate) fn new(what: &'a Address, most: u32) -> Self {
        Self { what, most, tried: 0, waits: Waits::new() }
    }

    /// After a failure: waits until it is time to try again.
    ///
    /// # Errors
    /// If that makes no sense, or was done often enough.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<()> {
        let cause = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing(cause) => cause,
        };
        self.tried += 1;
        if self.tried >= self.most {
            let message =
                format!("gave up after {} attempts; the last failed so: {cause}", self.tried);
            return Err(Error::new(ErrorKind::Io, message).with("file", self.what));
        }
        tokio::time::sleep(self.waits.next()).await;
        Ok(())
    }
}

/// Waits that grow, each drawn between nothing and its limit, so that many who failed together do not
/// come back together.
struct Waits {
    limit: Duration,
    random: ChaCha8Rng,
}

impl Waits {
    fn new() -> Self {
        // Any seed that differs from others' will do.
        let seed = RandomState::new().hash_one(0u8);
        Self { limit: FIRST, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    fn next(&mut self) -> Duration {
        let share = f64::from(self.random.next_u32()) / f64::from(u32::MAX);
        let wait = self.limit.mul_f64(share);
        self.limit = (self.limit * 2).min(LONGEST);
        wait
    }
}

/// Sorts an error of the store.
pub(crate) fn judge(error: &StoreError, what: &Address) -> Failure {
    let text = tame(&chain(error));
    let fail = |kind, message: String| Failure::Final(Error::new(kind, message).with("file", what));
    match error {
        StoreError::NotFound { .. } => {
            let what = if no_bucket(&text) {
                "there is no such bucket"
            } else {
                "there is no such object"
            };
            fail(ErrorKind::NotFound, what.to_owned())
        }
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Failure::Final(not_allowed(&text, what))
        }
        StoreError::Precondition { .. } | StoreError::NotModified { .. } => {
            Failure::Final(changed(what))
        }
        StoreError::NotSupported { .. } if text.contains("Range request") => {
            Failure::Final(no_ranges(what))
        }
        StoreError::Generic { .. } => generic(&text, what),
        // A task that was aborted, with a runtime that ends.
        StoreError::JoinError { .. } => Failure::Final(Error::cancelled()),
        _ => fail(ErrorKind::Io, text),
    }
}

fn not_allowed(text: &str, what: &Address) -> Error {
    let message = format!(
        "the store refuses: credentials are missing or wrong, or do not allow this ({}); \
         docs/object-stores.md says how to give them, and how to read a public bucket without",
        reason(text)
    );
    Error::new(ErrorKind::Io, message).with("file", what)
}

/// Whether an answer says that the bucket itself is not there.
fn no_bucket(text: &str) -> bool {
    text.contains("NoSuchBucket") || text.contains("ContainerNotFound")
}

fn no_ranges(what: &Address) -> Error {
    Error::unsupported("the server answers no byte ranges, without which nothing is read")
        .with("file", what)
}

fn generic(text: &str, what: &Address) -> Failure {
    let fail =
        |message: String| Failure::Final(Error::new(ErrorKind::Io, message).with("file", what));
    if no_bucket(text) {
        return Failure::Final(Error::not_found("there is no such bucket").with("file", what));
    }
    if text.contains("non-partial response") {
        return Failure::Final(no_ranges(what));
    }
    if text.contains("redirect") || status(text).is_some_and(|s| (300..400).contains(&s)) {
        return fail(format!(
            "the store sends elsewhere: the bucket is in another region, or the endpoint is wrong; set \
             AWS_REGION or the setting region ({})",
            reason(text)
        ));
    }
    // Keys may have any word in them.
    let words: String = text.split_whitespace().filter(|word| !word.contains("://")).collect();
    if ["169.254.169.254", "metadata.google.internal"].iter().any(|host| text.contains(host))
        || ["redential", "oauth2", "token"].iter().any(|sign| words.contains(sign))
    {
        return fail(format!(
            "no credentials were found ({}); docs/object-stores.md says how to give them, and how to \
             read a public bucket without",
            reason(text)
        ));
    }
    match status(text) {
        Some(401 | 403) => Failure::Final(not_allowed(text, what)),
        Some(status @ 400..500) if ![408, 425, 429].contains(&status) => {
            fail(format!("the store refuses the request: {}", reason(text)))
        }
        _ => Failure::Passing(reason(text)),
    }
}

/// The error for an object that is not what it was.
pub(crate) fn changed(what: &Address) -> Error {
    Error::new(
        ErrorKind::Changed,
        "the object was replaced since it was opened; open the store again once nobody writes to it",
    )
    .with("file", what)
}

/// The HTTP status that an error speaks of: the library's own type of it is not public.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// What matters of an error: of a store's answer in XML its code and message.
fn reason(text: &str) -> String {
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(value, _)| value.trim().to_owned())
    };
    match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{code}: {message}"),
        (Some(code), _) => code,
        _ => text.to_owned(),
    }
}

/// What an error says, and what its causes add.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// An error's text on one line, not too long, without the queries of URLs: they may hold a signature.
pub(crate) fn tame(text: &str) -> String {
    const LONGEST: usize = 900;
    let word = |word: &str| match word.split_once('?') {
        Some((head, _)) if head.contains("://") => head.to_owned(),
        _ => word.to_owned(),
    };
    let words: Vec<String> = text.split_whitespace().map(word).collect();
    let mut line = words.join(" ");
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
        line.truncate(end);
        line.push_str(" ...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address::parse("s3://b/x").unwrap()
    }

    fn generic_of(text: &str) -> Failure {
        judge(&StoreError::Generic { store: "S3", source: text.into() }, &address())
    }

    #[test]
    fn failures_are_sorted() {
        let answer = |status: &str| format!("Server returned non-2xx status code: {status}: ");
        for passing in ["503 Slow Down", "500 Internal", "429 Too Many Requests", "408 Timeout"] {
            assert!(matches!(generic_of(&answer(passing)), Failure::Passing(_)), "{passing}");
        }
        for passing in
            ["connection reset by peer", "no answer for url (http://h/b/obs/token_count)"]
        {
            assert!(matches!(generic_of(passing), Failure::Passing(_)), "{passing}");
        }
        for (text, kind, word) in [
            (answer("400 Bad Request"), ErrorKind::Io, "refuses"),
            ("Received non-partial response".to_owned(), ErrorKind::Unsupported, "byte ranges"),
            ("Received redirect without LOCATION".to_owned(), ErrorKind::Io, "region"),
            ("http://169.254.169.254/latest".to_owned(), ErrorKind::Io, "credentials"),
        ] {
            let Failure::Final(error) = generic_of(&text) else { panic!("{text} is passing") };
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(word) && error.to_string().contains("s3://b/x"));
        }
    }

    #[test]
    fn what_is_said_is_short_and_has_no_signature() {
        let body = "<Error><Code>SlowDown</Code>\n<Message>Less</Message><AWSAccessKeyId>AK</AWSAccessKeyId>";
        assert_eq!(reason(body), "SlowDown: Less");
        let text = tame("GET http://h/x?X-Amz-Signature=abc failed\n  twice");
        assert_eq!(text, "GET http://h/x failed twice");
        assert!(tame(&"ä".repeat(2000)).len() < 1000);
    }

    #[test]
    fn waits_grow_and_differ() {
        let mut waits = Waits::new();
        let drawn: Vec<Duration> = (0..20).map(|_| waits.next()).collect();
        assert!(drawn.iter().all(|w| *w <= LONGEST));
        assert!(drawn[0] <= FIRST);
        assert_eq!(waits.limit, LONGEST);
        assert!(drawn.iter().any(|w| *w > FIRST * 2), "all of twenty waits were short");
    }
}
