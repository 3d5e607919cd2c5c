//! LZ4 blocks by the reference library, which zarrs brings along: faster than what is written in Rust
//! without unsafe code, and able to stop early.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

unsafe extern "C" {
    /// Decodes until `target` bytes are there; never reads past `source_len` or writes past `capacity`,
    /// whatever the block holds. Answers the bytes written, below 0 for a damaged block.
    fn LZ4_decompress_safe_partial(
        source: *const c_char,
        to: *mut c_char,
        source_len: c_int,
        target: c_int,
        capacity: c_int,
    ) -> c_int;
}

/// Fills `to` with the first bytes of a block that decodes to `whole` bytes; false if the block is
/// damaged or decodes to fewer.
pub(super) fn decode_start(block: &[u8], whole: usize, to: &mut [u8]) -> bool {
    let (Ok(source_len), Ok(target)) = (c_int::try_from(block.len()), c_int::try_from(to.len()))
    else {
        return false;
    };
    let (source, out) = (block.as_ptr().cast::<c_char>(), to.as_mut_ptr().cast::<c_char>());
    let done = if to.len() == whole {
        // SAFETY: both pointers are of live slices of just these lengths, and the function is specified
        // to keep to them for any input.
        unsafe { lz4_sys::LZ4_decompress_safe(source.cast(), out.cast(), source_len, target) }
    } else {
        // SAFETY: as above; the capacity is the length of `to`.
        unsafe { LZ4_decompress_safe_partial(source, out, source_len, target, target) }
    };
    done == target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_decoded_whole_or_from_their_start() {
        let plain: Vec<u8> = (0..5000u32).flat_map(|i| (i / 7 * i).to_le_bytes()).collect();
        let block = lz4_flex::block::compress(&plain);
        for length in [0, 1, 17, 4096, plain.len() - 1, plain.len()] {
            let mut to = vec![0; length];
            assert!(decode_start(&block, plain.len(), &mut to), "{length}");
            assert_eq!(to, plain[..length]);
        }
        assert!(!decode_start(&block, plain.len() + 1, &mut vec![0; plain.len() + 1]));
        // Shorter or damaged blocks are refused or give other bytes, and touch nothing else.
        for cut in 0..block.len() {
            let mut to = vec![0; plain.len()];
            assert!(!decode_start(&block[..cut], plain.len(), &mut to), "{cut}");
        }
        for at in 0..block.len() {
            let mut bad = block.clone();
            bad[at] ^= 0xff;
            let mut to = vec![0; 4096];
            decode_start(&bad, plain.len(), &mut to);
            decode_start(&bad, 4096, &mut to);
        }
    }
}
