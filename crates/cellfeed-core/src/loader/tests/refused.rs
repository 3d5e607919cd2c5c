//! What is refused says where it is and what would do.

use super::{Odd, plan, store};
use crate::loader::{Layout, Loader, LoaderOptions, OutputType, Transform};
use crate::{Backend, MatrixKey, MemoryBackend, MemoryMatrix, VarSchema};
use std::sync::Arc;

/// The error of a run.
fn error(store: Arc<dyn Backend>, n: u64, options: LoaderOptions) -> String {
    let loader = Loader::new(store, plan(n), options).unwrap();
    loader.epoch(0).unwrap().find_map(Result::err).unwrap().to_string()
}

/// Ten cells, of which the eighth has these values.
fn one_odd(values: [f64; 2]) -> Arc<dyn Backend> {
    let data: Vec<f64> = (0..10).flat_map(|r| if r == 7 { values } else { [1.0, 2.0] }).collect();
    let indptr = (0..=10).map(|r| r * 2).collect();
    let indices = (0..20).map(|i| i % 2).collect();
    let var = VarSchema { n_vars: 2, ..VarSchema::default() };
    let matrix = MemoryMatrix::try_new(indptr, indices, data, var).unwrap();
    Arc::new(MemoryBackend::try_new(10, vec![(MatrixKey::X, matrix)], vec![]).unwrap())
}

#[test]
fn a_value_that_does_not_fit_has_its_row_and_a_type_that_does() {
    for (value, output, why) in [
        (283.0, OutputType::U8, "the value 283 cannot be had as u8; ask for u16,"),
        (-3.0, OutputType::U16, "the value -3 cannot be had as u16; ask for i32,"),
        (1e12, OutputType::I32, "the value 1000000000000 cannot be had as i32; ask for i64,"),
        (0.5, OutputType::I64, "the value 0.5 cannot be had as i64; ask for f32,"),
        (70000.0, OutputType::F16, "the value 70000 cannot be had as f16; ask for i32,"),
        (1e300, OutputType::F32, "the value 1e300 cannot be had as f32; ask for f64,"),
    ] {
        for layout in [Layout::Csr, Layout::Dense] {
            // Two ways: values are copied, or go through a recipe.
            for transform in [Transform::default(), Transform::default().with_genes(["1", "0"])] {
                let options = LoaderOptions::default().with_output(output).with_layout(layout);
                let store = if transform.is_none() { one_odd([1.0, value]) } else { named(value) };
                let error = error(store, 10, options.with_transform(transform));
                assert!(error.starts_with(why) && error.contains("row 7"), "{error}");
            }
        }
    }
    let halves = LoaderOptions::default().with_output(OutputType::I32);
    assert!(error(store(40), 40, halves).contains("ask for f32, which holds it ("));
}

/// The same with names of genes.
fn named(value: f64) -> Arc<dyn Backend> {
    let data: Vec<f64> = (0..20).map(|i| if i == 15 { value } else { 1.0 }).collect();
    let names = vec!["0".to_owned(), "1".to_owned()];
    let var = VarSchema { n_vars: 2, names, ..VarSchema::default() };
    let indptr = (0..=10).map(|r| r * 2).collect();
    let matrix = MemoryMatrix::try_new(indptr, (0..20).map(|i| i % 2).collect(), data, var);
    let matrix = vec![(MatrixKey::X, matrix.unwrap())];
    Arc::new(MemoryBackend::try_new(10, matrix, vec![]).unwrap())
}

#[test]
fn a_limit_that_holds_not_one_minibatch_says_what_would() {
    let run = |held: u64, memory: u64| {
        let odd = Odd { held, ..Odd::new(96) };
        error(Arc::new(odd), 96, LoaderOptions::default().with_memory(memory))
    };
    let message = run(100 << 20, 1_000_000);
    for part in ["limit of 977 KiB", "raise the limit to 161 MiB", "lower fetch_factor from 4 to 1"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(run(5000, 100).contains("limit of 100 bytes"), "{}", run(5000, 100));
    // What is said is enough.
    let odd = Odd { held: 100 << 20, ..Odd::new(96) };
    let options = LoaderOptions::default().with_memory(161 << 20);
    let loader = Loader::new(Arc::new(odd), plan(96), options).unwrap();
    if let Some(Err(error)) = loader.epoch(0).unwrap().next() {
        assert!(!error.to_string().contains("memory limit"), "{error}");
    }
}
