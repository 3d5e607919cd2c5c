//! Types of elements, in the words of v2 (NumPy's) and of v3.

use cellfeed_core::{Error, Result, ValueType};
use serde_json::Value;

/// What an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Number(ValueType),
    Bool,
    /// Text of any length.
    Text,
    /// Text of so many characters of four bytes (UCS-4).
    Fixed(usize),
    /// Text of so many bytes.
    Bytes(usize),
    /// A record of so many bytes, of which fields are read.
    Record(usize),
}

impl Kind {
    /// Bytes of an element; none for text of any length.
    pub(crate) fn size(self) -> Option<usize> {
        match self {
            Self::Number(t) => Some(t.size()),
            Self::Bool => Some(1),
            Self::Text => None,
            Self::Fixed(chars) => chars.checked_mul(4),
            Self::Bytes(n) | Self::Record(n) => Some(n),
        }
    }

    /// The width of the parts whose byte order matters.
    pub(crate) fn word(self) -> usize {
        match self {
            Self::Number(t) => t.size(),
            Self::Fixed(_) => 4,
            _ => 1,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Number(t) => t.as_str().to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Text => "string".to_owned(),
            Self::Fixed(chars) => format!("U{chars}"),
            Self::Bytes(n) => format!("S{n}"),
            Self::Record(n) => format!("record of {n} bytes"),
        }
    }
}

fn unknown(name: &Value) -> Error {
    Error::unsupported(format!(
        "the data type {name} is not read; numbers, bool and strings are: convert the column or matrix"
    ))
}

/// A v3 data type.
pub(crate) fn v3(name: &Value) -> Result<Kind> {
    if let Some(object) = name.as_object()
        && object.get("name").and_then(Value::as_str) == Some("fixed_length_utf32")
    {
        let bytes = name["configuration"]["length_bytes"].as_u64();
        let chars = bytes.filter(|b| b.is_multiple_of(4) && (1..=1 << 20).contains(b));
        let chars = chars.and_then(|b| usize::try_from(b / 4).ok());
        return chars.map(Kind::Fixed).ok_or_else(|| unknown(name));
    }
    Ok(match name.as_str().unwrap_or_default() {
        "bool" => Kind::Bool,
        "string" => Kind::Text,
        "uint8" => Kind::Number(ValueType::U8),
        "uint16" => Kind::Number(ValueType::U16),
        "uint32" => Kind::Number(ValueType::U32),
        "uint64" => Kind::Number(ValueType::U64),
        "int8" => Kind::Number(ValueType::I8),
        "int16" => Kind::Number(ValueType::I16),
        "int32" => Kind::Number(ValueType::I32),
        "int64" => Kind::Number(ValueType::I64),
        "float16" => Kind::Number(ValueType::F16),
        "float32" => Kind::Number(ValueType::F32),
        "float64" => Kind::Number(ValueType::F64),
        _ => return Err(unknown(name)),
    })
}

/// A v2 data type, and whether its bytes are big-endian. `vlen` says that the array has the filter
/// `vlen-utf8`.
pub(crate) fn v2(name: &Value, vlen: bool) -> Result<(Kind, bool)> {
    let text = name.as_str().unwrap_or_default();
    if text == "|O" && vlen {
        return Ok((Kind::Text, false));
    }
    let (Some(order), Some(code)) = (text.get(..1), text.get(1..)) else {
        return Err(unknown(name));
    };
    let kind = match code {
        "b1" => Kind::Bool,
        "u1" => Kind::Number(ValueType::U8),
        "u2" => Kind::Number(ValueType::U16),
        "u4" => Kind::Number(ValueType::U32),
        "u8" => Kind::Number(ValueType::U64),
        "i1" => Kind::Number(ValueType::I8),
        "i2" => Kind::Number(ValueType::I16),
        "i4" => Kind::Number(ValueType::I32),
        "i8" => Kind::Number(ValueType::I64),
        "f2" => Kind::Number(ValueType::F16),
        "f4" => Kind::Number(ValueType::F32),
        "f8" => Kind::Number(ValueType::F64),
        _ => {
            let length = |letter| {
                let n = code.strip_prefix(letter).and_then(|n| n.parse::<usize>().ok());
                n.filter(|n| *n > 0)
            };
            match (length('U'), length('S')) {
                (Some(chars), _) if chars <= 1 << 18 => Kind::Fixed(chars),
                (_, Some(n)) if n <= 1 << 20 => Kind::Bytes(n),
                _ => return Err(unknown(name)),
            }
        }
    };
    Ok((kind, order == ">"))
}
