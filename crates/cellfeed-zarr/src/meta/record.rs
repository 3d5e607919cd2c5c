//! Structured arrays of v2: obs and var of anndata 0.6 and before, one record a row.

use super::dtype::{self, Kind};
use cellfeed_core::{Error, Result};
use serde_json::Value;

/// The longest record.
const LONGEST: usize = 1 << 24;

/// A field of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: String,
    /// What it is; none if it is not read.
    pub(crate) kind: Option<Kind>,
    pub(crate) big_endian: bool,
    pub(crate) offset: usize,
}

/// The fields of a structured data type, and the bytes of a record.
pub(crate) fn fields(dtype: &Value) -> Result<(Vec<Field>, usize)> {
    let odd = || Error::unsupported(format!("the data type {dtype} is not read"));
    let mut fields = Vec::new();
    let mut offset = 0usize;
    for entry in dtype.as_array().ok_or_else(odd)? {
        // A third entry is the shape of an array inside the record.
        let (Some(name), Some(code), None) = (entry[0].as_str(), entry[1].as_str(), entry.get(2))
        else {
            return Err(odd());
        };
        let (kind, big_endian, size) = match dtype::v2(&entry[1], false) {
            Ok((kind, big_endian)) => (Some(kind), big_endian, kind.size().ok_or_else(odd)?),
            // What is not read must at least have a size, for those that come after it.
            Err(_) => (None, false, code.get(2..).and_then(|n| n.parse().ok()).ok_or_else(odd)?),
        };
        fields.push(Field { name: name.to_owned(), kind, big_endian, offset });
        offset = offset.checked_add(size).filter(|&n| n <= LONGEST).ok_or_else(odd)?;
    }
    if fields.is_empty() {
        return Err(odd());
    }
    Ok((fields, offset))
}

impl Field {
    /// The field of every record, end to end, in native byte order.
    pub(crate) fn of(&self, records: &[u8], length: usize) -> Result<Vec<u8>> {
        let kind = self.kind.ok_or_else(|| Error::internal("a field that is not read"))?;
        let size = kind.size().unwrap_or(0);
        let mut out = Vec::with_capacity(records.len() / length.max(1) * size);
        for record in records.chunks_exact(length.max(1)) {
            out.extend_from_slice(record.get(self.offset..self.offset + size).unwrap_or_default());
        }
        if self.big_endian != cfg!(target_endian = "big") && kind.word() > 1 {
            out.chunks_exact_mut(kind.word()).for_each(<[u8]>::reverse);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellfeed_core::ValueType;
    use serde_json::json;

    #[test]
    fn fields_follow_one_another() {
        let (fields, length) =
            fields(&json!([["index", "|S3"], ["n", ">u2"], ["when", "<M8"], ["x", "<f4"]]))
                .unwrap();
        assert_eq!(length, 3 + 2 + 8 + 4);
        let kinds: Vec<Option<Kind>> = fields.iter().map(|f| f.kind).collect();
        let number = |t| Some(Kind::Number(t));
        assert_eq!(
            kinds,
            [Some(Kind::Bytes(3)), number(ValueType::U16), None, number(ValueType::F32)]
        );
        let mut records = vec![0; 2 * length];
        records[3..5].copy_from_slice(&[1, 2]);
        records[length + 3..length + 5].copy_from_slice(&[3, 4]);
        assert_eq!(
            fields[1].of(&records, length).unwrap(),
            [0x0102u16, 0x0304].map(u16::to_ne_bytes).concat()
        );
    }

    #[test]
    fn what_has_no_size_is_refused() {
        for odd in [
            json!([]),
            json!([["a", "|O"]]),
            json!([["a", "<i4", [2]]]),
            json!([["a", [["b", "<i4"]]]]),
            json!(["a"]),
            json!([["a", "|S99999999"]]),
        ] {
            assert!(fields(&odd).is_err(), "{odd}");
        }
    }
}
