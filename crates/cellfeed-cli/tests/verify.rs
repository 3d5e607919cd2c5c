//! Comparing stores as people do it: what differs, what cannot be read, what checksums tell.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::{Place, cellfeed, fails, json, out};
use serde_json::Value;
use std::path::Path;

#[test]
fn verify_looks_at_all_row_offsets() {
    let place = Place::new();
    let (atlas, csr) = (place.atlas("2500"), place.at("a.csr"));
    out(&["convert", &atlas, &csr]);
    let indptr = Path::new(&csr).join("X/indptr");
    let sound = std::fs::read(&indptr).unwrap();
    for row in [3, 1234, 2499] {
        let mut damaged = sound.clone();
        damaged[row * 8..row * 8 + 8].fill(0);
        std::fs::write(&indptr, damaged).unwrap();
        let (_, error) = fails(&["verify", &atlas, &csr]);
        let falls = format!("row {}", row - 1);
        assert!(error.contains("indptr") && error.contains(&falls), "{error}");
    }
}

#[test]
fn a_difference_is_told_with_its_place() {
    let place = Place::new();
    let (a, b) = (place.at("a.h5ad"), place.at("b.h5ad"));
    for (path, seed) in [(&a, "1"), (&b, "2")] {
        out(&["generate", path, "--cells", "100", "--genes", "50", "--seed", seed, "--quiet"]);
    }
    let output = cellfeed(&["verify", &a, &b, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["equal"], false);
    let difference = &found["difference"];
    assert!(difference["element"].is_string() && difference["row"].is_u64(), "{found}");
    assert_ne!(difference["first"], difference["second"]);
}

#[test]
fn what_cannot_be_read_is_not_equal() {
    let place = Place::new();
    let (atlas, sound, lost) = (place.atlas("50"), place.at("a.zarr"), place.at("b.zarr"));
    out(&["convert", &atlas, &sound]);
    out(&["convert", &atlas, &lost]);
    std::fs::remove_file(Path::new(&lost).join("X/zarr.json")).unwrap();
    for (first, second) in [(&lost, &lost), (&sound, &lost), (&lost, &sound)] {
        for more in [&[][..], &["--common"]] {
            let output = cellfeed(&[&["verify", first, second], more].concat());
            assert_eq!(output.status.code(), Some(3));
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.starts_with("not known") && !said.contains(", X"), "{said}");
            assert!(said.contains(&format!("cannot be read in {lost}: X: its folder")), "{said}");
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(error.contains("--without \"X\"") && error.contains("zarr.json"), "{error}");
        }
    }
    let output = cellfeed(&["verify", &sound, &lost, "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["equal"], &found["difference"]), (&false.into(), &Value::Null));
    assert_eq!(found["unreadable"][0]["element"], "X");
    assert!(found["unreadable"][0]["first"].is_null());
    // Left out by name it is no longer in question.
    assert!(out(&["verify", &sound, &lost, "--without", "X"]).starts_with("equal"));
    let (code, text) = fails(&["verify", &sound, &lost, "--without", "layers/X"]);
    assert!(code == 2 && text.contains("there is no \"layers/X\""), "{text}");
}

#[test]
fn verify_keeps_to_its_memory() {
    let place = Place::new();
    let (atlas, zarr) = (place.atlas("300"), place.at("a.zarr"));
    out(&["convert", &atlas, &zarr]);
    let (code, text) = fails(&["verify", &atlas, &zarr, "--memory", "16KiB"]);
    assert!(code == 3 && text.contains("--memory") && text.contains(&zarr), "{text}");
    out(&["verify", &atlas, &zarr, "--memory", "64MiB"]);
}

#[test]
fn checksums_are_held_against_the_files_and_one_store_is_read_whole() {
    let place = Place::new();
    let (atlas, csr) = (place.atlas("120"), place.at("a.csr"));
    out(&["convert", &atlas, &csr]);
    assert!(out(&["verify", &atlas, &csr]).contains("checksums are right: "));
    let said = out(&["verify", &csr]);
    assert!(said.starts_with("sound: var, obs names, obs/plate"), "{said}");
    assert!(said.contains(", X\n  checksums are right"), "{said}");
    assert!(out(&["verify", &atlas]).contains("keeps no checksums"));
    let found = json(&["verify", &csr, "--json"]);
    assert_eq!(found["sound"], true);
    assert!(found["checksum_bytes"].as_u64().unwrap() > 1000, "{found}");
    let data = Path::new(&csr).join("X/data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    for args in [vec!["verify", &csr], vec!["verify", &csr, &csr], vec!["verify", &atlas, &csr]] {
        let (code, text) = fails(&args);
        assert!(code == 3 && text.contains("checksum") && text.contains("X/data"), "{text}");
    }
    let lost = place.at("b.zarr");
    out(&["convert", &atlas, &lost]);
    std::fs::remove_file(Path::new(&lost).join("X/zarr.json")).unwrap();
    let (code, text) = fails(&["verify", &lost]);
    assert!(code == 3 && text.contains("X cannot be read"), "{text}");
    assert_eq!(fails(&["verify", &csr, "--common"]).0, 2);
}
