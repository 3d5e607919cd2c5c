//! The codecs that chunks are written with, their names and their metadata.

use cellfeed_core::{Error, Result};
use serde_json::{Value, json};
use std::borrow::Cow;
use zarrs::array::codec::bytes_to_bytes::blosc::{
    BloscCompressionLevel, BloscCompressor, BloscShuffleMode, blosc_compress_bytes,
};
use zarrs::array::codec::{Crc32cCodec, GzipCodec};
use zarrs::array::{BytesToBytesCodecTraits, CodecOptions};

/// What is said of a codec that is not known.
const KNOWN: &str =
    "blosc-lz4, blosc-zstd, zstd, gzip (each also with a level, as zstd:3) and none";

/// How chunks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Not at all.
    Plain,
    /// Blosc with byte shuffle, level 0 to 9.
    BloscLz4(u8),
    /// The same with zstd inside.
    BloscZstd(u8),
    /// zstd, level 1 to 22.
    Zstd(i32),
    /// gzip, level 0 to 9.
    Gzip(u32),
}

impl Default for Codec {
    /// By measurement, as in `matrix.rs`, in chunks of 16 rows: blosc-lz4 47, blosc-zstd 28, zstd 22 and
    /// none 81 thousand cells a CPU second, with 2.3, 1.6, 2.2 and 8.1 bytes a value. Levels change
    /// little; 3 is what annbatch writes with.
    fn default() -> Self {
        Self::BloscLz4(3)
    }
}

impl Codec {
    /// A codec by name, with a level behind a colon where there are levels.
    pub(super) fn parse(name: &str) -> Result<Self> {
        let (kind, level) = name.split_once(':').map_or((name, None), |(k, l)| (k, Some(l)));
        let level = |default: u8, most: u8| match level.map(str::parse::<u8>) {
            None => Ok(default),
            Some(Ok(level)) if level <= most => Ok(level),
            Some(_) => Err(Error::invalid_input(format!(
                "the codec {name:?} has no such level; {kind} has levels up to {most}"
            ))),
        };
        match kind {
            "none" if !name.contains(':') => Ok(Self::Plain),
            "blosc-lz4" | "blosc" => level(3, 9).map(Self::BloscLz4),
            "blosc-zstd" => level(3, 9).map(Self::BloscZstd),
            "zstd" => level(3, 22).map(|l| Self::Zstd(i32::from(l.max(1)))),
            "gzip" => level(4, 9).map(|l| Self::Gzip(u32::from(l))),
            "lz4" => Err(Error::invalid_input(
                "Zarr v3 has no codec lz4 of its own; blosc-lz4 is the same with a byte shuffle",
            )),
            _ => Err(Error::invalid_input(format!(
                "no codec of Zarr is called {name:?}; there are {KNOWN}"
            ))),
        }
    }

    /// The entry in `codecs` of an array whose items have `width` bytes; none where nothing is to do.
    pub(super) fn metadata(self, width: usize) -> Option<Value> {
        let blosc = |cname: &str, level: u8| {
            json!({"name": "blosc", "configuration": {
                "cname": cname, "clevel": level, "blocksize": 0, "typesize": width,
                "shuffle": if width > 1 { "shuffle" } else { "noshuffle" },
            }})
        };
        match self {
            Self::Plain => None,
            Self::BloscLz4(level) => Some(blosc("lz4", level)),
            Self::BloscZstd(level) => Some(blosc("zstd", level)),
            Self::Zstd(level) => {
                Some(json!({"name": "zstd", "configuration": {"level": level, "checksum": false}}))
            }
            Self::Gzip(level) => Some(json!({"name": "gzip", "configuration": {"level": level}})),
        }
    }

    /// An encoder of chunks whose items have `width` bytes: one for each thread.
    pub(super) fn encoder(self, width: usize) -> Result<Encoder> {
        let zstd = match self {
            Self::Zstd(level) => Some(
                zstd::bulk::Compressor::new(level)
                    .map_err(|e| Error::io("cannot start zstd", e))?,
            ),
            _ => None,
        };
        Ok(Encoder { codec: self, width, zstd })
    }
}

/// Compresses chunk after chunk.
pub(super) struct Encoder {
    codec: Codec,
    width: usize,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

impl Encoder {
    /// One chunk, as it is stored.
    pub(super) fn encode<'a>(&mut self, raw: Cow<'a, [u8]>) -> Result<Cow<'a, [u8]>> {
        let failed = |e: &dyn std::fmt::Display| Error::internal(format!("cannot compress: {e}"));
        match self.codec {
            Codec::Plain => Ok(raw),
            Codec::BloscLz4(level) => self.blosc(&raw, level, BloscCompressor::LZ4).map(Cow::Owned),
            Codec::BloscZstd(level) => {
                self.blosc(&raw, level, BloscCompressor::Zstd).map(Cow::Owned)
            }
            Codec::Zstd(_) => match &mut self.zstd {
                Some(zstd) => zstd.compress(&raw).map(Cow::Owned).map_err(|e| failed(&e)),
                None => Err(Error::internal("an encoder of zstd was not started")),
            },
            Codec::Gzip(level) => GzipCodec::new(level)
                .map_err(|e| failed(&e))?
                .encode(raw, &CodecOptions::default())
                .map_err(|e| failed(&e)),
        }
    }

    fn blosc(&self, raw: &[u8], level: u8, compressor: BloscCompressor) -> Result<Vec<u8>> {
        let level = BloscCompressionLevel::try_from(level)
            .map_err(|level| Error::internal(format!("blosc has no level {level}")))?;
        let (shuffle, width) = match self.width {
            0 | 1 => (BloscShuffleMode::NoShuffle, 1),
            width => (BloscShuffleMode::Shuffle, width),
        };
        blosc_compress_bytes(raw, level, shuffle, width, compressor, 0, 1)
            .map_err(|e| Error::internal(format!("cannot compress: {e}")))
    }
}

/// Bytes followed by their CRC-32C, as shard indexes have it.
pub(super) fn with_crc32c(bytes: Vec<u8>) -> Result<Vec<u8>> {
    Crc32cCodec::new()
        .encode(Cow::Owned(bytes), &CodecOptions::default())
        .map(Cow::into_owned)
        .map_err(|e| Error::internal(format!("cannot make a checksum: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_levels() {
        assert_eq!(Codec::parse("none").unwrap(), Codec::Plain);
        assert_eq!(Codec::parse("zstd").unwrap(), Codec::Zstd(3));
        assert_eq!(Codec::parse("blosc-zstd:5").unwrap(), Codec::BloscZstd(5));
        assert_eq!(Codec::parse("gzip:9").unwrap(), Codec::Gzip(9));
        for bad in ["gzip:10", "none:1", "zstd:x", "lzf", "lz4", ""] {
            let error = Codec::parse(bad).unwrap_err();
            assert_eq!(error.kind(), cellfeed_core::ErrorKind::InvalidInput, "{bad}");
        }
    }

    #[test]
    fn checksums_are_the_published_ones() {
        // RFC 3720, B.4: 32 bytes of zeros.
        let sealed = with_crc32c(vec![0; 32]).unwrap();
        assert_eq!(sealed[32..], [0xaa, 0x36, 0x91, 0x8a]);
    }
}
