//! Printing for people: sizes, counts, aligned lines, errors.

use cellfeed::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Prints a line to standard output, as a terminal may have it.
pub(crate) fn say(line: impl Display) -> Result<()> {
    print(&clean(&line.to_string()))
}

fn print(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|e| Error::io("cannot print", e))
}

/// Characters of a text of a file that people are shown.
const LONGEST: usize = 200;

/// Characters of an error that people are shown.
const LONGEST_ERROR: usize = 4000;

/// A text of a file, as the name of a column, for people: on one line, and not too long.
pub(crate) fn shown(text: &str) -> String {
    clean(&cut(text, LONGEST)).replace('\n', "\\n")
}

fn cut(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        Some((at, _)) => format!("{}...", &text[..at]).into(),
        None => text.into(),
    }
}

/// A text without characters that would tell a terminal what to do: they are written out. Line breaks
/// stay.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() && c != '\n') || turns
    };
    if !text.contains(is_bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// Prints a value as one line of JSON.
pub(crate) fn say_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|e| Error::internal("cannot write JSON").caused_by(e))?;
    print(&text)
}

/// Prints an error to standard error, with its causes.
pub(crate) fn complain(error: &Error) {
    let mut err = std::io::stderr().lock();
    // Nobody is left to tell if standard error is closed.
    let plain = |text: &str| clean(&cut(text, LONGEST_ERROR)).into_owned();
    let _ = writeln!(err, "error: {}", plain(&error.to_string()));
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !error.to_string().contains(&text) {
            let _ = writeln!(err, "  because: {}", plain(&text));
        }
        source = cause.source();
    }
}

pub(crate) fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|s| s.downcast_ref::<std::io::Error>())
        .is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// A bar on standard error, drawn only if that is a terminal; a spinner where nobody knows the end.
pub(crate) fn progress_bar(quiet: bool, total: Option<u64>, what: &str) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(total, target).with_message(what.to_owned());
    let template = match total {
        Some(_) => "{bar:40} {human_pos}/{human_len} {msg}, {per_sec}, {eta} left",
        None => "{spinner} {human_pos} {msg}, {per_sec}, {elapsed}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate or other real number as a rounded count.
pub(crate) fn rate(x: f64) -> String {
    // Saturates; rates are far from the edges.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    count(x.round().max(0.0) as u64)
}

/// Bytes in the largest unit that leaves at least 1.
pub(crate) fn bytes(n: u64) -> String {
    let mut size = n as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 || unit == "TiB" {
            return if unit == "bytes" {
                format!("{n} bytes")
            } else {
                format!("{size:.1} {unit}")
            };
        }
        size /= 1024.0;
    }
    format!("{n} bytes")
}

/// Seconds in a readable unit.
pub(crate) fn seconds(s: f64) -> String {
    if s < 0.001 {
        format!("{:.0} us", s * 1e6)
    } else if s < 1.0 {
        format!("{:.0} ms", s * 1e3)
    } else {
        format!("{s:.2} s")
    }
}

/// Reads a size such as `512MiB`, `2GB`, `1g` or `1048576`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        other => return Err(format!("no unit is called {other:?}; try 512MiB or 2GiB")),
    };
    let number: f64 = number.parse().map_err(|_| "a size looks like 512MiB or 2GiB".to_owned())?;
    let size = number * factor;
    if !(1.0..=1e18).contains(&size) {
        return Err("a size must be at least one byte and below 10^18".to_owned());
    }
    // In range.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(size as u64)
}

/// Reads a seed.
pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a seed is a whole number from 0 to {}", u64::MAX))
}

/// Reads the milliseconds of a training step.
pub(crate) fn parse_step(text: &str) -> Result<Duration, String> {
    let ms: f64 = text.parse().map_err(|_| "a step is a number of milliseconds".to_owned())?;
    if !(0.0..=60_000.0).contains(&ms) {
        return Err("a step takes 0 to 60000 milliseconds".to_owned());
    }
    Ok(Duration::from_secs_f64(ms / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_files_do_not_command_a_terminal() {
        assert_eq!(
            clean("plate\x1b[31m\ttop\u{9b}\u{202e}"),
            r"plate\u{1b}[31m\ttop\u{9b}\u{202e}"
        );
        assert_eq!(clean("naïve\nzwölf"), "naïve\nzwölf");
        assert_eq!(shown("a\nb"), r"a\nb");
        assert_eq!(shown(&"ü".repeat(5000)), "ü".repeat(200) + "...");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(seconds(0.0123), "12 ms");
        assert_eq!(parse_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        assert_eq!(parse_bytes("2 MB"), Ok(2_000_000));
        for bad in ["", "x", "-1", "0", "1q", "1e40"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}
