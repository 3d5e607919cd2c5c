//! From the pure reader's types, values and errors to ours.

use cellfeed_core::{Error, ErrorKind};
use hdf5_pure::{
    AttrValue, Datatype, DatatypeByteOrder, FixedPointLayout, FloatingPointLayout, FormatError,
    ReferenceType, StringPadding,
};

use super::attributes::AttributeValue;
use super::element::{ByteOrder, ElementType, Field};
use super::probe;

/// Types nested deeper are not looked into.
const DEPTH: usize = 32;

/// What the datatype of a dataset or field is to us.
pub(crate) fn element(datatype: &Datatype) -> ElementType {
    nested(datatype, 0)
}

fn nested(datatype: &Datatype, depth: usize) -> ElementType {
    let other = |name: String| ElementType::Other { size: datatype.type_size(), name };
    if depth > DEPTH {
        return other("a type nested too deeply".to_owned());
    }
    match datatype {
        Datatype::FixedPoint { size, byte_order, layout } => {
            match (integer_bytes(*size, *layout), order(*size, byte_order)) {
                (Some(bytes), Some(order)) => {
                    ElementType::Integer { bytes, signed: layout.signed, order }
                }
                _ => other(format!("integer of {} bits in {size} bytes", layout.bit_precision)),
            }
        }
        Datatype::FloatingPoint { size, byte_order, layout } => {
            match (float_bytes(*size, *layout), order(*size, byte_order)) {
                (Some(bytes), Some(order)) => ElementType::Float { bytes, order },
                _ => other(format!("floating point of {size} bytes, not IEEE 754")),
            }
        }
        Datatype::String { size, .. } => ElementType::FixedString { len: *size },
        Datatype::VariableLength { is_string: true, .. } => ElementType::VlenString,
        Datatype::VariableLength { .. } => other("sequence of variable length".to_owned()),
        Datatype::Enumeration { base_type, members, size } => {
            let ElementType::Integer { bytes, signed, order } = nested(base_type, depth + 1) else {
                return other("enumeration over a type that is not an integer".to_owned());
            };
            if u32::from(bytes) != *size {
                return other("enumeration of another size than its integer".to_owned());
            }
            let value = |raw: &[u8]| enum_value(raw, bytes, signed, order);
            let pairs: Option<Vec<(String, i64)>> =
                members.iter().map(|m| Some((m.name.clone(), value(&m.value)?))).collect();
            match pairs {
                Some(pairs) if bytes == 1 && is_bool(&pairs) => ElementType::Bool,
                Some(members) => ElementType::Enum { bytes, signed, order, members },
                None => other("enumeration with values of another size".to_owned()),
            }
        }
        Datatype::Compound { size, members } => ElementType::Compound {
            size: *size,
            fields: members
                .iter()
                .map(|m| Field {
                    name: m.name.clone(),
                    offset: m.byte_offset,
                    element: nested(&m.datatype, depth + 1),
                })
                .collect(),
        },
        Datatype::Reference { size: 8, ref_type: ReferenceType::Object } => ElementType::Reference,
        Datatype::Reference { .. } => other("reference to a region".to_owned()),
        Datatype::Array { dimensions, .. } => other(format!("array of shape {dimensions:?}")),
        Datatype::BitField { .. } => other("bit field".to_owned()),
        Datatype::Opaque { .. } => other("opaque bytes".to_owned()),
        Datatype::Time { .. } => other("time".to_owned()),
        _ => other("a datatype of a later HDF5".to_owned()),
    }
}

/// The two members that make an enumeration a boolean.
pub(crate) fn is_bool(members: &[(String, i64)]) -> bool {
    matches!(members, [(f, 0), (t, 1)] if f == "FALSE" && t == "TRUE")
}

fn integer_bytes(size: u32, layout: FixedPointLayout) -> Option<u8> {
    let bytes = u8::try_from(size).ok().filter(|b| matches!(b, 1 | 2 | 4 | 8))?;
    (layout.bit_offset == 0 && layout.bit_precision == u16::from(bytes) * 8).then_some(bytes)
}

fn float_bytes(size: u32, layout: FloatingPointLayout) -> Option<u8> {
    const HALF: FloatingPointLayout = FloatingPointLayout {
        bit_offset: 0,
        bit_precision: 16,
        exponent_location: 10,
        exponent_size: 5,
        mantissa_location: 0,
        mantissa_size: 10,
        exponent_bias: 15,
    };
    match size {
        2 => (layout == HALF).then_some(2),
        4 => (layout == FloatingPointLayout::IEEE754_BINARY32).then_some(4),
        8 => (layout == FloatingPointLayout::IEEE754_BINARY64).then_some(8),
        _ => None,
    }
}

fn order(size: u32, order: &DatatypeByteOrder) -> Option<ByteOrder> {
    match order {
        _ if size == 1 => Some(ByteOrder::Little),
        DatatypeByteOrder::LittleEndian => Some(ByteOrder::Little),
        DatatypeByteOrder::BigEndian => Some(ByteOrder::Big),
        DatatypeByteOrder::Vax => None,
    }
}

fn enum_value(raw: &[u8], bytes: u8, signed: bool, order: ByteOrder) -> Option<i64> {
    if raw.len() != usize::from(bytes) {
        return None;
    }
    let fold = |n: u64, b: &u8| (n << 8) | u64::from(*b);
    let n = match order {
        ByteOrder::Little => raw.iter().rev().fold(0, fold),
        ByteOrder::Big => raw.iter().fold(0, fold),
    };
    let unused = 64 - 8 * u32::from(bytes);
    let n = n.cast_signed();
    if signed { Some((n << unused) >> unused) } else { Some(n) }
}

/// How the padding of a fixed-length string is told from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    Terminated,
    Nulls,
    Spaces,
}

pub(crate) fn padding(datatype: &Datatype) -> Padding {
    match datatype {
        Datatype::String { padding: StringPadding::NullTerminate, .. } => Padding::Terminated,
        Datatype::String { padding: StringPadding::SpacePad, .. } => Padding::Spaces,
        _ => Padding::Nulls,
    }
}

/// The value of an attribute, given its type.
pub(crate) fn attribute(value: AttrValue, datatype: Option<&Datatype>) -> AttributeValue {
    use AttrValue as V;
    use AttributeValue::{Floats, Integers, Strings};
    fn wide<T: Into<i64>>(values: Vec<T>) -> AttributeValue {
        Integers(values.into_iter().map(Into::into).collect())
    }
    let unsigned = |values: Vec<u64>| match values
        .into_iter()
        .map(i64::try_from)
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(values) => Integers(values),
        Err(_) => AttributeValue::Other("an integer beyond 2^63".to_owned()),
    };
    let result = match value {
        V::I8(v) => wide(vec![v]),
        V::I8Array(v) => wide(v),
        V::I16(v) => wide(vec![v]),
        V::I16Array(v) => wide(v),
        V::I32(v) => wide(vec![v]),
        V::I32Array(v) => wide(v),
        V::I64(v) => wide(vec![v]),
        V::I64Array(v) => wide(v),
        V::U8(v) => wide(vec![v]),
        V::U8Array(v) => wide(v),
        V::U16(v) => wide(vec![v]),
        V::U16Array(v) => wide(v),
        V::U32(v) => wide(vec![v]),
        V::U32Array(v) => wide(v),
        V::U64(v) => unsigned(vec![v]),
        V::U64Array(v) => unsigned(v),
        V::F32(v) => Floats(vec![v.into()]),
        V::F32Array(v) => Floats(v.into_iter().map(f64::from).collect()),
        V::F64(v) => Floats(vec![v]),
        V::F64Array(v) => Floats(v),
        V::String(v)
        | V::StringSized { value: v, .. }
        | V::AsciiString(v)
        | V::AsciiStringSized { value: v, .. }
        | V::VarLenString(v)
        | V::VarLenAsciiString(v) => Strings(vec![v]),
        V::StringArray(v)
        | V::StringArraySized { values: v, .. }
        | V::AsciiStringArray(v)
        | V::AsciiStringArraySized { values: v, .. }
        | V::VarLenAsciiCharArray(v)
        | V::VarLenStringArray(v)
        | V::VarLenAsciiStringArray(v) => Strings(v),
        _ => AttributeValue::Other("a value of a kind that is not known".to_owned()),
    };
    match (&result, datatype.map(element)) {
        (Integers(v), Some(ElementType::Bool)) if v.len() == 1 => {
            AttributeValue::Bool(v.first() != Some(&0))
        }
        _ => result,
    }
}

/// An error of the pure reader as one of ours. (Errors of the source come back by
/// [`super::guard::remember`].)
pub(crate) fn error(error: hdf5_pure::Error) -> Error {
    use hdf5_pure::Error as E;
    let kind = match &error {
        E::FileMarkedInUse(_) | E::FileLocked(_) => return probe::in_use(),
        E::Io(_) => ErrorKind::Io,
        E::NotADataset(_) | E::NotAGroup(_) => ErrorKind::InvalidInput,
        E::Format(format) => match format {
            FormatError::PathNotFound(_) => ErrorKind::NotFound,
            FormatError::Source(_) => ErrorKind::Io,
            FormatError::AllocationFailed { .. } => ErrorKind::OverBudget,
            FormatError::UnsupportedVersion(_)
            | FormatError::UnsupportedMessage { .. }
            | FormatError::UnsupportedFilter(_)
            | FormatError::UnsupportedVirtualLayout
            | FormatError::UnsupportedExternalStorage
            | FormatError::UnsupportedZfp(_)
            | FormatError::InvalidLayoutVersion(_)
            | FormatError::InvalidDatatypeClass(_)
            | FormatError::InvalidDatatypeVersion { .. }
            | FormatError::NumericElementTooWide { .. } => ErrorKind::Unsupported,
            FormatError::ChunkedReadError(why) if why.contains("version 2 B-tree") => {
                ErrorKind::Unsupported
            }
            _ => ErrorKind::Corrupt,
        },
        _ => ErrorKind::Corrupt,
    };
    let remedy = match &error {
        E::Format(FormatError::InvalidLayoutVersion(_)) => {
            "; it is newer than this reader: build with the feature libhdf5, or write the file again \
             for an older HDF5 (h5py: libver=\"v114\")"
        }
        _ => "",
    };
    Error::new(kind, format!("cannot read the HDF5 structure: {error}{remedy}")).caused_by(error)
}
