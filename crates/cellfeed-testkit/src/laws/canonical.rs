//! Law 2: the CSR of every answer is canonical, which is checked here without trusting
//! `CsrSegment::try_new`, and explicit zeros are still there.

use super::{matrices, read_rows, reading};
use crate::compare::{Flat, at};
use crate::oracle::OracleMatrix;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::{CsrRows, CsrSegment, Encoding, MatrixSchema, RowRanges};
use futures::executor::block_on;

const LAW: Law = Law::CanonicalCsr;

/// Law 2, canonical CSR: `indptr` from 0 without falling, strictly ascending genes below `n_vars`,
/// explicit zeros kept.
///
/// # Errors
/// The first segment that is not so.
pub fn law_2_canonical_csr(subject: &Subject) -> Result<(), Violation> {
    let backend = subject.backend.as_ref();
    let check = async {
        for matrix in matrices(backend, &subject.oracle) {
            let n_vars = backend.schema().matrix(&matrix.key).map_or(0, MatrixSchema::n_vars);
            for rows in subject.requests() {
                let answer = read_rows(LAW, backend, matrix, &rows).await?;
                canonical(&answer, &rows, n_vars)
                    .and_then(|()| zeros_stay(matrix, &rows, &answer))
                    .map_err(|v| v.at(&matrix.key).when(reading(&rows)))?;
            }
        }
        Ok(())
    };
    block_on(check).map_err(|v: Violation| v.of(subject.name()))
}

/// Whether an answer to a request is canonical and of the right shape.
pub(crate) fn canonical(answer: &CsrRows, asked: &RowRanges, n_vars: u64) -> Result<(), Violation> {
    let mut rows = asked.iter_rows();
    let n_rows = answer.segments().iter().map(CsrSegment::n_rows).sum::<usize>();
    let nnz = answer.segments().iter().map(CsrSegment::nnz).sum::<usize>();
    if u64::try_from(n_rows).ok() != Some(asked.n_rows()) {
        return Err(Violation::new(LAW, format!("expected {} rows, got {n_rows}", asked.n_rows())));
    }
    if (answer.n_rows(), answer.nnz()) != (n_rows, nnz) {
        return Err(Violation::new(LAW, "the answer miscounts its rows or values"));
    }
    for segment in answer.segments() {
        let (indptr, genes) = (segment.indptr(), segment.indices().to_u32_vec());
        if indptr.first() != Some(&0) {
            return Err(Violation::new(LAW, "indptr does not start at 0"));
        }
        if indptr.last().map(|&p| at(p)) != Some(genes.len())
            || genes.len() != segment.values().len()
        {
            return Err(Violation::new(LAW, "indptr, indices and values differ in length"));
        }
        for window in indptr.windows(2) {
            let row = rows.next().unwrap_or(u64::MAX);
            let Some(genes) = genes.get(at(window[0])..at(window[1])) else {
                return Err(Violation::new(LAW, "indptr falls").row(row));
            };
            if let Some(pair) = genes.windows(2).find(|pair| pair[0] >= pair[1]) {
                let what = format!("gene {} comes after gene {}", pair[1], pair[0]);
                return Err(Violation::new(LAW, what).row(row));
            }
            if let Some(gene) = genes.iter().find(|&&gene| u64::from(gene) >= n_vars) {
                let what = format!("expected genes below n_vars, {n_vars}, got {gene}");
                return Err(Violation::new(LAW, what).row(row));
            }
        }
    }
    Ok(())
}

/// Whether as many values came as are stored: a missing one was a zero, or is law 1's business.
fn zeros_stay(matrix: &OracleMatrix, rows: &RowRanges, answer: &CsrRows) -> Result<(), Violation> {
    if matrix.encoding == Encoding::Dense {
        return Ok(());
    }
    let (want, got) = (Flat::expected(matrix, rows), Flat::of(LAW, answer)?);
    let mut pairs = rows.iter_rows().zip(want.row_lengths().zip(got.row_lengths()));
    match pairs.find(|(_, (want, got))| want != got) {
        None => Ok(()),
        Some((row, (want, got))) => {
            let what = format!("expected {want} stored values, explicit zeros included, got {got}");
            Err(Violation::new(LAW, what).row(row))
        }
    }
}
