//! Running the command as people do.
#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "each test uses some")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub(crate) fn cellfeed(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cellfeed")).args(args).output().unwrap()
}

/// Standard output of a call that must succeed.
pub(crate) fn out(args: &[&str]) -> String {
    let output = cellfeed(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn json(args: &[&str]) -> Value {
    serde_json::from_str(&out(args)).unwrap()
}

/// The exit code and standard error of a call that must fail.
pub(crate) fn fails(args: &[&str]) -> (i32, String) {
    let output = cellfeed(args);
    assert!(!output.status.success(), "{args:?} should fail");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/h5ad").join(name)
}

/// A folder of stores that is removed at the end.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A small atlas.
    pub(crate) fn atlas(&self, cells: &str) -> String {
        let path = self.at("atlas.h5ad");
        out(&["generate", &path, "--cells", cells, "--genes", "900", "--seed", "3", "--quiet"]);
        path
    }
}
