//! Elements and attributes through the reference library's typed reads.
//!
//! Its binding reads into static types. Numbers go through the type of their width, strings of
//! fixed length through the next of a few sizes (the library pads), and a compound's field through
//! [`OneField`], whose HDF5 type names the field that this thread asked for.

use std::cell::RefCell;
use std::ops::Range;

use cellfeed_core::{Error, Result};
use hdf5::types::{
    CompoundField, CompoundType, FixedAscii, FixedUnicode, H5Type, TypeDescriptor, VarLenAscii,
    VarLenUnicode,
};
use hdf5::{Hyperslab, ObjectReference1, ReferencedObject, Selection, SliceOrIndex};

use super::attributes::AttributeValue;
use super::element::ElementType;
use super::native::failed;
use super::strings::StringRows;

thread_local! {
    static FIELD: RefCell<String> = const { RefCell::new(String::new()) };
}

/// One field of a compound, as a compound of its own.
#[repr(transparent)]
#[derive(Clone)]
struct OneField<T>(T);

// SAFETY: the layout is that of T, which is what the descriptor says: one field at offset 0 whose
// size is the whole. The name only selects which stored field is converted.
unsafe impl<T: H5Type> H5Type for OneField<T> {
    fn type_descriptor() -> TypeDescriptor {
        let ty = T::type_descriptor();
        let size = ty.size();
        let name = FIELD.with(|f| f.borrow().clone());
        let fields = vec![CompoundField { name, ty, offset: 0, index: 0 }];
        TypeDescriptor::Compound(CompoundType { fields, size })
    }
}

fn read<T: H5Type>(
    dataset: &hdf5::Dataset,
    field: Option<&str>,
    rows: &Range<u64>,
) -> Result<Vec<T>> {
    match field {
        None => slice(dataset, rows),
        Some(name) => {
            FIELD.with(|f| name.clone_into(&mut f.borrow_mut()));
            let values: Vec<OneField<T>> = slice(dataset, rows)?;
            Ok(values.into_iter().map(|v| v.0).collect())
        }
    }
}

fn slice<T: H5Type>(dataset: &hdf5::Dataset, rows: &Range<u64>) -> Result<Vec<T>> {
    let wrong = |e| failed("libhdf5 cannot read", e);
    let shape = dataset.shape();
    let space = dataset.space().map_err(wrong)?;
    if rows.is_empty() || space.is_null() || shape.contains(&0) {
        return Ok(Vec::new());
    }
    if shape.is_empty() {
        return dataset.read_raw().map_err(wrong);
    }
    let start = usize::try_from(rows.start).unwrap_or(usize::MAX);
    let count = usize::try_from(rows.end - rows.start).unwrap_or(usize::MAX);
    let slice = SliceOrIndex::SliceCount { start, step: 1, count, block: 1 };
    let select = |rank: usize| {
        let mut dims = vec![slice];
        dims.resize(rank, (..).into());
        Selection::Hyperslab(Hyperslab::from(dims))
    };
    match shape.len() {
        1 => Ok(dataset.read_slice_1d(select(1)).map_err(wrong)?.into_iter().collect()),
        2 => Ok(dataset.read_slice_2d(select(2)).map_err(wrong)?.into_iter().collect()),
        _ if Some(&count) == shape.first() => dataset.read_raw().map_err(wrong),
        rank => Err(Error::unsupported(format!("some rows of {rank} dimensions with libhdf5"))),
    }
}

macro_rules! numbers {
    ($type:ty, $dataset:expr, $field:expr, $rows:expr) => {
        read::<$type>($dataset, $field, $rows)?.iter().flat_map(|v| v.to_le_bytes()).collect()
    };
}

/// The elements of some rows, little-endian.
pub(super) fn plain(
    dataset: &hdf5::Dataset,
    element: &ElementType,
    field: Option<&str>,
    rows: &Range<u64>,
) -> Result<Vec<u8>> {
    let bytes: Vec<u8> = match element {
        // Booleans are read as what they are stored in: a byte other than 0 and 1 is no `bool`.
        ElementType::Bool => numbers!(i8, dataset, field, rows),
        ElementType::Integer { bytes, signed, .. } | ElementType::Enum { bytes, signed, .. } => {
            match (bytes, signed) {
                (1, true) => numbers!(i8, dataset, field, rows),
                (2, true) => numbers!(i16, dataset, field, rows),
                (4, true) => numbers!(i32, dataset, field, rows),
                (_, true) => numbers!(i64, dataset, field, rows),
                (1, false) => numbers!(u8, dataset, field, rows),
                (2, false) => numbers!(u16, dataset, field, rows),
                (4, false) => numbers!(u32, dataset, field, rows),
                (_, false) => numbers!(u64, dataset, field, rows),
            }
        }
        ElementType::Float { bytes: 4, .. } => numbers!(f32, dataset, field, rows),
        ElementType::Float { bytes: 8, .. } => numbers!(f64, dataset, field, rows),
        other => {
            return Err(Error::unsupported(format!(
                "elements of type {other} cannot be read as plain values with libhdf5"
            )));
        }
    };
    Ok(bytes)
}

/// The strings of some rows.
pub(super) fn strings(
    dataset: &hdf5::Dataset,
    kind: &TypeDescriptor,
    field: Option<&str>,
    rows: &Range<u64>,
    per_row: u64,
    limit: u64,
) -> Result<Vec<String>> {
    let mut out = StringRows::new(rows, per_row, limit)?;
    macro_rules! push {
        ($type:ty) => {
            for s in read::<$type>(dataset, field, rows)? {
                out.push_terminated(s.as_bytes())?;
            }
        };
    }
    macro_rules! fixed {
        ($type:ident, $len:expr, $($n:literal)*) => {
            match $len {
                $(n if n <= $n => push!($type<$n>),)*
                n => return Err(Error::unsupported(format!("strings of {n} bytes"))),
            }
        };
    }
    match kind {
        TypeDescriptor::VarLenAscii => push!(VarLenAscii),
        TypeDescriptor::VarLenUnicode => push!(VarLenUnicode),
        TypeDescriptor::FixedAscii(len) => fixed!(FixedAscii, *len, 8 32 128 512 2048 8192),
        TypeDescriptor::FixedUnicode(len) => fixed!(FixedUnicode, *len, 8 32 128 512 2048 8192),
        other => {
            return Err(Error::invalid_input(format!("elements of type {other} are no strings")));
        }
    }
    Ok(out.finish())
}

/// The value of an attribute of `object`.
pub(super) fn attribute(object: &hdf5::Location, attr: &hdf5::Attribute) -> AttributeValue {
    let other = |what: String| AttributeValue::Other(what);
    let descriptor = match attr.dtype().and_then(|t| t.to_descriptor()) {
        Ok(descriptor) => descriptor,
        Err(e) => return other(e.to_string()),
    };
    let null = attr.space().is_ok_and(|s| s.is_null());
    let scalar = attr.is_scalar() && !null;
    let size = attr.size();
    let value = match &descriptor {
        _ if size > 1 << 20 => return other(format!("{size} elements")),
        TypeDescriptor::Unsigned(_) => raw::<u64>(attr, null).map(|v| {
            match v.into_iter().map(i64::try_from).collect::<Result<Vec<_>, _>>() {
                Ok(v) => AttributeValue::Integers(v),
                Err(_) => AttributeValue::Other("an integer beyond 2^63".to_owned()),
            }
        }),
        TypeDescriptor::Integer(_) | TypeDescriptor::Enum(_) => {
            raw::<i64>(attr, null).map(AttributeValue::Integers)
        }
        TypeDescriptor::Boolean => raw::<i8>(attr, null).map(|v| match v.as_slice() {
            [one] => AttributeValue::Bool(*one != 0),
            many => AttributeValue::Integers(many.iter().map(|&b| b.into()).collect()),
        }),
        TypeDescriptor::Float(_) => raw::<f64>(attr, null).map(AttributeValue::Floats),
        TypeDescriptor::VarLenAscii => texts::<VarLenAscii>(attr, null, |s| s.as_bytes()),
        TypeDescriptor::VarLenUnicode => texts::<VarLenUnicode>(attr, null, |s| s.as_bytes()),
        TypeDescriptor::FixedAscii(n) if *n <= 4096 => {
            texts::<FixedAscii<4096>>(attr, null, |s| s.as_bytes())
        }
        TypeDescriptor::FixedUnicode(n) if *n <= 4096 => {
            texts::<FixedUnicode<4096>>(attr, null, |s| s.as_bytes())
        }
        TypeDescriptor::Reference(hdf5::types::Reference::Object) if scalar => {
            attr.read_scalar::<ObjectReference1>().and_then(|r| object.dereference(&r)).map(|to| {
                AttributeValue::Reference(match to {
                    ReferencedObject::Group(o) => o.name(),
                    ReferencedObject::Dataset(o) => o.name(),
                    ReferencedObject::Datatype(_) => String::new(),
                })
            })
        }
        _ => return other(descriptor.to_string()),
    };
    value.unwrap_or_else(|e| other(e.to_string()))
}

fn raw<T: H5Type>(attr: &hdf5::Attribute, null: bool) -> hdf5::Result<Vec<T>> {
    if null { Ok(Vec::new()) } else { attr.read_raw() }
}

fn texts<T: H5Type>(
    attr: &hdf5::Attribute,
    null: bool,
    bytes: impl Fn(&T) -> &[u8],
) -> hdf5::Result<AttributeValue> {
    let text = |s: &T| String::from_utf8_lossy(bytes(s)).into_owned();
    Ok(AttributeValue::Strings(raw::<T>(attr, null)?.iter().map(text).collect()))
}

/// The fill value, as far as the binding gives it.
pub(super) fn fill(dataset: &hdf5::Dataset, element: &ElementType) -> Option<Vec<u8>> {
    let size = usize::try_from(element.size()).ok().filter(|&n| n <= 1 << 16)?;
    element.plain_order()?;
    let Ok(Some(value)) = dataset.fill_value() else { return Some(vec![0; size]) };
    macro_rules! first_of {
        ($($type:ty)*) => {{
            $(let value = match value.cast::<$type>() {
                Ok(v) => return Some(v.to_le_bytes().to_vec()),
                Err(value) => value,
            };)*
            value
        }};
    }
    // A boolean is not asked for: any other byte than 0 and 1 would be no `bool`.
    let _ = first_of!(i8 i16 i32 i64 u8 u16 u32 u64 f32 f64);
    None
}
