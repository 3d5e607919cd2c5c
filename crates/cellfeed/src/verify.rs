//! Whether two stores hold the same, whatever their formats: shape, names, matrices, columns.

use crate::Store;
use crate::transpose::{Transposed, by_columns};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use cellfeed_core::{
    ColumnKind, CsrRows, CsrSegment, Error, Indices, MatrixKey, Result, RowRanges, Table, Values,
};
use futures::executor::block_on;
use std::fmt;

/// The first thing in which two stores differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs: `X`, `layers/counts`, `obs/plate`, `n_obs`.
    pub element: String,
    /// The row, where the difference has one.
    pub row: Option<u64>,
    /// The name of the cell or gene at that row, if it has one.
    pub name: Option<String>,
    /// The gene, by name or by number, where the difference is of a matrix.
    pub gene: Option<String>,
    /// What the first store has.
    pub first: String,
    /// What the second store has.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.element)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if let Some(gene) = &self.gene {
            write!(f, ", gene {gene}")?;
        }
        write!(f, ": {} and {}", self.first, self.second)
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// Matrices and columns that were compared.
    pub compared: Vec<String>,
    /// What only the first store has, or can be read of it alone.
    pub only_first: Vec<String>,
    /// The same for the second.
    pub only_second: Vec<String>,
}

impl Verified {
    /// Whether nothing differs and nothing is in one store alone.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.difference.is_none() && self.only_first.is_empty() && self.only_second.is_empty()
    }
}

/// Cells that are compared at once.
const WINDOW: u64 = 8192;
/// Bytes of rows that are made of columns at once: each time all columns are read.
const MADE: u64 = 512 << 20;

/// A matrix of one of the stores.
struct Side<'a> {
    store: &'a Store,
    key: &'a MatrixKey,
    transposed: Option<Transposed>,
}

impl<'a> Side<'a> {
    fn open(store: &'a Store, key: &'a MatrixKey) -> Result<Self> {
        let matrix = store.schema().find(key);
        let made = matrix.is_some_and(|m| by_columns(store, m));
        let transposed = made.then(|| Transposed::open(store, key, MADE / 4)).transpose()?;
        Ok(Self { store, key, transposed })
    }

    /// Cells from `start` on that are compared at once.
    fn window(&self, start: u64, n_obs: u64) -> u64 {
        let Some(transposed) = &self.transposed else { return WINDOW };
        let mut n = n_obs - start;
        while n > WINDOW && transposed.bytes(&RowRanges::single(start..start + n)) > MADE {
            n = n.div_ceil(2);
        }
        n
    }

    async fn read(&self, rows: &RowRanges) -> Result<CsrRows> {
        match &self.transposed {
            Some(transposed) => transposed.read(self.store, rows).await,
            None => self.store.backend().read_rows(self.key, rows).await,
        }
    }
}

/// Compares two stores. Numbers are compared as numbers, whatever their types; categories by their
/// text; values that are not stored are zeros. `progress` is called with the rows that were compared
/// and those there are, over all matrices, and ends the work by answering false.
///
/// # Errors
/// If a store cannot be read; `Cancelled`.
pub fn verify(
    first: &Store,
    second: &Store,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Verified> {
    let mut run = Run { stores: [first, second], found: Verified::default(), names: None };
    run.found.difference = run.all(progress)?;
    Ok(run.found)
}

struct Run<'a> {
    stores: [&'a Store; 2],
    found: Verified,
    /// Names of the cells of the first store, read when a difference is to be told.
    names: Option<ArrayRef>,
}

fn differ(element: &str, first: impl fmt::Display, second: impl fmt::Display) -> Difference {
    Difference {
        element: element.to_owned(),
        row: None,
        name: None,
        gene: None,
        first: first.to_string(),
        second: second.to_string(),
    }
}

impl Run<'_> {
    fn all(&mut self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Option<Difference>> {
        let [a, b] = self.stores.map(Store::schema);
        if a.n_obs != b.n_obs {
            return Ok(Some(differ("n_obs", a.n_obs, b.n_obs)));
        }
        if a.var.n_vars != b.var.n_vars {
            return Ok(Some(differ("n_vars", a.var.n_vars, b.var.n_vars)));
        }
        let readable = |s: &Store| -> Vec<MatrixKey> {
            let matrices = s.schema().matrices.iter();
            let read = matrices.filter(|m| m.unreadable.is_none() || by_columns(s, m));
            let mut keys: Vec<_> = read.map(|m| m.key.clone()).collect();
            keys.sort();
            keys
        };
        let [left, right] = self.stores.map(readable);
        let keys = self.common(left, &right, MatrixKey::to_string);
        if let Some(found) = self.table("var", &MatrixKey::X)? {
            return Ok(Some(found));
        }
        if keys.contains(&MatrixKey::Raw)
            && let Some(found) = self.table("raw/var", &MatrixKey::Raw)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = self.obs()? {
            return Ok(Some(found));
        }
        let total = a.n_obs * u64::try_from(keys.len()).unwrap_or(0);
        let mut done = 0;
        for key in &keys {
            self.found.compared.push(key.to_string());
            if let Some(found) = self.matrix(key, &mut done, total, progress)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// What both have; the rest is noted.
    fn common<T: PartialEq>(&mut self, a: Vec<T>, b: &[T], name: impl Fn(&T) -> String) -> Vec<T> {
        self.found.only_second.extend(b.iter().filter(|x| !a.contains(x)).map(&name));
        let (both, alone): (Vec<T>, Vec<T>) = a.into_iter().partition(|x| b.contains(x));
        self.found.only_first.extend(alone.iter().map(name));
        both
    }

    /// The genes' table: names, then columns.
    fn table(&mut self, element: &str, key: &MatrixKey) -> Result<Option<Difference>> {
        let read = |store: &Store| block_on(store.backend().read_var(key));
        let [a, b] = [read(self.stores[0])?, read(self.stores[1])?];
        if a.n_rows() != b.n_rows() {
            return Ok(Some(differ(element, a.n_rows(), b.n_rows())));
        }
        let names = |t: &Table| t.index().map(|(_, names)| names.clone());
        match (names(&a), names(&b)) {
            (Some(x), Some(y)) => {
                self.found.compared.push(format!("{element} names"));
                if let Some(row) = (0..x.len()).find(|&i| x.value(i) != y.value(i)) {
                    let mut found = differ(element, x.value(row), y.value(row));
                    found.row = u64::try_from(row).ok();
                    return Ok(Some(found));
                }
            }
            (Some(_), None) => self.found.only_first.push(format!("{element} names")),
            (None, Some(_)) => self.found.only_second.push(format!("{element} names")),
            (None, None) => {}
        }
        let columns = |t: &Table| -> Vec<String> {
            t.columns().iter().map(|(c, _)| c.name.clone()).collect()
        };
        let both = self.common(columns(&a), &columns(&b), |n: &String| format!("{element}/{n}"));
        for name in both {
            let path = format!("{element}/{name}");
            if let (Some(x), Some(y)) = (a.column(&name), b.column(&name))
                && let Some(mut found) = columns_differ(&path, x, y)?
            {
                found.name = found.row.and_then(|row| {
                    let (_, names) = a.index()?;
                    Some(names.value(usize::try_from(row).ok()?).to_owned())
                });
                return Ok(Some(found));
            }
            self.found.compared.push(path);
        }
        Ok(None)
    }

    fn obs(&mut self) -> Result<Option<Difference>> {
        let [a, b] = self.stores.map(Store::schema);
        let rows = RowRanges::single(0..a.n_obs);
        let read = |store: &Store, name: &str| -> Result<ArrayRef> {
            let arrays = block_on(store.backend().read_obs(&[name.to_owned()], &rows))?;
            arrays.into_iter().next().ok_or_else(|| Error::internal("no column was answered"))
        };
        match (&a.obs_index, &b.obs_index) {
            (Some(x), Some(y)) => {
                let (x, y) = (read(self.stores[0], x)?, read(self.stores[1], y)?);
                self.found.compared.push("obs names".to_owned());
                let found = columns_differ("obs names", &x, &y)?;
                self.names = Some(x);
                if found.is_some() {
                    return Ok(found);
                }
            }
            (Some(_), None) => self.found.only_first.push("obs names".to_owned()),
            (None, Some(_)) => self.found.only_second.push("obs names".to_owned()),
            (None, None) => {}
        }
        let readable = |s: &cellfeed_core::Schema| -> Vec<String> {
            let readable =
                |c: &&cellfeed_core::ColumnSchema| !matches!(c.kind, ColumnKind::Unreadable(_));
            s.obs.iter().filter(readable).map(|c| c.name.clone()).collect()
        };
        let both = self.common(readable(a), &readable(b), |n| format!("obs/{n}"));
        for name in both {
            let path = format!("obs/{name}");
            let (x, y) = (read(self.stores[0], &name)?, read(self.stores[1], &name)?);
            if let Some(found) = columns_differ(&path, &x, &y)? {
                return Ok(Some(self.named(found)));
            }
            self.found.compared.push(path);
        }
        Ok(None)
    }

    /// Adds the cell's name.
    fn named(&self, mut found: Difference) -> Difference {
        let names = self.names.as_ref().and_then(|n| n.as_string_opt::<i32>());
        found.name = found.row.and_then(|row| {
            let row = usize::try_from(row).ok()?;
            names.filter(|n| row < n.len()).map(|n| n.value(row).to_owned())
        });
        found
    }

    fn matrix(
        &self,
        key: &MatrixKey,
        done: &mut u64,
        total: u64,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Option<Difference>> {
        let [a, b] = self.stores;
        let (Some(x), Some(y)) = (a.schema().find(key), b.schema().find(key)) else {
            return Err(Error::internal("a matrix that both have is not there"));
        };
        if x.n_vars() != y.n_vars() {
            return Ok(Some(differ(&key.to_string(), x.n_vars(), y.n_vars())));
        }
        let (first, second) = (Side::open(a, key)?, Side::open(b, key)?);
        let (mut start, n_obs) = (0, a.n_obs());
        while start < n_obs {
            let n = first.window(start, n_obs).max(second.window(start, n_obs));
            let rows = RowRanges::single(start..n_obs.min(start + n));
            start = rows.end();
            let (left, right) =
                block_on(async { futures::try_join!(first.read(&rows), second.read(&rows)) })?;
            if let Some((row, gene, first, second)) = rows_differ(&left, &right) {
                let names = &x.var.names;
                let at = usize::try_from(gene).unwrap_or(usize::MAX);
                let mut found = differ(&key.to_string(), first, second);
                found.row = rows.iter_rows().nth(row);
                found.gene = Some(names.get(at).cloned().unwrap_or_else(|| gene.to_string()));
                return Ok(Some(self.named(found)));
            }
            *done += rows.n_rows();
            if !progress(*done, total) {
                return Err(Error::cancelled());
            }
        }
        Ok(None)
    }
}

/// A stored value, to be compared whatever its type: whole numbers exactly.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn of(values: &Values, i: usize) -> Self {
        fn whole<T: Copy + Into<i128>>(b: &[T], i: usize) -> Number {
            b.get(i).map_or(Number::Whole(0), |&v| Number::Whole(v.into()))
        }
        match values {
            Values::U8(b) => whole(b, i),
            Values::U16(b) => whole(b, i),
            Values::U32(b) => whole(b, i),
            Values::U64(b) => whole(b, i),
            Values::I8(b) => whole(b, i),
            Values::I16(b) => whole(b, i),
            Values::I32(b) => whole(b, i),
            Values::I64(b) => whole(b, i),
            Values::F16(b) => Self::Float(b.get(i).map_or(0.0, |v| v.to_f64())),
            Values::F32(b) => Self::Float(b.get(i).map_or(0.0, |&v| v.into())),
            Values::F64(b) => Self::Float(b.get(i).copied().unwrap_or(0.0)),
            _ => Self::Float(f64::NAN),
        }
    }

    fn is_zero(self) -> bool {
        match self {
            Self::Whole(v) => v == 0,
            Self::Float(v) => v == 0.0,
        }
    }

    #[allow(clippy::float_cmp, reason = "equal is what is asked")]
    fn equals(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            (Self::Whole(whole), Self::Float(float)) | (Self::Float(float), Self::Whole(whole)) => {
                // A whole number is equal to a float if the float is that number.
                #[allow(clippy::cast_possible_truncation, reason = "checked by the way back")]
                let back = float as i128;
                float.trunc() == float && back == whole
            }
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
        }
    }
}

fn gene_at(segment: &CsrSegment, i: usize) -> u64 {
    match segment.indices() {
        Indices::U16(b) => b.get(i).map_or(u64::MAX, |&g| g.into()),
        Indices::U32(b) => b.get(i).map_or(u64::MAX, |&g| g.into()),
        _ => u64::MAX,
    }
}

/// The first row and gene in which rows differ, with both values. Zeros may be stored or not.
fn rows_differ(a: &CsrRows, b: &CsrRows) -> Option<(usize, u64, Number, Number)> {
    let rows = |x: &CsrRows| -> Vec<(usize, usize, usize)> {
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let all = x.segments().iter().enumerate();
        all.flat_map(|(s, seg)| seg.indptr().windows(2).map(move |w| (s, at(w[0]), at(w[1]))))
            .collect()
    };
    for (row, (left, right)) in rows(a).into_iter().zip(rows(b)).enumerate() {
        let (x, y) = (&a.segments()[left.0], &b.segments()[right.0]);
        let (mut i, mut j) = (left.1, right.1);
        while i < left.2 || j < right.2 {
            let gi = if i < left.2 { gene_at(x, i) } else { u64::MAX };
            let gj = if j < right.2 { gene_at(y, j) } else { u64::MAX };
            let zero = Number::Whole(0);
            let (gene, first, second) = match gi.cmp(&gj) {
                std::cmp::Ordering::Equal => {
                    (gi, Number::of(x.values(), i), Number::of(y.values(), j))
                }
                std::cmp::Ordering::Less => (gi, Number::of(x.values(), i), zero),
                std::cmp::Ordering::Greater => (gj, zero, Number::of(y.values(), j)),
            };
            i += usize::from(gi <= gj);
            j += usize::from(gj <= gi);
            if !(first.equals(second) || first.is_zero() && second.is_zero()) {
                return Some((row, gene, first, second));
            }
        }
    }
    None
}

/// The first row in which two columns differ.
fn columns_differ(path: &str, a: &ArrayRef, b: &ArrayRef) -> Result<Option<Difference>> {
    if a.len() != b.len() {
        return Ok(Some(differ(path, format!("{} values", a.len()), b.len())));
    }
    for row in 0..a.len() {
        let (x, y) = (text_at(a, row)?, text_at(b, row)?);
        if x != y {
            let show = |v: Option<String>| v.unwrap_or_else(|| "missing".to_owned());
            let mut found = differ(path, show(x), show(y));
            found.row = u64::try_from(row).ok();
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A value as text, in a form that is the same for equal numbers of different types.
fn text_at(array: &ArrayRef, row: usize) -> Result<Option<String>> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Dictionary(_, _) => {
            let array = array.as_dictionary::<Int32Type>();
            let code = usize::try_from(array.keys().value(row)).unwrap_or(usize::MAX);
            let categories = array.values().as_string::<i32>();
            if code < categories.len() { categories.value(code).to_owned() } else { String::new() }
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        // Whole floats print as integers do.
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        other => return Err(Error::unsupported(format!("a column of type {other}"))),
    }))
}
