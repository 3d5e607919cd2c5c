//! What an element of a dataset is: the datatypes that AnnData uses by name, the rest as text.

use std::fmt;

/// The byte order of a stored number. One-byte elements are little-endian here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ByteOrder {
    Little,
    Big,
}

/// A member of a compound element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// Where the member starts inside the element, as the reader at hand lays elements out. The
    /// two readers differ here when a compound holds variable-length strings.
    pub(crate) offset: u64,
    pub(crate) element: ElementType,
}

/// The type of an element as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ElementType {
    /// Two's complement or unsigned, of 1, 2, 4 or 8 bytes, all of them significant.
    Integer { bytes: u8, signed: bool, order: ByteOrder },
    /// IEEE 754 of 2, 4 or 8 bytes.
    Float { bytes: u8, order: ByteOrder },
    /// The one-byte enumeration FALSE = 0, TRUE = 1 that h5py writes for booleans.
    Bool,
    /// Any other enumeration over an integer.
    Enum { bytes: u8, signed: bool, order: ByteOrder, members: Vec<(String, i64)> },
    /// `len` bytes, padded.
    FixedString { len: u32 },
    /// A string of variable length, kept in a heap.
    VlenString,
    /// Named members.
    Compound { size: u32, fields: Vec<Field> },
    /// An object reference.
    Reference,
    /// Anything else, in words for messages.
    Other { size: u32, name: String },
}

impl ElementType {
    /// Bytes of one element in the file; for a variable-length string, of its reference.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Integer { bytes, .. } | Self::Float { bytes, .. } | Self::Enum { bytes, .. } => {
                u64::from(*bytes)
            }
            Self::Bool => 1,
            Self::FixedString { len } => u64::from(*len),
            Self::VlenString => 16,
            Self::Compound { size, .. } | Self::Other { size, .. } => u64::from(*size),
            Self::Reference => 8,
        }
    }

    /// The field of a compound by name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        match self {
            Self::Compound { fields, .. } => fields.iter().find(|f| f.name == name),
            _ => None,
        }
    }

    /// Whether `read_raw` serves it, and in which order it is stored.
    pub(crate) fn plain_order(&self) -> Option<ByteOrder> {
        match self {
            Self::Integer { order, .. } | Self::Float { order, .. } | Self::Enum { order, .. } => {
                Some(*order)
            }
            Self::Bool | Self::FixedString { .. } => Some(ByteOrder::Little),
            _ => None,
        }
    }

    /// Whether `read_strings` serves it.
    pub(crate) fn is_string(&self) -> bool {
        matches!(self, Self::FixedString { .. } | Self::VlenString)
    }

    /// Turns elements into little-endian ones in place.
    pub(crate) fn to_little_endian(&self, bytes: &mut [u8]) {
        if self.plain_order() == Some(ByteOrder::Big) {
            let size = usize::try_from(self.size()).unwrap_or(1).max(1);
            for element in bytes.chunks_exact_mut(size) {
                element.reverse();
            }
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer { bytes, signed, .. } => {
                write!(f, "{}{}", if *signed { "i" } else { "u" }, u32::from(*bytes) * 8)
            }
            Self::Float { bytes, .. } => write!(f, "f{}", u32::from(*bytes) * 8),
            Self::Bool => f.write_str("bool"),
            Self::Enum { members, .. } => write!(f, "enumeration of {} names", members.len()),
            Self::FixedString { len } => write!(f, "string of {len} bytes"),
            Self::VlenString => f.write_str("string of variable length"),
            Self::Compound { fields, .. } => write!(f, "compound of {} fields", fields.len()),
            Self::Reference => f.write_str("object reference"),
            Self::Other { name, .. } => f.write_str(name),
        }
    }
}
