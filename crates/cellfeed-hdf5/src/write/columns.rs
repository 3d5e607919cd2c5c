//! Columns of obs, collected batch by batch until their table is written: a code in one to four bytes,
//! a number in eight, text in one buffer with eight bytes a row, and a byte a row for what is missing,
//! if anything is.

use super::frame::{ColumnValues, Items, Strings};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, DictionaryArray};
use cellfeed_core::{ColumnKind, ColumnSchema, Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Text of many rows in one buffer.
#[derive(Debug, Default)]
pub(super) struct Texts {
    text: String,
    ends: Vec<usize>,
    missing: Mask,
}

impl Texts {
    pub(super) fn append(&mut self, array: &dyn Array) -> Result<()> {
        let array = array.as_string_opt::<i32>().ok_or_else(|| wrong_type("text (Utf8)", array))?;
        for value in array {
            let value = value.unwrap_or_default();
            if value.contains('\0') {
                return Err(Error::invalid_input(
                    "a text contains a zero byte, which HDF5 cannot keep",
                )
                .with("row", self.ends.len()));
            }
            self.text.push_str(value);
            self.ends.push(self.text.len());
        }
        self.missing.append(array);
        Ok(())
    }

    fn get(&self, row: usize) -> &str {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[row]]
    }

    pub(super) fn strings(&self) -> Strings<'_> {
        Strings::with(|row, out| out.push_str(self.get(row)))
    }
}

/// Which rows are missing; nothing while none is.
#[derive(Debug, Default)]
struct Mask {
    rows: usize,
    missing: Vec<bool>,
}

impl Mask {
    fn append(&mut self, array: &dyn Array) {
        if array.null_count() > 0 {
            self.missing.resize(self.rows, false);
            self.missing.extend((0..array.len()).map(|row| array.is_null(row)));
        } else if self.any() {
            self.missing.resize(self.rows + array.len(), false);
        }
        self.rows += array.len();
    }

    fn any(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The values, with the mask if there is one.
    fn over<'a>(&'a self, values: ColumnValues<'a>) -> ColumnValues<'a> {
        if !self.any() {
            return values;
        }
        ColumnValues::Nullable { values: Box::new(values), missing: Items::new(&self.missing) }
    }
}

/// Codes in the width that the number of categories needs.
#[derive(Debug)]
enum Codes {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
}

impl Codes {
    fn new(categories: usize) -> Self {
        match categories {
            0..=127 => Self::I8(Vec::new()),
            128..=32767 => Self::I16(Vec::new()),
            _ => Self::I32(Vec::new()),
        }
    }

    /// Takes codes that have been checked; the widths hold them.
    fn extend(&mut self, codes: impl Iterator<Item = i32>) {
        match self {
            Self::I8(v) => v.extend(codes.map(|c| i8::try_from(c).unwrap_or(-1))),
            Self::I16(v) => v.extend(codes.map(|c| i16::try_from(c).unwrap_or(-1))),
            Self::I32(v) => v.extend(codes),
        }
    }

    fn items(&self) -> Items<'_, i32> {
        match self {
            Self::I8(v) => Items::with(|row| v[row].into()),
            Self::I16(v) => Items::with(|row| v[row].into()),
            Self::I32(v) => Items::new(v),
        }
    }
}

#[derive(Debug)]
enum Kind {
    Codes { codes: Codes, categories: Arc<Vec<String>>, ordered: bool, known: Option<ArrayRef> },
    Texts(Texts),
    Signed(Vec<i64>, Mask),
    Unsigned(Vec<u64>, Mask),
    Floats(Vec<f64>, Mask),
    Bools(Vec<bool>, Mask),
}

/// A column in the making.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) name: String,
    kind: Kind,
    /// Text of which some is missing, as a categorical column.
    coded: Option<(Codes, Vec<String>)>,
}

impl Collected {
    pub(super) fn new(schema: &ColumnSchema) -> Result<Self> {
        let kind = match &schema.kind {
            ColumnKind::Categorical { categories, ordered } => Kind::Codes {
                codes: Codes::new(categories.len()),
                categories: Arc::clone(categories),
                ordered: *ordered,
                known: None,
            },
            ColumnKind::String => Kind::Texts(Texts::default()),
            ColumnKind::Integer => Kind::Signed(Vec::new(), Mask::default()),
            ColumnKind::Float => Kind::Floats(Vec::new(), Mask::default()),
            ColumnKind::Boolean => Kind::Bools(Vec::new(), Mask::default()),
            other => {
                let kind = other.as_str();
                return Err(Error::invalid_input(format!(
                    "a column of kind {kind} cannot be written"
                ))
                .with("column", &schema.name));
            }
        };
        Ok(Self { name: schema.name.clone(), kind, coded: None })
    }

    /// A whole column, as of var.
    pub(super) fn of(schema: &ColumnSchema, array: &ArrayRef) -> Result<Self> {
        let mut column = Self::new(schema)?;
        column.append(array)?;
        column.complete();
        Ok(column)
    }

    /// Takes values of the column's type.
    pub(super) fn append(&mut self, array: &ArrayRef) -> Result<()> {
        self.take(array).map_err(|e| e.with_default("column", &self.name))
    }

    fn take(&mut self, array: &ArrayRef) -> Result<()> {
        // The first unsigned values make the column unsigned, if nothing in it is negative.
        if let (Kind::Signed(values, mask), true) =
            (&mut self.kind, array.as_primitive_opt::<UInt64Type>().is_some())
        {
            let unsigned: std::result::Result<Vec<u64>, _> =
                values.iter().map(|&v| u64::try_from(v)).collect();
            let unsigned = unsigned.map_err(|_| {
                Error::invalid_input("the column has negative numbers and numbers of 64 bits")
            })?;
            self.kind = Kind::Unsigned(unsigned, std::mem::take(mask));
        }
        match &mut self.kind {
            Kind::Codes { codes, categories, known, .. } => {
                let dictionary = array
                    .as_dictionary_opt::<Int32Type>()
                    .ok_or_else(|| wrong_type("a dictionary of text", array))?;
                check_categories(dictionary, categories, known)?;
                codes.extend(dictionary.keys().iter().map(|code| code.unwrap_or(-1)));
            }
            Kind::Texts(texts) => texts.append(array)?,
            Kind::Signed(values, mask) => {
                let array = array
                    .as_primitive_opt::<Int64Type>()
                    .ok_or_else(|| wrong_type("integers (Int64 or UInt64)", array))?;
                values.extend(array.iter().map(Option::unwrap_or_default));
                mask.append(array);
            }
            Kind::Unsigned(values, mask) => {
                if let Some(array) = array.as_primitive_opt::<UInt64Type>() {
                    values.extend(array.iter().map(Option::unwrap_or_default));
                } else {
                    let signed = array
                        .as_primitive_opt::<Int64Type>()
                        .ok_or_else(|| wrong_type("integers (Int64 or UInt64)", array))?;
                    for value in signed.iter().map(Option::unwrap_or_default) {
                        values.push(u64::try_from(value).map_err(|_| {
                            Error::invalid_input(format!("{value} comes after unsigned numbers"))
                        })?);
                    }
                }
                mask.append(array);
            }
            Kind::Floats(values, mask) => {
                let array = array
                    .as_primitive_opt::<Float64Type>()
                    .ok_or_else(|| wrong_type("floats (Float64)", array))?;
                values.extend(array.iter().map(|v| v.unwrap_or(f64::NAN)));
                mask.append(array);
            }
            Kind::Bools(values, mask) => {
                let array =
                    array.as_boolean_opt().ok_or_else(|| wrong_type("truth values", array))?;
                values.extend(array.iter().map(Option::unwrap_or_default));
                mask.append(array);
            }
        }
        Ok(())
    }

    /// To be called when all values are there.
    pub(super) fn complete(&mut self) {
        if let Kind::Texts(texts) = &self.kind
            && texts.missing.any()
        {
            self.coded = Some(coded(texts));
        }
    }

    /// What became of values that the format has no place for, if there are any.
    pub(super) fn lost(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Floats(_, mask) if mask.any() => {
                Some("missing floats are written as NaN, of which they cannot be told apart")
            }
            _ => None,
        }
    }

    /// The values as they are written.
    pub(super) fn values(&self) -> ColumnValues<'_> {
        if let Some((codes, categories)) = &self.coded {
            return ColumnValues::Categorical { codes: codes.items(), categories, ordered: false };
        }
        match &self.kind {
            Kind::Codes { codes, categories, ordered, .. } => {
                ColumnValues::Categorical { codes: codes.items(), categories, ordered: *ordered }
            }
            Kind::Texts(texts) => ColumnValues::String(texts.strings()),
            Kind::Signed(values, mask) => mask.over(ColumnValues::I64(Items::new(values))),
            Kind::Unsigned(values, mask) => mask.over(ColumnValues::U64(Items::new(values))),
            Kind::Floats(values, _) => ColumnValues::F64(Items::new(values)),
            Kind::Bools(values, mask) => mask.over(ColumnValues::Bool(Items::new(values))),
        }
    }
}

/// Distinct texts in order, as pandas has categories, and codes into them.
fn coded(texts: &Texts) -> (Codes, Vec<String>) {
    let missing = |row: usize| texts.missing.missing[row];
    let rows = 0..texts.ends.len();
    let mut distinct: Vec<&str> =
        rows.clone().filter(|&r| !missing(r)).map(|r| texts.get(r)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let places: HashMap<&str, i32> = distinct.iter().copied().zip(0..).collect();
    let mut codes = Codes::new(distinct.len());
    let code =
        |row| if missing(row) { -1 } else { places.get(texts.get(row)).copied().unwrap_or(-1) };
    codes.extend(rows.map(code));
    (codes, distinct.into_iter().map(str::to_owned).collect())
}

/// Refuses codes of other categories than were announced. `known` remembers the last that were right:
/// batches of one source share theirs.
fn check_categories(
    array: &DictionaryArray<Int32Type>,
    categories: &[String],
    known: &mut Option<ArrayRef>,
) -> Result<()> {
    if array.is_empty() || known.as_ref().is_some_and(|k| Arc::ptr_eq(k, array.values())) {
        return Ok(());
    }
    let words = array.values().as_string_opt::<i32>();
    let words = words.ok_or_else(|| wrong_type("a dictionary of text", array))?;
    let same = words.len() == categories.len()
        && words.iter().zip(categories).all(|(word, category)| word == Some(category.as_str()));
    if !same {
        return Err(Error::invalid_input(format!(
            "the batch has {} categories that are not the {} that were announced",
            words.len(),
            categories.len()
        )));
    }
    *known = Some(Arc::clone(array.values()));
    Ok(())
}

fn wrong_type(want: &str, got: &dyn Array) -> Error {
    Error::invalid_input(format!("{want} were announced, but {} came", got.data_type()))
}
