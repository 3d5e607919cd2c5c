//! Everything else that AnnData stores (`uns`, `obsm`, ...), as it came: groups, arrays, scalars.

use super::bytes::put_values;
use super::codec::Codec;
use super::stream::{Items, Stream};
use super::tree::{Attributes, Tree, refused_name};
use arrow_array::Array;
use cellfeed_core::{ArrayValues, Attribute, Element, Error, Node, Result};
use serde_json::{Value, json};

/// Bytes of an inner chunk before compression, about.
const CHUNK_BYTES: u64 = 1 << 20;

/// Texts in an inner chunk.
const CHUNK_TEXTS: u64 = 65_536;

/// Bytes that wait before they are compressed.
const BATCH: usize = 8 << 20;

/// Writes an element and all below it. What Zarr cannot keep is dropped, and said.
pub(super) fn write(path: &str, element: &Element, codec: Codec, tree: &mut Tree) -> Result<()> {
    let attributes = attributes(&element.attributes);
    match &element.node {
        Node::Group(members) => {
            tree.group(path, &attributes)?;
            for (name, member) in members {
                let below = format!("{path}/{name}");
                match refused_name(name) {
                    Some(why) => tree.dropped.push((below, why.to_owned())),
                    None => write(&below, member, codec, tree)?,
                }
            }
            Ok(())
        }
        Node::Array { shape, values } => {
            let items = match values {
                ArrayValues::Numbers(values) => Items::of(values.value_type()),
                ArrayValues::Bools(_) => Some(Items::BOOL),
                ArrayValues::Texts(_) => Some(Items::TEXT),
                _ => None,
            };
            let Some(items) = items else {
                let why = "an array of a type that Zarr does not have";
                tree.dropped.push((path.to_owned(), why.to_owned()));
                return Ok(());
            };
            let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            if count != Some(values.len() as u64) {
                return Err(Error::invalid_input(format!(
                    "an array of the shape {shape:?} has {} values",
                    values.len()
                ))
                .with("element", path));
            }
            let wrong = |e: Error| e.with_default("element", path);
            match shape.split_first() {
                None => scalar(path, items, values, &attributes, codec, tree).map_err(wrong),
                Some((&rows, trailing)) => {
                    let inner = inner_rows(items, trailing);
                    let mut out =
                        Stream::new(path.to_owned(), items, trailing, inner, BATCH, codec)?;
                    put(values, &mut out, tree).map_err(wrong)?;
                    out.finish_rows(tree, &attributes, rows, None).map(|_| ()).map_err(wrong)
                }
            }
        }
        _ => {
            tree.dropped.push((path.to_owned(), "neither a group nor an array".to_owned()));
            Ok(())
        }
    }
}

fn inner_rows(items: Items, trailing: &[u64]) -> u64 {
    let row = trailing.iter().fold(1u64, |n, &d| n.saturating_mul(d)).max(1);
    match items.width {
        0 => CHUNK_TEXTS / row,
        width => CHUNK_BYTES / row.saturating_mul(width as u64),
    }
}

fn put(values: &ArrayValues, out: &mut Stream, tree: &mut Tree) -> Result<()> {
    match values {
        ArrayValues::Numbers(values) => put_values(values, out.grow(values.len())),
        ArrayValues::Bools(values) => {
            out.grow(values.len()).extend(values.iter().map(|&v| u8::from(v)));
            Ok(())
        }
        ArrayValues::Texts(values) => {
            for i in 0..values.len() {
                out.text(if values.is_null(i) { "" } else { values.value(i) })?;
                if out.is_ripe() {
                    out.write(tree)?;
                }
            }
            Ok(())
        }
        _ => Err(Error::internal("an array of an unknown type")),
    }
}

/// An array of no dimensions: one chunk, no shard.
fn scalar(
    path: &str,
    items: Items,
    values: &ArrayValues,
    attributes: &Attributes,
    codec: Codec,
    tree: &mut Tree,
) -> Result<()> {
    // A stream of one item has just the bytes of the chunk.
    let mut one = Stream::new(path.to_owned(), items, &[], 1, BATCH, codec)?;
    put(values, &mut one, tree)?;
    let chunk = one.single_chunk()?;
    tree.append(&format!("{path}/c"), &chunk)?;
    let metadata = json!({
        "zarr_format": 3, "node_type": "array", "attributes": attributes,
        "shape": [], "data_type": items.name, "fill_value": items.fill_value(),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": items.codecs(codec),
        "storage_transformers": [],
    });
    tree.node(path, metadata)
}

fn attributes(all: &[(String, Attribute)]) -> Attributes {
    all.iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn attribute(value: &Attribute) -> Value {
    // JSON has no word for these; Zarr writes them so elsewhere.
    let float = |v: f64| match v {
        v if v.is_nan() => json!("NaN"),
        v if v.is_infinite() => json!(if v > 0.0 { "Infinity" } else { "-Infinity" }),
        v => json!(v),
    };
    match value {
        Attribute::Bool(v) => json!(v),
        Attribute::Integer(v) => json!(v),
        Attribute::Float(v) => float(*v),
        Attribute::Text(v) => json!(v),
        Attribute::Integers(v) => json!(v),
        Attribute::Floats(v) => v.iter().copied().map(float).collect(),
        Attribute::Texts(v) => json!(v),
        _ => Value::Null,
    }
}
