//! The bare limits of a run, as benchmarks report them: what a backend measures with nothing else done.

/// Seconds and bytes of each limit, over all fetches of a run.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Roofline {
    /// Reading the stored bytes; 0 where they are in memory already.
    pub read_seconds: f64,
    /// Stored bytes read.
    pub bytes_read: u64,
    /// Decoding whatever is needed, once; 0 where nothing is encoded.
    pub decode_seconds: f64,
    /// Bytes that decoding gives.
    pub bytes_decoded: u64,
    /// Copying the wanted elements once.
    pub gather_seconds: f64,
    /// Bytes of the wanted elements.
    pub bytes_gathered: u64,
}
