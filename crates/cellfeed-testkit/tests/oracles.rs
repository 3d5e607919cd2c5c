//! The oracles beside the foreign files of `testdata/`: each is read, and the store in memory built
//! from it passes law 1.
#![allow(clippy::panic, clippy::print_stdout)]

use cellfeed_core::Encoding;
use cellfeed_testkit::{Law, Oracle, fixtures, suite};
use std::path::Path;

#[test]
fn every_oracle_of_the_test_data_is_read() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata"));
    let oracles = Oracle::load_below(folder).unwrap_or_else(|e| panic!("{e}"));
    println!("{} oracles", oracles.len());
    for (path, mut oracle) in oracles {
        // However the file has its matrices, the store in memory has them so.
        oracle.matrices.iter_mut().for_each(|m| m.encoding = Encoding::Csr);
        let subject = fixtures::memory_subject(oracle).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        suite::run_one(Law::Agreement, &subject).unwrap_or_else(|v| panic!("{v}"));
    }
}
