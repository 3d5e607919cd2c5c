//! What a thread keeps between chunks: room for decoded bytes, and decoders, which are dear to make.

use std::cell::RefCell;

/// Room beyond this is given back after use.
const KEEP: usize = 16 << 20;

/// Room and decoders of a thread.
#[derive(Default)]
pub(crate) struct Scratch {
    /// A block of blosc, not unshuffled.
    pub(super) block: Vec<u8>,
    /// A whole chunk of which a part is wanted.
    pub(super) whole: Vec<u8>,
    pub(super) decoders: Decoders,
}

/// Decoders, made when first needed.
#[derive(Default)]
pub(crate) struct Decoders {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    inflate: Option<libdeflater::Decompressor>,
}

type Done = Result<usize, String>;

impl Decoders {
    /// Decodes to a place that is long enough; answers the decoded length.
    pub(super) fn zstd(&mut self, bytes: &[u8], to: &mut [u8]) -> Done {
        let decoder = match &mut self.zstd {
            Some(decoder) => decoder,
            none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
        };
        decoder.decompress_to_buffer(bytes, to).map_err(|e| e.to_string())
    }

    pub(super) fn gzip(&mut self, bytes: &[u8], to: &mut [u8]) -> Done {
        let inflate = self.inflate.get_or_insert_with(libdeflater::Decompressor::new);
        inflate.gzip_decompress(bytes, to).map_err(|e| e.to_string())
    }

    pub(super) fn zlib(&mut self, bytes: &[u8], to: &mut [u8]) -> Done {
        let inflate = self.inflate.get_or_insert_with(libdeflater::Decompressor::new);
        inflate.zlib_decompress(bytes, to).map_err(|e| e.to_string())
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lends the thread's scratch; a fresh one where it is lent already.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            let done = work(&mut scratch);
            let Scratch { block, whole, .. } = &mut *scratch;
            for room in [block, whole] {
                if room.capacity() > KEEP {
                    *room = Vec::new();
                }
            }
            done
        }
        Err(_) => work(&mut Scratch::default()),
    })
}
