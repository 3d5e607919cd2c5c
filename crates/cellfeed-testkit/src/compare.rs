//! Answers beside what the oracle says, bit for bit.
//!
//! Only NaN is compared by kind: JSON carries no payload.

use crate::oracle::{Category, Oracle, OracleColumn, OracleMatrix, OracleValues};
use crate::violation::{Law, Violation};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use cellfeed_core::{CsrRows, Encoding, RowRanges, ValueType, Values};
use std::fmt::Debug;

/// Rows of a matrix, flat: what is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flat {
    /// `None` if there are no segments, hence no values.
    value_type: Option<ValueType>,
    rows: Vec<Vec<(u32, u64)>>,
}

pub(crate) fn at(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// The bits of each value; every NaN has the same.
pub(crate) fn bits(values: &Values) -> Vec<u64> {
    match values {
        Values::U8(v) => v.iter().map(|&x| x.into()).collect(),
        Values::U16(v) => v.iter().map(|&x| x.into()).collect(),
        Values::U32(v) => v.iter().map(|&x| x.into()).collect(),
        Values::U64(v) => v.to_vec(),
        Values::I8(v) => v.iter().map(|&x| u64::from(x.cast_unsigned())).collect(),
        Values::I16(v) => v.iter().map(|&x| u64::from(x.cast_unsigned())).collect(),
        Values::I32(v) => v.iter().map(|&x| u64::from(x.cast_unsigned())).collect(),
        Values::I64(v) => v.iter().map(|&x| x.cast_unsigned()).collect(),
        Values::F16(v) => {
            v.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits().into() }).collect()
        }
        Values::F32(v) => {
            v.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits().into() }).collect()
        }
        Values::F64(v) => {
            v.iter().map(|x| if x.is_nan() { u64::MAX } else { x.to_bits() }).collect()
        }
        other => other.to_f64_vec().into_iter().map(f64::to_bits).collect(),
    }
}

impl Flat {
    /// The rows of an answer, whether they are canonical or not.
    pub(crate) fn of(law: Law, answer: &CsrRows) -> Result<Self, Violation> {
        let mut flat = Self { value_type: None, rows: Vec::with_capacity(answer.n_rows()) };
        for segment in answer.segments() {
            let value_type = segment.values().value_type();
            if *flat.value_type.get_or_insert(value_type) != value_type {
                return Err(Violation::new(law, "segments of one answer differ in value type"));
            }
            let (genes, bits) = (segment.indices().to_u32_vec(), bits(segment.values()));
            for window in segment.indptr().windows(2) {
                let range = at(window[0])..at(window[1]);
                let (Some(genes), Some(bits)) = (genes.get(range.clone()), bits.get(range)) else {
                    return Err(Violation::new(law, "indptr points past the values"));
                };
                flat.rows.push(genes.iter().copied().zip(bits.iter().copied()).collect());
            }
        }
        Ok(flat)
    }

    /// What the oracle says about the rows, all of which it has.
    pub(crate) fn expected(matrix: &OracleMatrix, rows: &RowRanges) -> Self {
        let bits = bits(&matrix.values);
        let row = |row: u64| {
            let range = at(matrix.indptr[at(row)])..at(matrix.indptr[at(row) + 1]);
            range.map(|i| (matrix.indices[i], bits[i])).collect()
        };
        let value_type = (!rows.is_empty()).then(|| matrix.values.value_type());
        Self { value_type, rows: rows.iter_rows().map(row).collect() }
    }

    /// How many values each row has.
    pub(crate) fn row_lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.rows.iter().map(Vec::len)
    }

    /// Appends the rows of another answer.
    pub(crate) fn append(&mut self, other: Self) {
        self.value_type = self.value_type.or(other.value_type);
        self.rows.extend(other.rows);
    }

    /// Without zeros: a dense matrix may be answered with or without them.
    fn without_zeros(mut self) -> Self {
        let sign = match self.value_type {
            Some(ValueType::F16) => 1 << 15,
            Some(ValueType::F32) => 1 << 31,
            Some(ValueType::F64) => 1 << 63,
            _ => 0,
        };
        self.rows.iter_mut().for_each(|row| row.retain(|(_, bits)| bits & !sign != 0));
        self
    }

    /// Whether these, the rows asked for, are the rows expected.
    pub(crate) fn same_as(
        &self,
        law: Law,
        expected: &Self,
        asked: &RowRanges,
    ) -> Result<(), Violation> {
        if self.rows.len() != expected.rows.len() {
            let (want, got) = (expected.rows.len(), self.rows.len());
            return Err(Violation::new(law, format!("expected {want} rows, got {got}")));
        }
        if let (Some(want), Some(got)) = (expected.value_type, self.value_type)
            && want != got
        {
            return Err(Violation::new(law, format!("expected {want} values, got {got}")));
        }
        let mut rows = asked.iter_rows().zip(expected.rows.iter().zip(&self.rows));
        match rows.find(|(_, (want, got))| want != got) {
            None => Ok(()),
            Some((row, (want, got))) => Err(row_differs(law, self.value_type, want, got).row(row)),
        }
    }
}

/// Names the first place at which two rows differ.
fn row_differs(
    law: Law,
    value_type: Option<ValueType>,
    want: &[(u32, u64)],
    got: &[(u32, u64)],
) -> Violation {
    let position = want.iter().zip(got).position(|(a, b)| a != b);
    let position = position.unwrap_or(want.len().min(got.len()));
    let show = |row: &[(u32, u64)]| match row.get(position) {
        None => format!("the end of the row after {} values", row.len()),
        Some(&(gene, bits)) => format!("gene {gene} = {}", shown(value_type, bits)),
    };
    Violation::new(law, format!("expected {}, got {}", show(want), show(got)))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // back to the stored width
fn shown(value_type: Option<ValueType>, bits: u64) -> String {
    match value_type {
        Some(ValueType::F16 | ValueType::F32 | ValueType::F64) if bits == u64::MAX => "NaN".into(),
        Some(ValueType::F16) => half::f16::from_bits(bits as u16).to_string(),
        Some(ValueType::F32) => format!("{:?}", f32::from_bits(bits as u32)),
        Some(ValueType::F64) => format!("{:?}", f64::from_bits(bits)),
        Some(ValueType::I8) => (bits as i8).to_string(),
        Some(ValueType::I16) => (bits as i16).to_string(),
        Some(ValueType::I32) => (bits as i32).to_string(),
        Some(ValueType::I64) => (bits as i64).to_string(),
        _ => bits.to_string(),
    }
}

/// Whether an answer is what the oracle has for the rows.
pub(crate) fn check_rows(
    law: Law,
    matrix: &OracleMatrix,
    asked: &RowRanges,
    answer: &CsrRows,
) -> Result<(), Violation> {
    let (mut got, mut want) = (Flat::of(law, answer)?, Flat::expected(matrix, asked));
    if matrix.encoding == Encoding::Dense {
        (got, want) = (got.without_zeros(), want.without_zeros());
    }
    got.same_as(law, &want, asked).map_err(|v| v.at(&matrix.key))
}

/// Whether an array is what the oracle has for the rows of an obs column.
pub(crate) fn check_column(
    law: Law,
    column: &OracleColumn,
    asked: &RowRanges,
    array: &ArrayRef,
) -> Result<(), Violation> {
    check_values(law, column, asked, array).map_err(|v| v.at(format_args!("obs/{}", column.name)))
}

/// The same for a column of any table, which the caller names.
pub(crate) fn check_values(
    law: Law,
    column: &OracleColumn,
    asked: &RowRanges,
    array: &ArrayRef,
) -> Result<(), Violation> {
    let rows = Rows { law, asked };
    let kind = array.data_type();
    match &column.values {
        OracleValues::Unreadable => Ok(()),
        OracleValues::String(want) => match kind {
            DataType::Utf8 => {
                rows.same(want, array.as_string::<i32>().iter(), |want, got| want.as_deref() == got)
            }
            _ => Err(wrong_type(law, "Utf8", kind)),
        },
        OracleValues::Integer(want) => {
            let same = |want: &Option<i128>, got: Option<i128>| *want == got;
            match kind {
                DataType::Int64 => {
                    let got = array.as_primitive::<Int64Type>().iter();
                    rows.same(want, got.map(|v| v.map(i128::from)), same)
                }
                DataType::UInt64 => {
                    let got = array.as_primitive::<UInt64Type>().iter();
                    rows.same(want, got.map(|v| v.map(i128::from)), same)
                }
                _ => Err(wrong_type(law, "Int64 or UInt64", kind)),
            }
        }
        OracleValues::Float(want) => match kind {
            DataType::Float64 => {
                let bits = |v: f64| if v.is_nan() { u64::MAX } else { v.to_bits() };
                rows.same(want, array.as_primitive::<Float64Type>().iter(), |want, got| {
                    want.map(bits) == got.map(bits)
                })
            }
            _ => Err(wrong_type(law, "Float64", kind)),
        },
        OracleValues::Boolean(want) => match kind {
            DataType::Boolean => {
                rows.same(want, array.as_boolean().iter(), |want, got| *want == got)
            }
            _ => Err(wrong_type(law, "Boolean", kind)),
        },
        OracleValues::Categorical { codes, categories, .. } => {
            let dictionary = array.as_dictionary_opt::<Int32Type>();
            match dictionary.map(|d| (d, d.values().as_string_opt::<i32>())) {
                Some((dictionary, Some(words))) => {
                    let words: Vec<Option<&str>> = words.iter().collect();
                    // An empty answer may leave its categories out.
                    let same = asked.is_empty()
                        || words.len() == categories.len()
                            && categories
                                .iter()
                                .zip(&words)
                                .all(|(c, w)| w.is_some_and(|w| c.matches(w)));
                    if same {
                        rows.same(codes, dictionary.keys().iter(), |want, got| *want == got)
                    } else {
                        let categories: Vec<_> = categories.iter().map(Category::text).collect();
                        Err(Violation::differs(law, categories, words).when("categories"))
                    }
                }
                _ => Err(wrong_type(law, "Dictionary(Int32, Utf8)", kind)),
            }
        }
    }
}

fn wrong_type(law: Law, want: &str, got: &DataType) -> Violation {
    Violation::new(law, format!("expected an array of {want}, got {got:?}"))
}

struct Rows<'a> {
    law: Law,
    asked: &'a RowRanges,
}

impl Rows<'_> {
    fn same<W: Debug, G: Debug + Clone>(
        &self,
        want: &[W],
        got: impl ExactSizeIterator<Item = G>,
        same: impl Fn(&W, G) -> bool,
    ) -> Result<(), Violation> {
        if u64::try_from(got.len()).ok() != Some(self.asked.n_rows()) {
            let what = format!("expected {} values, got {}", self.asked.n_rows(), got.len());
            return Err(Violation::new(self.law, what));
        }
        for (row, got) in self.asked.iter_rows().zip(got) {
            let want = &want[at(row)];
            if !same(want, got.clone()) {
                return Err(Violation::differs(self.law, want, got).row(row));
            }
        }
        Ok(())
    }
}

/// The readable obs columns of the oracle, with their arrays' names.
pub(crate) fn readable(oracle: &Oracle) -> Vec<&OracleColumn> {
    oracle.obs.iter().filter(|c| c.values != OracleValues::Unreadable).collect()
}
