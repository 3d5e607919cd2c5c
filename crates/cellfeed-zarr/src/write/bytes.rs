//! Values and gene indices as little-endian bytes.

use super::stream::Items;
use cellfeed_core::{Error, Indices, Result, ValueType, Values};

impl Items {
    /// The data type of matrix values.
    pub(super) fn of(value_type: ValueType) -> Option<Self> {
        let name = match value_type {
            ValueType::U8 => "uint8",
            ValueType::U16 => "uint16",
            ValueType::U32 => "uint32",
            ValueType::U64 => "uint64",
            ValueType::I8 => "int8",
            ValueType::I16 => "int16",
            ValueType::I32 => "int32",
            ValueType::I64 => "int64",
            ValueType::F16 => "float16",
            ValueType::F32 => "float32",
            ValueType::F64 => "float64",
            _ => return None,
        };
        Some(Self { name, width: value_type.size() })
    }
}

macro_rules! put {
    ($items:expr, $out:expr) => {
        if cfg!(target_endian = "little") {
            $out.extend_from_slice(bytemuck::cast_slice(&$items[..]));
        } else {
            $items.iter().for_each(|item| $out.extend(item.to_le_bytes()));
        }
    };
}

/// Appends values in their own type.
pub(super) fn put_values(values: &Values, out: &mut Vec<u8>) -> Result<()> {
    match values {
        Values::U8(v) => put!(v, out),
        Values::U16(v) => put!(v, out),
        Values::U32(v) => put!(v, out),
        Values::U64(v) => put!(v, out),
        Values::I8(v) => put!(v, out),
        Values::I16(v) => put!(v, out),
        Values::I32(v) => put!(v, out),
        Values::I64(v) => put!(v, out),
        Values::F16(v) => put!(v, out),
        Values::F32(v) => put!(v, out),
        Values::F64(v) => put!(v, out),
        _ => return Err(Error::internal("values of an unknown type")),
    }
    Ok(())
}

/// Appends gene indices, which are below 2^31, as `int32`.
pub(super) fn put_indices(indices: &Indices, out: &mut Vec<u8>) -> Result<()> {
    match indices {
        Indices::U16(v) => {
            out.reserve(v.len() * 4);
            v.iter().for_each(|&i| out.extend_from_slice(&u32::from(i).to_le_bytes()));
        }
        Indices::U32(v) => put!(v, out),
        _ => return Err(Error::internal("gene indices of an unknown width")),
    }
    Ok(())
}
