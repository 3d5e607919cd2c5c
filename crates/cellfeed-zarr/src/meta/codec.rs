//! Codecs of bytes: what a chunk went through after its elements were laid out.
//!
//! The decoded size is known from the chunk's shape wherever elements have a size, and nothing is
//! allocated by what a compressed header says without holding it against that.

use cellfeed_core::{Error, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::io::Read;
use zarrs::array::codec::Crc32cCodec;
use zarrs::array::codec::bytes_to_bytes::blosc::blosc_decompress_bytes;
use zarrs::array::{BytesToBytesCodecTraits, CodecOptions};

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
    let bad = |what: String| Error::corrupt(format!("{} data is damaged: {what}", codec.name()));
    match codec {
        Codec::Crc32c => {
            let (payload, _) = bytes
                .split_last_chunk::<4>()
                .ok_or_else(|| bad("it is shorter than its checksum".to_owned()))?;
            check_crc32c(payload, bytes)?;
            Ok(payload.to_vec())
        }
        Codec::Blosc => {
            let length = blosc_length(bytes).map_err(bad)?;
            match size {
                Some(size) if size != length => {
                    return Err(bad(format!("it says {length} bytes, not {size}")));
                }
                None if length > TEXT_LIMIT => return Err(bad(format!("{length} bytes of text"))),
                _ => {}
            }
            if length == 0 {
                return Ok(Vec::new());
            }
            blosc_decompress_bytes(bytes, length, 1).map_err(|e| bad(e.to_string()))
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

/// The decoded length that a blosc header says, once the header agrees with the bytes behind it.
fn blosc_length(bytes: &[u8]) -> std::result::Result<usize, String> {
    let word = |at: usize| {
        let found = bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        found.map(|b| usize::try_from(u32::from_le_bytes(b)).unwrap_or(usize::MAX))
    };
    let (Some(length), Some(stored)) = (word(4), word(12)) else {
        return Err("it is shorter than its header".to_owned());
    };
    if stored != bytes.len() {
        return Err(format!("it says {stored} bytes are stored, but there are {}", bytes.len()));
    }
    Ok(length)
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
