//! The first look at a file: is it HDF5, is it whole, and if not, what does it look like.

use cellfeed_core::{Error, Result};

use super::cache::Paged;

const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

/// Where the superblock is: at 0, or after a userblock of 512 bytes times a power of two.
pub(crate) fn find_superblock(source: &Paged) -> Result<u64> {
    let len = source.len();
    if len == 0 {
        return Err(Error::corrupt("the file is empty, not HDF5"));
    }
    let mut offset = 0u64;
    while offset.checked_add(8).is_some_and(|end| end <= len) {
        if source.read(offset, 8)? == SIGNATURE {
            return Ok(offset);
        }
        offset = if offset == 0 { 512 } else { offset.saturating_mul(2) };
    }
    let head = source.read(0, usize::try_from(len.min(512)).unwrap_or(0))?;
    Err(Error::unsupported(format!("not an HDF5 file{}", describe(&head))))
}

/// What the first bytes of a file that is not HDF5 say that it is.
fn describe(head: &[u8]) -> String {
    let known: &[(&[u8], &str)] = &[
        (b"PK\x03\x04", "a zip archive (is it a .zarr.zip store?)"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"\x1f\x8b", "gzip: decompress it first"),
        (b"\x28\xb5\x2f\xfd", "zstd: decompress it first"),
        (b"BZh", "bzip2: decompress it first"),
        (b"\xfd7zXZ", "xz: decompress it first"),
        (b"PAR1", "Parquet"),
        (b"ARROW1", "an Arrow file"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"CDF\x01", "classic NetCDF"),
        (b"CDF\x02", "classic NetCDF"),
        (b"\x0e\x03\x13\x01", "HDF4"),
        (b"%%MatrixMarket", "a Matrix Market file"),
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself"),
    ];
    if let Some((_, what)) = known.iter().find(|(magic, _)| head.starts_with(magic)) {
        return format!("; it looks like {what}");
    }
    if head.get(257..262) == Some(b"ustar".as_slice()) {
        return "; it looks like a tar archive".to_owned();
    }
    if head.iter().all(|&b| b == 0) {
        return "; it starts with zeros, as an unfinished download does".to_owned();
    }
    let first = head.iter().copied().find(|b| !b.is_ascii_whitespace());
    let start = head.get(..head.len().min(64)).unwrap_or_default();
    match (first, std::str::from_utf8(start)) {
        (Some(b'<'), Ok(_)) => {
            "; it looks like a web page, perhaps an error page saved in its place".to_owned()
        }
        (Some(b'{' | b'['), Ok(_)) => "; it looks like JSON".to_owned(),
        (_, Ok(text)) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            "; it looks like text".to_owned()
        }
        _ => String::new(),
    }
}

/// Refuses a file that is shorter than its superblock says. `end` is the end-of-file address.
pub(crate) fn check_length(source: &Paged, end: u64) -> Result<()> {
    if end > source.len() {
        return Err(Error::corrupt(format!(
            "the file is truncated: it has {} bytes and its superblock says {end}; copy or \
             download it again",
            source.len()
        )));
    }
    Ok(())
}

/// The error for a file that some process has open for writing, or left so.
pub(crate) fn in_use() -> Error {
    Error::unsupported(
        "the file is marked as open for writing: close the program that writes it, or, if that \
         program died, clear the mark with `h5clear -s FILE`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(bytes: &[u8]) -> Result<u64> {
        find_superblock(&Paged::new(Box::new(bytes.to_vec())))
    }

    #[test]
    fn says_what_else_it_looks_like() {
        for (bytes, word) in [
            (b"".as_slice(), "empty"),
            (b"PK\x03\x04....".as_slice(), "zip"),
            (b"\x1f\x8b\x08".as_slice(), "gzip"),
            (b"PAR1abcd".as_slice(), "Parquet"),
            (b"cell,gene\nA,1\n".as_slice(), "text"),
            (b"<html><body>404".as_slice(), "web page"),
            (b"\0\0\0\0\0\0\0\0".as_slice(), "zeros"),
            (b"\x01\x02\xff\xfe".as_slice(), "not an HDF5 file"),
        ] {
            let error = probe(bytes).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn finds_the_superblock_behind_a_userblock() {
        let mut bytes = vec![7u8; 2048];
        bytes.extend_from_slice(SIGNATURE);
        assert_eq!(probe(&bytes).unwrap(), 2048);
        assert_eq!(probe(SIGNATURE).unwrap(), 0);
    }
}
