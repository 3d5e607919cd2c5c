//! A warm loader asks for no memory that grows with its minibatches. A program of its own: the counter
//! is the whole process's.
#![allow(clippy::unwrap_used)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, Extras, Layout, LoaderOptions, WriteOptions};
use cellfeed_csr::{CsrBackend, CsrOptions};
use cellfeed_testkit::writing::{batches, new_store};
use cellfeed_testkit::{Allocations, PeakAlloc, fixtures};
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

#[test]
fn a_warm_minibatch_asks_for_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = fixtures::oracle("some", 8192, 300, 5);
    let path = folder.path().join("store.csr");
    let new = new_store(&oracle, Extras::default()).unwrap();
    let mut writer = cellfeed_csr::create(&path, new.clone(), &WriteOptions::default()).unwrap();
    for batch in batches(&oracle, &new).unwrap() {
        writer.append(&batch).unwrap();
    }
    writer.finish().unwrap();
    let backend: Arc<dyn Backend> = Arc::new(
        CsrBackend::open(&path, Arc::new(Engine::default()), &CsrOptions::default()).unwrap(),
    );
    for layout in [Layout::Csr, Layout::Dense] {
        let options = LoaderOptions::default().with_layout(layout);
        let found = Allocations::per_minibatch(&backend, &options).unwrap();
        // A minibatch itself, without its values, has a place among those that were gathered together.
        // Its values, of which there are 288 or 2400 here, of 4 bytes and more, come from what was used.
        assert!(found.values > 200.0, "{layout:?}: {found:?}");
        assert!(found.calls < 0.5 && found.bytes < 512.0, "{layout:?}: {found:?}");
    }
}
