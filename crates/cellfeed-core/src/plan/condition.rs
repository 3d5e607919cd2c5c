//! Conditions on obs columns, such as `plate != plate14`, and the subsets that they choose.

use super::subset::{STEP, Subset, SubsetBuilder};
use crate::backend::Backend;
use crate::diversity::Coder;
use crate::rows::RowRanges;
use crate::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use std::str::FromStr;

/// A condition on an obs column: `COLUMN OP VALUE`, where OP is `==`, `!=`, `<`, `<=`, `>` or `>=`.
/// After `==` and `!=` there may be several values, separated by commas: any of them, none of them.
/// A missing value is equal to nothing, and not below or above anything; `COLUMN is missing` and
/// `COLUMN is present` ask for it. Of a column of numbers NaN is missing. Of booleans the values are
/// `true` and `false`, in any case.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    column: String,
    op: Op,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Missing,
    Present,
}

impl FromStr for Condition {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        const OPS: [(&str, Op); 7] = [
            ("==", Op::Equal),
            ("!=", Op::Unequal),
            ("<=", Op::LessOrEqual),
            (">=", Op::GreaterOrEqual),
            ("<", Op::Less),
            (">", Op::Greater),
            ("=", Op::Equal),
        ];
        let bad = |why: &str| {
            Error::invalid_input(format!(
                "the condition {s:?} {why}; write COLUMN OP VALUE, as in 'plate != plate14', 'drug \
                 == a,b' or 'n_genes >= 500', or COLUMN is missing, COLUMN is present"
            ))
        };
        if let Some((column, op)) = about_missing(s) {
            return Ok(Self { column: column.to_owned(), op, values: Vec::new() });
        }
        let at = s.find(['=', '!', '<', '>']).ok_or_else(|| bad("has no comparison"))?;
        let (column, rest) = s.split_at(at);
        let (name, op) = OPS
            .into_iter()
            .find(|(name, _)| rest.starts_with(name))
            .ok_or_else(|| bad("has a comparison that there is not"))?;
        let text = rest[name.len()..].trim();
        let column = column.trim().to_owned();
        if column.is_empty() {
            return Err(bad("has no column"));
        }
        let values: Vec<String> = match op {
            Op::Equal | Op::Unequal => text.split(',').map(|v| v.trim().to_owned()).collect(),
            _ => vec![text.to_owned()],
        };
        if values.iter().any(String::is_empty) {
            return Err(bad("lacks a value"));
        }
        Ok(Self { column, op, values })
    }
}

/// Column and kind of a condition on whether a value is there.
fn about_missing(s: &str) -> Option<(&str, Op)> {
    if s.contains(['=', '!', '<', '>']) {
        return None;
    }
    let (rest, op) = match s.trim().rsplit_once(char::is_whitespace)? {
        (rest, "missing") => (rest, Op::Missing),
        (rest, "present") => (rest, Op::Present),
        _ => return None,
    };
    let (column, _) = rest.rsplit_once(char::is_whitespace).filter(|(_, word)| *word == "is")?;
    Some((column.trim(), op)).filter(|(column, _)| !column.is_empty())
}

impl Condition {
    /// The obs column.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Which of a column's values hold; `seen` notes which of the condition's values occur.
    fn holds(&self, array: &ArrayRef, seen: &mut [bool]) -> Result<Vec<bool>> {
        if matches!(self.op, Op::Missing | Op::Present) {
            let wanted = self.op == Op::Missing;
            return Ok(missing(array).into_iter().map(|missing| missing == wanted).collect());
        }
        Ok(match array.data_type() {
            DataType::Dictionary(_, _) => {
                let array = array.as_dictionary::<Int32Type>();
                let categories = array.values().as_string::<i32>();
                let known: Vec<Option<usize>> =
                    categories.iter().map(|c| self.find_text(c)).collect::<Result<_>>()?;
                let found = array.keys().iter().map(|key| {
                    let key = usize::try_from(key?).ok()?;
                    known.get(key).copied().flatten()
                });
                self.equal(found, seen)
            }
            DataType::Utf8 => {
                let found: Vec<Option<usize>> = array
                    .as_string::<i32>()
                    .iter()
                    .map(|v| self.find_text(v))
                    .collect::<Result<_>>()?;
                self.equal(found.into_iter(), seen)
            }
            DataType::Boolean => {
                self.find_text(None)?;
                // As Python writes them, and as others do.
                let find =
                    |name: &str| self.values.iter().position(|v| v.eq_ignore_ascii_case(name));
                let known = [find("false"), find("true")];
                let found =
                    array.as_boolean().iter().map(|v| v.and_then(|v| known[usize::from(v)]));
                let found: Vec<Option<usize>> = found.collect();
                self.equal(found.into_iter(), seen)
            }
            DataType::Int64 => {
                let values = self.numbers::<i128>()?;
                let array = array.as_primitive::<Int64Type>();
                self.compare(array.iter().map(|v| v.map(i128::from)), &values, seen)
            }
            DataType::UInt64 => {
                let values = self.numbers::<i128>()?;
                let array = array.as_primitive::<UInt64Type>();
                self.compare(array.iter().map(|v| v.map(i128::from)), &values, seen)
            }
            DataType::Float64 => {
                let values = self.numbers::<f64>()?;
                self.compare(array.as_primitive::<Float64Type>().iter(), &values, seen)
            }
            other => {
                return Err(Error::unsupported(format!(
                    "the obs column {:?} of type {other} cannot be compared",
                    self.column
                )));
            }
        })
    }

    /// Which of the condition's values a text is.
    fn find_text(&self, text: Option<&str>) -> Result<Option<usize>> {
        if !matches!(self.op, Op::Equal | Op::Unequal) {
            return Err(Error::invalid_input(format!(
                "the obs column {:?} is not of numbers and can be compared by == and != only",
                self.column
            )));
        }
        Ok(text.and_then(|text| self.values.iter().position(|v| v == text)))
    }

    fn equal(&self, found: impl Iterator<Item = Option<usize>>, seen: &mut [bool]) -> Vec<bool> {
        let wanted = self.op == Op::Equal;
        let note = |found: Option<usize>| {
            if let Some(seen) = found.and_then(|i| seen.get_mut(i)) {
                *seen = true;
            }
            found.is_some() == wanted
        };
        found.map(note).collect()
    }

    fn numbers<T: FromStr>(&self) -> Result<Vec<T>> {
        let number = |v: &String| {
            v.parse().map_err(|_| {
                Error::invalid_input(format!(
                    "{v:?} is no number that the obs column {:?} can be compared with{}",
                    self.column,
                    hint(v)
                ))
            })
        };
        self.values.iter().map(number).collect()
    }

    fn compare<T: PartialOrd>(
        &self,
        found: impl Iterator<Item = Option<T>>,
        values: &[T],
        seen: &mut [bool],
    ) -> Vec<bool> {
        if matches!(self.op, Op::Equal | Op::Unequal) {
            let find = |v: Option<T>| v.and_then(|v| values.iter().position(|w| *w == v));
            return self.equal(found.map(find), seen);
        }
        seen.fill(true);
        let holds = |v: Option<T>| match (v, values.first()) {
            (Some(v), Some(w)) => match self.op {
                Op::Less => v < *w,
                Op::LessOrEqual => v <= *w,
                Op::Greater => v > *w,
                _ => v >= *w,
            },
            _ => false,
        };
        found.map(holds).collect()
    }
}

impl Subset {
    /// The cells for which all conditions hold. Reads the columns, a million cells at a time.
    ///
    /// # Errors
    /// Of kind `NotFound` for a column or a value that the store does not have, naming what there is;
    /// `InvalidInput` for a comparison that the column's type does not have, or if no cell is left.
    pub async fn from_conditions(backend: &dyn Backend, conditions: &[Condition]) -> Result<Self> {
        let schema = backend.schema();
        if schema.n_obs == 0 {
            return Err(Error::invalid_input("the store has no cells to choose from")
                .with("file", &schema.location));
        }
        let columns: Vec<String> = conditions.iter().map(|c| c.column.clone()).collect();
        for column in &columns {
            schema.check_obs(column)?;
        }
        let mut seen: Vec<Vec<bool>> =
            conditions.iter().map(|c| vec![false; c.values.len()]).collect();
        let mut builder = SubsetBuilder::new(schema.n_obs);
        let mut at = 0;
        while at < schema.n_obs {
            let end = (at + STEP).min(schema.n_obs);
            let mut mask: Option<Vec<bool>> = None;
            // One column at a time: the same may be asked for twice.
            for ((condition, column), seen) in conditions.iter().zip(&columns).zip(&mut seen) {
                let rows = RowRanges::single(at..end);
                let arrays = backend.read_obs(std::slice::from_ref(column), &rows).await?;
                let array =
                    arrays.first().ok_or_else(|| Error::internal("read_obs answered no column"))?;
                let holds = condition.holds(array, seen)?;
                mask = Some(match mask {
                    None => holds,
                    Some(mask) => mask.into_iter().zip(holds).map(|(a, b)| a && b).collect(),
                });
            }
            match mask {
                None => builder.push(at..end)?,
                Some(mask) => {
                    for (row, _) in (at..).zip(mask).filter(|(_, holds)| *holds) {
                        builder.push(row..row + 1)?;
                    }
                }
            }
            at = end;
        }
        for (condition, seen) in conditions.iter().zip(&seen) {
            if let Some((value, _)) = condition.values.iter().zip(seen).find(|(_, seen)| !**seen) {
                let known = known_values(backend, &condition.column, value).await;
                return Err(Error::not_found(format!(
                    "no cell has the value {:?} in the obs column {:?}{}{}",
                    cut(value),
                    condition.column,
                    known.unwrap_or_default(),
                    hint(value)
                ))
                .with("file", &schema.location));
            }
        }
        builder.finish().map_err(|e| e.with_default("file", &schema.location))
    }
}

/// Which values are missing.
fn missing(array: &ArrayRef) -> Vec<bool> {
    if let Some(numbers) = array.as_primitive_opt::<Float64Type>() {
        return numbers.iter().map(|v| v.is_none_or(f64::is_nan)).collect();
    }
    match array.logical_nulls() {
        Some(nulls) => nulls.iter().map(|there| !there).collect(),
        None => vec![false; array.len()],
    }
}

/// Values of a column that an error names, and characters of each.
const SHOWN: usize = 10;
const LONGEST: usize = 60;

/// The beginning of a long text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// What an error says of the values of a column; nothing of numbers with fractions, and of names.
async fn known_values(backend: &dyn Backend, column: &str, wanted: &str) -> Option<String> {
    let mut coder = Coder::default();
    for part in RowRanges::single(0..backend.schema().n_obs).parts(STEP) {
        let arrays = backend.read_obs(&[column.to_owned()], &part).await.ok()?;
        coder.encode(arrays.first()?, &mut Vec::new()).ok()?;
    }
    let values = coder.values();
    let quoted = |value: &str| format!("{:?}", cut(value));
    let shown: Vec<String> = values.iter().take(SHOWN).map(|value| quoted(value)).collect();
    let more = match values.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let bare = wanted.trim_matches(['\'', '"']);
    let meant = values.iter().find(|value| value.eq_ignore_ascii_case(bare));
    let meant = meant.map(|value| format!("; perhaps {} is meant", quoted(value)));
    let known = match values.is_empty() {
        true => "no value at all".to_owned(),
        false => shown.join(", "),
    };
    Some(format!(", which has {known}{more}{}", meant.unwrap_or_default()))
}

/// What people mean who write conditions as in other languages.
fn hint(value: &str) -> String {
    let mut hint = String::new();
    if value.starts_with(['\'', '"']) {
        hint += "; quotes are taken as a part of the value, write it without";
    }
    let joined = [" and ", " or ", " AND ", " OR "].iter().any(|word| value.contains(word));
    if joined || value.contains(['&', '|']) {
        hint += "; a condition compares once: give several, which must all hold, as several --subset \
                 (in Python a list), and several values of which any will do with commas between them";
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::obs::categorical_array;
    use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn holds(condition: &str, array: &ArrayRef) -> String {
        let condition: Condition = condition.parse().unwrap();
        let mut seen = vec![false; condition.values.len()];
        match condition.holds(array, &mut seen) {
            Ok(mask) => mask.iter().map(|&m| if m { '1' } else { '0' }).collect(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn comparisons_of_every_type() {
        let categories = Arc::new(vec!["p1".to_owned(), "p 2".to_owned()]);
        let plates = categorical_array([Some(0), None, Some(1)], &categories).unwrap();
        assert_eq!(holds("plate == p1", &plates), "100");
        assert_eq!(holds("plate!=p 2", &plates), "110");
        assert_eq!(holds("plate = p 2, p1", &plates), "101");
        assert!(holds("plate < p1", &plates).contains("by == and != only"));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
        assert_eq!(holds("x!=a,b", &text), "010");
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]));
        assert_eq!(holds("x==true", &flags), "100");
        assert_eq!(holds("x == True", &flags), "100");
        assert_eq!(holds("x != False", &flags), "110");
        assert!(holds("x > True", &flags).contains("by == and != only"));
        for (condition, mask) in [("x is missing", "010"), (" x  is present ", "101")] {
            assert_eq!(holds(condition, &flags), mask);
            assert_eq!(holds(condition, &plates), mask);
            assert_eq!(holds(condition, &text), mask);
        }
        let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(-3), None, Some(8)]));
        assert_eq!(holds("x<=-3", &whole), "100");
        assert_eq!(holds("x >= 8", &whole), "001");
        assert_eq!(holds("x > 8", &whole), "000");
        assert_eq!(holds("x == 8", &whole), "001");
        assert!(holds("x < many", &whole).contains("is no number"));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN), None]));
        assert_eq!(holds("x<1", &floats), "100");
        assert_eq!(holds("x is missing", &floats), "011");
        assert_eq!(holds("x is present", &whole), "101");
        assert!(holds("x < 5 & x > 2", &whole).contains("several --subset"));
        let odd: Condition = "cell is missing is present".parse().unwrap();
        assert_eq!((odd.column(), odd.op), ("cell is missing", Op::Present));
        for (bad, why) in [
            ("plate", "no comparison"),
            ("is missing", "no comparison"),
            ("plate is", "no comparison"),
            ("plate are missing", "no comparison"),
            ("!= x", "no column"),
            ("plate !", "comparison that there is not"),
            ("plate == ", "lacks a value"),
            ("plate == a,,b", "lacks a value"),
        ] {
            let error = bad.parse::<Condition>().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn conditions_choose_cells_of_a_store() {
        let categories = Arc::new(vec!["p1".to_owned(), "p2".to_owned(), "p3".to_owned()]);
        let plates = categorical_array((0..9).map(|r| Some(r / 3)), &categories).unwrap();
        let plate = crate::ColumnSchema::categorical("plate", categories.to_vec(), false);
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(0..9));
        let kind = crate::ColumnKind::Integer;
        let count = crate::ColumnSchema { name: "n".to_owned(), kind, encoding: String::new() };
        let columns = vec![(plate, plates), (count, counts)];
        let backend = crate::MemoryBackend::try_new(9, vec![], columns).unwrap();
        let subset = |conditions: &[&str]| {
            let conditions: Vec<Condition> =
                conditions.iter().map(|c| c.parse().unwrap()).collect();
            futures::executor::block_on(Subset::from_conditions(&backend, &conditions))
        };
        assert_eq!(subset(&[]).unwrap(), Subset::all(9));
        let empty = crate::MemoryBackend::try_new(0, vec![], vec![]).unwrap();
        let none = futures::executor::block_on(Subset::from_conditions(&empty, &[]));
        let error = none.unwrap_err().to_string();
        assert!(error.starts_with("the store has no cells") && error.contains("file"), "{error}");
        let chosen = subset(&["plate != p2", "n>=2", "n<8"]).unwrap();
        assert_eq!(chosen, Subset::from_rows(9, &[2, 6, 7]).unwrap());
        for (conditions, why) in [
            (["plate == p4"], "no cell has the value \"p4\" in the obs column \"plate\""),
            (["plate == P2"], "has \"p1\", \"p2\", \"p3\"; perhaps \"p2\" is meant"),
            (["plate == 'p2'"], "perhaps \"p2\" is meant; quotes are taken as a part of the value"),
            (["plate == p1 & n > 3"], "as several --subset (in Python a list)"),
            (["plate == p1 or p2"], "with commas between them"),
            (
                ["n == 12"],
                "which has \"0\", \"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\"",
            ),
            (["plate is missing"], "the subset is empty"),
            (["plate != p2,p4"], "no cell has the value \"p4\""),
            (["drug == x"], "the store has plate, n"),
            (["n > 8"], "the subset is empty"),
        ] {
            let error = subset(&conditions).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
