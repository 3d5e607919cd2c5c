//! `cellfeed entropy`: the table, the JSON, agreement with `stream` and with theory, and errors.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{fails, json, out};
use serde_json::Value;
use std::sync::OnceLock;

fn atlas() -> &'static str {
    static ATLAS: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = ATLAS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("atlas.h5ad").to_str().unwrap().to_owned();
        out(&["generate", &path, "--cells", "20000", "--genes", "30", "--drugs", "30", "--quiet"]);
        (folder, path)
    });
    path
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn measure_and_theory_agree_for_every_strategy() {
    for (strategy, f) in [
        ("streaming", "8"),
        ("streaming-shuffled", "16"),
        ("block-shuffling", "16"),
        ("true-random", "4"),
        ("stratified", "16"),
    ] {
        for label in ["plate", "drug"] {
            let report = json(&[
                "entropy",
                atlas(),
                "--label",
                label,
                "--strategy",
                strategy,
                "--fetch-factor",
                f,
                "--minibatches",
                "6000",
                "--json",
            ]);
            let (measured, theory) = (&report["measured"], &report["theory"]);
            let off = number(&measured["entropy_mean"]) - number(&theory["entropy"]);
            assert!(off.abs() < 0.01, "{label}, {strategy}: {report}");
            for deff in ["deff_1", "deff_w"] {
                let ratio = number(&measured[deff]) / number(&theory[deff]);
                assert!((ratio - 1.0).abs() < 0.05, "{label}, {strategy}, {deff}: {report}");
            }
            assert!(number(&measured["entropy_spread"]) > 0.0);
        }
    }
}

/// The plan alone gives what the loader gives, partial minibatches and all.
#[test]
fn entropy_is_what_stream_reports() {
    for strategy in ["streaming", "streaming-shuffled", "block-shuffling", "true-random"] {
        let args = [
            atlas(),
            "--label",
            "drug",
            "--strategy",
            strategy,
            "--batch-size",
            "48",
            "--seed",
            "3",
            "--epoch",
            "2",
            "--json",
        ];
        let report = json(&[&["entropy"][..], &args].concat());
        let streamed = json(&[&["stream"][..], &args].concat());
        let off = number(&report["measured"]["entropy_mean"]) - number(&streamed["entropy_bits"]);
        assert!(off.abs() < 1e-9, "{strategy}: {off}");
        // 20,000 is 416 minibatches of 48, and 32 cells.
        assert_eq!(report["measured"]["n_minibatches"], 416);
        assert_eq!(report["measured"]["n_partial"], 1);
        assert_eq!(streamed["n_minibatches"], 417);
    }
}

/// Subsets, ranks, several stores and every strategy: theory where there is one, and else said so.
#[test]
fn what_stream_takes_entropy_takes() {
    let base = ["entropy", atlas(), "--label", "drug", "--fetch-factor", "16", "--json"];
    let run = |more: &[&str]| json(&[&base[..], more].concat());
    let plain = run(&["--strategy", "stratified", "--minibatches", "3000"]);
    let by = run(&["--strategy", "stratified", "--by", "drug", "--minibatches", "3000"]);
    for report in [&plain, &by] {
        let (measured, theory) = (&report["measured"], &report["theory"]);
        let ratio = number(&measured["deff_w"]) / number(&theory["deff_w"]);
        assert!((ratio - 1.0).abs() < 0.06, "{report}");
    }
    assert!(number(&by["measured"]["deff_w"]) < number(&plain["measured"]["deff_w"]));
    let part = run(&["--subset", "plate != plate1", "--rank", "1", "--world-size", "2"]);
    assert!(part["n_cells"].as_u64().unwrap() < 20_000);
    assert_eq!((&part["world_size"], &part["rank"]), (&Value::from(2), &Value::from(1)));
    assert!(number(&part["entropy_store"]) < number(&plain["entropy_store"]));
    let streaming = run(&["--strategy", "streaming", "--world-size", "2"]);
    assert!(streaming["theory"]["deff_w"].is_null() && streaming["note"].is_string());
    assert!(streaming["theory"]["deff_1"].is_f64());
    let balanced = run(&["--strategy", "class-balanced", "--by", "drug"]);
    assert!(balanced["theory"].is_null() && balanced["note"].is_string(), "{balanced}");
    assert!(number(&balanced["measured"]["entropy_mean"]) > 0.0);
    let text = out(&[
        "entropy",
        atlas(),
        "--label",
        "drug",
        "--strategy",
        "class-balanced",
        "--by",
        "drug",
    ]);
    assert!(text.contains("no closed form"), "{text}");
    let two = json(&["entropy", atlas(), atlas(), "--label", "plate", "--json"]);
    assert_eq!(two["n_cells"], 40_000);
    assert_eq!(two["on_disk"]["n_runs"], 28);
}

#[test]
fn the_table_has_measure_and_theory_side_by_side() {
    let text =
        out(&["entropy", atlas(), "--label", "plate", "--window", "7", "--fetch-factor", "16"]);
    for word in ["14 labels", "measured", "theory", "DEFF_1", "DEFF_7", "14 runs", "bounds", " +- "]
    {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    let report = json(&["entropy", atlas(), "--label", "plate", "--minibatches", "700", "--json"]);
    // An epoch has 312 full minibatches and one more.
    assert_eq!(report["measured"]["n_minibatches"], 698);
    assert_eq!(report["measured"]["n_partial"], 2);
    assert_eq!(report["on_disk"]["n_runs"], 14);
    assert!(out(&["entropy", "--help"]).contains("Examples"));
}

#[test]
fn missing_labels_are_counted_and_one_value_has_no_design_effect() {
    let folder = common::testdata("");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "h5ad") {
            continue;
        }
        let path = path.to_str().unwrap();
        let inspect = common::cellfeed(&["inspect", path, "--json"]);
        if !inspect.status.success() {
            continue;
        }
        let inspect: Value = serde_json::from_slice(&inspect.stdout).unwrap();
        let n = inspect["n_obs"].as_u64().unwrap();
        for column in inspect["obs"].as_array().unwrap() {
            let name = column["name"].as_str().unwrap();
            let args = ["entropy", path, "--label", name, "--batch-size", "2", "--json"];
            if n < 2 || column["kind"] == "unreadable" || column["kind"] == "float" {
                let (code, error) = fails(&args);
                assert!(code <= 2 && !error.contains("panicked"), "{path} {name}: {error}");
                continue;
            }
            let report = json(&args);
            assert_eq!(report["n_cells"], n);
            let labels = report["n_labels"].as_u64().unwrap();
            let missing = report["n_missing"].as_u64().unwrap();
            seen += u64::from(missing > 0);
            let varies = labels + u64::from(missing > 0) > 1;
            assert_eq!(report["theory"]["deff_1"].is_null(), !varies, "{path} {name}: {report}");
            let text = out(&args[..6]);
            assert_eq!(text.contains("have no label"), missing > 0, "{text}");
        }
    }
    assert!(seen > 0, "no test store has missing labels");
}

#[test]
fn wrong_words_are_explained() {
    let cases: [(&[&str], &str); 8] = [
        (&["--label", "celltype"], "the store has plate"),
        (&["--label", "conc"], "pandas.cut"),
        (&["--label", "plate", "--batch-size", "0"], "batch_size"),
        (&["--label", "plate", "--block-size", "0"], "block_size"),
        (&["--label", "plate", "--batch-size", "30000"], "20000"),
        (&["--label", "plate", "--window", "0"], "--window"),
        (&["--label", "plate", "--minibatches", "0"], "--minibatches"),
        (&[], "--label"),
    ];
    for (more, what) in cases {
        let (code, error) = fails(&[&["entropy", atlas()][..], more].concat());
        assert_eq!(code, 2, "{more:?}: {error}");
        assert!(error.contains(what), "{more:?}: {error}");
    }
    let (_, error) = fails(&["entropy", "/nowhere.h5ad", "--label", "plate"]);
    assert!(error.contains("cannot open"), "{error}");
}
