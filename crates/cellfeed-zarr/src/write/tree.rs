//! The folder under construction: nodes with their metadata, files of chunks, and at the end the
//! root with all metadata consolidated.

use cellfeed_core::io::Staging;
use cellfeed_core::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Attributes of a node.
pub(super) type Attributes = Map<String, Value>;

/// Nodes and files below the root of a store. Paths are those of the store, as `X/data`.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    members: BTreeMap<String, Value>,
    bytes: u64,
    /// What could not be kept, and why.
    pub(super) dropped: Vec<(String, String)>,
}

impl Tree {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), members: BTreeMap::new(), bytes: 0, dropped: Vec::new() }
    }

    /// Adds a group.
    pub(super) fn group(&mut self, path: &str, attributes: &Attributes) -> Result<()> {
        let node = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
        self.node(path, node)
    }

    /// Adds a group or an array by its metadata.
    pub(super) fn node(&mut self, path: &str, metadata: Value) -> Result<()> {
        self.append(&format!("{path}/zarr.json"), text(&metadata)?.as_bytes())?;
        self.members.insert(path.to_owned(), metadata);
        Ok(())
    }

    /// Appends to a file, which is made if it is not there.
    pub(super) fn append(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(file);
        let io = |what: &str, e| Error::io(what, e).with("file", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| io("cannot create the folder", e))?;
        }
        // Opened each time: a table may have more columns than a process may have open files.
        let mut open = std::fs::File::options();
        let mut out =
            open.append(true).create(true).open(&path).map_err(|e| io("cannot create", e))?;
        out.write_all(bytes).map_err(|e| io("cannot write", e))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Moves the chunks of an array that was written as `path` to its member `values`.
    pub(super) fn move_chunks(&self, path: &str) -> Result<()> {
        let (from, to) = (self.root.join(path).join("c"), self.root.join(path).join("values"));
        if !from.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(&to)
            .and_then(|()| std::fs::rename(&from, to.join("c")))
            .map_err(|e| Error::io("cannot move", e).with("file", from.display()))
    }

    /// Writes the root, brings all to the disk and gives the store its name. Answers its bytes.
    pub(super) fn publish(mut self, staging: Staging, attributes: &Attributes) -> Result<u64> {
        let members = std::mem::take(&mut self.members);
        let root = json!({
            "zarr_format": 3, "node_type": "group", "attributes": attributes,
            "consolidated_metadata": {
                "kind": "inline", "must_understand": false, "metadata": members,
            },
        });
        self.append("zarr.json", text(&root)?.as_bytes())?;
        staging.publish()?;
        Ok(self.bytes)
    }
}

fn text(metadata: &Value) -> Result<String> {
    serde_json::to_string_pretty(metadata)
        .map_err(|e| Error::internal(format!("metadata is no JSON: {e}")))
}

/// AnnData's two attributes of every element.
pub(super) fn encoding(kind: &str, version: &str) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert("encoding-type".to_owned(), kind.into());
    attributes.insert("encoding-version".to_owned(), version.into());
    attributes
}

/// Why a name cannot be that of a member, if so: names are those of files.
pub(super) fn refused_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a member of a Zarr group needs a name"),
        "." | ".." | "zarr.json" => Some("a member of a Zarr group cannot have this name"),
        _ if name.contains(['/', '\0']) => {
            Some("the name of a member of a Zarr group cannot have a slash or a zero byte in it")
        }
        _ if name.len() > 255 => {
            Some("the name is longer than 255 bytes, which file systems refuse")
        }
        _ => None,
    }
}
