//! Strategies that go by obs columns, from the command line.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{fails, json, out};
use std::sync::OnceLock;

/// A small atlas with plates and drugs, made once.
fn atlas() -> &'static str {
    static ATLAS: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = ATLAS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("atlas.h5ad").to_str().unwrap().to_owned();
        let options = ["--cells", "4000", "--genes", "60", "--drugs", "40", "--quiet"];
        out(&[&["generate", path.as_str()], &options[..]].concat());
        (folder, path)
    });
    path
}

fn stream(options: &[&str]) -> serde_json::Value {
    let sizes = ["--json", "--batch-size", "32", "--fetch-factor", "8", "--block-size", "4"];
    json(&[&["stream", atlas()], &sizes[..], options].concat())
}

#[test]
fn strata_of_labels_spread_the_labels() {
    let by_position = stream(&["--strategy", "stratified", "--label", "drug", "--digest"]);
    let by_drug =
        stream(&["--strategy", "stratified", "--by", "drug", "--label", "drug", "--digest"]);
    assert_eq!((&by_position["n_cells"], &by_drug["n_cells"]), (&4000.into(), &4000.into()));
    assert_eq!(by_position["nnz"], by_drug["nnz"]);
    assert_ne!(by_position["digest"], by_drug["digest"]);
    let strategy = by_drug["strategy"].as_str().unwrap();
    assert!(strategy.ends_with("blocks of 4 cells, by drug"), "{strategy}");
    let bits = |report: &serde_json::Value| report["entropy_bits"].as_f64().unwrap();
    let shuffled = stream(&["--label", "drug"]);
    assert!(bits(&by_drug) > bits(&shuffled), "{} {}", bits(&by_drug), bits(&shuffled));
    let both = stream(&["--strategy", "stratified", "--by", "plate", "--by", "drug"]);
    assert!(both["strategy"].as_str().unwrap().ends_with("by plate, drug"));
    let part = stream(&[
        "--strategy",
        "stratified",
        "--by",
        "drug",
        "--subset",
        "plate != plate14",
        "--rank",
        "1",
        "--world-size",
        "2",
    ]);
    assert!(part["n_cells"].as_u64().unwrap() < 2000);
}

#[test]
fn classes_are_balanced_with_and_without_replacement() {
    let report = stream(&[
        "--strategy",
        "class-balanced",
        "--by",
        "plate",
        "--draws",
        "9000",
        "--label",
        "plate",
    ]);
    assert_eq!(report["n_cells"], 9000);
    assert!(report["strategy"].as_str().unwrap().starts_with("class-balanced, blocks"));
    let once = stream(&["--strategy", "class-balanced", "--by", "plate", "--without-replacement"]);
    let cells = once["n_cells"].as_u64().unwrap();
    // Fourteen plates, each as large as the smallest.
    assert!(cells.is_multiple_of(14) && cells > 1400 && cells < 4000, "{cells}");
    let weights = inspect_a_number();
    let weighted = stream(&["--strategy", "weighted", "--weights", &weights, "--draws", "500"]);
    assert_eq!(weighted["n_cells"], 500);
}

/// A call that fails with status 1 or 2 and says why.
fn refused(args: &[&str], why: &str) {
    let (code, message) = fails(args);
    assert!(code == 1 || code == 2, "{code}");
    assert!(message.contains(why), "{message}");
}

/// The name of an obs column of numbers.
fn inspect_a_number() -> String {
    let report = json(&["inspect", atlas(), "--json"]);
    let columns = report["obs"].as_array().unwrap();
    let number = columns.iter().find(|c| c["kind"] == "float" || c["kind"] == "integer");
    number.unwrap()["name"].as_str().unwrap().to_owned()
}

#[test]
fn columns_that_do_not_fit_are_explained() {
    for (options, why) in [
        (
            &["--strategy", "true-random", "--by", "drug"][..],
            "--by is for --strategy stratified and class-balanced",
        ),
        (&["--strategy", "stratified", "--by", "drugs"], "the store has"),
        (
            &["--strategy", "stratified", "--weights", "drug"],
            "--weights is for --strategy weighted",
        ),
        (&["--strategy", "class-balanced"], "needs one --by COLUMN"),
        (
            &["--strategy", "class-balanced", "--by", "drug", "--by", "plate"],
            "needs one --by COLUMN",
        ),
        (&["--strategy", "weighted"], "needs --weights COLUMN"),
        (&["--strategy", "weighted", "--weights", "drug"], "not of numbers"),
        (&["--strategy", "stratified", "--draws", "3"], "--draws and --without-replacement are"),
        (&["--strategy", "class-balanced", "--by", "drug", "--draws", "0"], "at least one"),
        (
            &[
                "--strategy",
                "class-balanced",
                "--by",
                "drug",
                "--without-replacement",
                "--draws",
                "5000",
            ],
            "the subset has 4000",
        ),
    ] {
        refused(&[&["stream", atlas()], options].concat(), why);
    }
    refused(&["plan", "--n-obs", "100", "--by", "drug"], "without a store there are none");
    refused(&["plan", "--n-obs", "100", "--strategy", "weighted"], "needs weights");
}

#[test]
fn values_are_transformed() {
    let folder = tempfile::tempdir().unwrap();
    let genes = folder.path().join("genes.txt");
    let first = json(&["inspect", atlas(), "--json"])["var"].clone();
    assert!(!first.is_null());
    let plain = stream(&[]);
    // Every cell of the atlas has counts: each then adds up to 100.
    let scaled = stream(&["--normalize-total", "100", "--dtype", "f64"]);
    let sum = |report: &serde_json::Value| report["sum"].as_f64().unwrap();
    assert!((sum(&scaled) - 400_000.0).abs() < 1e-3, "{}", sum(&scaled));
    let ones = stream(&["--binarize", "0", "--dtype", "u8"]);
    assert_eq!(sum(&ones), plain["nnz"].as_f64().unwrap());
    std::fs::write(&genes, "nobody\n").unwrap();
    let path = genes.to_str().unwrap();
    refused(&["stream", atlas(), "--genes", path], "1 of 1 genes are not in the matrix: nobody");
    refused(&["stream", atlas(), "--genes", "/nowhere"], "cannot read the list of genes");
    refused(&["stream", atlas(), "--log1p", "--dtype", "i32"], "ask for f32");
}
