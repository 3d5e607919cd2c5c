//! Text: of fixed width (UCS-4), and of any length behind a count.

use crate::meta::dtype::Kind;
use cellfeed_core::{Error, Result};

/// Texts of fixed width, in native byte order.
pub(super) fn fixed(kind: Kind, bytes: &[u8]) -> Result<Vec<String>> {
    match kind {
        Kind::Fixed(chars) => bytes.chunks_exact((chars * 4).max(1)).map(utf32).collect(),
        Kind::Bytes(n) => bytes.chunks_exact(n.max(1)).map(zero_padded).collect(),
        _ => Err(Error::internal("text of no fixed width")),
    }
}

/// A text of fixed width without the zeros at its end.
fn zero_padded(item: &[u8]) -> Result<String> {
    let end = item.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    let text = std::str::from_utf8(&item[..end]);
    Ok(text.map_err(|e| Error::corrupt("a text is not UTF-8").caused_by(e))?.to_owned())
}

/// A text of fixed width, up to its first zero.
fn utf32(item: &[u8]) -> Result<String> {
    let (words, _) = item.as_chunks::<4>();
    let mut out = String::new();
    for word in words.iter().map(|w| u32::from_ne_bytes(*w)) {
        if word == 0 {
            break;
        }
        out.push(
            char::from_u32(word)
                .ok_or_else(|| Error::corrupt(format!("{word:#x} is no character")))?,
        );
    }
    Ok(out)
}

/// Texts of a chunk: how many, then each with its length before it.
pub(super) fn texts(bytes: &[u8], most: usize, least: usize) -> Result<Vec<String>> {
    let mut rest = bytes;
    let word = |rest: &mut &[u8]| -> Result<usize> {
        let (head, tail) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| Error::corrupt("text ends before its last value"))?;
        *rest = tail;
        Ok(usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX))
    };
    let n = word(&mut rest)?;
    if n > most || n < least || n > bytes.len() / 4 {
        return Err(Error::corrupt(format!("a chunk says {n} texts where {least} should be")));
    }
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let length = word(&mut rest)?;
        let Some((text, tail)) = rest.split_at_checked(length) else {
            return Err(Error::corrupt(format!("a text of {length} bytes goes past its chunk")));
        };
        rest = tail;
        let text = std::str::from_utf8(text)
            .map_err(|e| Error::corrupt("a text is not UTF-8").caused_by(e))?;
        out.push(text.to_owned());
    }
    Ok(out)
}
