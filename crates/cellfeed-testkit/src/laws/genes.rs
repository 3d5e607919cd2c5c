//! The part of law 1 that is about genes: their names and columns, and matrices that are stored by
//! columns. Training reads neither; conversion does.

use super::{agreement::cost_covers, reading};
use crate::compare::{check_rows, check_values};
use crate::fixtures::requests;
use crate::oracle::{Oracle, OracleColumn, OracleMatrix, OracleValues};
use crate::violation::{Law, Violation};
use cellfeed_core::{Archive, Backend, Encoding, ErrorKind, MatrixKey, RowRanges};

const LAW: Law = Law::Agreement;

/// Names and readable columns of the genes of every matrix; of `X` also where there is none.
pub(super) async fn var_agrees(backend: &dyn Backend, oracle: &Oracle) -> Result<(), Violation> {
    let layers = oracle.matrices.iter().map(|m| &m.key).filter(|k| **k != MatrixKey::X);
    for key in [&MatrixKey::X].into_iter().chain(layers) {
        let place = if *key == MatrixKey::Raw { "raw/var" } else { "var" };
        table_agrees(backend, oracle, key, place)
            .await
            .map_err(|v| v.at(place).when(format_args!("read_var of {key}")))?;
    }
    Ok(())
}

async fn table_agrees(
    backend: &dyn Backend,
    oracle: &Oracle,
    key: &MatrixKey,
    place: &str,
) -> Result<(), Violation> {
    let table = backend.read_var(key).await;
    let table = table.map_err(|e| Violation::refused(LAW, "reading", &e))?;
    let n_vars = oracle.matrix(key).map_or(oracle.n_vars, |m| m.n_vars);
    if table.n_rows() != n_vars {
        return Err(Violation::differs(LAW, n_vars, table.n_rows()).when("number of genes"));
    }
    let all = RowRanges::single(0..n_vars);
    let names = oracle.var_names_of(key);
    match table.index() {
        None if names.is_empty() => {}
        None => return Err(Violation::new(LAW, "expected names of genes, got none")),
        Some((name, got)) => {
            let values = OracleValues::String(names.iter().cloned().map(Some).collect());
            let column = OracleColumn { name: name.to_owned(), values };
            let got: arrow_array::ArrayRef = std::sync::Arc::new(got.clone());
            if !names.is_empty() {
                check_values(LAW, &column, &all, &got).map_err(|v| v.when("names of genes"))?;
            }
        }
    }
    let Some(columns) = oracle.var_columns_of(key) else { return Ok(()) };
    let readable = || columns.iter().filter(|c| c.values != OracleValues::Unreadable);
    let want: Vec<&str> = readable().map(|c| c.name.as_str()).collect();
    let got: Vec<&str> = table.columns().iter().map(|(c, _)| c.name.as_str()).collect();
    if want != got {
        return Err(Violation::differs(LAW, want, got).when("columns"));
    }
    for (want, (described, array)) in readable().zip(table.columns()) {
        super::agreement::kind_agrees(want, described)
            .and_then(|()| check_values(LAW, want, &all, array))
            .map_err(|v| v.at(format_args!("{place}/{}", want.name)))?;
    }
    Ok(())
}

/// Matrices stored by columns are read by columns, and only they are.
pub(super) async fn columns_agree(
    backend: &dyn Backend,
    oracle: &Oracle,
    seed: u64,
) -> Result<(), Violation> {
    let Some(archive) = backend.archive() else { return Ok(()) };
    for matrix in &oracle.matrices {
        let result = match matrix.encoding {
            Encoding::Csc => read_by_columns(archive, matrix, seed).await,
            _ => not_by_columns(archive, matrix).await,
        };
        result.map_err(|v| v.at(&matrix.key))?;
    }
    Ok(())
}

async fn read_by_columns(
    archive: &dyn Archive,
    matrix: &OracleMatrix,
    seed: u64,
) -> Result<(), Violation> {
    let transposed = matrix.transposed();
    let whole = RowRanges::single(0..matrix.n_vars);
    let parts: Vec<RowRanges> = whole.parts((matrix.n_vars / 3).max(1)).collect();
    for genes in requests(matrix.n_vars, seed).into_iter().chain(parts) {
        let asked = || format!("{}, as genes", reading(&genes));
        let answer = archive.read_columns(&matrix.key, &genes).await;
        let answer = answer.map_err(|e| Violation::refused(LAW, asked(), &e))?;
        check_rows(LAW, &transposed, &genes, &answer).map_err(|v| v.when(asked()))?;
        let cost = archive.column_cost(&matrix.key, &genes);
        cost_covers(cost, &genes, answer.n_bytes(), false).map_err(|v| v.when(asked()))?;
    }
    let past = RowRanges::single(matrix.n_vars..matrix.n_vars + 1);
    let read = archive.read_columns(&matrix.key, &past).await.map(|_| ());
    let cost = archive.column_cost(&matrix.key, &past).map(|_| ());
    is_refused(read, ErrorKind::OutOfBounds, "reading a gene past the last")?;
    is_refused(cost, ErrorKind::OutOfBounds, "the cost of a gene past the last")
}

async fn not_by_columns(archive: &dyn Archive, matrix: &OracleMatrix) -> Result<(), Violation> {
    let whole = RowRanges::single(0..matrix.n_vars);
    let read = archive.read_columns(&matrix.key, &whole).await.map(|_| ());
    let cost = archive.column_cost(&matrix.key, &whole).map(|_| ());
    is_refused(read, ErrorKind::Unsupported, "reading by columns what is stored by rows")?;
    is_refused(cost, ErrorKind::Unsupported, "the cost of columns of what is stored by rows")
}

fn is_refused(
    answer: cellfeed_core::Result<()>,
    kind: ErrorKind,
    what: &str,
) -> Result<(), Violation> {
    match answer {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => {
            let (want, got) = (kind.as_str(), error.kind().as_str());
            let what = format!("{what}: expected an error ({want}), got ({got}) {error}");
            Err(Violation::new(LAW, what))
        }
        Ok(()) => {
            let what = format!("{what}: expected an error ({}), got an answer", kind.as_str());
            Err(Violation::new(LAW, what))
        }
    }
}
