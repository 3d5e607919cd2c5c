//! Law 6: a row past `n_obs` is an error, never a shorter answer; an empty request is an empty
//! answer; what is missing is said to be missing, with what there is instead.

use super::{matrices, names, read_right};
use crate::compare::readable;
use crate::oracle::OracleMatrix;
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use cellfeed_core::{Error, ErrorKind, MatrixKey, Result as CoreResult, RowRanges};
use futures::executor::block_on;

const LAW: Law = Law::Bounds;

/// Law 6, bounds: rows past the end, no rows, matrices and columns that are not there.
///
/// # Errors
/// The first request that was answered otherwise.
pub fn law_6_bounds(subject: &Subject) -> Result<(), Violation> {
    block_on(async {
        for matrix in matrices(subject.backend.as_ref(), &subject.oracle) {
            rows_past_the_end(subject, matrix).await.map_err(|v| v.at(&matrix.key))?;
        }
        obs_past_the_end(subject).await.map_err(|v| v.at("obs"))?;
        missing(subject).await?;
        read_right(LAW, subject, &RowRanges::empty()).await?;
        let none = subject.backend.read_obs(&[], &RowRanges::single(0..subject.oracle.n_obs)).await;
        match none {
            Ok(arrays) if arrays.is_empty() => Ok(()),
            Ok(arrays) => {
                Err(Violation::differs(LAW, 0, arrays.len()).when("arrays of no columns"))
            }
            Err(error) => Err(Violation::refused(LAW, "reading no columns", &error)),
        }
    })
    .map_err(|v| v.of(subject.name()))
}

/// Requests that reach past the end.
fn too_far(n_obs: u64) -> Vec<RowRanges> {
    let far = u64::MAX;
    let ranges = [
        vec![n_obs..n_obs + 1],
        vec![n_obs + 1..n_obs + 2],
        vec![0..n_obs + 1],
        vec![0..n_obs.min(1), n_obs + 7..n_obs + 9],
        vec![n_obs.saturating_sub(1)..n_obs + 1000],
        vec![far - 1..far],
        vec![0..far],
        vec![0..n_obs.min(1), 1 << 32..(1 << 32) + 1],
        vec![1 << 63..far],
    ];
    ranges.into_iter().filter_map(|r| RowRanges::try_from_ranges(r).ok()).collect()
}

fn is_refused<T>(answer: CoreResult<T>, kind: ErrorKind, what: &str) -> Result<Error, Violation> {
    match answer {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => {
            let got = error.kind().as_str();
            let what =
                format!("{what}: expected an error ({}), got ({got}) {error}", kind.as_str());
            Err(Violation::new(LAW, what))
        }
        Ok(_) => {
            let what = format!("{what}: expected an error ({}), got an answer", kind.as_str());
            Err(Violation::new(LAW, what))
        }
    }
}

async fn rows_past_the_end(subject: &Subject, matrix: &OracleMatrix) -> Result<(), Violation> {
    let backend = &subject.backend;
    for rows in too_far(subject.oracle.n_obs) {
        let last = rows.end() - 1;
        let answer = backend.read_rows(&matrix.key, &rows).await;
        is_refused(answer, ErrorKind::OutOfBounds, "reading past the end")
            .and_then(|_| {
                let cost = backend.cost(&matrix.key, &rows);
                is_refused(cost, ErrorKind::OutOfBounds, "the cost of reading past the end")
            })
            .map_err(|v| v.row(last))?;
    }
    let cost = backend.cost(&matrix.key, &RowRanges::empty());
    cost.map_err(|e| Violation::refused(LAW, "the cost of no rows", &e)).map(|_| ())
}

async fn obs_past_the_end(subject: &Subject) -> Result<(), Violation> {
    let columns = names(&readable(&subject.oracle));
    let one_by_one = columns.iter().map(std::slice::from_ref);
    let requests: Vec<&[String]> = one_by_one.chain([columns.as_slice()]).collect();
    for rows in too_far(subject.oracle.n_obs) {
        for columns in requests.iter().filter(|c| !c.is_empty()) {
            let answer = subject.backend.read_obs(columns, &rows).await;
            is_refused(answer, ErrorKind::OutOfBounds, "reading obs past the end")
                .map_err(|v| v.row(rows.end() - 1))?;
        }
    }
    Ok(())
}

/// A name that the store does not have.
fn unused(have: &[String]) -> String {
    let mut name = "no such name".to_owned();
    while have.contains(&name) {
        name.push('!');
    }
    name
}

async fn missing(subject: &Subject) -> Result<(), Violation> {
    let (backend, oracle) = (&subject.backend, &subject.oracle);
    let rows = RowRanges::single(0..oracle.n_obs);
    let have: Vec<String> = oracle.matrices.iter().map(|m| m.key.to_string()).collect();
    let mut keys = vec![MatrixKey::Layer(unused(&have)), MatrixKey::X, MatrixKey::Raw];
    keys.retain(|key| oracle.matrix(key).is_none());
    for key in keys {
        let what = format!("reading the missing matrix {key}");
        let error = is_refused(backend.read_rows(&key, &rows).await, ErrorKind::NotFound, &what)?;
        lists(&error, &have, &what)?;
        is_refused(backend.cost(&key, &rows), ErrorKind::NotFound, &what).map(|_| ())?;
    }
    let have: Vec<String> = oracle.obs.iter().map(|c| c.name.clone()).collect();
    let name = unused(&have);
    let what = format!("reading the missing column {name:?}");
    let mixed = have.first().cloned().into_iter().chain([name.clone()]).collect();
    for columns in [vec![name], mixed] {
        let answer = backend.read_obs(&columns, &rows).await;
        let error = is_refused(answer, ErrorKind::NotFound, &what)?;
        lists(&error, &have, &what)?;
    }
    Ok(())
}

/// Whether an error says what there is; a store may cut a long list short.
fn lists(error: &Error, have: &[String], what: &str) -> Result<(), Violation> {
    let message = error.to_string();
    match have.iter().take(3).find(|name| !message.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let what = format!("{what}: expected the error to list {name:?}, got {message:?}");
            Err(Violation::new(LAW, what))
        }
    }
}
