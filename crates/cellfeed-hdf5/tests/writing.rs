//! The writer of whole stores: what every writer must do, in every codec; and what Python anndata makes
//! of the files, where there is one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use cellfeed_core::io::Engine;
use cellfeed_core::{Backend, NewStore, Result, StoreWriter, WriteOptions};
use cellfeed_hdf5::{Hdf5Backend, Hdf5Options, create};
use cellfeed_testkit::writing::{Writing, batches, extras, new_store};
use cellfeed_testkit::{Subject, conformance, fixtures};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    let options = Hdf5Options::default();
    Ok(Arc::new(Hdf5Backend::open(path, Arc::new(Engine::default()), &options)?))
}

#[test]
fn everything_is_kept_and_everything_wrong_refused() {
    Writing::new("new.h5ad", create, open).check().unwrap();
}

#[test]
fn in_every_codec_and_chunk_length() {
    let codecs = [
        ("gzip", 3),
        ("gzip:1", 1 << 40),
        ("gzip-shuffle", 7),
        ("gzip-shuffle:9", 1000),
        ("lzf", 1),
        ("lzf-shuffle", 64),
    ];
    for (codec, rows) in codecs {
        let create = |path: &Path, new: NewStore, options: &WriteOptions| {
            create(path, new, &options.clone().with_codec(codec).with_chunk_rows(rows))
        };
        Writing::new("new.h5ad", create, open).check().unwrap_or_else(|e| {
            panic!("{codec}, chunks of {rows} rows: {e}");
        });
    }
}

fn write(path: &Path, oracle: &cellfeed_testkit::Oracle) -> Result<()> {
    let new = new_store(oracle, extras(oracle))?;
    let batches = batches(oracle, &new)?;
    let mut writer: Box<dyn StoreWriter> =
        create(path, new, &WriteOptions::default().with_codec("gzip-shuffle"))?;
    batches.iter().try_for_each(|batch| writer.append(batch))?;
    writer.finish().map(|_| ())
}

/// Text of which some is missing comes back as categories: the oracle does without.
fn written() -> Vec<Subject> {
    let mut oracle = fixtures::oracle("written", 150, 41, 77);
    oracle.obs.retain(|c| c.name != "word");
    oracle.var.retain(|c| c.name != "word");
    oracle.raw_var.as_mut().unwrap().retain(|c| c.name != "word");
    vec![Subject::written("written.h5ad", oracle, write, open).unwrap()]
}

conformance!(own_files, written);

/// Python of an environment with anndata: `CELLFEED_PYTHON`.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("CELLFEED_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: CELLFEED_PYTHON names no Python with anndata");
    }
    python
}

#[test]
fn python_anndata_reads_the_same() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_written.py");
    for oracle in fixtures::oracles() {
        let path = folder.path().join(format!("{}.h5ad", oracle.name.replace(' ', "-")));
        write(&path, &oracle).unwrap();
        let facts = facts(&oracle);
        let facts_at = path.with_extension("json");
        std::fs::write(&facts_at, facts.to_string()).unwrap();
        let run =
            std::process::Command::new(&python).args([&script, &path, &facts_at]).output().unwrap();
        let text = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{}: {text}", oracle.name);
    }
}

/// What Python can compare: every value of every matrix and column, as numbers and text.
fn facts(oracle: &cellfeed_testkit::Oracle) -> serde_json::Value {
    use cellfeed_testkit::OracleValues as V;
    use serde_json::{Value, json};
    let number = |v: f64| if v.is_finite() { json!(v) } else { json!(v.to_string()) };
    let matrices = oracle.matrices.iter().map(|m| {
        let data: Vec<Value> = m.values.to_f64_vec().into_iter().map(number).collect();
        let value_type = m.values.value_type().to_string();
        let fields = json!({"n_vars": m.n_vars, "indptr": m.indptr, "indices": m.indices,
                            "data": data, "value_type": value_type});
        (m.key.to_string(), fields)
    });
    let column = |column: &cellfeed_testkit::OracleColumn| {
        let values: Value = match &column.values {
            V::Categorical { codes, categories, .. } => codes
                .iter()
                .map(|c| c.map(|c| categories[usize::try_from(c).unwrap()].text()))
                .collect::<Vec<_>>()
                .into(),
            V::String(v) => json!(v),
            V::Integer(v) => v.iter().map(|v| v.map(|v| v.to_string())).collect::<Vec<_>>().into(),
            V::Float(v) => v.iter().map(|v| v.map_or(Value::Null, number)).collect(),
            V::Boolean(v) => json!(v),
            V::Unreadable => Value::Null,
        };
        (column.name.clone(), values)
    };
    let columns = |columns: &[cellfeed_testkit::OracleColumn]| -> Vec<(String, Value)> {
        columns.iter().map(column).collect()
    };
    json!({
        "n_obs": oracle.n_obs,
        "matrices": matrices.collect::<serde_json::Map<String, Value>>(),
        "obs_names": oracle.obs_names, "var_names": oracle.var_names,
        "raw_var_names": oracle.raw_var_names,
        "obs": columns(&oracle.obs), "var": columns(&oracle.var),
        "raw_var": columns(oracle.raw_var.as_deref().unwrap_or_default()),
    })
}
