//! The codecs of pages.

use cellfeed_core::{Error, Result};
use std::cell::RefCell;

/// How pages are compressed, by Parquet's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Codec {
    #[default]
    Plain,
    Snappy,
    Zstd,
    Lz4,
    /// One that is not read.
    Other(u8),
}

impl Codec {
    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Plain,
            1 => Self::Snappy,
            6 => Self::Zstd,
            7 => Self::Lz4,
            other => Self::Other(u8::try_from(other).unwrap_or(u8::MAX)),
        }
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Plain => 0,
            Self::Snappy => 1,
            Self::Zstd => 6,
            Self::Lz4 => 7,
            Self::Other(n) => n.into(),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Plain => "none".to_owned(),
            Self::Snappy => "snappy".to_owned(),
            Self::Zstd => "zstd".to_owned(),
            Self::Lz4 => "lz4".to_owned(),
            Self::Other(2) => "gzip".to_owned(),
            Self::Other(4) => "brotli".to_owned(),
            Self::Other(5) => "lz4 (hadoop)".to_owned(),
            Self::Other(n) => format!("codec {n}"),
        }
    }

    /// Refuses a codec that is not read.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Other(_) => Err(Error::unsupported(format!(
                "the pages are compressed by {}; snappy, zstd, lz4_raw and none are read: write the \
                 file again with one of these",
                self.name()
            ))),
            _ => Ok(()),
        }
    }

    /// How many bytes a compressed one can become, at most: what a header says beyond that is a lie.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Snappy => 32,
            Self::Lz4 => 256,
            Self::Zstd | Self::Other(_) => 1 << 17,
        }
    }

    /// Fills `out` with just what `bytes` decompress to.
    pub(crate) fn decompress(self, bytes: &[u8], out: &mut [u8]) -> Result<()> {
        let damaged = |e: String| {
            Error::corrupt(format!("a page does not decompress ({}): {e}", self.name()))
        };
        let n = match self {
            Self::Plain if bytes.len() == out.len() => {
                out.copy_from_slice(bytes);
                out.len()
            }
            Self::Plain => bytes.len(),
            Self::Snappy => {
                let len = snap::raw::decompress_len(bytes).map_err(|e| damaged(e.to_string()))?;
                if len != out.len() {
                    len
                } else {
                    snap::raw::Decoder::new()
                        .decompress(bytes, out)
                        .map_err(|e| damaged(e.to_string()))?
                }
            }
            Self::Lz4 => lz4_decompress(bytes, out).map_err(|e| damaged(e.to_string()))?,
            Self::Zstd => zstd_decompress(bytes, out).map_err(|e| damaged(e.to_string()))?,
            Self::Other(_) => {
                self.check()?;
                0
            }
        };
        if n == out.len() {
            return Ok(());
        }
        Err(damaged(format!("{n} bytes instead of {}", out.len())))
    }

    /// Compresses, for the writer; `level` is zstd's.
    pub(crate) fn compress(self, bytes: &[u8], level: i32) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(bytes.to_vec()),
            Self::Lz4 => Ok(lz4_flex::block::compress(bytes)),
            Self::Zstd => zstd::bulk::compress(bytes, level)
                .map_err(|e| Error::internal("cannot compress").caused_by(e)),
            Self::Snappy => snap::raw::Encoder::new()
                .compress_vec(bytes)
                .map_err(|e| Error::internal("cannot compress").caused_by(e)),
            Self::Other(_) => Err(Error::internal("a codec that is not written")),
        }
    }
}

thread_local! {
    /// Setting up a decompressor costs more than a small page does.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// By the reference library, which takes half of the time of what is written in Rust without unsafe
/// code.
fn lz4_decompress(bytes: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    let len = i32::try_from(out.len())
        .map_err(|_| std::io::Error::other("a page of 2 GiB or more is not decoded"))?;
    lz4::block::decompress_to_buffer(bytes, Some(len), out)
}

fn zstd_decompress(bytes: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    ZSTD.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(bytes, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_is_decompressed_and_lies_are_found() {
        let data: Vec<u8> = (0..9000u32).map(|i| (i * i / 7 % 11) as u8).collect();
        for codec in [Codec::Plain, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let packed = codec.compress(&data, 1).unwrap();
            let mut out = vec![0; data.len()];
            codec.decompress(&packed, &mut out).unwrap();
            assert_eq!(out, data);
            let mut long = vec![0; data.len() + 1];
            assert!(codec.decompress(&packed, &mut long).is_err());
            let mut short = vec![0; data.len() - 1];
            assert!(codec.decompress(&packed, &mut short).is_err());
            assert!(codec.decompress(&packed[..packed.len() / 2], &mut out).is_err());
            assert!(data.len() <= packed.len() * codec.most());
        }
        assert!(Codec::from_number(2).check().unwrap_err().to_string().contains("gzip"));
    }
}
