//! Stored bytes of an inner chunk to elements, in native byte order and the usual order of dimensions.

use super::array::Array;
use crate::codec;
use crate::meta::dtype::Kind;
use cellfeed_core::{Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

impl Array {
    /// Whether bytes lie in memory as they come from the codecs.
    fn as_stored(&self) -> bool {
        let swapped = self.meta.big_endian != cfg!(target_endian = "big");
        self.meta.order.is_none() && !(swapped && self.meta.kind.word() > 1)
    }

    /// The bytes of an element; an error for text.
    pub(crate) fn item(&self) -> Result<usize> {
        self.meta.kind.size().ok_or_else(|| Error::internal("text has no size"))
    }

    /// Elements at ascending ranges of a chunk, end to end, to `to`, which has just their length.
    /// Answers how many bytes were decoded for it.
    pub(crate) fn decode_parts(
        &self,
        stored: Option<&[u8]>,
        parts: &[Range<usize>],
        to: &mut [u8],
    ) -> Result<usize> {
        let item = self.item()?;
        let parts = parts.iter().map(|p| p.start * item..p.end * item);
        match stored {
            None => {
                let fill = self.fill_item()?;
                to.chunks_exact_mut(fill.len().max(1)).for_each(|to| to.copy_from_slice(&fill));
                Ok(0)
            }
            Some(stored) if self.as_stored() => {
                let length = item * self.meta.chunk_len();
                codec::decode_parts(&self.meta.codecs, stored, length, parts, to)
            }
            Some(stored) => {
                let whole = self.decode(Some(stored))?;
                let mut rest = to;
                for part in parts {
                    let (here, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
                    here.copy_from_slice(&whole[part]);
                    rest = tail;
                }
                Ok(whole.len())
            }
        }
    }

    /// All elements of a chunk.
    pub(crate) fn decode<'a>(&self, stored: Option<&'a [u8]>) -> Result<Cow<'a, [u8]>> {
        let item = self.item()?;
        let Some(stored) = stored else {
            return Ok(Cow::Owned(self.fill_item()?.repeat(self.meta.chunk_len())));
        };
        let size = item * self.meta.chunk_len();
        let mut bytes = codec::decode(&self.meta.codecs, stored, Some(size))?;
        let word = self.meta.kind.word();
        if self.meta.big_endian != cfg!(target_endian = "big") && word > 1 {
            for item in bytes.to_mut().chunks_exact_mut(word) {
                item.reverse();
            }
        }
        if let Some(order) = &self.meta.order {
            bytes = Cow::Owned(super::grid::untranspose(&bytes, &self.meta.inner, order, item));
        }
        Ok(bytes)
    }

    /// The bytes of a fill value.
    pub(super) fn fill_item(&self) -> Result<Vec<u8>> {
        let fill = &self.meta.fill;
        let odd = || Error::unsupported(format!("the fill value {fill} is not read"));
        let zero = fill.is_null()
            || fill == &Value::Bool(false)
            || fill.as_f64() == Some(0.0)
            || fill.as_str() == Some("");
        if zero {
            return Ok(vec![0; self.meta.kind.size().unwrap_or(0)]);
        }
        match self.meta.kind {
            Kind::Bool if fill == &Value::Bool(true) => Ok(vec![1]),
            Kind::Number(t) => {
                let values: cellfeed_core::Values = match (fill.as_i64(), fill.as_u64()) {
                    (Some(i), _) => vec![i].into(),
                    (None, Some(u)) => vec![u].into(),
                    _ => {
                        let float = match fill.as_str() {
                            Some("NaN") => f64::NAN,
                            Some("Infinity") => f64::INFINITY,
                            Some("-Infinity") => f64::NEG_INFINITY,
                            _ => fill.as_f64().ok_or_else(odd)?,
                        };
                        vec![float].into()
                    }
                };
                Ok(values.cast(t).map_err(|_| odd())?.as_bytes().to_vec())
            }
            _ => Err(odd()),
        }
    }
}
