//! Elements on their way to the answer: byte order, and integers of any width to gene indices.

use super::index;
use crate::container::{ByteOrder, ElementType};
use cellfeed_core::{Error, ErrorKind, Result};

/// What becomes of elements as they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Convert {
    /// Kept, in little-endian order.
    Keep,
    /// Integers of any width to `u32`; those that do not fit are errors.
    Index,
}

/// Writes the fill value, zero if none is stated, everywhere.
pub(super) fn write_fill(
    element: &ElementType,
    fill: &[u8],
    convert: Convert,
    place: &mut [u8],
) -> Result<()> {
    let size = index(element.size());
    let zeros = vec![0u8; size];
    let mut one = vec![0u8; if convert == Convert::Index { 4 } else { size }];
    // The fill value is little-endian, whatever the elements are.
    let fill = if fill.len() == size { fill } else { &zeros };
    emit(&little_endian(element), convert, fill, &mut one)?;
    place.chunks_exact_mut(one.len()).for_each(|p| p.copy_from_slice(&one));
    Ok(())
}

pub(super) fn little_endian(element: &ElementType) -> ElementType {
    let mut element = element.clone();
    match &mut element {
        ElementType::Integer { order, .. }
        | ElementType::Float { order, .. }
        | ElementType::Enum { order, .. } => *order = ByteOrder::Little,
        _ => {}
    }
    element
}

/// Copies elements to their place, converting.
pub(super) fn emit(
    element: &ElementType,
    convert: Convert,
    source: &[u8],
    place: &mut [u8],
) -> Result<()> {
    if convert == Convert::Keep {
        place.copy_from_slice(source);
        element.to_little_endian(place);
        return Ok(());
    }
    let ElementType::Integer { bytes, signed, order } = *element else {
        return Err(Error::unsupported(format!("gene indices cannot be {element}")));
    };
    let (out, _) = place.as_chunks_mut::<4>();
    let big = order == ByteOrder::Big;
    match (bytes, signed) {
        (1, false) => narrow::<1>(source, out, |b| Some(b[0].into())),
        (1, true) => narrow::<1>(source, out, |b| u32::try_from(b[0].cast_signed()).ok()),
        (2, false) => narrow::<2>(source, out, |b| {
            Some(if big { u16::from_be_bytes(b) } else { u16::from_le_bytes(b) }.into())
        }),
        (2, true) => narrow::<2>(source, out, |b| {
            u32::try_from(if big { i16::from_be_bytes(b) } else { i16::from_le_bytes(b) }).ok()
        }),
        // Negative ones are past any n_vars as unsigned: the row check refuses them.
        (4, _) => narrow::<4>(source, out, |b| {
            Some(if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })
        }),
        (8, false) => narrow::<8>(source, out, |b| {
            u32::try_from(if big { u64::from_be_bytes(b) } else { u64::from_le_bytes(b) }).ok()
        }),
        (8, true) => narrow::<8>(source, out, |b| {
            u32::try_from(if big { i64::from_be_bytes(b) } else { i64::from_le_bytes(b) }).ok()
        }),
        _ => Err(Error::unsupported(format!("gene indices cannot be {element}"))),
    }
}

pub(super) fn narrow<const N: usize>(
    source: &[u8],
    place: &mut [[u8; 4]],
    to_index: impl Fn([u8; N]) -> Option<u32>,
) -> Result<()> {
    let (elements, _) = source.as_chunks::<N>();
    let mut fits = true;
    for (to, from) in place.iter_mut().zip(elements) {
        let value = to_index(*from);
        fits &= value.is_some();
        *to = value.unwrap_or(u32::MAX).to_ne_bytes();
    }
    if fits {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, "a gene index is negative or beyond 32 bits"))
}
