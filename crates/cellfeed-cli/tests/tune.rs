//! `cellfeed tune`: every structure that labels have, small stores, the plot, and errors.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{fails, json, out};
use serde_json::Value;
use std::path::Path;

const CELLS: usize = 6000;

/// Stores of the same cells in other orders.
fn generate(folder: &Path, name: &str, more: &[&str]) -> String {
    let path = folder.join(name).to_str().unwrap().to_owned();
    let args = ["generate", &path, "--genes", "30", "--quiet"];
    out(&[&args[..], more].concat());
    path
}

fn tune(store: &str, label: &str, more: &[&str]) -> Value {
    let args = ["tune", store, "--label", label, "--json", "--time-limit", "1.5"];
    json(&[&args[..], more].concat())
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What must hold of every report.
fn check(report: &Value) {
    let best = &report["recommended"];
    assert_eq!(best["meets_target"], true, "{best}");
    let setting = &best["setting"];
    assert_eq!((&setting["fits"], &setting["meets_target"]), (&true.into(), &true.into()));
    let check = &report["check"];
    for key in ["predicted_cells_per_second", "measured_cells_per_second"] {
        assert!(number(&check[key]) > 0.0, "{check}");
    }
    assert!(number(&check["runs"]) >= 3.0 && number(&check["cells"]) > 0.0);
    // The best was measured, and it is not far from the fastest that meets the target.
    assert!(number(&setting["warm"]["measured_cells_per_second"]) > 0.0, "{setting}");
    let candidates = report["candidates"].as_array().unwrap();
    assert!(candidates.iter().any(|c| c["frontier"] == true));
    assert!(number(&report["model"]["n_points"]) >= 1.0);
    assert!(number(&report["effort"]["cells"]) > 0.0);
    let command = best["command"].as_str().unwrap();
    assert!(command.starts_with("cellfeed stream") && command.contains("--fetch-factor"));
}

#[test]
fn every_structure_gets_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let n = CELLS.to_string();
    let wide = ["--cells", &n, "--drugs", "20", "--plates", "6"];
    let h5ad = generate(folder.path(), "a.h5ad", &wide);
    // Pure long runs: large blocks in small fetches are no good.
    let plate = tune(&h5ad, "plate", &[]);
    check(&plate);
    assert_eq!(plate["label"]["n_runs"], 6);
    let deff = number(&plate["check"]["predicted_diversity"]["deff_w"]);
    assert!(deff <= 1.5, "{deff}");
    let bad = plate["candidates"].as_array().unwrap().iter().find(|c| {
        c["strategy"] == "block-shuffling" && c["block_size"] == 256 && c["fetch_factor"] == 4
    });
    assert_eq!(bad.unwrap()["meets_target"], false);
    // Short runs mixed inside plates.
    let drug = tune(&h5ad, "drug", &["--target-entropy", "0.97"]);
    check(&drug);
    assert!(number(&drug["label"]["n_runs"]) > 20.0);
    let random = number(&drug["label"]["entropy_random_bits"]);
    let bits = number(&drug["check"]["predicted_diversity"]["entropy_bits"]);
    assert!(bits >= 0.97 * random, "{bits} of {random}");
    // The loader hands out what the plan promised.
    let seen = number(&drug["check"]["measured_diversity"]["entropy_bits"]);
    // On a busy machine it hands out few within its time, which scatter.
    let n_seen = number(&drug["check"]["measured_diversity"]["n_minibatches"]);
    let scatter = 0.05 + 0.4 / n_seen.sqrt();
    assert!((seen - bits).abs() < scatter, "{seen} {bits} {n_seen}");

    // Already shuffled: every block does, and the command that is printed runs.
    let mixed = folder.path().join("mixed.csr").to_str().unwrap().to_owned();
    out(&["convert", &h5ad, &mixed, "--shuffle", "--quiet"]);
    let shuffled = tune(&mixed, "plate", &[]);
    check(&shuffled);
    assert!(number(&shuffled["label"]["mean_run_of_a_cell"]) < 5.0);
    let settings = shuffled["candidates"].as_array().unwrap();
    let meet = settings.iter().filter(|c| c["meets_target"] == true).count();
    assert!(meet * 10 > settings.len() * 8, "{meet} of {}", settings.len());
    let command = shuffled["recommended"]["command"].as_str().unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    assert!(out(&[&words[..], &["--quiet"]].concat()).contains("cells/s"));

    // A label with one value: by speed alone, and it is said.
    let one = tune(&h5ad, "sublibrary", &[]);
    check(&one);
    assert!(one["check"]["predicted_diversity"]["deff_w"].is_null());
    let text = out(&["tune", &h5ad, "--label", "sublibrary", "--time-limit", "1"]);
    assert!(text.contains("the label has one value"), "{text}");
}

/// One class with nearly all cells.
#[test]
fn one_giant_class() {
    let folder = tempfile::tempdir().unwrap();
    let most = generate(folder.path(), "g.h5ad", &["--cells", "3000", "--plates", "1"]);
    let few = generate(folder.path(), "h.h5ad", &["--cells", "60", "--plates", "2", "--seed", "9"]);
    let both = folder.path().join("giant.csr").to_str().unwrap().to_owned();
    out(&["convert", &most, &few, &both, "--quiet"]);
    let report = tune(&both, "plate", &[]);
    check(&report);
    assert_eq!(report["label"]["n_labels"], 2);
    assert!(number(&report["label"]["largest_share"]) > 0.98);
}

#[test]
fn a_few_hundred_cells() {
    let folder = tempfile::tempdir().unwrap();
    let small = generate(folder.path(), "s.h5ad", &["--cells", "300", "--plates", "3"]);
    let report = tune(&small, "plate", &[]);
    check(&report);
    let most = report["candidates"].as_array().unwrap().iter();
    assert_eq!(most.filter_map(|c| c["fetch_factor"].as_u64()).max(), Some(5));
    // Too few for one minibatch.
    let (code, error) =
        fails(&["tune", &small, "--label", "plate", "--batch-size", "301", "--time-limit", "1"]);
    assert!(code == 2 && error.contains("batch_size must be 300 or less"), "{error}");
}

#[test]
fn the_plot_is_xml_with_a_point_for_each_setting() {
    let folder = tempfile::tempdir().unwrap();
    let store = generate(folder.path(), "p&q.h5ad", &["--cells", "2000", "--plates", "4"]);
    let svg = folder.path().join("out.svg").to_str().unwrap().to_owned();
    let report = tune(&store, "plate", &["--plot", &svg]);
    let text = std::fs::read_to_string(&svg).unwrap();
    let points = text.matches("class=\"point\"").count();
    assert_eq!(points, report["candidates"].as_array().unwrap().len());
    assert_eq!(text.matches("id=\"recommended\"").count(), 1);
    assert!(text.contains("p&amp;q.h5ad") && text.trim_end().ends_with("</svg>"));
    well_formed(&text);
}

/// Tags close in order, attributes are quoted, and `&` begins an entity.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        for (i, _) in before.match_indices('&') {
            let entity = &before[i..];
            let known = ["&amp;", "&lt;", "&gt;", "&quot;"];
            assert!(known.iter().any(|k| entity.starts_with(k)), "{entity}");
        }
        let end = tag.find('>').unwrap();
        let inner = &tag[1..end];
        assert_eq!(inner.matches('"').count() % 2, 0, "{inner}");
        let name = inner.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if inner.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !inner.ends_with('/') {
            open.push(name);
        }
        rest = &tag[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_text_says_what_and_how_sure() {
    let folder = tempfile::tempdir().unwrap();
    let store = generate(folder.path(), "t.h5ad", &["--cells", "3000", "--plates", "5"]);
    let text = out(&["tune", &store, "--label", "plate", "--time-limit", "1.5"]);
    for word in [
        "RECOMMENDED",
        "predicted",
        "measured",
        "FRONTIER",
        "HOW SURE",
        "page cache",
        "try it",
        "DEFF_10",
    ] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    // Nothing is as diverse as this: the nearest is told, and that it is not enough.
    let text =
        out(&["tune", &store, "--label", "plate", "--time-limit", "1", "--target-deff", "0.00001"]);
    assert!(text.contains("NOTHING MEETS THE TARGET"), "{text}");
    assert!(out(&["tune", "--help"]).contains("Examples"));
}

#[test]
fn wrong_words_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let store = generate(folder.path(), "w.h5ad", &["--cells", "500", "--plates", "2"]);
    let cases: [(&[&str], &str); 11] = [
        (&["--label", "celltype"], "the store has plate"),
        (&["--label", "conc"], "pandas.cut"),
        (&["--label", "plate", "--batch-size", "0"], "batch_size"),
        (&["--label", "plate", "--window", "0"], "window"),
        (&["--label", "plate", "--target-deff", "0"], "above 0"),
        (&["--label", "plate", "--target-deff", "nan"], "above 0"),
        (&["--label", "plate", "--target-entropy", "1.5"], "share"),
        (&["--label", "plate", "--time-limit", "-1"], "--time-limit"),
        (&["--label", "plate", "--time-limit", "0.1"], "one second"),
        (&["--label", "plate", "--layer", "no"], "no"),
        (&["--label", "plate", "--plot", "/nowhere/at/all.svg"], "folder that does not exist"),
    ];
    for (more, what) in cases {
        let (code, error) = fails(&[&["tune", &store][..], more].concat());
        assert_eq!(code, 2, "{more:?}: {error}");
        assert!(error.contains(what), "{more:?}: {error}");
    }
    let (code, error) = fails(&["tune", &store, "--label", "plate", "--memory", "1k"]);
    assert!(code == 1 && error.contains("raise it to"), "{error}");
    let (_, error) = fails(&["tune", "/nowhere.h5ad", "--label", "plate"]);
    assert!(error.contains("cannot open"), "{error}");
}

#[test]
fn a_plot_takes_the_place_of_a_plot_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = generate(folder.path(), "p.h5ad", &["--cells", "1500", "--plates", "3"]);
    let before = std::fs::read(&store).unwrap();
    let other = generate(folder.path(), "q.h5ad", &["--cells", "100", "--plates", "2"]);
    for (target, why) in [(&store, "the store that is read"), (&other, "exists and is no drawing")]
    {
        let (code, error) = fails(&["tune", &store, "--label", "plate", "--plot", target]);
        assert!(code == 2 && error.contains(why), "{error}");
    }
    assert!(std::fs::read(&store).unwrap() == before);
    let plot = folder.path().join("p.svg").to_str().unwrap().to_owned();
    for _ in 0..2 {
        out(&["tune", &store, "--label", "plate", "--time-limit", "1", "--plot", &plot]);
        assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    }
}
