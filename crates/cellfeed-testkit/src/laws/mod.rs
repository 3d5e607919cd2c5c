//! The laws of [`Backend`], one check each, in a file each.
//!
//! A check may be called by itself, but it trusts the store not to hang; [`suite`](crate::suite)
//! runs it under a watch.

mod agreement;
mod bounds;
mod cancellation;
mod canonical;
mod concurrency;
mod distrust;
mod genes;
mod no_blocking;
mod purity;

pub use agreement::law_1_agreement;
pub use bounds::law_6_bounds;
pub use cancellation::law_5_cancellation;
pub use canonical::law_2_canonical_csr;
pub use concurrency::law_4_concurrency;
pub use distrust::law_7_distrust;
pub use no_blocking::{law_8_no_blocking, read_counters_work};
pub use purity::law_3_purity;

pub(crate) use agreement::agreement;
pub(crate) use distrust::{damage_in_progress, panic_message};

use crate::compare::{check_column, check_rows, readable};
use crate::oracle::{Oracle, OracleColumn, OracleMatrix};
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use arrow_array::ArrayRef;
use cellfeed_core::{Backend, CsrRows, RowRanges};

/// The matrices of the oracle whose rows the store says it can read; law 1 judges the others.
fn matrices<'a>(backend: &'a dyn Backend, oracle: &'a Oracle) -> Vec<&'a OracleMatrix> {
    let can = |m: &&OracleMatrix| backend.schema().matrix(&m.key).is_ok();
    oracle.matrices.iter().filter(can).collect()
}

/// Names of columns.
fn names(columns: &[&OracleColumn]) -> Vec<String> {
    columns.iter().map(|c| c.name.clone()).collect()
}

/// Reads rows of a matrix; an error is a violation.
async fn read_rows(
    law: Law,
    backend: &dyn Backend,
    matrix: &OracleMatrix,
    rows: &RowRanges,
) -> Result<CsrRows, Violation> {
    let answer = backend.read_rows(&matrix.key, rows).await;
    answer.map_err(|e| Violation::refused(law, reading(rows), &e).at(&matrix.key))
}

/// Reads rows of a matrix and compares them with the oracle.
async fn read_right_rows(
    law: Law,
    backend: &dyn Backend,
    matrix: &OracleMatrix,
    rows: &RowRanges,
) -> Result<CsrRows, Violation> {
    let answer = read_rows(law, backend, matrix, rows).await?;
    check_rows(law, matrix, rows, &answer).map_err(|v| v.when(reading(rows)))?;
    Ok(answer)
}

/// Reads all readable obs columns; an error, or a wrong number of arrays, is a violation.
async fn read_obs(
    law: Law,
    backend: &dyn Backend,
    columns: &[&OracleColumn],
    rows: &RowRanges,
) -> Result<Vec<ArrayRef>, Violation> {
    let arrays = backend.read_obs(&names(columns), rows).await;
    let arrays = arrays.map_err(|e| Violation::refused(law, reading(rows), &e).at("obs"))?;
    if arrays.len() != columns.len() {
        let what = format!("expected {} arrays, got {}", columns.len(), arrays.len());
        return Err(Violation::new(law, what).at("obs").when(reading(rows)));
    }
    Ok(arrays)
}

/// Reads obs columns and compares them with the oracle.
async fn read_right_obs(
    law: Law,
    backend: &dyn Backend,
    columns: &[&OracleColumn],
    rows: &RowRanges,
) -> Result<(), Violation> {
    let arrays = read_obs(law, backend, columns, rows).await?;
    let mut pairs = columns.iter().zip(&arrays);
    pairs
        .try_for_each(|(column, array)| check_column(law, column, rows, array))
        .map_err(|v| v.when(reading(rows)))
}

/// Everything the oracle has for some rows: matrices and obs.
async fn read_right(law: Law, subject: &Subject, rows: &RowRanges) -> Result<(), Violation> {
    let backend = subject.backend.as_ref();
    for matrix in matrices(backend, &subject.oracle) {
        read_right_rows(law, backend, matrix, rows).await?;
    }
    read_right_obs(law, backend, &readable(&subject.oracle), rows).await
}

/// A request in words.
fn reading(rows: &RowRanges) -> String {
    let shown: Vec<String> =
        rows.as_slice().iter().take(3).map(|r| format!("{}..{}", r.start, r.end)).collect();
    match rows.as_slice().len() {
        0 => "reading no rows".to_owned(),
        1..=3 => format!("reading rows {}", shown.join(", ")),
        n => format!("reading rows {}, ... ({n} ranges)", shown.join(", ")),
    }
}
