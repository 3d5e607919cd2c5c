//! What other readers make of our files: the `parquet` crate, and pyarrow where there is one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use cellfeed_core::{Extras, MatrixKey, Values, WriteOptions};
use cellfeed_parquet::{CODECS, create};
use cellfeed_testkit::writing::{batches, new_store};
use cellfeed_testkit::{Oracle, OracleColumn, fixtures};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, RowAccessor};
use std::path::{Path, PathBuf};

fn write(path: &Path, oracle: &Oracle, codec: &str) {
    let new = new_store(oracle, Extras::default()).unwrap();
    let mut writer = create(path, new.clone(), &WriteOptions::default().with_codec(codec)).unwrap();
    for batch in batches(oracle, &new).unwrap() {
        writer.append(&batch).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_parquet_crate_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let oracle = fixtures::oracle("other readers", 150, 41, 77);
    let x = oracle.matrix(&MatrixKey::X).unwrap();
    let Values::F32(values) = &x.values else { panic!("X is of another type") };
    for codec in CODECS {
        let path = folder.path().join(format!("{codec}.parquet"));
        write(&path, &oracle, codec);
        let reader = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
        let fields = reader.metadata().file_metadata().schema().get_fields().to_vec();
        let place = |name: &str| fields.iter().position(|f| f.name() == name).unwrap();
        let [genes_at, data_at, cell_at] = ["indices", "data", "cell"].map(place);
        let mut n = 0;
        for (row, ends) in reader.get_row_iter(None).unwrap().zip(x.indptr.windows(2)) {
            let row = row.unwrap();
            let span = usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap();
            let (genes, data): (Vec<u32>, Vec<f32>) = if codec.starts_with("blob") {
                let genes = row.get_bytes(genes_at).unwrap().data().to_vec();
                let data = row.get_bytes(data_at).unwrap().data().to_vec();
                let genes = genes.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]]).into());
                let data = data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                (genes.collect(), data.collect())
            } else {
                let genes = row.get_list(genes_at).unwrap().elements().iter();
                let data = row.get_list(data_at).unwrap().elements().iter();
                let gene = |f: &Field| match f {
                    Field::UShort(v) => u32::from(*v),
                    other => panic!("{other:?}"),
                };
                let value = |f: &Field| match f {
                    Field::Float(v) => *v,
                    other => panic!("{other:?}"),
                };
                (genes.map(gene).collect(), data.map(value).collect())
            };
            assert_eq!(genes, x.indices[span.clone()], "{codec}");
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&data), bits(&values[span]), "{codec}");
            assert_eq!(row.get_string(cell_at).unwrap(), &oracle.obs_names[n]);
            n += 1;
        }
        assert_eq!(n, 150);
    }
}

/// Python of an environment with pyarrow and scipy: `CELLFEED_PYTHON`.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("CELLFEED_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: CELLFEED_PYTHON names no Python with pyarrow");
    }
    python
}

#[test]
fn pyarrow_reads_the_same_by_the_document() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_written.py");
    let mut pairs = Vec::new();
    for codec in ["blob-lz4", "list-zstd", "list-none"] {
        for oracle in fixtures::oracles() {
            let name = format!("{codec}-{}.parquet", oracle.name.replace(' ', "-"));
            let path = folder.path().join(name);
            write(&path, &oracle, codec);
            let facts_at = path.with_extension("json");
            std::fs::write(&facts_at, facts(&oracle).to_string()).unwrap();
            pairs.extend([path, facts_at]);
        }
    }
    let run = std::process::Command::new(&python).arg(script).args(pairs).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// What Python can compare: every value of every matrix and column, as numbers and text.
fn facts(oracle: &Oracle) -> serde_json::Value {
    use cellfeed_testkit::OracleValues as V;
    use serde_json::{Value, json};
    let number = |v: f64| if v.is_finite() { json!(v) } else { json!(v.to_string()) };
    let matrices = oracle.matrices.iter().map(|m| {
        let data: Vec<Value> = m.values.to_f64_vec().into_iter().map(number).collect();
        let fields =
            json!({"n_vars": m.n_vars, "indptr": m.indptr, "indices": m.indices, "data": data});
        (m.key.to_string(), fields)
    });
    let column = |column: &OracleColumn| {
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
    let columns =
        |columns: &[OracleColumn]| -> Vec<(String, Value)> { columns.iter().map(column).collect() };
    json!({
        "n_obs": oracle.n_obs,
        "keys": oracle.matrices.iter().map(|m| m.key.to_string()).collect::<Vec<_>>(),
        "matrices": matrices.collect::<serde_json::Map<String, Value>>(),
        "obs_names": oracle.obs_names, "var_names": oracle.var_names,
        "raw_var_names": oracle.raw_var_names,
        "obs": columns(&oracle.obs), "var": columns(&oracle.var),
        "raw_var": columns(oracle.raw_var.as_deref().unwrap_or_default()),
    })
}
