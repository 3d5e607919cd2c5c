//! Synthetic stores, drawn from a seed: small, but with the cases that break readers.

use crate::oracle::{Category, Oracle, OracleColumn, OracleMatrix, OracleValues};
use crate::subject::Subject;
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, StringArray, UInt64Array,
};
use cellfeed_core::{
    ColumnKind, ColumnSchema, Encoding, MatrixKey, MemoryBackend, MemoryMatrix, Result, RowRanges,
    Table, ValueType, Values, VarSchema, categorical_array,
};
use half::f16;
use std::ops::Range;
use std::sync::Arc;

/// Random numbers for tests: `splitmix64` by Sebastiano Vigna.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits().checked_rem(n).unwrap_or(0)
    }
}

/// Row sets that are worth asking for: all, the first, the last, both ends, every other row, all but
/// one, random single rows, random spans.
#[must_use]
pub fn requests(n_obs: u64, seed: u64) -> Vec<RowRanges> {
    let mut rng = Rng::new(seed ^ n_obs);
    let ranges = |ranges: Vec<Range<u64>>| RowRanges::try_from_ranges(ranges).unwrap_or_default();
    let mut out = vec![RowRanges::empty(), ranges(vec![0..n_obs])];
    if n_obs == 0 {
        return out;
    }
    let (last, middle) = (n_obs - 1, n_obs / 2);
    out.push(ranges(vec![0..1]));
    out.push(ranges(vec![last..n_obs]));
    out.push(ranges((0..n_obs.min(600)).step_by(2).map(|row| row..row + 1).collect()));
    if n_obs > 2 {
        out.push(ranges(vec![0..1, last..n_obs]));
        out.push(ranges(vec![0..middle, middle + 1..n_obs]));
        out.push(ranges(vec![1..last]));
    }
    for _ in 0..12 {
        let row = rng.below(n_obs);
        out.push(ranges(vec![row..row + 1]));
    }
    for _ in 0..8 {
        let mut cuts: Vec<u64> = (0..2 + rng.below(30)).map(|_| rng.below(n_obs + 1)).collect();
        cuts.sort_unstable();
        out.push(ranges(cuts.chunks_exact(2).map(|c| c[0]..c[1]).collect()));
    }
    out
}

/// Values of a type: small counts, and at every 13th place an extreme or an explicit zero.
#[must_use]
pub fn values(value_type: ValueType, n: usize, rng: &mut Rng) -> Values {
    macro_rules! draw {
        ($ty:ty, [$($special:expr),*], $small:expr) => {{
            let special: Vec<$ty> = vec![$($special),*];
            let small: fn(u8) -> $ty = $small;
            let mut one = |i: usize| match i % 13 {
                5 => special[i / 13 % special.len()],
                _ => small(u8::try_from(rng.below(7)).unwrap_or(0) + 1),
            };
            (0..n).map(&mut one).collect::<Vec<$ty>>().into()
        }};
    }
    match value_type {
        ValueType::U8 => draw!(u8, [0, u8::MAX], |v| v),
        ValueType::U16 => draw!(u16, [0, u16::MAX], u16::from),
        ValueType::U32 => draw!(u32, [0, u32::MAX, 1 << 24 | 1], u32::from),
        ValueType::U64 => draw!(u64, [0, u64::MAX, 1 << 53 | 1], u64::from),
        ValueType::I8 => draw!(i8, [0, i8::MAX, i8::MIN, -1], |v| i8::try_from(v).unwrap_or(0)),
        ValueType::I16 => draw!(i16, [0, i16::MAX, i16::MIN, -1], i16::from),
        ValueType::I32 => draw!(i32, [0, i32::MAX, i32::MIN, -1], i32::from),
        ValueType::I64 => draw!(i64, [0, i64::MAX, i64::MIN, 1 << 53 | 1, -1], i64::from),
        ValueType::F16 => {
            draw!(f16, [f16::ZERO, f16::MAX, f16::INFINITY, f16::NAN, f16::NEG_ZERO], f16::from)
        }
        ValueType::F64 => {
            draw!(f64, [0.0, -0.0, f64::MAX, f64::MIN_POSITIVE, f64::NAN, 0.1], f64::from)
        }
        _ => draw!(f32, [0.0, -0.0, f32::MAX, f32::NEG_INFINITY, f32::NAN, 0.1], f32::from),
    }
}

/// A sparse matrix of which about `density` percent is stored, with empty rows at both ends and one
/// full row, as far as there are so many.
#[must_use]
pub fn matrix(
    key: MatrixKey,
    value_type: ValueType,
    (n_obs, n_vars): (u64, u32),
    density: u64,
    rng: &mut Rng,
) -> OracleMatrix {
    let (mut indptr, mut indices) = (vec![0], Vec::new());
    for row in 0..n_obs {
        let percent = match row {
            _ if n_obs > 1 && (row == 0 || row == n_obs - 1) => 0,
            _ if row == n_obs / 2 => 100,
            _ => density,
        };
        indices.extend((0..n_vars).filter(|_| rng.below(100) < percent));
        indptr.push(u64::try_from(indices.len()).unwrap_or(u64::MAX));
    }
    let values = values(value_type, indices.len(), rng);
    OracleMatrix { key, encoding: Encoding::Csr, n_vars: n_vars.into(), indptr, indices, values }
}

/// Obs columns of every kind, with and without missing values.
#[must_use]
pub fn columns(n_rows: u64, rng: &mut Rng) -> Vec<OracleColumn> {
    let rows: Vec<u64> = (0..n_rows).map(|_| rng.bits()).collect();
    let gaps = |some: bool, row: u64| some && row.is_multiple_of(5);
    let small = |row: u64| i32::try_from(row % 4).unwrap_or(0);
    let column = |name: &str, values| OracleColumn { name: name.to_owned(), values };
    let texts = ["T cell", "", "B cell", "naïve µ", "never used"];
    let categories: Vec<_> = texts.map(|t| Category::Text(t.to_owned())).into();
    let codes = |missing: bool, ordered| OracleValues::Categorical {
        codes: rows.iter().map(|&r| (!gaps(missing, r)).then(|| small(r))).collect(),
        categories: categories.clone(),
        ordered,
    };
    let integers = |one: &dyn Fn(u64) -> Option<i128>| {
        OracleValues::Integer(rows.iter().map(|&r| one(r)).collect())
    };
    let float = |r: &u64| match r % 6 {
        0 => f64::NAN,
        1 => f64::NEG_INFINITY,
        2 => -0.0,
        _ => f64::from(small(*r)) / 3.0,
    };
    let word = |r: &u64| (!gaps(true, *r)).then(|| format!("{}{}", texts[at(r % 4)], r % 9));
    vec![
        column("z type", codes(true, false)),
        column("stage", codes(false, true)),
        column("word", OracleValues::String(rows.iter().map(word).collect())),
        column("count", integers(&|r| Some(i128::from(r.cast_signed())))),
        column("hash", integers(&|r| Some(i128::from(r | 1 << 63)))),
        column("a gap", integers(&|r| (!gaps(true, r)).then(|| small(r).into()))),
        column("score", OracleValues::Float(rows.iter().map(|r| Some(float(r))).collect())),
        column("kept", OracleValues::Boolean(rows.iter().map(|r| Some(r % 2 == 0)).collect())),
        column(
            "maybe",
            OracleValues::Boolean(
                rows.iter().map(|&r| (!gaps(true, r)).then_some(r % 2 == 0)).collect(),
            ),
        ),
    ]
}

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

/// A store with `X`, a layer and `raw/X`, obs columns of every kind, and names.
#[must_use]
pub fn oracle(name: &str, n_obs: u64, n_vars: u32, seed: u64) -> Oracle {
    let rng = &mut Rng::new(seed);
    let raw_vars = n_vars + 3;
    let shape = (n_obs, n_vars);
    Oracle {
        name: name.to_owned(),
        n_obs,
        n_vars: n_vars.into(),
        matrices: vec![
            matrix(MatrixKey::X, ValueType::F32, shape, 12, rng),
            matrix(MatrixKey::Layer("counts".to_owned()), ValueType::U16, shape, 30, rng),
            matrix(MatrixKey::Raw, ValueType::F64, (n_obs, raw_vars), 7, rng),
        ],
        obs_names: (0..n_obs).map(|i| format!("cell-{i}")).collect(),
        var_names: (0..n_vars).map(|i| format!("gene-{i}")).collect(),
        raw_var_names: (0..raw_vars).map(|i| format!("raw-{i}")).collect(),
        obs: columns(n_obs, rng),
        var: columns(n_vars.into(), rng),
        // Other values than those of X, and not all of the columns.
        raw_var: Some(columns(raw_vars.into(), rng).into_iter().rev().take(5).collect()),
        writer: None,
    }
}

/// The standard set: no cells, one cell, no genes, a small store, one with wide rows, one with a
/// layer of every value type, and one of some thousand cells.
#[must_use]
pub fn oracles() -> Vec<Oracle> {
    let mut types = oracle("every value type", 23, 17, 5);
    let rng = &mut Rng::new(6);
    types.matrices.truncate(1);
    types.matrices.extend(
        ValueType::ALL
            .map(|t| matrix(MatrixKey::Layer(t.to_string()), t, (types.n_obs, 17), 60, rng)),
    );
    types.raw_var_names.clear();
    types.raw_var = None;
    vec![
        oracle("no cells", 0, 5, 1),
        oracle("one cell", 1, 9, 2),
        oracle("no genes", 6, 0, 3),
        oracle("small", 37, 23, 4),
        types,
        oracle("wide rows", 19, 4000, 7),
        oracle("many cells", 2500, 31, 8),
    ]
}

fn var_schema(oracle: &Oracle, matrix: &OracleMatrix) -> VarSchema {
    let columns = oracle.var_columns_of(&matrix.key).unwrap_or_default();
    VarSchema {
        n_vars: matrix.n_vars,
        names: oracle.var_names_of(&matrix.key).to_vec(),
        columns: columns.iter().map(column_schema).collect(),
    }
}

/// A column as a schema describes it.
#[must_use]
pub fn column_schema(column: &OracleColumn) -> ColumnSchema {
    let kind = match &column.values {
        OracleValues::Categorical { categories, ordered, .. } => ColumnKind::Categorical {
            categories: Arc::new(categories.iter().map(Category::text).collect()),
            ordered: *ordered,
        },
        OracleValues::String(_) => ColumnKind::String,
        OracleValues::Integer(_) => ColumnKind::Integer,
        OracleValues::Float(_) => ColumnKind::Float,
        OracleValues::Boolean(_) => ColumnKind::Boolean,
        OracleValues::Unreadable => ColumnKind::Unreadable("the oracle has no values".to_owned()),
    };
    ColumnSchema { name: column.name.clone(), kind, encoding: "memory".to_owned() }
}

/// The values of a column as an Arrow array of the type that backends answer with.
///
/// # Errors
/// Of kind `Corrupt` if a code has no category.
pub fn column_array(column: &OracleColumn, n_rows: u64) -> Result<ArrayRef> {
    Ok(match &column.values {
        OracleValues::Categorical { codes, categories, .. } => {
            let categories = Arc::new(categories.iter().map(Category::text).collect());
            categorical_array(codes.iter().copied(), &categories)?
        }
        OracleValues::String(v) => Arc::new(v.iter().collect::<StringArray>()),
        OracleValues::Integer(v) => {
            if v.iter().flatten().any(|&i| i > i64::MAX.into()) {
                let one = |i: &Option<i128>| i.and_then(|i| u64::try_from(i).ok());
                Arc::new(v.iter().map(one).collect::<UInt64Array>())
            } else {
                let one = |i: &Option<i128>| i.and_then(|i| i64::try_from(i).ok());
                Arc::new(v.iter().map(one).collect::<Int64Array>())
            }
        }
        OracleValues::Float(v) => Arc::new(v.iter().copied().collect::<Float64Array>()),
        OracleValues::Boolean(v) => Arc::new(v.iter().copied().collect::<BooleanArray>()),
        OracleValues::Unreadable => Arc::new(NullArray::new(at(n_rows))),
    })
}

/// The genes of the oracle's `X` and layers, or of its `raw/X`.
///
/// # Errors
/// As [`column_array`].
pub fn var_table(oracle: &Oracle, key: &MatrixKey) -> Result<Table> {
    let n_vars = oracle.matrix(key).map_or(oracle.n_vars, |m| m.n_vars);
    let names = oracle.var_names_of(key);
    let index = (!names.is_empty()).then(|| {
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        ("gene".to_owned(), names)
    });
    let columns = oracle.var_columns_of(key).unwrap_or_default().iter();
    let readable = columns.filter(|c| c.values != OracleValues::Unreadable);
    let columns = readable.map(|c| Ok((column_schema(c), column_array(c, n_vars)?)));
    Table::try_new(n_vars, index, columns.collect::<Result<_>>()?)
}

/// The oracle's contents as core's store in memory.
///
/// # Errors
/// Of kind `Corrupt` or `InvalidInput` if the oracle contradicts itself.
pub fn memory_backend(oracle: &Oracle) -> Result<MemoryBackend> {
    let matrices = oracle.matrices.iter().map(|m| {
        let (indptr, indices) = (m.indptr.clone(), m.indices.clone());
        macro_rules! build {
            ($($variant:ident)*) => {
                match &m.values {
                    $(Values::$variant(v) => {
                        MemoryMatrix::try_new(indptr, indices, v.to_vec(), var_schema(oracle, m))?
                    })*
                    other => MemoryMatrix::try_new(
                        indptr, indices, other.to_f64_vec(), var_schema(oracle, m))?,
                }
            };
        }
        Ok((m.key.clone(), build!(U8 U16 U32 U64 I8 I16 I32 I64 F16 F32 F64)))
    });
    let matrices = matrices.collect::<Result<_>>()?;
    let obs = oracle.obs.iter().map(|c| Ok((column_schema(c), column_array(c, oracle.n_obs)?)));
    let mut store = MemoryBackend::try_new(oracle.n_obs, matrices, obs.collect::<Result<_>>()?)?;
    for key in [MatrixKey::X, MatrixKey::Raw] {
        if key == MatrixKey::X || oracle.matrix(&key).is_some() {
            store = store.with_var(&key, var_table(oracle, &key)?)?;
        }
    }
    if !oracle.obs_names.is_empty() {
        let names = StringArray::from_iter_values(&oracle.obs_names);
        store = store.with_obs_names("cell", Arc::new(names))?;
    }
    Ok(store)
}

/// A store in memory, with its oracle.
///
/// # Errors
/// As [`memory_backend`].
pub fn memory_subject(oracle: Oracle) -> Result<Subject> {
    let backend = Arc::new(memory_backend(&oracle)?);
    Ok(Subject::new(backend, oracle).with_shared_memory())
}
