//! `cellfeed stream --trace` and `--step-ms`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{fails, json, out};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The same atlas in a format of each kind: chunks, a map, shards, pages.
fn atlases(folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let source = at("a.h5ad");
    let size = ["--cells", "3000", "--genes", "500", "--drugs", "20", "--compression", "gzip"];
    out(&[&["generate", &source, "--quiet"][..], &size].concat());
    let mut all = vec![source];
    for (name, codec) in
        [("a.csr", "plain"), ("b.csr", "packed"), ("a.zarr", "zstd"), ("a.parquet", "blob-lz4")]
    {
        let to = at(name);
        out(&["convert", &all[0], &to, "--codec", codec, "--quiet"]);
        all.push(to);
    }
    all
}

fn events(path: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["name"] == name).collect()
}

#[test]
fn a_trace_has_what_was_done_on_which_thread() {
    let folder = tempfile::tempdir().unwrap();
    for store in atlases(folder.path()) {
        let file = folder.path().join("trace.json").to_str().unwrap().to_owned();
        let run = ["--fetch-factor", "8", "--batch-size", "64", "--threads", "2", "--json"];
        let report = json(&[&["stream", &store, "--trace", &file][..], &run].concat());
        let plain = json(&[&["stream", &store][..], &run].concat());
        assert!(plain["spans"].is_null());
        let events = events(&file);

        // 3000 cells are six fetches of 512 and 47 minibatches.
        let threads: BTreeMap<u64, &str> = named(&events, "thread_name")
            .iter()
            .map(|e| (e["tid"].as_u64().unwrap(), e["args"]["name"].as_str().unwrap()))
            .collect();
        let fetches = |name: &str| -> BTreeSet<u64> {
            named(&events, name).iter().filter_map(|e| e["args"]["fetch"].as_u64()).collect()
        };
        let all: BTreeSet<u64> = (0..6).collect();
        for name in ["plan", "admit", "fetch", "decode", "gather"] {
            assert_eq!(fetches(name), all, "{store}: {name}");
        }
        let gathered = named(&events, "gather");
        let sum =
            |key: &str| gathered.iter().map(|e| e["args"][key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("minibatches"), 47, "{store}");
        // Of each non-zero an index and a value; of each row where it ends and its number.
        let want = report["nnz"].as_u64().unwrap() * 8 + 3000 * 12 + 47 * 4;
        assert_eq!(sum("bytes"), want, "{store}");
        for e in gathered.iter().chain(&named(&events, "decode")) {
            assert_eq!(e["ph"], "X");
            assert!(threads[&e["tid"].as_u64().unwrap()].starts_with("cellfeed-"), "{store}: {e}");
        }
        let steps = named(&events, "step");
        assert_eq!(steps.len(), 47);
        assert!(steps.iter().all(|e| threads[&e["tid"].as_u64().unwrap()] == "main"));
        if !store.ends_with("a.csr") {
            assert!(!named(&events, "read").is_empty() || store.ends_with("b.csr"), "{store}");
        }

        // A stretch of time has a beginning and an end, of one number.
        let mut open = BTreeMap::new();
        for e in events.iter().filter(|e| e["ph"] == "b" || e["ph"] == "e") {
            let sign = if e["ph"] == "b" { 1 } else { -1 };
            *open.entry((e["name"].as_str().unwrap(), e["id"].as_u64().unwrap())).or_insert(0) +=
                sign;
        }
        assert!(open.len() >= 12 && open.values().all(|n| *n == 0), "{store}: {open:?}");

        // The totals are those of the file.
        let spans = report["spans"].as_object().unwrap();
        for (name, total) in spans {
            let n = named(&events, name).iter().filter(|e| e["ph"] != "e").count();
            assert_eq!(total["count"].as_u64(), u64::try_from(n).ok(), "{store}: {name}");
        }
        let bytes = spans["decode"]["bytes"].as_u64().unwrap();
        // What is looked up in a map, or decoded where it is copied, has none.
        assert!(store.ends_with(".csr") || bytes > 0, "{store}");
        assert_eq!(report["sum"], plain["sum"]);
        assert!(
            !std::fs::read_dir(folder.path())
                .unwrap()
                .any(|f| { f.unwrap().file_name().to_string_lossy().ends_with(".part") })
        );
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = atlases(folder.path()).remove(0);
    let nowhere = folder.path().join("no/such/trace.json");
    let (code, error) = fails(&["stream", &store, "--trace", nowhere.to_str().unwrap()]);
    assert!(
        code != 0 && error.contains("--trace names a file in a folder that does not exist"),
        "{error}"
    );
    // Of a run that fails there is a trace.
    let trace = folder.path().join("failed.json");
    let trace = trace.to_str().unwrap();
    fails(&["stream", &store, "--memory", "1k", "--trace", trace]);
    assert!(!events(trace).is_empty());
}

#[test]
fn waits_of_a_slow_consumer_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let store = atlases(folder.path()).remove(0);
    let report = json(&["stream", &store, "--json", "--step-ms", "2", "--fetch-factor", "8"]);
    let at = |key: &str| report[key].as_f64().unwrap();
    // A sleep is never shorter than it should be.
    assert!(at("seconds") >= 47.0 * 0.002, "{report}");
    assert!(at("wait_p50_seconds") <= at("wait_p99_seconds"), "{report}");
    assert!(at("wait_p99_seconds") <= at("wait_max_seconds"), "{report}");
    assert!(at("wait_max_seconds") <= at("wait_after_first_seconds"), "{report}");
    assert!(at("wait_after_first_seconds") <= at("seconds"), "{report}");
    let text = out(&["stream", &store, "--fetch-factor", "8"]);
    assert!(text.contains("after the first: half of them"), "{text}");
    for bad in ["-1", "x", "nan", "1e9"] {
        let step = format!("--step-ms={bad}");
        assert_eq!(fails(&["stream", &store, &step]).0, 2, "{bad}");
    }
}

#[test]
fn a_trace_takes_the_place_of_a_trace_alone() {
    let folder = tempfile::tempdir().unwrap();
    let stores = atlases(folder.path());
    let notes = folder.path().join("notes.txt").to_str().unwrap().to_owned();
    std::fs::write(&notes, "mine").unwrap();
    let inside = |store: &str| format!("{store}/trace.json");
    let zarr = stores.iter().find(|s| s.ends_with("zarr")).unwrap();
    let before = std::fs::read(&stores[0]).unwrap();
    for (store, target, why) in [
        (&stores[0], stores[0].clone(), "the store that is read"),
        (&stores[0], notes.clone(), "exists and is no trace"),
        (&stores[1], stores[0].clone(), "exists and is no trace"),
        (zarr, inside(zarr), "the store that is read"),
        (zarr, zarr.clone(), "folder"),
    ] {
        let (code, error) = fails(&["stream", store, "--trace", &target, "-q"]);
        assert!(code == 2 && error.contains(why), "{target}: {error}");
    }
    assert!(std::fs::read(&stores[0]).unwrap() == before);
    assert_eq!(std::fs::read_to_string(&notes).unwrap(), "mine");
    // One that the option made may be written again.
    let trace = folder.path().join("again.json").to_str().unwrap().to_owned();
    for _ in 0..2 {
        out(&["stream", &stores[0], "--trace", &trace, "-q"]);
        assert!(!events(&trace).is_empty());
    }
}
