//! Ctrl-C: the first ends the work in an orderly way, the second at once.

use cellfeed::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What a shell expects of a program that was interrupted: 128 and the signal's number.
pub(crate) const EXIT_CODE: u8 = 130;

/// One per process, as the signal is.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen. Where that fails, Ctrl-C ends the process as it always did.
pub(crate) fn listen() {
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(EXIT_CODE.into());
        }
    });
}

/// Whether Ctrl-C was pressed.
pub(crate) fn pressed() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// An error if Ctrl-C was pressed.
pub(crate) fn check() -> Result<()> {
    if pressed() {
        return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
    }
    Ok(())
}
