//! Stores put together keep the laws: the fixtures cut in two or three, one part with its genes in
//! another order, against the oracle of the whole.
#![allow(clippy::unwrap_used, clippy::panic)]

use cellfeed_core::io::Engine;
use cellfeed_core::{
    Backend, BackendExt, ConcatBackend, ConcatOptions, MemoryBackend, MemoryMatrix, RowRanges,
    Values,
};
use cellfeed_testkit::{Oracle, PeakAlloc, Subject, conformance, fixtures};
use futures::executor::block_on;
use std::ops::Range;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Some cells of a store, as a store in memory.
fn part(whole: &MemoryBackend, cells: Range<u64>) -> Arc<dyn Backend> {
    let (schema, n) = (whole.schema(), cells.end - cells.start);
    let rows = RowRanges::single(cells);
    let matrices = schema.matrices.iter().map(|m| {
        let found = block_on(whole.read_rows(&m.key, &rows)).unwrap();
        // One range of a store in memory is one segment; none if it is empty.
        let (indptr, indices, values) = match found.segments() {
            [] => (vec![0], Vec::new(), Values::empty(m.value_type)),
            [s] => (s.indptr().to_vec(), s.indices().to_u32_vec(), s.values().clone()),
            more => panic!("{} segments", more.len()),
        };
        macro_rules! matrix {
            ($($variant:ident)*) => {
                match values {
                    $(Values::$variant(values) => {
                        MemoryMatrix::try_new(indptr, indices, values.to_vec(), (*m.var).clone())
                    })*
                    other => panic!("{other:?}"),
                }
            };
        }
        (m.key.clone(), matrix!(U8 U16 U32 U64 I8 I16 I32 I64 F16 F32 F64).unwrap())
    });
    let matrices: Vec<_> = matrices.collect();
    let names: Vec<String> = schema.obs.iter().map(|c| c.name.clone()).collect();
    let readable = schema.obs.iter().all(|c| schema.obs_column(&c.name).is_ok());
    assert!(readable, "the fixtures have no column that cannot be read");
    let columns = block_on(whole.read_obs(&names, &rows)).unwrap();
    let obs = schema.obs.iter().cloned().zip(columns).collect();
    let mut part = MemoryBackend::try_new(n, matrices, obs).unwrap();
    for m in &schema.matrices {
        part = part.with_var(&m.key, block_on(whole.read_var(&m.key)).unwrap()).unwrap();
    }
    if let Some(index) = &schema.obs_index {
        let cells = block_on(whole.read_obs_column(index)).unwrap();
        let cells = cellfeed_core::take_rows(&cells, &rows).unwrap();
        part = part.with_obs_names(index, cells).unwrap();
    }
    Arc::new(part)
}

fn joined(oracle: Oracle, cuts: u64) -> Subject {
    let whole = fixtures::memory_backend(&oracle).unwrap();
    let n = whole.schema().n_obs;
    let parts = (0..cuts).map(|k| part(&whole, n * k / cuts..n * (k + 1) / cuts)).collect();
    let engine = Arc::new(Engine::default());
    let backend = ConcatBackend::try_new(parts, &ConcatOptions::default(), engine).unwrap();
    Subject::new(Arc::new(backend), oracle).with_shared_memory()
}

fn two() -> Vec<Subject> {
    fixtures::oracles().into_iter().map(|oracle| joined(oracle, 2)).collect()
}

fn five() -> Vec<Subject> {
    fixtures::oracles().into_iter().map(|oracle| joined(oracle, 5)).collect()
}

conformance!(two, two, skip law_7: "a store in memory has no files");
conformance!(five, five, skip law_7: "a store in memory has no files");
