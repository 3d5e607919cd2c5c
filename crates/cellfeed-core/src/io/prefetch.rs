//! A hint to the processor: what will be read soon.
#![allow(unsafe_code)]

/// Bytes that come into the cache together.
const LINE: usize = 64;
/// Lines at the beginning that are asked for.
const LINES: usize = 3;
/// What one entry of the processor's table of addresses covers.
const PAGE: usize = 4096;

/// Asks for the beginning of these bytes, and for that of each page which they reach into. Once the
/// processor sees them read in order it brings the rest by itself, but not across pages.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    let begin = (0..bytes.len().min(LINES * LINE)).step_by(LINE);
    let pages = (PAGE - bytes.as_ptr().addr() % PAGE..bytes.len()).step_by(PAGE);
    for at in begin.chain(pages) {
        #[cfg(target_arch = "x86_64")]
        if let Some(byte) = bytes.get(at) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the instruction reads nothing that the program could see, and never faults; the
            // address is that of a byte of the slice.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}
