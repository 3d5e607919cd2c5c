//! Signals that ask for an end: Ctrl-C, SIGTERM, SIGHUP. The first ends the work in an orderly way, the
//! second at once.

use cellfeed::{Error, ErrorKind, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

/// One per process, as signals are.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The last signal other than Ctrl-C; 0 if there was none.
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// What a shell expects of a program that a signal ended: 128 and the signal's number.
const fn code_of(signal: i32) -> i32 {
    128 + signal
}

/// The exit code of a process that was interrupted.
pub(crate) fn exit_code() -> u8 {
    let signal = i32::try_from(SIGNAL.load(Relaxed)).ok().filter(|&signal| signal > 0);
    u8::try_from(code_of(signal.unwrap_or(SIGINT))).unwrap_or(1)
}

/// Starts to listen. Where that fails, signals end the process as they always did.
pub(crate) fn listen() {
    // In the place of whatever handler there is, as Python's, which would go on to raise an exception.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Relaxed) {
            std::process::exit(code_of(SIGINT));
        }
    });
    for signal in [SIGTERM, SIGHUP] {
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        // In the order in which they are registered: the first time the first does nothing yet.
        let number = usize::try_from(signal).unwrap_or(0);
        let _ =
            flag::register_conditional_shutdown(signal, code_of(signal), Arc::clone(&INTERRUPTED));
        let _ = flag::register_usize(signal, Arc::clone(&SIGNAL), number);
        let _ = flag::register(signal, Arc::clone(&INTERRUPTED));
    }
}

/// Whether the process was started to ignore a signal, as `nohup` does with SIGHUP. Where the system does
/// not tell, it may have been.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether a signal asked for an end.
pub(crate) fn pressed() -> bool {
    INTERRUPTED.load(Relaxed)
}

/// An error if a signal asked for an end.
pub(crate) fn check() -> Result<()> {
    if pressed() {
        return Err(Error::new(ErrorKind::Cancelled, "interrupted"));
    }
    Ok(())
}
