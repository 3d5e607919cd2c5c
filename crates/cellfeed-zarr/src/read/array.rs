//! An array: read whole here; in parts by `sparse` and `dense`.
//!
//! No memory is taken because a header says so. Values that compress to nothing, and chunks of fill
//! values, which are not written at all, are nothing unusual, so an array's own files tell little about
//! its length. Names of cells and genes differ, and cannot be so few bytes: it is their files that vouch
//! for the length of everything that has a value for each. Where nothing vouches, an array that is read
//! whole is held against its files as if it were names, one that is read in parts against what its
//! codecs can make of them at most.

use super::locate::Located;
use super::shard::Indexes;
use super::{Context, as_u64, grid, text, to_usize};
use crate::codec;
use crate::meta::array::ArrayMeta;
use crate::meta::dtype::Kind;
use crate::meta::join;
use bytes::Bytes;
use cellfeed_core::io::Entry;
use cellfeed_core::{Error, Result, ValueType};
use std::sync::Arc;

/// Stored bytes in memory at a time while an array is read whole.
const WAVE_BYTES: u64 = 8 << 20;

/// What any array may say, in bytes and in chunks.
const SMALL: u64 = 16 << 20;
const FEW_CHUNKS: u64 = 1 << 20;
/// Chunks of an array that others vouch for.
const MOST_CHUNKS: u64 = 1 << 22;
/// How many bytes one of a file can be of values that differ.
const OF_NAMES: u64 = 4096;

/// An array that can be read.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) meta: ArrayMeta,
    /// Whether a file that is not there is an error, not so many fill values.
    pub(crate) strict: bool,
    /// Whether its length is that of another array which has the bytes for it, or no more than a limit.
    pub(crate) vouched: bool,
    /// Bytes of its files, where they were looked at.
    pub(crate) stored: u64,
    pub(super) indexes: Indexes,
}

impl Array {
    pub(crate) fn new(meta: ArrayMeta) -> Self {
        Self { meta, strict: false, vouched: false, stored: 0, indexes: Indexes::default() }
    }

    pub(crate) fn blame(&self, error: Error) -> Error {
        error.with_default("element", &self.meta.path)
    }

    /// The most bytes that a chunk may be stored in; more is taken for damage.
    pub(crate) fn most_stored(&self) -> u64 {
        self.meta.chunk_bytes().map_or(u64::MAX, |n| as_u64(n) + as_u64(n) / 4 + 4096)
    }

    /// About how many bytes so many chunks are stored in, rather too many than too few.
    pub(crate) fn stored_estimate(&self, chunks: u64) -> u64 {
        let all = self.meta.grid().iter().product::<u64>().max(1);
        let mean = self.stored.div_ceil(all);
        (mean + mean / 8).min(self.most_stored()).saturating_mul(chunks)
    }

    /// Bytes that it says it has. Text of any length has its length at least.
    pub(crate) fn says(&self) -> u64 {
        let size = as_u64(self.meta.kind.size().unwrap_or(4));
        self.meta.len().saturating_mul(size)
    }

    fn n_chunks(&self) -> u64 {
        self.meta.grid().into_iter().fold(1, u64::saturating_mul)
    }

    /// Bytes of its files, without those that say what it is.
    fn held(&self, context: &Context) -> u64 {
        let about = ["zarr.json", ".zarray", ".zattrs"].into_iter().map(|name| {
            match context.files.look(&join(&self.meta.path, name)) {
                Ok(Some(Entry::File(length))) => length,
                _ => 0,
            }
        });
        let about = about.fold(0, u64::saturating_add);
        context.files.bytes_below(&self.meta.path).saturating_sub(about)
    }

    /// Whether its files have the bytes for its length, if its values are no two alike.
    pub(crate) fn has_its_bytes(&self, context: &Context) -> bool {
        let says = self.says();
        (says <= SMALL && self.n_chunks() <= FEW_CHUNKS) || says / OF_NAMES <= self.held(context)
    }

    fn implausible(&self, held: u64) -> Error {
        let says = self.says();
        self.blame(Error::corrupt(format!(
            "the array says {says} bytes, but its files have {held}"
        )))
    }

    /// Refuses an array that says far more than its files can hold, before it is read whole.
    fn check_plausible(&self, context: &Context) -> Result<()> {
        if (self.vouched && self.n_chunks() <= MOST_CHUNKS) || self.has_its_bytes(context) {
            return Ok(());
        }
        Err(self.implausible(self.held(context)))
    }

    /// Takes note of the bytes of its files, and refuses an array that says more than they can become:
    /// what is read of it will be given room by what it says.
    pub(crate) fn measure(&mut self, context: &Context) -> Result<()> {
        self.stored = context.files.bytes_below(&self.meta.path);
        if self.vouched || self.says() <= SMALL {
            return Ok(());
        }
        let held = self.held(context);
        if self.says() / codec::most(&self.meta.codecs) > held {
            return Err(self.implausible(held));
        }
        Ok(())
    }

    /// The whole array, of elements with a size, in row-major order.
    pub(crate) async fn read_all(self: &Arc<Self>, context: &Context) -> Result<Vec<u8>> {
        self.check_plausible(context)?;
        let item = self.meta.kind.size().unwrap_or(0);
        let chunks = grid::all(&self.meta.grid());
        let located = Located::find(self, context, chunks.clone()).await?;
        let located = Arc::new(located);
        let mut out = vec![0; to_usize(self.meta.len()).saturating_mul(item)];
        for wave in located.waves(WAVE_BYTES, 0) {
            let stored = located.read(wave.clone()).await?;
            let (this, located) = (Arc::clone(self), Arc::clone(&located));
            let chunks = chunks.get(wave.clone()).unwrap_or_default().to_vec();
            let work = move || {
                let (shape, inner) = (&this.meta.shape, &this.meta.inner);
                for ((i, chunk), stored) in wave.zip(chunks).zip(&stored) {
                    let Some(stored) = stored else {
                        let fill = this.fill_item().map_err(|e| located.blame(i, e))?;
                        // Zeros are there.
                        if fill.iter().any(|byte| *byte != 0) {
                            grid::fill(&mut out, &fill, shape, inner, &chunk);
                        }
                        continue;
                    };
                    let bytes = this.decode(Some(stored)).map_err(|e| located.blame(i, e))?;
                    grid::place(&mut out, &bytes, shape, inner, &chunk, item);
                }
                Ok(out)
            };
            out = context.engine.compute(work).await?;
        }
        context.engine.stats().add_decoded(as_u64(out.len()));
        Ok(out)
    }

    /// The whole array of text, in row-major order, for arrays of at most one dimension.
    pub(crate) async fn read_text(self: &Arc<Self>, context: &Context) -> Result<Vec<String>> {
        if self.meta.shape.len() > 1 {
            return Err(self.blame(Error::unsupported("text of several dimensions is not read")));
        }
        if self.meta.kind.size().is_some() {
            let bytes = self.read_all(context).await?;
            return text::fixed(self.meta.kind, &bytes).map_err(|e| self.blame(e));
        }
        self.check_plausible(context)?;
        let chunks = grid::all(&self.meta.grid());
        let located = Located::find(self, context, chunks.clone()).await?;
        let located = Arc::new(located);
        let mut out = Vec::new();
        for wave in located.waves(WAVE_BYTES, 0) {
            let stored = located.read(wave.clone()).await?;
            let (this, located) = (Arc::clone(self), Arc::clone(&located));
            let work = move || {
                let n = to_usize(this.meta.len());
                for (i, stored) in wave.zip(stored) {
                    let most = this.meta.chunk_len();
                    let want = most.min(n - out.len().min(n));
                    let Some(stored) = stored else {
                        let fill = this.meta.fill.as_str().unwrap_or_default();
                        out.extend((0..want).map(|_| fill.to_owned()));
                        continue;
                    };
                    let texts = codec::decode(&this.meta.codecs, &stored, None)
                        .and_then(|bytes| text::texts(&bytes, most, want));
                    out.extend(texts.map_err(|e| located.blame(i, e))?.into_iter().take(want));
                }
                Ok(out)
            };
            out = context.engine.compute(work).await.map_err(|e| self.blame(e))?;
        }
        Ok(out)
    }

    /// Goes through an array of one dimension in parts, as `i64`: for what is not to be held whole.
    pub(crate) async fn scan_integers(
        self: &Arc<Self>,
        context: &Context,
        mut take: impl FnMut(Vec<i64>) -> Result<()>,
    ) -> Result<()> {
        self.check_plausible(context)?;
        let chunks = grid::all(&self.meta.grid());
        let located = Arc::new(Located::find(self, context, chunks).await?);
        // What a wave becomes is in memory too, and may be many times as much.
        let each = as_u64(self.meta.chunk_bytes().unwrap_or(0)) / 8;
        for wave in located.waves(WAVE_BYTES, each) {
            let stored = located.read(wave.clone()).await?;
            let (this, located) = (Arc::clone(self), Arc::clone(&located));
            let work = move || {
                let mut out = Vec::new();
                for (i, stored) in wave.zip(stored) {
                    let first = as_u64(i) * as_u64(this.meta.chunk_len());
                    let n = to_usize(this.meta.len() - first).min(this.meta.chunk_len());
                    let mut bytes = vec![0; n * this.item()?];
                    this.decode_parts(stored.as_deref(), std::slice::from_ref(&(0..n)), &mut bytes)
                        .and_then(|_| integers(this.meta.kind, &bytes))
                        .map(|values| out.extend(values))
                        .map_err(|e| located.blame(i, e))?;
                }
                Ok(out)
            };
            let values = context.engine.compute(work).await.map_err(|e| self.blame(e))?;
            take(values).map_err(|e| self.blame(e))?;
        }
        Ok(())
    }
}

/// Integers of any width.
pub(crate) fn integers(kind: Kind, bytes: &[u8]) -> Result<Vec<i64>> {
    let Kind::Number(t) = kind else {
        return Err(Error::corrupt(format!("{} where integers should be", kind.name())));
    };
    if matches!(t, ValueType::F16 | ValueType::F32 | ValueType::F64) {
        return Err(Error::corrupt(format!("{t} where integers should be")));
    }
    let values = cellfeed_core::Values::from_bytes(t, Bytes::copy_from_slice(bytes))?;
    let values = values.cast(ValueType::I64).map_err(|e| Error::corrupt(e.message().to_owned()))?;
    match values {
        cellfeed_core::Values::I64(b) => Ok(b.to_vec()),
        _ => Err(Error::internal("a cast gave another type")),
    }
}
