//! Running a parser of unchecked bytes so that whatever it does ends in a result.
//!
//! Three things go wrong in parsers of hostile metadata: they panic, they loop, and they recurse
//! until the stack ends, which no `catch_unwind` catches. So the pure reader runs on a thread with
//! a deep stack, inside `catch_unwind`, and every byte that it reads is charged to a budget.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use cellfeed_core::{Error, ErrorKind, Result};

/// A datatype message has at most 64 KiB, a nested type at least eight bytes: 8,192 levels, at a
/// few KiB a level in a debug build. The system commits only what is used.
const STACK: usize = 64 << 20;

thread_local! {
    static DEEP: Cell<bool> = const { Cell::new(false) };
    static BUDGET: Cell<u64> = const { Cell::new(u64::MAX) };
    static FAILURE: RefCell<Option<Error>> = const { RefCell::new(None) };
}

/// Takes `cost` from the budget of the call that runs on this thread.
pub(crate) fn charge(cost: u64) -> Result<()> {
    BUDGET.with(|budget| match budget.get().checked_sub(cost) {
        Some(rest) => {
            budget.set(rest);
            Ok(())
        }
        None => Err(Error::corrupt(
            "the metadata was read several times over without an end; it probably loops",
        )),
    })
}

/// Keeps an error of ours that a library will turn into one of its own: the call that runs on this
/// thread answers with it if it fails.
pub(crate) fn remember(error: Error) {
    FAILURE.with(|failure| {
        failure.borrow_mut().get_or_insert(error);
    });
}

/// Forgets what was remembered: the call goes on in another way.
pub(crate) fn forget() {
    FAILURE.with(|failure| failure.borrow_mut().take());
}

/// Runs `work` on a deep stack, with `budget` bytes to read, panics turned into errors. Inside
/// another such call it runs where it is.
pub(crate) fn run<T: Send>(budget: u64, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if DEEP.with(Cell::get) {
        return contained(budget, work);
    }
    deep(|| contained(budget, work))?
}

/// Runs `work`, which makes many calls that are each guarded, on one deep stack.
pub(crate) fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("hdf5-metadata".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                DEEP.with(|deep| deep.set(true));
                work()
            })
            .map_err(|e| Error::io("cannot start a thread for reading HDF5 metadata", e))?;
        thread.join().map_err(|panic| panicked(panic.as_ref()))
    })
}

fn contained<T>(budget: u64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    BUDGET.with(|b| b.set(budget));
    FAILURE.with(|f| f.borrow_mut().take());
    // Unwind safety: what the reader shares between calls is our page cache, whose lock is not
    // held while anything can panic and is entered again after poisoning, and its own caches, of
    // which a damaged one can only give wrong answers about a file that was found damaged.
    let result = catch_unwind(AssertUnwindSafe(work));
    let failure = FAILURE.with(|f| f.borrow_mut().take());
    match (result, failure) {
        (Ok(Ok(value)), _) => Ok(value),
        (_, Some(failure)) => Err(failure),
        (Ok(Err(error)), None) => Err(error),
        (Err(panic), None) => Err(panicked(panic.as_ref())),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::new(ErrorKind::Corrupt, format!("the metadata broke the HDF5 reader: {text}"))
}
