//! What the command refuses, and what it says: exit codes, conditions, names that files bring.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use cellfeed::hdf5::{ColumnValues, Frame, H5adWriter, Items, Strings, WriteOptions};
use common::{cellfeed, fails, json, out};
use std::path::Path;

fn atlas(folder: &Path) -> String {
    let path = folder.join("a.h5ad").to_str().unwrap().to_owned();
    let size = ["--cells", "400", "--genes", "50", "--plates", "3", "--drugs", "20", "-q"];
    out(&[&["generate", &path][..], &size].concat());
    path
}

/// A store of four cells with a categorical column; -1 is a missing value.
fn small(path: &Path, column: &str, categories: &[String], codes: [i32; 4]) -> String {
    let mut writer = H5adWriter::create(path, 3, &WriteOptions::default()).unwrap();
    writer.append(&[0, 1, 2, 3, 4], &[0, 1, 2, 0], &[1, 2, 283, 4]).unwrap();
    let numbered = |i: usize, name: &mut String| name.push_str(&i.to_string());
    let codes = Items::with(move |cell| codes[cell]);
    let values = ColumnValues::Categorical { codes, categories, ordered: false };
    let obs = Frame::new(Strings::with(numbered)).with_column(column, values);
    writer.finish(&obs, &Frame::new(Strings::with(numbered))).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn exit_codes_tell_damage_from_wrong_words_and_from_differences() {
    let folder = tempfile::tempdir().unwrap();
    let store = atlas(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (csr, zarr, cut) = (at("a.csr"), at("a.zarr"), at("cut.h5ad"));
    out(&["convert", &store, &csr, "-q"]);
    out(&["convert", &store, &zarr, "-q"]);
    let bytes = std::fs::read(&store).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let code = |args: &[&str]| cellfeed(args).status.code().unwrap();
    assert_eq!(code(&["verify", &store, &csr, "-q"]), 0);
    let few = at("few.h5ad");
    out(&["convert", &store, &few, "--obs", "plate", "-q"]);
    assert_eq!(code(&["verify", &store, &few, "-q"]), 1);
    assert_eq!(code(&["verify", &csr, &cut]), 3);
    assert_eq!(code(&["verify", &csr, "/nowhere.h5ad"]), 2);
    assert_eq!(code(&["stream", &cut]), 1);
    assert_eq!(code(&["stream", &store, "--obs", "none"]), 2);
    assert_eq!(code(&["stream", "/nowhere.csr"]), 2);
    // A file that a store lacks was not named by anybody.
    let lost = std::fs::read_dir(&csr).unwrap().map(|e| e.unwrap().path());
    let lost = lost.filter(|path| path.is_file());
    let lost = lost.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(&lost).unwrap();
    assert_eq!(code(&["stream", &csr]), 1);
    assert_eq!(code(&["verify", &store, &csr]), 3);
    std::fs::remove_dir_all(Path::new(&zarr).join("X/indices")).unwrap();
    assert_eq!(code(&["stream", &zarr]), 1);
}

/// Of what is damaged nobody is told that the command line is wrong.
#[test]
fn damage_is_no_wrong_command_line() {
    let bad = common::testdata("bad");
    let zarr = bad.join("../../zarr/bad");
    let all = [bad, zarr].into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    for path in all.map(|entry| entry.unwrap().path()) {
        let text = path.to_str().unwrap();
        if text.ends_with(".json") {
            continue;
        }
        let output = cellfeed(&["stream", text, "--quiet"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{text}: {error}");
    }
}

#[test]
fn conditions_are_explained_and_ask_for_missing_values() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["T cell", "B cell"].map(str::to_owned);
    let store = small(&folder.path().join("m.h5ad"), "type", &names, [0, -1, 1, 0]);
    let cells = |condition: &str| {
        let report =
            json(&["stream", &store, "--batch-size", "1", "--json", "--subset", condition]);
        report["n_cells"].as_u64().unwrap()
    };
    assert_eq!((cells("type is missing"), cells("type is present")), (1, 3));
    let balanced = ["stream", &store, "--strategy", "class-balanced", "--by", "type"];
    let balanced = [&balanced[..], &["--batch-size", "1"]].concat();
    let (code, error) = fails(&balanced);
    assert!(code == 2 && error.contains("COLUMN is present"), "{error}");
    out(&[&balanced[..], &["--subset", "type is present"]].concat());
    for (condition, why) in [
        ("type == t cell", r#"which has "T cell", "B cell"; perhaps "T cell" is meant"#),
        ("type == 'T cell'", "quotes are taken as a part of the value"),
        ("type == T cell & type == B cell", "as several --subset"),
        ("type == T cell or B cell", "with commas between them"),
        ("type ~ T", "COLUMN is missing"),
    ] {
        let (code, error) = fails(&["stream", &store, "--subset", condition]);
        assert!(code == 2 && error.contains(why), "{condition}: {error}");
    }
}

#[test]
fn names_of_a_file_do_not_reach_the_terminal_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let long = ["\u{1b}[2Jx".repeat(100_000), "b".to_owned()];
    let other = [long[0].clone() + "y", "b".to_owned()];
    let column = "plate\u{1b}]0;owned\u{7}";
    let a = small(&folder.path().join("a.h5ad"), column, &long, [0, 1, 1, 0]);
    let b = small(&folder.path().join("b.h5ad"), column, &other, [0, 1, 1, 0]);
    let verified = cellfeed(&["verify", &a, &b]);
    assert_eq!(verified.status.code(), Some(1));
    let verified = String::from_utf8(verified.stdout).unwrap();
    let refused = fails(&["stream", &a, "--subset", "plate == x"]).1;
    for text in [out(&["inspect", &a]), verified, refused] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        assert!(text.contains(r"plate\u{1b}]0;owned\u{7}"), "{text}");
        assert!(text.len() < 10_000, "{}", text.len());
    }
    // Programs get it as it is.
    let report = json(&["inspect", &a, "--json"]);
    assert_eq!(report["obs"][0]["name"], column);
}

#[test]
fn numbers_that_make_no_sense_are_refused_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let store = small(&folder.path().join("s.h5ad"), "p", &["x".to_owned()], [0; 4]);
    let atlas = atlas(folder.path());
    let zarr = folder.path().join("b.zarr").to_str().unwrap().to_owned();
    let cases: [(&[&str], &str); 9] = [
        (&["stream", &store, "--seed", "-1"], "a whole number from 0 to 18446744073709551615"),
        (&["plan", "--n-obs", "9", "--seed", "-1"], "a whole number from 0"),
        (&["stream", &store, "--epochs", "0"], "--epochs"),
        (
            &["stream", &store, "--dtype", "u8"],
            "283 cannot be had as u8; ask for u16, which holds it",
        ),
        (&["stream", &store, "--dtype", "u8"], "row 2"),
        (&["stream", &atlas, "--label", "conc"], "pandas.cut"),
        (&["generate", &zarr], "cellfeed convert"),
        (&["generate", "atlas"], "generate atlas.h5ad"),
        (&["tune", "s3://bucket/a.zarr", "--label", "plate"], "reads no URLs"),
    ];
    for (args, why) in cases {
        let (code, error) = fails(args);
        assert!(code == 2 && error.contains(why), "{args:?}: {error}");
        assert!(!error.contains("-- -1"), "{error}");
    }
    assert!(!Path::new(&zarr).exists());
    let (_, error) = fails(&["stream", &atlas, "--memory", "1kB"]);
    assert!(
        error.contains("limit of 1000 bytes") && error.contains("raise the limit to"),
        "{error}"
    );
    let (_, error) = fails(&["tune", &atlas, "--label", "plate", "--memory", "1kB"]);
    assert!(error.contains("limit of 1000 bytes; raise it to"), "{error}");
}

#[test]
fn a_store_without_cells_is_said_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.h5ad");
    let mut writer = H5adWriter::create(&path, 3, &WriteOptions::default()).unwrap();
    writer.append::<u8>(&[0], &[], &[]).unwrap();
    let numbered = |i: usize, name: &mut String| name.push_str(&i.to_string());
    let names = || Frame::new(Strings::with(numbered));
    writer.finish(&names(), &names()).unwrap();
    let path = path.to_str().unwrap();
    let (code, error) = fails(&["stream", path]);
    assert!(code == 2 && error.contains("the store has no cells"), "{error}");
    assert!(error.contains(path), "{error}");
}

#[test]
fn help_tells_what_is_there() {
    let help = out(&["--help"]);
    for word in [".zarr", ".parquet", "annbatch", "SCDL", "s3://", "SIGTERM", "Exit codes"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(out(&["stream", "--help"]).contains("Object stores"));
    assert!(!out(&["tune", "--help"]).contains("Object stores"));
    assert!(out(&["inspect", "--help"]).contains("SCDL"));
    assert!(out(&["verify", "--help"]).contains("3 if something could not be read"));
}
