//! Tuning from a program: a report, and cancelling at every stage.
#![cfg(feature = "hdf5")]
#![allow(clippy::unwrap_used)]

use cellfeed::ErrorKind;
use cellfeed::tune::{PageCache, TuneOptions, TuneProgress, TuneStage, plot, tune};
use std::path::Path;
use std::time::Duration;

fn store() -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/h5ad/anndata-0.12.19.h5ad");
    path.to_str().unwrap().to_owned()
}

/// The first obs column that has labels.
fn label() -> String {
    let store = cellfeed::open(&store(), &cellfeed::OpenOptions::default()).unwrap();
    let columns = store.schema().obs.iter();
    let labels = |c: &&cellfeed::ColumnSchema| {
        matches!(c.kind, cellfeed::ColumnKind::Categorical { .. } | cellfeed::ColumnKind::Integer)
    };
    columns.clone().find(labels).map(|c| c.name.clone()).unwrap()
}

fn options() -> TuneOptions {
    TuneOptions::default().with_batch_size(2).with_time_limit(Duration::from_secs(1))
}

#[test]
fn a_tiny_store_is_tuned_and_stages_come_in_order() {
    let mut stages: Vec<TuneStage> = Vec::new();
    let report = tune(&store(), &label(), &options(), &mut |p: TuneProgress| {
        assert!(p.done <= p.total, "{p:?}");
        if stages.last() != Some(&p.stage) {
            stages.push(p.stage);
        }
        true
    })
    .unwrap();
    let want = [
        TuneStage::Reading,
        TuneStage::Diversity,
        TuneStage::Warming,
        TuneStage::Warm,
        TuneStage::Checking,
        TuneStage::Trying,
    ];
    assert_eq!(stages, want);
    assert_eq!(report.page_cache, PageCache::Warm);
    assert!(report.cold_note.is_some() && report.best().fits);
    assert!(report.check.measured > 0.0 && report.check.range.0 <= report.check.range.1);
    // The plot has every point.
    let points = plot(&report).matches("class=\"point\"").count();
    assert_eq!(points, report.candidates.len());
}

#[test]
fn answering_false_ends_it() {
    for last in [TuneStage::Reading, TuneStage::Diversity, TuneStage::Warm, TuneStage::Trying] {
        let stop = &mut |p: TuneProgress| p.stage != last;
        let error = tune(&store(), &label(), &options(), stop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{last:?}");
    }
}
