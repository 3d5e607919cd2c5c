//! Pages of a map that cannot be had, because the file was cut short or its disk failed, as an error,
//! where the kernel would end the process with SIGBUS.
//!
//! A thread says of which maps it reads ([`watching`]). If a page of one of these cannot be had, the
//! handler marks the map as lost and puts zeros in the place of that page and of all behind it, so that
//! the thread goes on; when it is done it finds the mark, and throws away what it has made of zeros.
//! Faults of all other memory go to whoever handled them before, or end the process as ever.
#![allow(unsafe_code)]

use super::MappedFile;
use libc::{c_int, c_void, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::cell::Cell;
use std::mem::{transmute, zeroed};
use std::ops::Range;
use std::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

/// Where a map lies, and whether pages of it were lost.
#[derive(Debug)]
pub(super) struct Region {
    addresses: Range<usize>,
    page: usize,
    lost: AtomicBool,
}

impl Region {
    /// Of a map, which must outlive it. From now on the process has a handler.
    pub(super) fn of(map: &[u8]) -> Self {
        install();
        let start = map.as_ptr().expose_provenance();
        let addresses = start..start + map.len();
        Self { addresses, page: rustix::param::page_size(), lost: AtomicBool::new(false) }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Puts zeros behind an address, if it is one of these. Runs in a signal handler: takes no lock,
    /// allocates nothing.
    fn give_up(&self, address: usize) -> bool {
        if !self.addresses.contains(&address) {
            return false;
        }
        // First: who reads a zero must be able to find out.
        self.lost.store(true, Ordering::SeqCst);
        let first = address & !(self.page - 1);
        let (at, len) = (with_exposed_provenance_mut(first), self.addresses.end - first);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the pages are those of a map that lives: a thread is reading it. They are read as
        // bytes of a file that others can write to, so that other bytes in their place are no news.
        unsafe { mmap_anonymous(at, len, ProtFlags::READ, flags) }.is_ok()
    }
}

thread_local! {
    /// Maps that this thread reads.
    static WATCHED: Cell<Option<NonNull<[MappedFile]>>> = const { Cell::new(None) };
}

/// Puts back what was watched before, also where the work panics.
struct Restore(Option<NonNull<[MappedFile]>>);

impl Drop for Restore {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        WATCHED.set(self.0);
    }
}

/// Runs work on this thread in which the pages of these maps may be lost.
pub(super) fn watching<T>(maps: &[MappedFile], work: impl FnOnce() -> T) -> T {
    let _restore = Restore(WATCHED.replace(Some(NonNull::from(maps))));
    // The work reads nothing before the handler would know of it.
    compiler_fence(Ordering::SeqCst);
    work()
}

#[cfg(test)]
pub(super) fn is_watching() -> bool {
    WATCHED.get().is_some()
}

/// What was done about SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn install() {
    BEFORE.get_or_init(|| {
        // SAFETY: both are plain data, for which zeros are valid: no flags, no signals, the default.
        let (mut ours, mut before): (libc::sigaction, libc::sigaction) =
            unsafe { (zeroed(), zeroed()) };
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both point to what lives; the handler has the signature that SA_SIGINFO asks for. If it
        // fails, things stay as they are.
        unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, &raw mut before) };
        before
    });
}

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid one over.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    // Not what another process sent.
    let fault = code > 0;
    if fault && give_up(address.expose_provenance()) {
        return;
    }
    pass_on(signal, info, context, fault);
}

fn give_up(address: usize) -> bool {
    // SAFETY: `watching` borrows the maps until it has put back what was there before.
    let maps = WATCHED.get().map_or(&[][..], |maps| unsafe { maps.as_ref() });
    maps.iter().any(|map| map.region().is_some_and(|region| region.give_up(address)))
}

/// Does what would have been done without us.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, fault: bool) {
    let before = BEFORE.get();
    match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: zeros are the default, and the pointers are to what lives. A fault comes again
            // once this returns, and a signal that was sent is sent again: then the default is done.
            unsafe {
                let default: libc::sigaction = zeroed();
                let next = before.map_or(&raw const default, |before| &raw const *before);
                libc::sigaction(signal, next, null_mut());
                if !fault {
                    libc::raise(signal);
                }
            }
        }
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            // SAFETY: with this flag it is a function of this signature.
            let handler = unsafe { transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without the flag it is a function of this signature.
            let handler = unsafe { transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}
