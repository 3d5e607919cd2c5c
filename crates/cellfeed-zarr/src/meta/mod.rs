//! Zarr metadata, v2 and v3: groups, arrays and attributes, read from the file beside each node.
//!
//! Consolidated metadata is a copy of these files for stores far away, and may be stale; on a local
//! disk the files themselves are as near.

pub(crate) mod array;
pub(crate) mod dtype;
pub(crate) mod record;

use cellfeed_core::io::{Entry, Folder};
use cellfeed_core::{Error, Result};
use serde_json::{Map, Value};

/// The longest metadata file that is read.
const LONGEST: u64 = 64 << 20;

/// A group or an array.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) attributes: Map<String, Value>,
    /// The metadata of an array, and the version of the format.
    pub(crate) array: Option<(Value, u8)>,
}

impl Node {
    /// An attribute that is text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.as_str()
    }

    /// `encoding-type` and `encoding-version`, for people.
    pub(crate) fn encoding(&self) -> String {
        let kind = self.text("encoding-type").unwrap_or("array");
        match self.text("encoding-version") {
            Some(version) => format!("{kind} {version}"),
            None => kind.to_owned(),
        }
    }
}

/// A path inside a store, for messages.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

fn json(root: &dyn Folder, name: &str) -> Result<Option<Value>> {
    let Some(text) = root.read(name, LONGEST)? else { return Ok(None) };
    let value = serde_json::from_slice(&text).map_err(|e| {
        Error::corrupt("the metadata is not JSON").caused_by(e).with("file", root.place(name))
    })?;
    Ok(Some(value))
}

fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The node at a path below the root (the root itself at `""`), if there is one.
pub(crate) fn node(root: &dyn Folder, path: &str) -> Result<Option<Node>> {
    // Names come from the store: none may lead out of it.
    let odd = |part: &str| part.is_empty() || part == "." || part == "..";
    if !path.is_empty() && (path.split('/').any(odd) || path.contains('\0')) {
        return Err(Error::corrupt(format!("{path:?} is no name of an element"))
            .with("file", root.location()));
    }
    let blame = |e: Error| e.with("file", root.place(path)).with_default("element", path);
    if let Some(value) = json(root, &join(path, "zarr.json"))? {
        if value["zarr_format"].as_u64() != Some(3) {
            return Err(blame(Error::unsupported(format!(
                "the Zarr format {} is not read; 2 and 3 are",
                value["zarr_format"]
            ))));
        }
        let array = match value["node_type"].as_str() {
            Some("group") => None,
            Some("array") => Some((value.clone(), 3)),
            _ => {
                return Err(blame(Error::corrupt(format!(
                    "the node type {} is neither group nor array",
                    value["node_type"]
                ))));
            }
        };
        let attributes = object(value.get("attributes").cloned());
        return Ok(Some(Node { path: path.to_owned(), attributes, array }));
    }
    let array = json(root, &join(path, ".zarray"))?;
    let group = json(root, &join(path, ".zgroup"))?;
    let Some(head) = array.as_ref().or(group.as_ref()) else { return Ok(None) };
    if head["zarr_format"].as_u64() != Some(2) {
        return Err(blame(Error::unsupported(format!(
            "the Zarr format {} is not read; 2 and 3 are",
            head["zarr_format"]
        ))));
    }
    let attributes = object(json(root, &join(path, ".zattrs"))?);
    Ok(Some(Node { path: path.to_owned(), attributes, array: array.map(|a| (a, 2)) }))
}

/// Names of the members of a group, sorted.
pub(crate) fn members(root: &dyn Folder, path: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, what) in root.list(path)? {
        if what == Entry::Folder && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
