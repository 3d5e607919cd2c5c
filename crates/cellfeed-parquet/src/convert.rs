//! From stored numbers to those of an answer, in bulk.

use crate::footer::{Leaf, Physical};
use bytemuck::Pod;
use cellfeed_core::{Error, Result, ValueType};

/// Fills numbers from stored bytes.
type Bulk<'a, T> = dyn Fn(&[u8], &mut [T]) -> Result<()> + Send + Sync + 'a;

/// Turns stored values, which have `width` bytes each, into numbers of type `T`.
pub(crate) struct Convert<'a, T> {
    pub(crate) width: usize,
    bulk: Box<Bulk<'a, T>>,
}

impl<T> std::fmt::Debug for Convert<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Convert").field("width", &self.width).finish_non_exhaustive()
    }
}

/// Numbers as little-endian bytes, made into those of this machine.
pub(crate) fn copy_le<T: Pod>(from: &[u8], to: &mut [T]) {
    let bytes = bytemuck::cast_slice_mut::<T, u8>(to);
    bytes.copy_from_slice(from);
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
    }
}

impl<'a, T: Pod> Convert<'a, T> {
    /// `stored` has as many bytes as `out` needs.
    pub(crate) fn run(&self, stored: &[u8], out: &mut [T]) -> Result<()> {
        if stored.len() != out.len() * self.width {
            return Err(Error::internal("stored values of another length"));
        }
        (self.bulk)(stored, out)
    }

    fn same() -> Self {
        let bulk = |from: &[u8], to: &mut [T]| {
            copy_le(from, to);
            Ok(())
        };
        Self { width: size_of::<T>(), bulk: Box::new(bulk) }
    }

    fn each<const N: usize>(one: impl Fn([u8; N]) -> Result<T> + Send + Sync + 'a) -> Self {
        let bulk = move |from: &[u8], to: &mut [T]| {
            let (items, _) = from.as_chunks::<N>();
            for (slot, item) in to.iter_mut().zip(items) {
                *slot = one(*item)?;
            }
            Ok(())
        };
        Self { width: N, bulk: Box::new(bulk) }
    }

    /// Of values, whose type follows from the leaf and is `T`'s.
    pub(crate) fn values(leaf: &Leaf) -> Result<Self>
    where
        T: cellfeed_core::Value,
    {
        let narrow = |b: [u8; 4]| {
            let v = i32::from_le_bytes(b);
            T::from_integer(v.into())
                .ok_or_else(|| Error::corrupt(format!("{v} in a column of type {}", T::TYPE)))
        };
        match leaf.value_type() {
            Some(found) if found != T::TYPE => Err(Error::internal("values of another type")),
            Some(ValueType::U8 | ValueType::U16 | ValueType::I8 | ValueType::I16) => {
                Ok(Self::each::<4>(narrow))
            }
            Some(_) => Ok(Self::same()),
            None => Err(Error::internal("values of no type")),
        }
    }

    /// Of gene numbers, stored as 32 or 64 bits: what `number` makes of each.
    pub(crate) fn genes(
        leaf: &Leaf,
        number: impl Fn(u64) -> Result<T> + Send + Sync + 'a,
    ) -> Result<Self> {
        match (leaf.physical, leaf.value_type()) {
            (Physical::Int32, Some(_)) => {
                Ok(Self::each::<4>(move |b| number(u32::from_le_bytes(b).into())))
            }
            (Physical::Int64, Some(_)) => {
                Ok(Self::each::<8>(move |b| number(u64::from_le_bytes(b))))
            }
            _ => Err(Error::unsupported(format!(
                "gene indices are stored as {:?}; they must be whole numbers of 32 or 64 bits",
                leaf.physical
            ))),
        }
    }
}
