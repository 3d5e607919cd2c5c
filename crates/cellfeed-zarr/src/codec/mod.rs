//! Codecs of bytes: what a chunk went through after its elements were laid out.
//!
//! The decoded size is known from the chunk's shape wherever elements have a size, and nothing is
//! allocated by what a compressed header says without holding it against that.

mod blosc;
mod lz4;
mod scratch;
mod shuffle;

use cellfeed_core::{Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;
use zarrs::array::codec::Crc32cCodec;
use zarrs::array::{BytesToBytesCodecTraits, CodecOptions};

pub(crate) use scratch::{Decoders, Scratch, with_scratch};

/// The most that text of unknown size may decode to.
const TEXT_LIMIT: usize = 1 << 30;

/// A codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Blosc,
    Zstd,
    Gzip,
    Zlib,
    /// numcodecs' lz4: the length in four bytes, then a block.
    Lz4,
    Crc32c,
}

impl Codec {
    pub(crate) fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "blosc" | "numcodecs.blosc" => Self::Blosc,
            "zstd" | "numcodecs.zstd" => Self::Zstd,
            "gzip" | "numcodecs.gzip" => Self::Gzip,
            "zlib" | "numcodecs.zlib" => Self::Zlib,
            "lz4" | "numcodecs.lz4" => Self::Lz4,
            "crc32c" => Self::Crc32c,
            other => {
                return Err(Error::unsupported(format!(
                    "the codec {other:?} is not read; blosc, zstd, gzip, zlib, lz4 and crc32c are: \
                     write the store again with one of these"
                )));
            }
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blosc => "blosc",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Lz4 => "lz4",
            Self::Crc32c => "crc32c",
        }
    }

    /// How many bytes an encoded one can become, at most.
    fn most(self) -> u64 {
        match self {
            // A run of 128 KiB in four bytes; blosc may have zstd within.
            Self::Zstd | Self::Blosc => 1 << 15,
            Self::Gzip | Self::Zlib => 1040,
            Self::Lz4 => 256,
            Self::Crc32c => 1,
        }
    }
}

/// How many bytes one that went through all of these codecs can become, at most: a shape that asks for
/// more is a lie.
pub(crate) fn most(codecs: &[Codec]) -> u64 {
    codecs.iter().fold(1, |most, codec| most.saturating_mul(codec.most()))
}

/// Codecs of a v2 array.
pub(crate) fn v2_compressor(compressor: &Value) -> Result<Vec<Codec>> {
    match compressor {
        Value::Null => Ok(Vec::new()),
        other => Ok(vec![Codec::parse(other["id"].as_str().unwrap_or("(unnamed)"))?]),
    }
}

/// Undoes codecs, the last applied first. `size` is that of the decoded bytes where it is known.
pub(crate) fn decode<'a>(
    codecs: &[Codec],
    bytes: &'a [u8],
    size: Option<usize>,
) -> Result<Cow<'a, [u8]>> {
    let mut bytes = Cow::Borrowed(bytes);
    for (i, codec) in codecs.iter().enumerate().rev() {
        // What comes out now is the decoded chunk plus the checksums that lie inside.
        let inner = &codecs[..i];
        let plain = inner.iter().all(|c| *c == Codec::Crc32c);
        let expected = size.filter(|_| plain).map(|s| s + 4 * inner.len());
        bytes = Cow::Owned(one(*codec, &bytes, expected)?);
    }
    match size {
        Some(size) if bytes.len() != size => Err(Error::corrupt(format!(
            "a chunk has {} bytes where its shape asks for {size}",
            bytes.len()
        ))),
        _ => Ok(bytes),
    }
}

fn one(codec: Codec, bytes: &[u8], size: Option<usize>) -> Result<Vec<u8>> {
    let bad = |what: String| damaged(codec, what);
    match codec {
        Codec::Crc32c => {
            let (payload, _) = bytes
                .split_last_chunk::<4>()
                .ok_or_else(|| bad("it is shorter than its checksum".to_owned()))?;
            check_crc32c(payload, bytes)?;
            Ok(payload.to_vec())
        }
        Codec::Blosc => {
            let length = blosc::length(bytes).map_err(bad)?;
            match size {
                Some(size) if size != length => {
                    return Err(bad(format!("it says {length} bytes, not {size}")));
                }
                None if length > TEXT_LIMIT => return Err(bad(format!("{length} bytes of text"))),
                _ => {}
            }
            let mut out = vec![0; length];
            with_scratch(|scratch| {
                blosc::decode_parts(bytes, length, std::iter::once(0..length), &mut out, scratch)
            })
            .map_err(bad)?;
            Ok(out)
        }
        Codec::Zstd => match size {
            Some(size) => zstd::bulk::decompress(bytes, size).map_err(|e| bad(e.to_string())),
            None => {
                let mut out = Vec::new();
                let limit = u64::try_from(TEXT_LIMIT).unwrap_or(u64::MAX);
                zstd::stream::read::Decoder::new(bytes)
                    .and_then(|d| d.take(limit).read_to_end(&mut out))
                    .map_err(|e| bad(e.to_string()))?;
                Ok(out)
            }
        },
        Codec::Gzip | Codec::Zlib => {
            let mut inflate = libdeflater::Decompressor::new();
            // Deflate gains at most 1032 to 1.
            let most = bytes.len().saturating_mul(1040).min(TEXT_LIMIT);
            let mut room = size.unwrap_or_else(|| most.min(bytes.len().saturating_mul(8) + 64));
            if size.is_some_and(|s| s > bytes.len().saturating_mul(1040)) {
                return Err(bad(format!("{} bytes cannot hold {room}", bytes.len())));
            }
            loop {
                let mut out = vec![0; room];
                let done = if codec == Codec::Gzip {
                    inflate.gzip_decompress(bytes, &mut out)
                } else {
                    inflate.zlib_decompress(bytes, &mut out)
                };
                match done {
                    Ok(n) => {
                        out.truncate(n);
                        return Ok(out);
                    }
                    Err(libdeflater::DecompressionError::InsufficientSpace)
                        if size.is_none() && room < most =>
                    {
                        room = room.saturating_mul(4).min(most);
                    }
                    Err(e) => return Err(bad(e.to_string())),
                }
            }
        }
        Codec::Lz4 => {
            let (head, block) =
                bytes.split_first_chunk::<4>().ok_or_else(|| bad("it is too short".to_owned()))?;
            let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
            if size.is_some_and(|s| s != length) || length > block.len().saturating_mul(256) {
                return Err(bad(format!("it says {length} bytes")));
            }
            lz4_flex::block::decompress(block, length).map_err(|e| bad(e.to_string()))
        }
    }
}

/// Copies ranges of `from`, end to end, to `to`; both are as long as they must be.
fn copy_parts(from: &[u8], parts: impl Iterator<Item = Range<usize>>, to: &mut [u8]) {
    let mut rest = to;
    for part in parts {
        let (here, tail) = std::mem::take(&mut rest).split_at_mut(part.len());
        here.copy_from_slice(&from[part]);
        rest = tail;
    }
}

/// Decodes just what is wanted of a chunk that decodes to `length` bytes: ascending byte ranges of it,
/// end to end, to `to`, which has just their length. Answers how many bytes were decoded for it.
pub(crate) fn decode_parts(
    codecs: &[Codec],
    bytes: &[u8],
    length: usize,
    parts: impl Iterator<Item = Range<usize>> + Clone,
    to: &mut [u8],
) -> Result<usize> {
    with_scratch(|scratch| match codecs {
        [Codec::Blosc] => blosc::decode_parts(bytes, length, parts, to, scratch)
            .map_err(|what| damaged(Codec::Blosc, what)),
        [] if bytes.len() == length => {
            copy_parts(bytes, parts, to);
            Ok(to.len())
        }
        [codec @ (Codec::Zstd | Codec::Gzip | Codec::Zlib)] => {
            let Scratch { whole, decoders, .. } = scratch;
            let mut into = |out: &mut [u8]| {
                let done = match codec {
                    Codec::Zstd => decoders.zstd(bytes, out),
                    Codec::Gzip => decoders.gzip(bytes, out),
                    _ => decoders.zlib(bytes, out),
                };
                match done {
                    Ok(n) if n == length => Ok(length),
                    Ok(n) => Err(format!("it decodes to {n} bytes, not {length}")),
                    Err(e) => Err(e),
                }
                .map_err(|what| damaged(*codec, what))
            };
            if to.len() == length {
                return into(to);
            }
            whole.resize(whole.len().max(length), 0);
            into(&mut whole[..length])?;
            copy_parts(&whole[..length], parts, to);
            Ok(length)
        }
        _ => {
            copy_parts(&decode(codecs, bytes, Some(length))?, parts, to);
            Ok(length)
        }
    })
}

fn damaged(codec: Codec, what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("{} data is damaged: {what}", codec.name()))
}

/// Holds bytes against the CRC-32C that follows them.
pub(crate) fn check_crc32c(payload: &[u8], sealed: &[u8]) -> Result<()> {
    let again = Crc32cCodec::new()
        .encode(Cow::Borrowed(payload), &CodecOptions::default())
        .map_err(|e| Error::internal(format!("cannot make a checksum: {e}")))?;
    if again[..] != *sealed {
        return Err(Error::corrupt("the CRC-32C does not agree: the bytes are damaged"));
    }
    Ok(())
}
