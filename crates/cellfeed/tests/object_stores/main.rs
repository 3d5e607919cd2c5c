//! Stores in object stores: the eight laws for every backend, requests that are counted, faults, and what
//! is said when something is wrong.
#![allow(clippy::print_stdout, clippy::print_stderr)] // tests that are skipped say so; one is a process
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation)]

mod cache;
mod conformance;
mod emulators;
mod errors;
mod faults;
mod requests;
mod server;
mod web;
mod writing;

use cellfeed_testkit::PeakAlloc;

// Lets law 7 see an allocation that is sized by a damaged header.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
