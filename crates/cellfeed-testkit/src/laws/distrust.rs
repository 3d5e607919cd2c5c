//! Law 7: a damaged store is an error that says where, or, where the format cannot know better, an
//! answer of the right shape; never a panic, a hang, or an allocation sized by an unchecked header.

use super::canonical::canonical;
use crate::damage::damages;
use crate::fixtures::requests;
use crate::peak::PeakAlloc;
use crate::subject::{Damageable, Limits, StoreFiles, Subject};
use crate::violation::{Law, Violation};
use arrow_array::Array;
use cellfeed_core::{Backend, Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, RowRanges};
use futures::executor::block_on;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

const LAW: Law = Law::Distrust;

/// The damage that is being tried, for whoever ends the process.
static IN_PROGRESS: Mutex<String> = Mutex::new(String::new());

/// The allocator counts for the whole process, so that one store is tried at a time.
static TURN: Mutex<()> = Mutex::new(());

/// What is being tried, unless nothing is.
pub(crate) fn damage_in_progress() -> Option<MutexGuard<'static, String>> {
    IN_PROGRESS.try_lock().ok().filter(|what| !what.is_empty())
}

/// Law 7, distrust: damaged copies of the store are opened and read, one after the other.
///
/// Memory is checked where [`PeakAlloc`] is installed.
///
/// # Errors
/// The first damage by which the store panics, hangs, takes too much memory, answers with what is
/// not canonical CSR, or errs without saying in which file; also if there are no files behind the
/// store.
pub fn law_7_distrust(subject: &Subject) -> Result<(), Violation> {
    let Some(damageable) = subject.damageable.clone() else {
        let what = "no files behind this store; skip the law, or build the subject with files";
        return Err(Violation::new(LAW, what).of(subject.name()));
    };
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let limits = subject.limits;
    let list = damages(&damageable.files, limits.damages, limits.seed);
    let n_obs = subject.oracle.n_obs;
    let (sender, results) = mpsc::channel();
    let work = {
        let list = list.clone();
        move || {
            let whole = attempt(&damageable, &damageable.files, n_obs, &limits, true);
            let mut go_on = sender.send(whole).is_ok();
            for damage in list {
                if !go_on {
                    break;
                }
                let files = damage.apply(&damageable.files);
                note(&format!("law 7, {damage}"));
                let result = attempt(&damageable, &files, n_obs, &limits, false);
                note("");
                go_on = sender.send(result).is_ok();
            }
        }
    };
    let spawned = thread::Builder::new().name("law 7".to_owned()).spawn(work);
    spawned.map_err(|e| Violation::new(LAW, format!("cannot start a thread: {e}")))?;
    let undamaged = std::iter::once("undamaged".to_owned());
    for what in undamaged.chain(list.iter().map(ToString::to_string)) {
        let result = results.recv_timeout(limits.timeout);
        let hang = |_| Err(Violation::new(LAW, format!("no answer within {:?}", limits.timeout)));
        result.unwrap_or_else(hang).map_err(|v| v.when(what).of(subject.name()))?;
    }
    Ok(())
}

fn note(what: &str) {
    let new = what.to_owned();
    let mut slot = IN_PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    let old = std::mem::replace(&mut *slot, new);
    drop(slot);
    drop(old);
}

/// Opens and reads one copy. An undamaged one may not err.
fn attempt(
    damageable: &Damageable,
    files: &StoreFiles,
    n_obs: u64,
    limits: &Limits,
    whole: bool,
) -> Result<(), Violation> {
    let before = PeakAlloc::reset();
    let work = || {
        let judge = |error: &Error, opening: bool| {
            if whole {
                Err(Violation::refused(LAW, "a copy", error))
            } else {
                judged(error, opening)
            }
        };
        match (damageable.open)(files) {
            Err(error) => judge(&error, true),
            Ok(backend) => {
                block_on(exercise(backend.as_ref(), n_obs, limits, &|e| judge(e, false)))
            }
        }
    };
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Violation::new(LAW, format!("it panicked: {}", panic_message(panic.as_ref()))))
    });
    let taken = PeakAlloc::peak().saturating_sub(before);
    if PeakAlloc::is_installed() && taken > limits.memory {
        let what = format!("it took {taken} bytes of memory, more than {}", limits.memory);
        return Err(Violation::new(LAW, what));
    }
    result
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Whether an error is one that a damaged store may give.
fn judged(error: &Error, opening: bool) -> Result<(), Violation> {
    let fair = match error.kind() {
        ErrorKind::Corrupt
        | ErrorKind::Unsupported
        | ErrorKind::NotFound
        | ErrorKind::Io
        | ErrorKind::OverBudget => true,
        // "This is not a store of that format."
        ErrorKind::InvalidInput => opening,
        _ => false,
    };
    let problem = match (fair, error.context().any(|(key, _)| key == "file")) {
        (true, true) => return Ok(()),
        (true, false) => "the error does not name the file",
        (false, _) => "the damage is not called corrupt",
    };
    Err(Violation::new(LAW, format!("{problem}: ({}) {error}", error.kind().as_str())))
}

/// Reads everything that a damaged store says it has.
async fn exercise(
    backend: &dyn Backend,
    n_obs: u64,
    limits: &Limits,
    judge: &(dyn Fn(&Error) -> Result<(), Violation> + Sync),
) -> Result<(), Violation> {
    let schema = backend.schema();
    let _ = backend.hints();
    // Nobody asks a store for all of 10^18 cells at once, so neither does the law.
    let rows = schema.n_obs.min(n_obs.saturating_mul(2).saturating_add(64));
    let mut asked: Vec<RowRanges> =
        requests(rows, limits.seed).into_iter().step_by(5).take(5).collect();
    let all = RowRanges::single(0..rows);
    asked.push(all.clone());
    asked.push(RowRanges::single(schema.n_obs.saturating_sub(1)..schema.n_obs));
    for matrix in schema.matrices.iter().filter(|m| m.unreadable.is_none()) {
        for rows in &asked {
            match backend.cost(&matrix.key, rows) {
                Err(error) => judge(&error)?,
                // The loader keeps to a budget, and so refuses what announces that it is too much.
                Ok(cost) if usize::try_from(cost.bytes_held).is_ok_and(|b| b <= limits.memory) => {
                    match backend.read_rows(&matrix.key, rows).await {
                        Err(error) => judge(&error)?,
                        Ok(answer) => canonical(&answer, rows, matrix.n_vars())
                            .map_err(|v| v.at(&matrix.key).under(LAW))?,
                    }
                    // And as the loader has rows, one by one: what is wrong may be seen there alone.
                    if *rows != all {
                        continue;
                    }
                    let copied = backend.read_stored(&matrix.key, rows).await.and_then(|stored| {
                        let n = u32::try_from(stored.n_rows()).unwrap_or(u32::MAX);
                        stored.gather(&(0..n).collect::<Vec<_>>())
                    });
                    match copied {
                        Err(error) => judge(&error)?,
                        Ok(copied) => canonical(&copied, rows, matrix.n_vars())
                            .map_err(|v| v.at(&matrix.key).under(LAW))?,
                    }
                }
                Ok(_) => {}
            }
        }
    }
    let readable = schema.obs.iter().filter(|c| schema.obs_column(&c.name).is_ok());
    let mut columns: Vec<&String> = readable.map(|c| &c.name).collect();
    columns.extend(&schema.obs_index);
    for column in columns {
        for rows in &asked {
            match backend.read_obs(std::slice::from_ref(column), rows).await {
                Err(error) => judge(&error)?,
                Ok(arrays) => {
                    let lengths: Vec<u64> =
                        arrays.iter().map(|a| u64::try_from(a.len()).unwrap_or(u64::MAX)).collect();
                    if lengths != [rows.n_rows()] {
                        let violation = Violation::differs(LAW, [rows.n_rows()], lengths);
                        return Err(violation.when("lengths of arrays").at(column));
                    }
                }
            }
        }
    }
    archived(backend, limits, judge).await
}

/// Reads what conversion reads.
async fn archived(
    backend: &dyn Backend,
    limits: &Limits,
    judge: &(dyn Fn(&Error) -> Result<(), Violation> + Sync),
) -> Result<(), Violation> {
    let schema = backend.schema();
    for key in [MatrixKey::X, MatrixKey::Raw] {
        let found = schema.matrices.iter().find(|m| m.key == key);
        if key == MatrixKey::Raw && found.is_none() {
            continue;
        }
        let n_vars = found.map_or(schema.var.n_vars, MatrixSchema::n_vars);
        match backend.read_var(&key).await {
            Err(error) => judge(&error)?,
            Ok(table) if table.n_rows() == n_vars => {}
            Ok(table) => {
                let violation = Violation::differs(LAW, n_vars, table.n_rows());
                return Err(violation.when("number of genes").at(key));
            }
        }
    }
    let Some(archive) = backend.archive() else { return Ok(()) };
    let limit = u64::try_from(limits.memory / 8).unwrap_or(u64::MAX);
    if let Err(error) = archive.read_extras(limit).await {
        judge(&error)?;
    }
    for matrix in schema.matrices.iter().filter(|m| m.encoding == Encoding::Csc) {
        let genes = RowRanges::single(0..matrix.n_vars().min(1 << 16));
        match archive.column_cost(&matrix.key, &genes) {
            Err(error) => judge(&error)?,
            Ok(cost) if usize::try_from(cost.bytes_held).is_ok_and(|b| b <= limits.memory) => {
                match archive.read_columns(&matrix.key, &genes).await {
                    Err(error) => judge(&error)?,
                    Ok(answer) => canonical(&answer, &genes, schema.n_obs)
                        .map_err(|v| v.at(&matrix.key).under(LAW))?,
                }
            }
            Ok(_) => {}
        }
    }
    Ok(())
}
