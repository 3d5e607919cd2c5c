//! `cellfeed inspect`: what a store holds, and what reading it randomly will cost.

use crate::people::{bytes, count, say, say_json, shown};
use crate::remote::{self, Remote};
use cellfeed::{
    ArrayStorage, ColumnKind, ColumnSchema, Encoding, MatrixSchema, OpenOptions, Plan, PlanOptions,
    Result, Schema, Store, Strategy,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Show what a store holds, and what reading it randomly will cost.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  \
    cellfeed inspect atlas.h5ad\n  \
    cellfeed inspect atlas.h5ad --json | jq .obs")]
pub(crate) struct InspectArgs {
    /// The store: a .h5ad or 10x .h5 file, a .zarr, .parquet or .csr store, a folder of Parquet shards
    /// as Tahoe-100M has, an SCDL folder; FILE.h5mu#mod/NAME for a part of MuData; or a URL, as s3://bucket/atlas.zarr.
    store: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Block sizes whose cost is told.
const BLOCKS: [u64; 4] = [1, 16, 64, 1024];

/// What reading a fetch of 16,384 cells in blocks of one size costs.
struct Cost {
    block_size: u64,
    /// Bytes read and bytes decoded, over bytes of the values that are wanted.
    read: f64,
    decoded: f64,
    fetch_bytes: u64,
}

pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let store = cellfeed::open(&args.store, &args.remote.apply(OpenOptions::default())?)?;
    remote::warn(&store);
    if args.json {
        return say_json(&to_json(&store)?);
    }
    print(&store)
}

/// Costs of the first matrix that can be read.
fn costs(store: &Store) -> Result<Vec<Cost>> {
    let schema = store.schema();
    let Some(matrix) = schema.matrices.iter().find(|m| m.unreadable.is_none()) else {
        return Ok(Vec::new());
    };
    let mut costs = Vec::new();
    for block_size in BLOCKS {
        let strategy = Strategy::BlockShuffling { block_size };
        let plan = Plan::new(schema.n_obs, strategy, &PlanOptions::default())?;
        if plan.n_fetches() == 0 {
            continue;
        }
        let fetch = plan.fetch(0, 0)?;
        let cost = store.backend().cost(&matrix.key, fetch.rows())?;
        let rows = fetch.rows().n_rows();
        let wanted = match matrix.encoding {
            Encoding::Dense => {
                rows as f64 * matrix.n_vars() as f64 * matrix.value_type.size() as f64
            }
            // Indices and values: what is kept, but for the row offsets.
            _ => cost.bytes_kept.saturating_sub((rows + 1) * 8) as f64,
        };
        let wanted = wanted.max(1.0);
        costs.push(Cost {
            block_size,
            read: cost.bytes_read as f64 / wanted,
            decoded: cost.bytes_decoded as f64 / wanted,
            fetch_bytes: cost.bytes_held,
        });
    }
    Ok(costs)
}

fn array_json(array: &ArrayStorage) -> Value {
    json!({
        "name": array.name,
        "element": array.element,
        "shape": array.shape,
        "chunk": array.chunk,
        "n_chunks": array.n_chunks,
        "codecs": array.codecs,
        "bytes": array.bytes,
    })
}

/// The array of gene indices, for sparse matrices.
fn index_type(matrix: &MatrixSchema) -> Option<&str> {
    let array = matrix.arrays.iter().find(|a| a.name.ends_with("indices"))?;
    Some(&array.element)
}

fn codecs(matrix: &MatrixSchema) -> Vec<String> {
    let all = matrix.arrays.iter().flat_map(|a| a.codecs.iter().cloned());
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

fn matrix_json(matrix: &MatrixSchema) -> Value {
    json!({
        "name": matrix.key.to_string(),
        "encoding": matrix.encoding.as_str(),
        "value_type": matrix.value_type.as_str(),
        "index_type": index_type(matrix),
        "n_vars": matrix.n_vars(),
        "nnz": matrix.nnz,
        "chunks": matrix.arrays.iter().map(array_json).collect::<Vec<_>>(),
        "codecs": codecs(matrix),
        "unreadable": matrix.unreadable,
    })
}

fn column_json(column: &ColumnSchema) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(column.name));
    out.insert("kind".to_owned(), json!(column.kind.as_str()));
    out.insert("encoding".to_owned(), json!(column.encoding));
    match &column.kind {
        ColumnKind::Categorical { categories, ordered } => {
            out.insert("n_categories".to_owned(), json!(categories.len()));
            out.insert("ordered".to_owned(), json!(ordered));
        }
        ColumnKind::Unreadable(why) => {
            out.insert("reason".to_owned(), json!(why));
        }
        _ => {}
    }
    Value::Object(out)
}

fn to_json(store: &Store) -> Result<Value> {
    let schema = store.schema();
    let x = schema.find(&cellfeed::MatrixKey::X);
    let rest = schema.matrices.iter().filter(|m| m.key != cellfeed::MatrixKey::X);
    let costs = costs(store)?;
    Ok(json!({
        "format": schema.format,
        "writer": schema.writer,
        "location": schema.location,
        "n_obs": schema.n_obs,
        "n_vars": schema.var.n_vars,
        "nnz": x.and_then(|m| m.nnz),
        "matrix": x.map(matrix_json),
        "layers": rest.map(matrix_json).collect::<Vec<_>>(),
        "obs": schema.obs.iter().map(column_json).collect::<Vec<_>>(),
        "obs_index": schema.obs_index,
        "var": {
            "columns": schema.var.columns.iter().map(column_json).collect::<Vec<_>>(),
            "first_names": schema.var.names.iter().take(5).collect::<Vec<_>>(),
        },
        "chunk_rows": store.backend().hints().chunk_rows,
        "cost": costs.iter().map(|c| json!({
            "block_size": c.block_size,
            "bytes_read_per_byte_wanted": c.read,
            "bytes_decoded_per_byte_wanted": c.decoded,
            "fetch_bytes": c.fetch_bytes,
        })).collect::<Vec<_>>(),
    }))
}

fn print(store: &Store) -> Result<()> {
    let schema = store.schema();
    say(&schema.location)?;
    let writer = schema.writer.as_deref().map(|w| format!(", {}", shown(w))).unwrap_or_default();
    say(format_args!("  format    {}{writer}", schema.format))?;
    say(format_args!(
        "  shape     {} cells x {} genes",
        count(schema.n_obs),
        count(schema.var.n_vars)
    ))?;
    let keys = schema.matrices.iter().map(|m| shown(&m.key.to_string()).chars().count());
    let width = keys.max().unwrap_or(0).clamp(9, 32);
    for matrix in &schema.matrices {
        print_matrix(matrix, schema.n_obs, width)?;
    }
    if schema.matrices.is_empty() {
        say("  matrices  none: there is nothing to stream")?;
    }
    print_columns("obs", &schema.obs)?;
    print_columns("var", &schema.var.columns)?;
    print_cost(store, schema)
}

fn print_matrix(matrix: &MatrixSchema, n_obs: u64, width: usize) -> Result<()> {
    let mut line = format!("{} {}", matrix.encoding.as_str(), matrix.value_type);
    if let Some(index) = index_type(matrix) {
        line += &format!(" with {index} indices");
    }
    if let Some(nnz) = matrix.nnz {
        line +=
            &format!(", {} non-zeros, {:.0} a cell", count(nnz), nnz as f64 / n_obs.max(1) as f64);
    }
    if matrix.unreadable.is_some() && matrix.arrays.is_empty() {
        line.clear();
    }
    say(format_args!("  {:<width$} {line}", shown(&matrix.key.to_string())))?;
    for array in &matrix.arrays {
        let chunk = match &array.chunk {
            Some(chunk) => {
                let sizes: Vec<String> = chunk.iter().map(|&n| count(n)).collect();
                format!("{} chunks of {}", count(array.n_chunks), sizes.join(" x "))
            }
            None => "contiguous".to_owned(),
        };
        let codecs = if array.codecs.is_empty() {
            "uncompressed".to_owned()
        } else {
            array.codecs.join(" + ")
        };
        say(format_args!(
            "            {:<16} {chunk}, {codecs}, {}",
            shown(&array.name),
            bytes(array.bytes)
        ))?;
    }
    if let Some(why) = &matrix.unreadable {
        say(format_args!("            cannot be read: {why}"))?;
    }
    Ok(())
}

fn print_columns(axis: &str, columns: &[ColumnSchema]) -> Result<()> {
    if columns.is_empty() {
        return say(format_args!("  {axis:<9} no columns"));
    }
    let width = columns.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).min(32);
    for (i, column) in columns.iter().enumerate() {
        let kind = match &column.kind {
            ColumnKind::Categorical { categories, ordered } => {
                let ordered = if *ordered { ", ordered" } else { "" };
                format!(
                    "categorical, {} categories{ordered}",
                    count(u64::try_from(categories.len()).unwrap_or(0))
                )
            }
            ColumnKind::Unreadable(why) => format!("cannot be read: {why}"),
            kind => kind.as_str().to_owned(),
        };
        let head = if i == 0 { axis } else { "" };
        say(format_args!("  {head:<9} {:<width$}  {kind}", shown(&column.name)))?;
    }
    Ok(())
}

fn print_cost(store: &Store, schema: &Schema) -> Result<()> {
    let costs = costs(store)?;
    if costs.is_empty() || schema.n_obs == 0 {
        return Ok(());
    }
    if let Some(rows) = store.backend().hints().chunk_rows {
        say(format_args!(
            "  reading   a chunk of values holds {rows:.1} cells; in fetches of 64 x 256 cells, for \
             each byte wanted:"
        ))?;
    } else {
        say("  reading   in fetches of 64 x 256 cells, for each byte wanted:")?;
    }
    for c in costs {
        say(format_args!(
            "            blocks of {:>4}: {:.2} bytes read, {:.2} decoded; a fetch takes {}",
            c.block_size,
            c.read,
            c.decoded,
            bytes(c.fetch_bytes)
        ))?;
    }
    Ok(())
}
