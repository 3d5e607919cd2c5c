//! Oracles from `*.oracle.json` files, which a script writes beside each foreign file from what the
//! file's own tools read. Numbers that JSON cannot say are the strings `nan`, `inf` and `-inf`;
//! `null` is a missing value.

use crate::oracle::{Category, Oracle, OracleColumn, OracleMatrix, OracleValues};
use cellfeed_core::{Encoding, Error, MatrixKey, Result, ValueType, Values};
use half::f16;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Document {
    n_obs: u64,
    n_vars: u64,
    matrices: Map<String, Value>,
    #[serde(default)]
    obs_names: Vec<String>,
    #[serde(default)]
    var_names: Vec<String>,
    #[serde(default)]
    raw_var_names: Vec<String>,
    #[serde(default)]
    obs: Map<String, Value>,
    #[serde(default)]
    var: Map<String, Value>,
    raw_var: Option<Map<String, Value>>,
    writer: Option<String>,
}

#[derive(Deserialize)]
struct Matrix {
    encoding: String,
    value_type: String,
    n_vars: Option<u64>,
    indptr: Vec<u64>,
    indices: Vec<u32>,
    data: Vec<Value>,
}

#[derive(Deserialize)]
struct Column {
    kind: String,
    #[serde(default)]
    values: Vec<Value>,
    #[serde(default)]
    codes: Vec<i32>,
    #[serde(default)]
    categories: Vec<Value>,
    #[serde(default)]
    ordered: bool,
}

impl Oracle {
    /// Reads a `*.oracle.json` file; the oracle is named after it.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io`, or as [`from_json`](Self::from_json).
    pub fn load(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::io("cannot read the oracle", e).with("file", &file))?;
        let name = path.file_name().map_or_else(|| file.clone(), |n| n.to_string_lossy().into());
        let name = name.strip_suffix(".oracle.json").unwrap_or(&name).to_owned();
        Self::from_json(&text).map(|o| o.named(name)).map_err(|e| e.with("file", file))
    }

    /// Reads every `*.oracle.json` below a folder, in the order of their paths. With each oracle
    /// comes its path without that ending, to which the ending of a store's name can be added.
    ///
    /// # Errors
    /// As [`load`](Self::load); a folder that is not there is of kind `NotFound`.
    pub fn load_below(folder: &Path) -> Result<Vec<(PathBuf, Self)>> {
        let cannot = |e| Error::io("cannot list the oracles", e).with("file", folder.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            paths.push(entry.map_err(cannot)?.path());
        }
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            if path.is_dir() {
                found.extend(Self::load_below(&path)?);
            } else if let Some(stem) = path.to_str().and_then(|p| p.strip_suffix(".oracle.json")) {
                found.push((PathBuf::from(stem), Self::load(&path)?));
            }
        }
        Ok(found)
    }

    /// Reads an oracle from JSON text.
    ///
    /// # Errors
    /// Of kind `InvalidInput`, naming matrix or column.
    pub fn from_json(text: &str) -> Result<Self> {
        let document: Document = serde_json::from_str(text).map_err(malformed)?;
        let matrices = document.matrices.into_iter().map(|(key, value)| {
            matrix(&key, value, document.n_obs, document.n_vars).map_err(|e| e.with("matrix", key))
        });
        let matrices: Vec<OracleMatrix> = matrices.collect::<Result<_>>()?;
        let columns = |map: Map<String, Value>, n: u64| -> Result<Vec<OracleColumn>> {
            let read = |(name, value): (String, Value)| {
                column(value, n)
                    .map_err(|e| e.with("column", &name))
                    .map(|values| OracleColumn { name, values })
            };
            map.into_iter().map(read).collect()
        };
        let raw = matrices.iter().find(|m: &&OracleMatrix| m.key == MatrixKey::Raw);
        let raw_vars = raw.map_or(0, |m| m.n_vars);
        Ok(Self {
            name: "oracle".to_owned(),
            n_obs: document.n_obs,
            n_vars: document.n_vars,
            raw_var: document.raw_var.map(|c| columns(c, raw_vars)).transpose()?,
            matrices,
            obs_names: document.obs_names,
            var_names: document.var_names,
            raw_var_names: document.raw_var_names,
            obs: columns(document.obs, document.n_obs)?,
            var: columns(document.var, document.n_vars)?,
            writer: document.writer,
        })
    }
}

fn malformed(error: serde_json::Error) -> Error {
    Error::invalid_input(format!("this is no oracle: {error}")).caused_by(error)
}

fn not_a(value: &Value, what: &str) -> Error {
    Error::invalid_input(format!("{value} is no {what}"))
}

fn matrix(key: &str, value: Value, n_obs: u64, n_vars: u64) -> Result<OracleMatrix> {
    let matrix: Matrix = serde_json::from_value(value).map_err(malformed)?;
    let encoding = match matrix.encoding.as_str() {
        "csr" => Encoding::Csr,
        "csc" => Encoding::Csc,
        "dense" => Encoding::Dense,
        other => return Err(Error::invalid_input(format!("{other:?} is no encoding"))),
    };
    // Stored truth values are read as bytes.
    let value_type = match matrix.value_type.as_str() {
        "bool" => ValueType::U8,
        name => name.parse()?,
    };
    let (rows, nnz) = (u64::try_from(matrix.indptr.len()), u64::try_from(matrix.indices.len()));
    let values = numbers(value_type, &matrix.data)?;
    if rows.ok() != n_obs.checked_add(1)
        || matrix.indptr.last().copied() != nnz.ok()
        || values.len() != matrix.indices.len()
    {
        return Err(Error::invalid_input("indptr, indices, data and n_obs do not fit together"));
    }
    Ok(OracleMatrix {
        key: key.parse()?,
        encoding,
        n_vars: matrix.n_vars.unwrap_or(n_vars),
        indptr: matrix.indptr,
        indices: matrix.indices,
        values,
    })
}

/// Numbers in a matrix's value type, exactly.
#[allow(clippy::cast_possible_truncation)] // f32 values were widened on writing
fn numbers(value_type: ValueType, data: &[Value]) -> Result<Values> {
    fn integers<T: TryFrom<i128>>(data: &[Value]) -> Result<Vec<T>> {
        let one = |v: &Value| integer(v).and_then(|i| T::try_from(i).ok());
        data.iter().map(|v| one(v).ok_or_else(|| not_a(v, "integer of the value type"))).collect()
    }
    let floats = || -> Result<Vec<f64>> {
        data.iter().map(|v| float(v).ok_or_else(|| not_a(v, "number"))).collect()
    };
    Ok(match value_type {
        ValueType::U8 => integers::<u8>(data)?.into(),
        ValueType::U16 => integers::<u16>(data)?.into(),
        ValueType::U32 => integers::<u32>(data)?.into(),
        ValueType::U64 => integers::<u64>(data)?.into(),
        ValueType::I8 => integers::<i8>(data)?.into(),
        ValueType::I16 => integers::<i16>(data)?.into(),
        ValueType::I32 => integers::<i32>(data)?.into(),
        ValueType::I64 => integers::<i64>(data)?.into(),
        ValueType::F16 => floats()?.into_iter().map(f16::from_f64).collect::<Vec<_>>().into(),
        ValueType::F32 => floats()?.into_iter().map(|v| v as f32).collect::<Vec<_>>().into(),
        ValueType::F64 => floats()?.into(),
        other => return Err(Error::invalid_input(format!("{other} is no known value type"))),
    })
}

fn integer(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

fn float(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some("nan") => Some(f64::NAN),
        Some("inf") => Some(f64::INFINITY),
        Some("-inf") => Some(f64::NEG_INFINITY),
        Some(_) => None,
        None => value.as_f64(),
    }
}

fn category(value: &Value) -> Result<Category> {
    match value {
        Value::String(text) => Ok(Category::Text(text.clone())),
        Value::Bool(b) => Ok(Category::Boolean(*b)),
        _ => integer(value)
            .map(Category::Integer)
            .or_else(|| float(value).map(Category::Float))
            .ok_or_else(|| not_a(value, "category")),
    }
}

/// One item a value, `None` for null.
fn each<T>(
    values: &[Value],
    what: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<Option<T>>> {
    let one = |v: &Value| match v {
        Value::Null => Ok(None),
        v => read(v).map(Some).ok_or_else(|| not_a(v, what)),
    };
    values.iter().map(one).collect()
}

fn column(value: Value, n_rows: u64) -> Result<OracleValues> {
    let column: Column = serde_json::from_value(value).map_err(malformed)?;
    let values = &column.values;
    let read = match column.kind.as_str() {
        "categorical" => {
            let categories: Vec<Category> =
                column.categories.iter().map(category).collect::<Result<_>>()?;
            let one = |&code: &i32| match usize::try_from(code) {
                Err(_) if code == -1 => Ok(None),
                Ok(at) if at < categories.len() => Ok(Some(code)),
                _ => Err(Error::invalid_input(format!("the code {code} has no category"))),
            };
            let codes = column.codes.iter().map(one).collect::<Result<_>>()?;
            OracleValues::Categorical { codes, categories, ordered: column.ordered }
        }
        "string" => {
            OracleValues::String(each(values, "text", |v| v.as_str().map(ToOwned::to_owned))?)
        }
        "int" | "nullable-int" => OracleValues::Integer(each(values, "integer", integer)?),
        "float" => OracleValues::Float(each(values, "number", float)?),
        "bool" | "nullable-bool" => {
            OracleValues::Boolean(each(values, "truth value", Value::as_bool)?)
        }
        "unreadable" => OracleValues::Unreadable,
        other => return Err(Error::invalid_input(format!("{other:?} is no kind of column"))),
    };
    match read.n_rows() {
        Some(n) if u64::try_from(n).ok() != Some(n_rows) => {
            Err(Error::invalid_input(format!("{n} values for {n_rows} rows")))
        }
        _ => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"n_obs": 2, "n_vars": 3, "matrices": {
        "X": {"encoding": "csr", "value_type": "f32", "indptr": [0, 2, 3], "indices": [0, 2, 1],
              "data": [1.5, "nan", "-inf"]},
        "layers/big": {"encoding": "csc", "value_type": "u64", "indptr": [0, 1, 1],
              "indices": [0], "data": [18446744073709551615]}},
        "obs_names": ["a", "b"], "var_names": ["x", "y", "z"],
        "obs": {"z": {"kind": "categorical", "values": ["u", null], "codes": [0, -1],
                      "categories": ["u", 1, 0.5, true], "ordered": true},
                "a": {"kind": "nullable-int", "values": [null, -9223372036854775808]}},
        "var": {}, "writer": "anndata 0.7.8"}"#;

    #[test]
    fn an_oracle_is_read_exactly() {
        let oracle = Oracle::from_json(TEXT).unwrap();
        assert_eq!(oracle.obs[0].name, "z", "column order is kept");
        let OracleValues::Categorical { codes, categories, ordered } = &oracle.obs[0].values else {
            panic!("{:?}", oracle.obs[0]);
        };
        assert_eq!((codes.as_slice(), *ordered), ([Some(0), None].as_slice(), true));
        assert_eq!(categories[2], Category::Float(0.5));
        let int = OracleValues::Integer(vec![None, Some(i64::MIN.into())]);
        assert_eq!(oracle.obs[1].values, int);
        let big = oracle.matrix(&MatrixKey::Layer("big".into())).unwrap();
        assert_eq!(big.encoding, Encoding::Csc);
        assert!(matches!(&big.values, Values::U64(v) if v[0] == u64::MAX));
        let x = oracle.matrix(&MatrixKey::X).unwrap().values.to_f64_vec();
        assert!(x[1].is_nan() && x[2] == f64::NEG_INFINITY);
    }

    #[test]
    fn nonsense_is_refused() {
        for (from, to) in [
            ("[0, 2, 3]", "[0, 2]"),
            ("\"f32\"", "\"f8\""),
            ("\"csc\"", "\"coo\""),
            ("[0, -1]", "[0, 9]"),
            ("\"nan\"", "\"none\""),
        ] {
            assert!(Oracle::from_json(&TEXT.replace(from, to)).is_err(), "{to}");
        }
    }
}
