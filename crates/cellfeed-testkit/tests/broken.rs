//! The suite, proven: it passes the healthy store, and finds every fault out under its law.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

use cellfeed_core::{BackendExt, Encoding};
use cellfeed_testkit::faults::Fault;
use cellfeed_testkit::laws::read_counters_work;
use cellfeed_testkit::{
    Category, Law, Limits, Oracle, OracleValues, PeakAlloc, Subject, check_oracle, conformance,
    fixtures, suite,
};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn healthy() -> Vec<Subject> {
    fixtures::oracles().into_iter().map(|o| fixtures::memory_subject(o).unwrap()).collect()
}

fn by_columns() -> Vec<Subject> {
    let oracles = fixtures::oracles().into_iter();
    oracles.map(|o| cellfeed_testkit::faults::stored_by_columns(o).unwrap()).collect()
}

conformance!(by_columns, by_columns, skip law_7: "a store in memory has no files");
conformance!(memory, healthy, skip law_7: "a store in memory has no files");

/// Checks a fault's law, which must fail, for each of the faults that break a law.
fn faults_of(law: Law) {
    let limits = Limits { timeout: Duration::from_secs(3), ..Limits::default() };
    let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|f| f.law() == law).collect();
    assert!(!faults.is_empty());
    for fault in faults {
        let oracle = fixtures::oracle("small", 37, 23, 4);
        let subject = fault.subject(oracle).unwrap().with_limits(limits);
        let violation = suite::run_one(law, &subject).expect_err(&format!("{fault:?} passes"));
        let message = violation.to_string();
        println!("{fault:?}: {message}");
        assert_eq!(violation.law(), law, "{message}");
        assert!(message.starts_with(&format!("{law}: small: ")), "{message}");
    }
}

#[test]
fn law_1_faults_are_found() {
    faults_of(Law::Agreement);
}

#[test]
fn law_2_faults_are_found() {
    faults_of(Law::CanonicalCsr);
}

#[test]
fn law_3_faults_are_found() {
    faults_of(Law::Purity);
}

#[test]
fn law_4_faults_are_found() {
    faults_of(Law::Concurrency);
}

#[test]
fn law_5_faults_are_found() {
    faults_of(Law::Cancellation);
}

#[test]
fn law_6_faults_are_found() {
    faults_of(Law::Bounds);
}

#[test]
fn law_8_faults_are_found() {
    if read_counters_work() {
        faults_of(Law::NoBlocking);
    } else {
        eprintln!("not checked: this system does not count what a thread reads");
    }
}

#[test]
fn a_law_without_a_store_is_broken() {
    assert!(suite::run(Law::Agreement, &[]).is_err());
    assert!(suite::run(Law::Distrust, &healthy()).is_err(), "no files to damage");
}

/// Changes the oracle in each of its parts: the healthy store must then disagree.
#[test]
fn every_part_of_an_oracle_is_compared() {
    let oracle = fixtures::oracle("small", 37, 23, 4);
    let backend = fixtures::memory_backend(&oracle).unwrap();
    assert!(check_oracle(&backend, &oracle).is_ok());
    type Change = fn(&mut Oracle);
    let changes: [(&str, Change); 20] = [
        ("n_obs", |o| o.n_obs += 1),
        ("var names", |o| o.var_names[3].push('!')),
        ("raw var names", |o| o.raw_var_names[3].push('!')),
        ("cell names", |o| o.obs_names = vec![String::new(); 37]),
        ("a matrix too many", |o| o.matrices[1].key = "other".parse().unwrap()),
        ("a matrix too few", |o| o.matrices.truncate(2)),
        ("n_vars", |o| o.matrices[2].n_vars += 1),
        ("encoding", |o| o.matrices[0].encoding = Encoding::Dense),
        ("gene", |o| o.matrices[0].indices[0] ^= 1),
        ("order of columns", |o| o.obs.swap(0, 1)),
        ("name of a column", |o| o.obs[2].name.push('!')),
        ("kind of a var column", |o| o.var[2].values = OracleValues::Float(vec![None; 23])),
        ("unreadable", |o| o.obs[2].values = OracleValues::Unreadable),
        ("value of a var column", |o| {
            let OracleValues::Integer(values) = &mut o.var[5].values else { panic!() };
            values[22] = Some(77);
        }),
        ("a var column of raw", |o| {
            o.raw_var.as_mut().unwrap().pop();
        }),
        ("value of a var column of raw", |o| {
            let values = &mut o.raw_var.as_mut().unwrap()[0].values;
            let OracleValues::Boolean(values) = values else { panic!() };
            values[25] = values[25].map_or(Some(true), |v| Some(!v));
        }),
        ("ordered", |o| {
            let OracleValues::Categorical { ordered, .. } = &mut o.obs[0].values else { panic!() };
            *ordered = true;
        }),
        ("category", |o| {
            let values = &mut o.obs[0].values;
            let OracleValues::Categorical { categories, .. } = values else { panic!() };
            categories[4] = Category::Text("used".into());
        }),
        ("missing value", |o| {
            let OracleValues::Integer(values) = &mut o.obs[5].values else { panic!() };
            let gap = values.iter_mut().find(|v| v.is_none()).unwrap();
            *gap = Some(0);
        }),
        ("negative zero", |o| {
            let OracleValues::Float(values) = &mut o.obs[6].values else { panic!() };
            let zero = values.iter_mut().flatten().find(|v| **v == 0.0).unwrap();
            *zero = -*zero;
        }),
    ];
    for (what, change) in changes {
        let mut other = oracle.clone();
        change(&mut other);
        let violation = check_oracle(&backend, &other).expect_err(what);
        assert_eq!(violation.law(), Law::Agreement);
        println!("{what}: {violation}");
    }
}

#[test]
fn fixtures_hold_what_breaks_readers() {
    let oracles = fixtures::oracles();
    let small = oracles.iter().find(|o| o.name == "small").unwrap();
    let backend = fixtures::memory_backend(small).unwrap();
    let x = futures::executor::block_on(backend.read_all_rows(&"X".parse().unwrap())).unwrap();
    let values = x.segments()[0].values().to_f64_vec();
    assert!(values.contains(&0.0), "explicit zeros");
    assert!(values.iter().any(|v| v.is_nan()), "a value that is not a number");
    assert!(small.matrices[0].indptr.windows(2).any(|w| w[0] == w[1]), "an empty row");
    assert!(oracles.iter().any(|o| o.n_obs == 0) && oracles.iter().any(|o| o.n_vars == 0));
}
