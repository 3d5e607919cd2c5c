//! The atlas, and its copy in each format: made once by `cellfeed generate` and `cellfeed convert`,
//! kept between runs.

use cellfeed::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The formats that are compared: a name, the store's file name, and how it is written.
const FORMATS: [(&str, &str, &[&str]); 8] = [
    ("h5ad", "none.h5ad", &["--codec", "none"]),
    ("h5ad-gzip", "gzip.h5ad", &["--codec", "gzip"]),
    ("zarr-lz4", "lz4.zarr", &["--codec", "blosc-lz4"]),
    ("zarr-zstd", "zstd.zarr", &["--codec", "zstd"]),
    ("parquet", "blob.parquet", &["--codec", "blob-lz4"]),
    ("parquet-list", "list.parquet", &["--codec", "list-lz4"]),
    ("csr", "plain.csr", &["--codec", "plain"]),
    ("csr-packed", "packed.csr", &["--codec", "packed"]),
];

/// The names of all formats.
pub(crate) fn names() -> Vec<&'static str> {
    FORMATS.map(|(name, _, _)| name).into()
}

/// The release binaries that runs are made of.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) cellfeed: PathBuf,
    pub(crate) roofline: PathBuf,
}

impl Programs {
    /// Builds them, next to this benchmark's own build.
    pub(crate) fn build() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&root).args(["build", "--release", "--quiet"]);
        command.args(["-p", "cellfeed-cli", "-p", "cellfeed-benches", "--bins"]);
        let status = command.status().map_err(|e| Error::io("cannot run cargo", e))?;
        if !status.success() {
            return Err(Error::invalid_input("cargo could not build cellfeed and roofline"));
        }
        // The folder for temporary files is <target>/tmp.
        let release = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../release");
        let program = |name: &str| release.join(name);
        Ok(Self { cellfeed: program("cellfeed"), roofline: program("roofline") })
    }
}

/// A copy of the atlas.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// On disk.
    pub(crate) bytes: u64,
    pub(crate) files: Vec<PathBuf>,
    /// What `cellfeed convert --json` said when it was made; nothing if it was there.
    pub(crate) convert: Option<Value>,
}

/// Runs a program and parses the JSON that it prints.
pub(crate) fn run_json(command: &mut Command) -> Result<Value> {
    let output = command.output().map_err(|e| Error::io("cannot run a program", e))?;
    if !output.status.success() {
        return Err(Error::invalid_input(format!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| Error::internal(format!("{command:?} printed no JSON")).caused_by(e))
}

/// Makes what is missing.
pub(crate) fn make(
    programs: &Programs,
    folder: &Path,
    cells: u64,
    genes: u64,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Store>> {
    let folder = folder.join(format!("{cells}x{genes}"));
    std::fs::create_dir_all(&folder)
        .map_err(|e| Error::io("cannot make the folder", e).with("file", folder.display()))?;
    let atlas = folder.join("atlas.h5ad");
    if !atlas.exists() {
        eprintln!("generating {cells} cells x {genes} genes");
        let mut command = Command::new(&programs.cellfeed);
        command.arg("generate").arg(&atlas);
        command.args(["--cells", &cells.to_string(), "--genes", &genes.to_string(), "--json"]);
        run_json(&mut command)?;
    }
    let mut stores = Vec::new();
    for (name, file, options) in FORMATS {
        if !wanted(name) {
            continue;
        }
        let path = folder.join(file);
        let convert = if path.exists() {
            None
        } else {
            eprintln!("converting to {name}");
            let mut command = Command::new(&programs.cellfeed);
            command.arg("convert").arg(&atlas).arg(&path).args(options).arg("--json");
            Some(run_json(&mut command)?)
        };
        let mut files = Vec::new();
        let bytes = walk(&path, &mut files)
            .map_err(|e| Error::io("cannot look at", e).with("file", path.display()))?;
        stores.push(Store { name: name.to_owned(), path, bytes, files, convert });
    }
    Ok(stores)
}

/// Collects the files below a path; answers their bytes.
fn walk(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<u64> {
    let found = path.metadata()?;
    if !found.is_dir() {
        files.push(path.to_path_buf());
        return Ok(found.len());
    }
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += walk(&entry?.path(), files)?;
    }
    Ok(bytes)
}
