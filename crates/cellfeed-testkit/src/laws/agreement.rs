//! Law 1: row *i* of the answer is the *i*-th row asked for; X, layers, obs and the schema agree
//! with the oracle.

use super::{genes, read_right_obs, read_right_rows, reading};
use crate::compare::{check_column, check_rows, readable};
use crate::fixtures::requests;
use crate::oracle::{Category, Oracle, OracleColumn, OracleMatrix, OracleValues};
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::{
    Backend, ColumnKind, ColumnSchema, Encoding, ErrorKind, MatrixKey, MatrixSchema, ReadCost,
    RowRanges,
};
use futures::executor::block_on;
use std::fmt::Debug;

const LAW: Law = Law::Agreement;

/// Law 1, agreement: schema, matrices and obs columns are the oracle's.
///
/// # Errors
/// The first disagreement.
pub fn law_1_agreement(subject: &Subject) -> Result<(), Violation> {
    let seed = subject.limits.seed;
    agreement(subject.backend.as_ref(), &subject.oracle, seed, subject.shares_memory)
        .map_err(|v| v.of(subject.name()))
}

pub(crate) fn agreement(
    backend: &dyn Backend,
    oracle: &Oracle,
    seed: u64,
    shares_memory: bool,
) -> Result<(), Violation> {
    schema_agrees(backend, oracle)?;
    block_on(async {
        let requests = requests(oracle.n_obs, seed);
        for matrix in &oracle.matrices {
            if let Err(error) = backend.schema().matrix(&matrix.key) {
                unreadable(backend, matrix, &error).await?;
                continue;
            }
            for rows in &requests {
                let answer = read_right_rows(LAW, backend, matrix, rows).await?;
                stored_agrees(backend, matrix, rows).await?;
                let cost = backend.cost(&matrix.key, rows);
                cost_covers(cost, rows, answer.n_bytes(), shares_memory)
                    .map_err(|v| v.at(&matrix.key).when(reading(rows)))?;
            }
        }
        obs_agrees(backend, oracle, &requests).await?;
        genes::var_agrees(backend, oracle).await?;
        genes::columns_agree(backend, oracle, seed).await
    })
}

/// What the loader reads is the same, once it is canonical: all at once, and row by row.
async fn stored_agrees(
    backend: &dyn Backend,
    matrix: &OracleMatrix,
    rows: &RowRanges,
) -> Result<(), Violation> {
    let what = || format!("{}, by read_stored", reading(rows));
    let refused = |e| Violation::refused(LAW, what(), &e).at(&matrix.key);
    let answer = backend.read_stored(&matrix.key, rows).await.map_err(refused)?;
    let all = answer.clone().canonical(rows).map_err(refused)?;
    check_rows(LAW, matrix, rows, &all).map_err(|v| v.when(what()))?;
    // Copied last first and one by one, and put in order again: rows depend on nothing but themselves.
    let n = u32::try_from(answer.n_rows()).unwrap_or(u32::MAX);
    let back: Vec<u32> = (0..n).rev().collect();
    let copied = answer.gather(&back).and_then(|copied| copied.gather(&back)).map_err(refused)?;
    check_rows(LAW, matrix, rows, &copied).map_err(|v| v.when(format!("{}, row by row", what())))
}

fn same<T: PartialEq + Debug>(what: &str, want: T, got: T) -> Result<(), Violation> {
    if want == got { Ok(()) } else { Err(Violation::differs(LAW, want, got).when(what)) }
}

fn same_names(what: &str, want: &[String], got: &[String]) -> Result<(), Violation> {
    same(&format!("number of {what}"), want.len(), got.len())?;
    let mut pairs = want.iter().zip(got).enumerate();
    match pairs.find(|(_, (want, got))| want != got) {
        None => Ok(()),
        Some((i, (want, got))) => {
            Err(Violation::differs(LAW, want, got).when(format!("{what}, number {i}")))
        }
    }
}

fn schema_agrees(backend: &dyn Backend, oracle: &Oracle) -> Result<(), Violation> {
    let schema = backend.schema();
    same("n_obs", oracle.n_obs, schema.n_obs)?;
    let keys = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    same(
        "matrices of the schema",
        keys(oracle.matrices.iter().map(|m| m.key.to_string()).collect()),
        keys(schema.matrices.iter().map(|m| m.key.to_string()).collect()),
    )?;
    for matrix in &oracle.matrices {
        let found = schema.find(&matrix.key);
        let found =
            found.ok_or_else(|| Violation::new(LAW, "not in the schema").at(&matrix.key))?;
        matrix_agrees(oracle, matrix, found).map_err(|v| v.at(&matrix.key))?;
    }
    if let Some(x) = oracle.matrix(&MatrixKey::X) {
        same("n_vars of the schema", x.n_vars, schema.var.n_vars)?;
        same_names("var names of the schema", &oracle.var_names, &schema.var.names)?;
        columns_agree("var", &oracle.var, &schema.var.columns, None)?;
    }
    columns_agree("obs", &oracle.obs, &schema.obs, schema.obs_index.as_deref())
}

fn matrix_agrees(
    oracle: &Oracle,
    want: &OracleMatrix,
    got: &MatrixSchema,
) -> Result<(), Violation> {
    same("encoding", want.encoding, got.encoding)?;
    same("value type", want.values.value_type(), got.value_type)?;
    same("n_vars", want.n_vars, got.n_vars())?;
    same_names("var names", oracle.var_names_of(&want.key), &got.var.names)?;
    let nnz = u64::try_from(want.values.len()).unwrap_or(u64::MAX);
    match got.nnz {
        None if want.encoding == Encoding::Dense || got.unreadable.is_some() => Ok(()),
        // A dense matrix stores its zeros too.
        Some(_) if want.encoding == Encoding::Dense => Ok(()),
        got => same("nnz", Some(nnz), got),
    }
}

fn columns_agree(
    axis: &str,
    want: &[OracleColumn],
    got: &[ColumnSchema],
    index: Option<&str>,
) -> Result<(), Violation> {
    // The index may be listed among the columns or not.
    let listed = |name: &str| want.iter().any(|c| c.name == name) || Some(name) != index;
    let got: Vec<&ColumnSchema> = got.iter().filter(|c| listed(&c.name)).collect();
    let names: Vec<String> = got.iter().map(|c| c.name.clone()).collect();
    let want_names: Vec<String> = want.iter().map(|c| c.name.clone()).collect();
    same(&format!("{axis} columns"), want_names, names)?;
    for (want, got) in want.iter().zip(got) {
        kind_agrees(want, got).map_err(|v| v.at(format_args!("{axis}/{}", want.name)))?;
    }
    Ok(())
}

/// Whether a column's kind is the oracle's.
pub(super) fn kind_agrees(want: &OracleColumn, got: &ColumnSchema) -> Result<(), Violation> {
    let agrees = match (&want.values, &got.kind) {
        (
            OracleValues::Categorical { categories, ordered, .. },
            ColumnKind::Categorical { categories: words, ordered: got },
        ) => {
            ordered == got
                && categories.len() == words.len()
                && categories.iter().zip(words.iter()).all(|(c, w)| c.matches(w))
        }
        (OracleValues::String(_), ColumnKind::String)
        | (OracleValues::Integer(_), ColumnKind::Integer)
        | (OracleValues::Float(_), ColumnKind::Float)
        | (OracleValues::Boolean(_), ColumnKind::Boolean)
        | (OracleValues::Unreadable, ColumnKind::Unreadable(_)) => true,
        _ => false,
    };
    if agrees {
        return Ok(());
    }
    Err(Violation::differs(LAW, kind(&want.values), &got.kind).when("kind"))
}

/// A column's kind as the schema would have it.
fn kind(values: &OracleValues) -> String {
    match values {
        OracleValues::Categorical { categories, ordered, .. } => {
            let categories: Vec<String> = categories.iter().map(Category::text).collect();
            format!("categorical, ordered {ordered}, {categories:?}")
        }
        OracleValues::String(_) => "string".to_owned(),
        OracleValues::Integer(_) => "integer".to_owned(),
        OracleValues::Float(_) => "float".to_owned(),
        OracleValues::Boolean(_) => "boolean".to_owned(),
        OracleValues::Unreadable => "unreadable".to_owned(),
    }
}

/// A matrix that the schema says cannot be read by rows: only a CSC one may be so, and the error
/// must name the remedy.
async fn unreadable(
    backend: &dyn Backend,
    matrix: &OracleMatrix,
    error: &cellfeed_core::Error,
) -> Result<(), Violation> {
    if matrix.encoding != Encoding::Csc || error.kind() != ErrorKind::Unsupported {
        return Err(Violation::refused(LAW, "looking the matrix up", error).at(&matrix.key));
    }
    let rows = RowRanges::single(0..backend.schema().n_obs);
    let violation = match backend.read_rows(&matrix.key, &rows).await {
        Ok(_) => Violation::new(LAW, "the schema calls it unreadable, but rows can be read"),
        Err(error) if error.kind() != ErrorKind::Unsupported => {
            Violation::refused(LAW, "reading an unsupported matrix", &error)
        }
        Err(error) => {
            let message = error.to_string().to_lowercase();
            if message.contains("convert") || message.contains("csr") {
                return Ok(());
            }
            Violation::new(LAW, format!("expected the error to name the remedy, got {error:?}"))
        }
    };
    Err(violation.at(&matrix.key))
}

/// The cost, where it is exact, covers what the answer holds.
pub(super) fn cost_covers(
    cost: cellfeed_core::Result<ReadCost>,
    rows: &RowRanges,
    n_bytes: usize,
    shares_memory: bool,
) -> Result<(), Violation> {
    let cost = cost.map_err(|e| Violation::refused(LAW, "asking for the cost", &e))?;
    if cost.bytes_held < cost.bytes_kept {
        return Err(Violation::new(LAW, "cost: fewer bytes are held than kept")
            .when(format!("{} held, {} kept", cost.bytes_held, cost.bytes_kept)));
    }
    let needed = u64::try_from(n_bytes).unwrap_or(u64::MAX);
    if cost.exact && !shares_memory && !rows.is_empty() && cost.bytes_kept < needed {
        let what = format!("expected at least {needed} bytes kept, got {}", cost.bytes_kept);
        return Err(Violation::new(LAW, what).when("cost"));
    }
    Ok(())
}

async fn obs_agrees(
    backend: &dyn Backend,
    oracle: &Oracle,
    requests: &[RowRanges],
) -> Result<(), Violation> {
    let columns = readable(oracle);
    // The order of the request counts, not that of the store; and a column may come twice.
    let mut odd: Vec<&OracleColumn> = columns.iter().rev().copied().collect();
    odd.extend(columns.first());
    for rows in requests {
        read_right_obs(LAW, backend, &columns, rows).await?;
        read_right_obs(LAW, backend, &odd, rows).await?;
        read_right_obs(LAW, backend, &[], rows).await?;
        for column in &columns {
            read_right_obs(LAW, backend, &[*column], rows).await?;
        }
    }
    for column in oracle.obs.iter().filter(|c| c.values == OracleValues::Unreadable) {
        let rows = RowRanges::single(0..oracle.n_obs);
        match backend.read_obs(std::slice::from_ref(&column.name), &rows).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => {
                let violation = Violation::refused(LAW, "reading an unreadable column", &error);
                return Err(violation.at(format_args!("obs/{}", column.name)));
            }
            Ok(_) => {
                let violation = Violation::new(LAW, "expected an Unsupported error, got values");
                return Err(violation.at(format_args!("obs/{}", column.name)));
            }
        }
    }
    cell_names_agree(backend, oracle, requests).await
}

async fn cell_names_agree(
    backend: &dyn Backend,
    oracle: &Oracle,
    requests: &[RowRanges],
) -> Result<(), Violation> {
    if oracle.obs_names.is_empty() {
        return Ok(());
    }
    let Some(index) = &backend.schema().obs_index else {
        return Err(Violation::new(LAW, "expected names of cells, got a schema without obs_index"));
    };
    let values = OracleValues::String(oracle.obs_names.iter().cloned().map(Some).collect());
    let column = OracleColumn { name: index.clone(), values };
    for rows in requests {
        let array = backend.read_obs(std::slice::from_ref(index), rows).await;
        let arrays = array
            .map_err(|e| Violation::refused(LAW, "reading the names of cells", &e).at("obs"))?;
        let [array] = arrays.as_slice() else {
            return Err(Violation::differs(LAW, 1, arrays.len()).when("arrays for one column"));
        };
        check_column(LAW, &column, rows, array).map_err(|v| v.when(reading(rows)))?;
    }
    Ok(())
}
