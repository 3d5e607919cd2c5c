//! Law 3: asking again, in parts or between other requests changes nothing. Answers are compared
//! with each other, not with the oracle.

use super::{matrices, read_obs, read_rows, reading};
use crate::compare::{Flat, at, readable};
use crate::oracle::{OracleColumn, OracleMatrix};
use crate::subject::Subject;
use crate::violation::{Law, Violation};
use arrow_array::Array;
use cellfeed_core::{Backend, RowRanges};
use futures::executor::block_on;
use std::sync::Arc;

const LAW: Law = Law::Purity;

/// Law 3, purity: the same answer to the same request, whole or in parts.
///
/// # Errors
/// The first request whose answer changed.
pub fn law_3_purity(subject: &Subject) -> Result<(), Violation> {
    let backend = subject.backend.as_ref();
    let requests = subject.requests();
    let columns = readable(&subject.oracle);
    let check = async {
        let before = Arc::clone(backend.schema());
        for matrix in matrices(backend, &subject.oracle) {
            for (i, rows) in requests.iter().enumerate() {
                let other = &requests[(i * 7 + 3) % requests.len()];
                rows_again(backend, matrix, rows, other).await.map_err(|v| v.at(&matrix.key))?;
            }
        }
        for (i, rows) in requests.iter().enumerate() {
            let other = &requests[(i * 7 + 3) % requests.len()];
            obs_again(backend, &columns, rows, other).await?;
        }
        if !Arc::ptr_eq(&before, backend.schema()) {
            return Err(Violation::new(LAW, "the schema is another one after reading"));
        }
        Ok(())
    };
    block_on(check).map_err(|v: Violation| v.of(subject.name()))
}

async fn rows_again(
    backend: &dyn Backend,
    matrix: &OracleMatrix,
    rows: &RowRanges,
    other: &RowRanges,
) -> Result<(), Violation> {
    let read = async |rows: &RowRanges| -> Result<Flat, Violation> {
        Flat::of(LAW, &read_rows(LAW, backend, matrix, rows).await?)
    };
    let cost = || backend.cost(&matrix.key, rows).map_err(|e| Violation::refused(LAW, "cost", &e));
    let (first, estimate) = (read(rows).await?, cost()?);
    let again = |got: &Flat, how: &str| {
        got.same_as(LAW, &first, rows).map_err(|v| v.when(how).when(reading(rows)))
    };
    again(&read(rows).await?, "asked twice")?;
    read(other).await?;
    again(&read(rows).await?, "asked again after another request")?;
    if cost()? != estimate {
        return Err(Violation::new(LAW, "the cost changed by reading").when(reading(rows)));
    }
    for size in part_sizes(rows) {
        let mut joined = read(&RowRanges::empty()).await?;
        for part in rows.parts(size) {
            joined.append(read(&part).await?);
        }
        again(&joined, &format!("in parts of {size} rows"))?;
    }
    Ok(())
}

async fn obs_again(
    backend: &dyn Backend,
    columns: &[&OracleColumn],
    rows: &RowRanges,
    other: &RowRanges,
) -> Result<(), Violation> {
    let first = read_obs(LAW, backend, columns, rows).await?;
    let second = read_obs(LAW, backend, columns, rows).await?;
    read_obs(LAW, backend, columns, other).await?;
    let third = read_obs(LAW, backend, columns, rows).await?;
    for (i, column) in columns.iter().enumerate() {
        let same = |how: &str, one: &dyn Array, two: &dyn Array| {
            if one.to_data() == two.to_data() {
                return Ok(());
            }
            let violation = Violation::new(LAW, "the answer changed").when(how);
            Err(violation.when(reading(rows)).at(format_args!("obs/{}", column.name)))
        };
        same("asked twice", &first[i], &second[i])?;
        same("asked again after another request", &first[i], &third[i])?;
    }
    for size in part_sizes(rows) {
        let mut start = 0;
        for part in rows.parts(size) {
            let arrays = read_obs(LAW, backend, columns, &part).await?;
            for (column, (whole, array)) in columns.iter().zip(first.iter().zip(&arrays)) {
                let fits = start + array.len() <= whole.len();
                if !fits || whole.slice(start, array.len()).to_data() != array.to_data() {
                    let violation = Violation::new(LAW, "a part differs from the whole");
                    let violation = violation.when(reading(&part));
                    return Err(violation.at(format_args!("obs/{}", column.name)));
                }
            }
            start += at(part.n_rows());
        }
    }
    Ok(())
}

/// Sizes to cut a request into, such that there are at most some dozens of parts.
fn part_sizes(rows: &RowRanges) -> Vec<u64> {
    let n = rows.n_rows();
    let mut sizes = vec![n.div_ceil(40).max(1), n.div_ceil(7).max(1), n.div_ceil(2).max(1)];
    sizes.retain(|&size| size < n);
    sizes.dedup();
    sizes
}
