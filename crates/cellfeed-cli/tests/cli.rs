//! The command as people use it: output, JSON keys, digests, and the errors of wrong files and flags.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{fails, json, out};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

fn testdata(name: &str) -> String {
    common::testdata(name).to_str().unwrap().to_owned()
}

/// The same small atlas uncompressed, gzip'd and as lzf, made once.
fn atlases() -> &'static [String; 3] {
    static ATLASES: OnceLock<(tempfile::TempDir, [String; 3])> = OnceLock::new();
    let (_, paths) = ATLASES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["none", "gzip", "lzf"].map(|compression| {
            let path = folder.path().join(format!("{compression}.h5ad"));
            let path = path.to_str().unwrap().to_owned();
            out(&[
                "generate",
                &path,
                "--cells",
                "3000",
                "--genes",
                "800",
                "--drugs",
                "20",
                "--seed",
                "7",
                "--compression",
                compression,
                "--quiet",
            ]);
            path
        });
        (folder, paths)
    });
    paths
}

#[test]
fn inspect_tells_everything_in_json() {
    let [_, gzip, _] = atlases();
    let report = json(&["inspect", gzip, "--json"]);
    for key in ["format", "n_obs", "n_vars", "nnz", "matrix", "layers", "obs", "var"] {
        assert!(!report[key].is_null(), "{key} is missing");
    }
    assert_eq!((report["format"].as_str(), report["n_obs"].as_u64()), (Some("h5ad"), Some(3000)));
    let matrix = &report["matrix"];
    assert_eq!(matrix["encoding"], "csr");
    assert_eq!((&matrix["value_type"], &matrix["index_type"]), (&"f32".into(), &"i32".into()));
    assert_eq!(matrix["codecs"][0], "gzip(4)");
    let obs = report["obs"].as_array().unwrap();
    let plate = obs.iter().find(|c| c["name"] == "plate").unwrap();
    assert_eq!((&plate["kind"], plate["n_categories"].as_u64()), (&"categorical".into(), Some(14)));
    let text = out(&["inspect", gzip]);
    assert!(text.contains("3,000 cells x 800 genes") && text.contains("gzip(4)"), "{text}");
}

#[test]
fn stream_reports_every_key() {
    let [none, ..] = atlases();
    let report = json(&["stream", none, "--json", "--digest", "--label", "plate"]);
    for key in [
        "n_cells",
        "n_minibatches",
        "seconds",
        "cells_per_second",
        "reads",
        "bytes_read",
        "bytes_decoded",
        "first_minibatch_seconds",
        "cpu_seconds",
        "peak_rss_bytes",
        "peak_own_bytes",
        "consumer_wait_seconds",
        "entropy_bits",
        "digest",
        "sum",
    ] {
        assert!(!report[key].is_null(), "{key} is missing");
    }
    assert_eq!(
        (report["n_cells"].as_u64(), report["n_minibatches"].as_u64()),
        (Some(3000), Some(47))
    );
    let inspect = json(&["inspect", none, "--json"]);
    assert_eq!(report["nnz"], inspect["nnz"]);
    let text = out(&["stream", none, "--label", "plate"]);
    assert!(text.contains("bits of plate"), "{text}");
}

#[test]
fn the_digest_is_that_of_the_plan_and_the_data_alone() {
    let [none, gzip, lzf] = atlases();
    let digest = |path: &str, more: &[&str]| {
        let base = ["stream", path, "--json", "--digest", "--fetch-factor", "8", "--obs", "drug"];
        let args: Vec<&str> = base.iter().chain(more).copied().collect();
        let report = json(&args);
        (report["digest"].as_str().unwrap().to_owned(), report["sum"].as_f64().unwrap())
    };
    let want = digest(none, &[]);
    for path in [none, gzip, lzf] {
        assert_eq!(digest(path, &["--threads", "1", "--read-ahead", "1"]), want);
        assert_eq!(digest(path, &["--threads", "4", "--memory", "64MiB"]), want);
        // A label is loaded too, but the digest is that of what was asked for.
        assert_eq!(digest(path, &["--label", "plate", "--quiet"]), want);
    }
    assert_ne!(digest(none, &["--seed", "1"]).0, want.0);
    assert_ne!(digest(none, &["--epoch", "1"]).0, want.0);
    assert_ne!(digest(none, &["--block-size", "8"]).0, want.0);
    let (dense, sum) = digest(none, &["--layout", "dense", "--dtype", "f64"]);
    assert_ne!(dense, want.0);
    assert!((sum - want.1).abs() < 1e-6);
}

#[test]
fn entropy_shows_what_a_strategy_costs() {
    let [none, ..] = atlases();
    let bits = |strategy: &str| {
        json(&["stream", none, "--json", "--label", "plate", "--strategy", strategy])["entropy_bits"]
            .as_f64()
            .unwrap()
    };
    let (streaming, random) = (bits("streaming"), bits("true-random"));
    assert!(streaming < 0.8, "{streaming}");
    assert!(random > 3.4, "{random}");
    assert!(bits("block-shuffling") > 3.0);
}

#[test]
fn ranks_share_a_subset() {
    let [none, ..] = atlases();
    let run = |rank: &str, more: &[&str]| {
        let base = ["stream", none, "--json", "--fetch-factor", "4", "--world-size", "3"];
        let args: Vec<&str> =
            base.iter().chain(["--rank", rank].iter()).chain(more).copied().collect();
        let report = json(&args);
        (report["n_cells"].as_u64().unwrap(), report["n_minibatches"].as_u64().unwrap())
    };
    for more in [&[][..], &["--strategy", "stratified"]] {
        let runs = ["0", "1", "2"].map(|rank| run(rank, more));
        assert_eq!(runs.iter().map(|r| r.0).sum::<u64>(), 3000);
        assert!(runs.iter().all(|r| r.1 == runs[0].1), "{runs:?}");
    }
    let plate = "plate == plate3";
    let some = json(&["stream", none, "--json", "--label", "plate", "--subset", plate]);
    let others = json(&["stream", none, "--json", "--subset", "plate != plate3"]);
    assert_eq!(some["entropy_bits"].as_f64(), Some(0.0));
    let cells = |report: &serde_json::Value| report["n_cells"].as_u64().unwrap();
    assert!(cells(&some) > 0);
    assert_eq!(cells(&some) + cells(&others), 3000);
}

#[test]
fn a_plan_needs_no_store() {
    let args = ["plan", "--n-obs", "23", "--batch-size", "4", "--fetch-factor", "2"];
    let strategy = ["--strategy", "block-shuffling", "--block-size", "4", "--json"];
    let args = [&args[..], &strategy].concat();
    let plan = json(&args);
    // From docs/sampling.md.
    assert_eq!(plan["ranges"], serde_json::json!([[8, 16]]));
    assert_eq!(plan["minibatches"], serde_json::json!([[10, 14, 9, 13], [8, 12, 15, 11]]));
    let text = out(&["plan", "--n-obs", "1000000000000", "--fetch", "61035155"]);
    assert!(text.contains("16,384 rows"), "{text}");
}

#[test]
fn seconds_end_a_run_and_epochs_repeat_it() {
    let [none, ..] = atlases();
    let report = json(&["stream", none, "--json", "--epochs", "3"]);
    assert_eq!(report["n_cells"], 9000);
    let report = json(&["stream", none, "--json", "--seconds", "0.5"]);
    assert!(report["seconds"].as_f64().unwrap() >= 0.5);
    let (code, error) = fails(&["stream", none, "--seconds", "1", "--epochs", "2"]);
    assert_eq!(code, 2);
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn wrong_files_and_words_are_explained() {
    let [none, ..] = atlases();
    let cases: [(&[&str], &str); 21] = [
        (&["stream", "/nowhere.h5ad"], "cannot open"),
        (&["stream", &testdata("bad/not-hdf5.h5ad")], "not an HDF5 file"),
        (&["stream", &testdata("bad/hdf5-not-anndata.h5ad")], "not AnnData"),
        (&["stream", &testdata("bad/empty-file.h5ad")], "empty"),
        (&["stream", &testdata("bad/truncated.h5ad")], "truncated"),
        (&["stream", &testdata("bad/loom.loom")], "Loom"),
        (&["stream", &testdata("multimodal.h5mu")], "#mod/"),
        (&["stream", &testdata("x-csc-i16-indices-i64.h5ad")], "tocsr"),
        (&["stream", &testdata("")], "folder"),
        (&["stream", "ftp://host/x.h5ad"], "s3://"),
        (&["stream", none, "--layer", "spliced"], "the store has X"),
        (&["stream", none, "--obs", "celltype"], "cell_line"),
        (&["stream", none, "--label", "celltype"], "cell_line"),
        (&["stream", none, "--batch-size", "0"], "batch_size"),
        (&["stream", none, "--world-size", "0"], "world_size"),
        (&["stream", none, "--world-size", "48"], "too few for 48 ranks"),
        (&["stream", none, "--subset", "plate"], "COLUMN OP VALUE"),
        (&["stream", none, "--subset", "plate == nowhere"], "no cell has the value"),
        (&["plan", "--n-obs", "64", "--fetch", "1"], "an epoch of this plan has 1"),
        (&["stream", none, "--memory", "1MiB"], "raise the limit"),
        (&["stream", none, "--memory", "lots"], "512MiB"),
    ];
    for (args, what) in cases {
        let (code, error) = fails(args);
        assert!(error.contains(what), "{args:?}: {error}");
        assert!((1..=2).contains(&code), "{args:?}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
    }
    let mudata = format!("{}#mod/gex", testdata("multimodal.h5mu"));
    assert!(out(&["inspect", &mudata]).contains("cells"));
}

#[test]
fn generate_refuses_to_overwrite_and_equal_seeds_give_equal_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let make = |name: &str, threads: &str| {
        let path = path(name);
        let path = path.to_str().unwrap();
        out(&["generate", path, "--cells", "1500", "--genes", "300", "--threads", threads, "-q"]);
        std::fs::read(path).unwrap()
    };
    assert!(make("a.h5ad", "1") == make("b.h5ad", "3"), "threads changed the atlas");
    let existing = path("a.h5ad");
    let (code, error) = fails(&["generate", existing.to_str().unwrap(), "--cells", "10"]);
    assert_eq!(code, 2);
    assert!(error.contains("--force"), "{error}");
    let missing = path("no/such/folder/a.h5ad");
    let (_, error) = fails(&["generate", missing.to_str().unwrap(), "--cells", "10"]);
    assert!(error.contains("no such folder"), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_demo_runs() {
    let text = out(&["demo", "--cells", "3000"]);
    assert!(text.contains("digest") && text.contains("your own file"), "{text}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let [none, ..] = atlases();
    let script = format!("{} inspect {none} | head -1", env!("CARGO_BIN_EXE_cellfeed"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a command, waits until `ready`, and presses Ctrl-C.
#[cfg(unix)]
fn interrupt(args: &[&str], ready: impl Fn() -> bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cellfeed"));
    signal(command.args(args), "-INT", ready)
}

/// Starts a command, waits until `ready`, and sends a signal.
#[cfg(unix)]
fn signal(command: &mut Command, signal: &str, ready: impl Fn() -> bool) -> Output {
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !ready() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let kill = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn an_interrupted_generate_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    let path = folder.path().join("huge.h5ad");
    let args = ["generate", path.to_str().unwrap(), "--cells", "50000000", "--genes", "2000"];
    let output = interrupt(&args, || entries() > 0);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(entries(), 0);
}

#[cfg(unix)]
#[test]
fn an_interrupted_stream_tells_how_far_it_came() {
    let [none, ..] = atlases();
    let started = std::time::Instant::now();
    let output = interrupt(&["stream", none, "--epochs", "1000000000"], || {
        started.elapsed() > std::time::Duration::from_millis(700)
    });
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stdout).contains("cells/s"));
}

#[cfg(unix)]
#[test]
fn what_is_terminated_leaves_nothing_behind() {
    for (name, code) in [("-TERM", 143), ("-HUP", 129)] {
        let folder = tempfile::tempdir().unwrap();
        let entries = || std::fs::read_dir(folder.path()).unwrap().count();
        let path = folder.path().join("huge.h5ad");
        let mut command = Command::new(env!("CARGO_BIN_EXE_cellfeed"));
        command.args([
            "generate",
            path.to_str().unwrap(),
            "--cells",
            "50000000",
            "--genes",
            "2000",
        ]);
        let output = signal(&mut command, name, || entries() > 0);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), entries()), (Some(code), 0), "{name}: {error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_nohup_started_goes_on_after_a_hangup() {
    let [none, ..] = atlases();
    let started = std::time::Instant::now();
    let mut command = Command::new("sh");
    let script = r#"trap "" HUP; exec "$0" stream "$1" --seconds 1.5"#;
    command.args(["-c", script, env!("CARGO_BIN_EXE_cellfeed"), none]);
    let output =
        signal(&mut command, "-HUP", || started.elapsed() > std::time::Duration::from_millis(700));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
