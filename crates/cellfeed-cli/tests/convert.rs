//! Converting as people do it: every pair of formats, every strategy, what is refused,
//! what is left after a kill.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Place, cellfeed, fails, json, out, testdata};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What can be written and read: an ending and a codec.
const FORMATS: [(&str, &str); 8] = [
    ("h5ad", "none"),
    ("zarr", "blosc-lz4"),
    ("csr", "plain"),
    ("zarr", "zstd"),
    ("h5ad", "gzip"),
    ("parquet", "blob-lz4"),
    ("csr", "packed"),
    ("parquet", "list-zstd"),
];

#[test]
fn every_pair_of_formats_holds_the_same_and_gives_the_same_minibatches() {
    let place = Place::new();
    let atlas = place.atlas("2500");
    let mut stores = vec![atlas.clone()];
    for (ending, codec) in FORMATS {
        // Each is made of the one before.
        let source = stores.last().unwrap().clone();
        let path = place.at(&format!("{codec}.{ending}"));
        let report = json(&["convert", &source, &path, "--codec", codec, "--json"]);
        assert_eq!(report["n_obs"], 2500);
        assert_eq!(report["dropped"].as_array().unwrap().len(), 0, "{report}");
        stores.push(path);
    }
    for store in &stores[1..] {
        let found = json(&["verify", &atlas, store, "--json"]);
        assert_eq!(found["equal"], true, "{found}");
    }
    for strategy in ["block-shuffling", "streaming", "streaming-shuffled", "true-random"] {
        for threads in ["1", "3"] {
            let digests = stores.iter().map(|store| {
                let report = json(&[
                    "stream",
                    store,
                    "--strategy",
                    strategy,
                    "--threads",
                    threads,
                    "--digest",
                    "--obs",
                    "plate",
                    "--obs",
                    "conc",
                    "--fetch-factor",
                    "8",
                    "--json",
                ]);
                report["digest"].as_str().unwrap().to_owned()
            });
            let digests: Vec<String> = digests.collect();
            assert!(digests.iter().all(|d| *d == digests[0]), "{strategy}: {digests:?}");
        }
    }
}

#[test]
fn stores_of_anndata_convert_whole() {
    for name in ["anndata-0.12.19", "anndata-0.7.8", "anndata-0.6.22", "anndata-0.13.4-dense"] {
        let place = Place::new();
        let source = testdata(&format!("{name}.h5ad"));
        let source = source.to_str().unwrap();
        for to in ["a.csr", "b.h5ad", "c.zarr", "d.parquet"] {
            let to = place.at(to);
            out(&["convert", source, &to]);
            let found = json(&["verify", source, &to, "--json", "--common"]);
            assert_eq!(found["equal"], true, "{name}: {found}");
            let compared: Vec<&str> =
                found["compared"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
            assert!(compared.contains(&"X"), "{name}: {compared:?}");
        }
    }
}

#[test]
fn columns_become_rows_in_little_memory() {
    let place = Place::new();
    // The same values by rows and by columns.
    let columns = testdata("anndata-0.13.4-csc.h5ad");
    let columns = columns.to_str().unwrap();
    out(&["convert", columns, &place.at("a.csr")]);
    out(&["convert", columns, &place.at("b.csr"), "--memory", "6KiB"]);
    out(&["verify", &place.at("a.csr"), &place.at("b.csr")]);
    // What is compared may be by columns too.
    assert!(out(&["verify", &place.at("b.csr"), columns, "--common"]).contains(" X"));
    // Shuffled at once, or by way of the disk.
    out(&["convert", columns, &place.at("c.csr"), "--shuffle"]);
    out(&["convert", columns, &place.at("d.csr"), "--shuffle", "--memory", "6KiB"]);
    out(&["verify", &place.at("c.csr"), &place.at("d.csr")]);
    out(&["convert", &place.at("a.csr"), &place.at("e.csr"), "--shuffle"]);
    out(&["verify", &place.at("c.csr"), &place.at("e.csr")]);
    let inspected = json(&["inspect", &place.at("a.csr"), "--json"]);
    let oracle = std::fs::read_to_string(testdata("anndata-0.13.4-csc.oracle.json")).unwrap();
    let oracle: Value = serde_json::from_str(&oracle).unwrap();
    let indices = oracle["matrices"]["X"]["indices"].as_array().unwrap();
    assert_eq!(inspected["nnz"], indices.len());
}

#[test]
fn a_shuffled_store_has_every_cell_once_whatever_the_memory() {
    let place = Place::new();
    let atlas = place.atlas("9000");
    let (a, b, c) = (place.at("a.csr"), place.at("b.csr"), place.at("c.csr"));
    out(&["convert", &atlas, &a, "--shuffle", "--seed", "5"]);
    let small = ["--memory", "20MiB", "--threads", "1", "--json"];
    let gzip = place.at("gzip.h5ad");
    out(&["convert", &atlas, &gzip, "--codec", "gzip"]);
    let report = json(&[&["convert", &gzip, &b, "--shuffle", "--seed", "5"][..], &small].concat());
    out(&["verify", &a, &b]);
    // In so little memory the source is read once, and its rows once more from where they were set
    // aside, uncompressed; not once for each batch.
    let (read, nnz) = (report["bytes_read"].as_u64().unwrap(), report["nnz"].as_u64().unwrap());
    let once = std::fs::metadata(&gzip).unwrap().len() + nnz * 6;
    assert!(read < once * 3 / 2, "{read} bytes were read, where {once} are needed");
    assert_eq!(
        place.names().iter().filter(|n| n.contains("partial")).count(),
        0,
        "what was set aside is removed"
    );
    out(&["convert", &atlas, &c, "--shuffle", "--seed", "6"]);
    let output = cellfeed(&["verify", &a, &c]);
    assert_eq!(output.status.code(), Some(1));
    // The same cells in all: their values add up, and none is there twice.
    let sum = |store: &str| {
        let report = json(&["stream", store, "--strategy", "streaming", "--json"]);
        (report["nnz"].clone(), report["sum"].clone(), report["n_cells"].clone())
    };
    assert_eq!(sum(&a), sum(&atlas));
    assert_eq!(sum(&c), sum(&atlas));
    // In file order every minibatch of the source is of one plate or two; shuffled, of many.
    let bits = |store: &str| {
        json(&["stream", store, "--strategy", "streaming", "--label", "plate", "--json"])
            ["entropy_bits"]
            .as_f64()
            .unwrap()
    };
    assert!(bits(&atlas) < 0.5 && bits(&a) > 3.4, "{} {}", bits(&atlas), bits(&a));
}

#[test]
fn what_is_asked_for_is_kept_and_the_rest_is_said() {
    let place = Place::new();
    let source = testdata("anndata-0.12.19.h5ad");
    let source = source.to_str().unwrap();
    let names = json(&["inspect", source, "--json"]);
    let column = names["obs"][0]["name"].as_str().unwrap().to_owned();
    let to = place.at("a.csr");
    let report = json(&[
        "convert", source, &to, "--obs", &column, "--layer", "counts", "--no-raw", "--json",
    ]);
    let dropped: Vec<&str> =
        report["dropped"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert!(dropped.contains(&"raw/X") && dropped.contains(&"uns"), "{dropped:?}");
    let kept = json(&["inspect", &to, "--json"]);
    assert_eq!(kept["obs"].as_array().unwrap().len(), 1);

    let atlas = place.atlas("300");
    let genes = place.at("genes.txt");
    std::fs::write(&genes, "GENE00017\n\nnobody\nGENE00005\n").unwrap();
    let few = place.at("few.csr");
    let report = json(&["convert", &atlas, &few, "--genes", &genes, "--json"]);
    assert_eq!(report["missing_genes"], serde_json::json!(["nobody"]));
    let kept = json(&["inspect", &few, "--json"]);
    assert_eq!((&kept["n_obs"], &kept["n_vars"]), (&300.into(), &2.into()));
    let output = cellfeed(&["verify", &atlas, &few, "--json"]);
    assert_eq!(output.status.code(), Some(1), "another number of genes is a difference");
    std::fs::write(&genes, "nobody\n").unwrap();
    let (code, text) = fails(&["convert", &atlas, &place.at("none.csr"), "--genes", &genes]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("none of the genes"), "{text}");
}

#[test]
fn an_x_that_cannot_be_read_is_not_left_behind_unless_layers_are_named() {
    let place = Place::new();
    let source = testdata("anndata-0.12.19.h5ad");
    let (zarr, to) = (place.at("a.zarr"), place.at("b.csr"));
    out(&["convert", source.to_str().unwrap(), &zarr]);
    std::fs::remove_file(Path::new(&zarr).join("X/zarr.json")).unwrap();
    let (code, text) = fails(&["convert", &zarr, &to]);
    assert_eq!(code, 1, "{text}");
    for word in ["X cannot be read", "zarr.json", "--layer", "counts"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(place.names(), ["a.zarr"]);
    let report = json(&["convert", &zarr, &to, "--layer", "counts", "--json"]);
    let dropped = report["dropped"].as_array().unwrap();
    assert!(dropped.iter().any(|d| d["path"] == "X"), "{report}");
    // A layer that was named is wanted, as X is.
    std::fs::remove_file(Path::new(&zarr).join("layers/counts/zarr.json")).unwrap();
    let (_, text) = fails(&["convert", &zarr, &to, "--layer", "counts", "--force"]);
    assert!(text.contains("layers/counts cannot be read"), "{text}");
}

#[test]
fn damage_in_what_the_destination_does_not_keep_fails_nothing() {
    fn damage(folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                damage(&path);
            } else if path.file_name().unwrap() != "zarr.json" {
                std::fs::write(&path, [1u8; 40]).unwrap();
            }
        }
    }
    let place = Place::new();
    let source = testdata("anndata-0.12.19.h5ad");
    let zarr = place.at("a.zarr");
    out(&["convert", source.to_str().unwrap(), &zarr]);
    damage(&Path::new(&zarr).join("uns"));
    for to in ["b.parquet", "c.csr"] {
        let report = json(&["convert", &zarr, &place.at(to), "--json"]);
        let dropped = report["dropped"].as_array().unwrap();
        let uns = dropped.iter().find(|d| d["path"] == "uns").unwrap();
        assert!(uns["why"].as_str().unwrap().contains("keeps matrices, obs and var alone"));
    }
    let (_, text) = fails(&["convert", &zarr, &place.at("d.h5ad")]);
    assert!(text.contains("uns/note"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let atlas = place.atlas("200");
    let csr = place.at("a.csr");
    out(&["convert", &atlas, &csr]);
    let before = place.names();
    for (args, code, word) in [
        (vec!["convert", &atlas, &csr], 2, "--force"),
        (vec!["convert", &atlas, &atlas, "--force"], 2, "is the source"),
        (vec!["convert", &csr, &place.at("a.csr/b.csr")], 2, "inside"),
        (vec!["convert", &atlas, &place.at("a.loom")], 2, "endings are"),
        (vec!["convert", &atlas, &place.at("atlas")], 2, "--format"),
        (vec!["convert", &atlas, &place.at("b.csr"), "--codec", "zip"], 2, "plain, packed"),
        (vec!["convert", &atlas, &place.at("b.h5ad"), "--codec", "zip"], 2, "gzip"),
        (vec!["convert", &atlas, &place.at("b.csr"), "--layer", "none"], 2, "layers/none"),
        (vec!["convert", &atlas, &place.at("b.csr"), "--obs", "none"], 2, "plate"),
        (vec!["convert", &atlas, "http://127.0.0.1:9/b.csr"], 1, "a web server is not written to"),
        (vec!["convert", &atlas, "ftp://127.0.0.1/b.csr"], 1, "ftp://"),
        (vec!["convert", &atlas, "s3://bucket"], 2, "endings are"),
        (vec!["convert", &atlas, "s3://bucket/b.csr#X"], 2, "endings are"),
        (vec!["convert", &place.at("nothing.h5ad"), &place.at("b.csr")], 2, "cannot open"),
        (vec!["convert", &atlas, &place.at("no/where/b.csr")], 2, "no such folder"),
        (vec!["convert", &atlas, &place.at("b.csr"), "--memory", "1KiB"], 1, "raise"),
        (vec!["verify", &atlas, &place.at("none.csr")], 2, "cannot open"),
    ] {
        let (got, text) = fails(&args);
        assert_eq!(got, code, "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: {text}");
        assert_eq!(place.names(), before, "{args:?}");
    }
    out(&["convert", &atlas, &csr, "--force", "--codec", "packed"]);
    out(&["verify", &atlas, &csr]);
}

#[test]
fn a_disk_that_is_full_leaves_nothing_that_opens() {
    let place = Place::new();
    let atlas = place.atlas("3000");
    let before = place.names();
    for to in ["full.csr", "full.h5ad", "full.zarr"] {
        // No file may grow beyond 512 KiB; the signal that says so is ignored, as on a full disk.
        let script = format!(
            "trap '' XFSZ; ulimit -f 512; exec '{}' convert '{atlas}' '{}'",
            env!("CARGO_BIN_EXE_cellfeed"),
            place.at(to)
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("cannot write"), "{text}");
        assert_eq!(place.names(), before, "{to}");
    }
}

#[test]
fn a_killed_conversion_leaves_nothing_that_opens_and_can_be_made_again() {
    let place = Place::new();
    let atlas = place.atlas("20000");
    let to = place.at("a.csr");
    let mut killed = 0;
    for wait in [40u64, 80, 120, 20] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cellfeed"))
            .args(["convert", &atlas, &to, "--threads", "1", "--codec", "packed", "--quiet"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        if !child.wait().unwrap().success() && !Path::new(&to).exists() {
            killed += 1;
            assert!(fails(&["inspect", &to]).1.contains("cannot open"));
        } else {
            std::fs::remove_dir_all(&to).unwrap();
        }
    }
    assert!(killed > 0, "every conversion was too quick to be killed");
    out(&["convert", &atlas, &to]);
    out(&["verify", &atlas, &to]);
    // What the killed ones left is gone too.
    assert_eq!(place.names(), ["a.csr", "atlas.h5ad"]);
}

#[test]
fn several_stores_of_different_formats_are_one() {
    let place = Place::new();
    let atlas = place.atlas("700");
    // The same cells twice: once as .h5ad, once as .csr with only some of the genes, in pieces.
    let (csr, genes) = (place.at("few.csr"), place.at("genes.txt"));
    let names: Vec<String> = (100..400).map(|i| format!("GENE{i:05}")).collect();
    std::fs::write(&genes, names.join("\n")).unwrap();
    out(&["convert", &atlas, &csr, "--genes", &genes, "--codec", "packed"]);
    let both = [atlas.as_str(), csr.as_str()];
    for (join, n_vars) in [("inner", 300u64), ("outer", 900)] {
        let to = place.at(&format!("{join}.csr"));
        out(&[&["convert"], &both[..], &[to.as_str(), "--join", join]].concat());
        let inspected = json(&["inspect", &to, "--json"]);
        assert_eq!((&inspected["n_obs"], &inspected["n_vars"]), (&1400.into(), &n_vars.into()));
        let digest = |stores: &[&str]| {
            let options = ["--join", join, "--digest", "--obs", "drug", "--json"];
            let report = json(&[&["stream"], stores, &options[..]].concat());
            report["digest"].as_str().unwrap().to_owned()
        };
        // Streaming them as one gives what converting them first gives.
        assert_eq!(digest(&both), digest(&[&to]), "{join}");
    }
    let (code, text) = fails(&["convert", &atlas, &csr, &atlas, "--force"]);
    assert!(code == 2 && text.contains("is the source"), "{text}");
}

#[test]
fn genes_that_a_join_leaves_out_are_said() {
    let place = Place::new();
    let atlas = place.atlas("60");
    let part = |name: &str, genes: std::ops::Range<u32>| {
        let (path, list) = (place.at(name), place.at("genes.txt"));
        let names: Vec<String> = genes.map(|i| format!("GENE{i:05}")).collect();
        std::fs::write(&list, names.join("\n")).unwrap();
        out(&["convert", &atlas, &path, "--genes", &list]);
        path
    };
    let (a, b) = (part("a.csr", 1..401), part("b.csr", 394..701));
    let run = |to: &str, more: &[&str]| {
        let output = cellfeed(&[&["convert", &a, &b, &place.at(to)], more].concat());
        assert!(output.status.success());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (said, warned) = run("inner.csr", &[]);
    let line = "genes: 7 that all 2 stores have, of 400 and 307; --join outer keeps all";
    assert!(said.contains(line), "{said}");
    assert!(warned.contains("warning: only 7 genes are in all of the 2 stores"), "{warned}");
    let (said, warned) = run("outer.csr", &["--join", "outer"]);
    assert!(said.contains("genes: 700 that any of the 2 stores has, of 400 and 307"), "{said}");
    assert_eq!(warned, "");
    let (report, _) = run("json.csr", &["--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["n_vars"], 7);
    assert_eq!(report["n_vars_of_sources"], serde_json::json!([400, 307]));
    // One store, or stores of the same genes, say nothing of it.
    assert!(!out(&["convert", &a, &place.at("one.csr")]).contains("genes:"));
    assert!(!out(&["convert", &a, &a, &place.at("same.csr")]).contains("genes:"));
}
