//! Consolidated metadata as the listing of a store that cannot be listed, as behind a web server. Where
//! files can be listed the metadata beside each node is read, which cannot be stale.

use cellfeed_core::io::{ByteSource, Entry, Folder};
use cellfeed_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The longest metadata file that is read.
const LONGEST: u64 = 64 << 20;
/// Files that have nothing but metadata in them.
const NAMES: [&str; 4] = ["zarr.json", ".zarray", ".zgroup", ".zattrs"];

/// A folder whose groups and arrays are known by its consolidated metadata.
struct Consolidated {
    files: Arc<dyn Folder>,
    /// Metadata files by name.
    metadata: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Consolidated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consolidated").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The same folder, listed by its consolidated metadata if it cannot be otherwise.
///
/// # Errors
/// Of kind `Unsupported` if it has none; `Corrupt` if that is no such metadata.
pub(crate) fn listed(files: Arc<dyn Folder>) -> Result<Arc<dyn Folder>> {
    match files.list("") {
        Err(e) if files.is_far() && e.kind() == ErrorKind::Unsupported => {}
        // What fails otherwise fails again where it is wanted.
        _ => return Ok(files),
    }
    let parse = |name: &str| -> Result<Option<Map<String, Value>>> {
        let Some(text) = files.read(name, LONGEST)? else { return Ok(None) };
        let value = serde_json::from_slice(&text);
        value.map(Some).map_err(|e| {
            Error::corrupt("the metadata is no JSON object")
                .caused_by(e)
                .with("file", files.place(name))
        })
    };
    let mut metadata = BTreeMap::new();
    let mut add =
        |name: String, value: &Value| metadata.insert(name, value.to_string().into_bytes());
    if let Some(mut root) = parse("zarr.json")? {
        let Some(found) = root.remove("consolidated_metadata").filter(|found| !found.is_null())
        else {
            return Err(missing(&*files));
        };
        for (name, value) in members(&found, &files.place("zarr.json"))? {
            add(format!("{}/zarr.json", name.trim_matches('/')), value);
        }
        add("zarr.json".to_owned(), &Value::Object(root));
    } else {
        let Some(root) = parse(".zmetadata")? else { return Err(missing(&*files)) };
        for (name, value) in members(&Value::Object(root), &files.place(".zmetadata"))? {
            add(name.clone(), value);
        }
    }
    Ok(Arc::new(Consolidated { files, metadata }))
}

fn members<'a>(value: &'a Value, place: &str) -> Result<&'a Map<String, Value>> {
    value["metadata"].as_object().ok_or_else(|| {
        Error::corrupt("the consolidated metadata names no members").with("file", place)
    })
}

fn missing(files: &dyn Folder) -> Error {
    Error::unsupported(
        "a web server lists nothing, and this store has no consolidated metadata, which would name what \
         is in it: add it with zarr.consolidate_metadata, or read the store through s3://, gs:// or az://",
    )
    .with("file", files.location())
}

impl Consolidated {
    /// Metadata below a folder: names relative to it.
    fn below(&self, folder: &str) -> impl Iterator<Item = &str> {
        let start = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names = self.metadata.range(start.clone()..).map(|(name, _)| name.as_str());
        names.map_while(move |name| name.strip_prefix(start.as_str()))
    }

    fn is_metadata(name: &str) -> bool {
        NAMES.contains(&name.rsplit('/').next().unwrap_or_default())
    }
}

impl Folder for Consolidated {
    fn location(&self) -> &str {
        self.files.location()
    }

    fn place(&self, name: &str) -> String {
        self.files.place(name)
    }

    fn open(&self, name: &str) -> Result<Arc<dyn ByteSource>> {
        self.files.open(name)
    }

    fn look(&self, name: &str) -> Result<Option<Entry>> {
        if let Some(text) = self.metadata.get(name) {
            return Ok(Some(Entry::File(u64::try_from(text.len()).unwrap_or(u64::MAX))));
        }
        if Self::is_metadata(name) {
            return Ok(None);
        }
        if self.below(name).next().is_some() {
            return Ok(Some(Entry::Folder));
        }
        self.files.look(name)
    }

    fn list(&self, name: &str) -> Result<Vec<(String, Entry)>> {
        let mut found: Vec<(String, Entry)> = Vec::new();
        for member in self.below(name).filter_map(|name| Some(name.split_once('/')?.0)) {
            if found.last().is_none_or(|(last, _)| last != member) {
                found.push((member.to_owned(), Entry::Folder));
            }
        }
        Ok(found)
    }

    fn bytes_below(&self, name: &str) -> u64 {
        self.files.bytes_below(name)
    }

    fn is_far(&self) -> bool {
        self.files.is_far()
    }

    fn read(&self, name: &str, longest: u64) -> Result<Option<Vec<u8>>> {
        match self.metadata.get(name) {
            Some(text) => Ok(Some(text.clone())),
            None if Self::is_metadata(name) => Ok(None),
            None => self.files.read(name, longest),
        }
    }
}
