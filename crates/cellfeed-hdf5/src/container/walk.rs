//! For tests: everything that a container gives, collected in a comparable form.

use std::collections::BTreeMap;

use cellfeed_core::{ErrorKind, Result};

use super::{
    AttributeValue, Attributes, ChunkTable, Container, Dataset, ElementType, Node, Storage,
};

/// How far a walk goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Groups inside groups.
    pub(crate) depth: usize,
    pub(crate) nodes: usize,
    /// Datasets up to this many bytes are read, whole; of longer ones, the first rows.
    pub(crate) bytes: u64,
}

impl Reach {
    pub(crate) const WHOLE: Self = Self { depth: 16, nodes: 100_000, bytes: 1 << 20 };
}

/// A result, its error as kind and message.
pub(crate) type Seen<T> = std::result::Result<T, (ErrorKind, String)>;

fn seen<T>(result: Result<T>) -> Seen<T> {
    result.map_err(|e| (e.kind(), e.to_string()))
}

/// What was found at one path.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) node: Seen<Node>,
    pub(crate) chunks: Option<Seen<ChunkTable>>,
    /// By field; the empty name is the whole element.
    pub(crate) raw: BTreeMap<String, Seen<Vec<u8>>>,
    pub(crate) strings: BTreeMap<String, Seen<Vec<String>>>,
}

impl Found {
    /// Every error.
    pub(crate) fn errors(&self) -> Vec<(ErrorKind, String)> {
        let mut errors = Vec::new();
        errors.extend(self.node.as_ref().err().cloned());
        errors.extend(self.chunks.as_ref().and_then(|c| c.as_ref().err()).cloned());
        errors.extend(self.raw.values().filter_map(|r| r.as_ref().err()).cloned());
        errors.extend(self.strings.values().filter_map(|r| r.as_ref().err()).cloned());
        errors
    }
}

/// Reads everything from the root group on.
pub(crate) fn walk(container: &dyn Container, reach: Reach) -> BTreeMap<String, Found> {
    let mut all = BTreeMap::new();
    let mut todo = vec![(String::new(), 0)];
    while let Some((path, depth)) = todo.pop() {
        if all.len() >= reach.nodes {
            break;
        }
        let node = seen(container.node(&path));
        let mut found = Found {
            node: node.clone(),
            chunks: None,
            raw: BTreeMap::new(),
            strings: BTreeMap::new(),
        };
        match node {
            Ok(Node::Group(group)) if depth < reach.depth => {
                for name in &group.members {
                    todo.push((format!("{path}/{name}"), depth + 1));
                }
            }
            Ok(Node::Dataset(dataset)) => read(container, &path, &dataset, reach, &mut found),
            _ => {}
        }
        all.insert(if path.is_empty() { "/".to_owned() } else { path }, found);
    }
    all
}

fn read(container: &dyn Container, path: &str, dataset: &Dataset, reach: Reach, found: &mut Found) {
    if matches!(dataset.storage, Storage::Chunked { .. }) {
        found.chunks = Some(seen(container.chunk_table(path)));
    }
    let row = dataset.elements_per_row().unwrap_or(u64::MAX).saturating_mul(dataset.element.size());
    let rows = 0..dataset.rows().min((reach.bytes / row.max(1)).max(1));
    let mut one = |name: &str, element: &ElementType| {
        let whole = name.is_empty();
        if element.is_string() {
            let strings = if whole {
                container.read_strings(path, rows.clone())
            } else {
                container.read_compound_strings(path, name, rows.clone())
            };
            found.strings.insert(name.to_owned(), seen(strings));
        } else if element.plain_order().is_some() {
            let raw = if whole {
                container.read_raw(path, rows.clone())
            } else {
                container.read_compound_raw(path, name, rows.clone())
            };
            found.raw.insert(name.to_owned(), seen(raw));
        }
    };
    match &dataset.element {
        ElementType::Compound { fields, .. } => {
            for field in fields.iter().take(64) {
                one(&field.name, &field.element);
            }
        }
        element => one("", element),
    }
}

/// Differences between two walks of the same file, in words. What only one of them could read is
/// none.
pub(crate) fn differences(a: &BTreeMap<String, Found>, b: &BTreeMap<String, Found>) -> Vec<String> {
    let mut out = Vec::new();
    for path in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
        let (Some(x), Some(y)) = (a.get(path), b.get(path)) else {
            out.push(format!("{path}: seen by one reader only"));
            continue;
        };
        match (&x.node, &y.node) {
            (Ok(Node::Group(g)), Ok(Node::Group(h))) => {
                if g.members != h.members {
                    out.push(format!("{path}: members {:?} and {:?}", g.members, h.members));
                }
                attributes(path, &g.attributes, &h.attributes, &mut out);
            }
            (Ok(Node::Dataset(d)), Ok(Node::Dataset(e))) => {
                datasets(path, d, e, &mut out);
                attributes(path, &d.attributes, &e.attributes, &mut out);
            }
            (Err(_), Err(_)) => {}
            (Err((ErrorKind::Unsupported, _)), Ok(_))
            | (Ok(_), Err((ErrorKind::Unsupported, _))) => {}
            (m, n) => out.push(format!("{path}: {m:?} and {n:?}")),
        }
        if let (Some(Ok(c)), Some(Ok(d))) = (&x.chunks, &y.chunks)
            && c != d
        {
            out.push(format!("{path}: the chunk tables differ"));
        }
        for (field, r) in &x.raw {
            if let (Ok(r), Some(Ok(s))) = (r, y.raw.get(field))
                && r != s
            {
                out.push(format!("{path} {field}: the elements differ"));
            }
        }
        for (field, r) in &x.strings {
            if let (Ok(r), Some(Ok(s))) = (r, y.strings.get(field))
                && r != s
            {
                out.push(format!("{path} {field}: the strings differ"));
            }
        }
    }
    out
}

fn datasets(path: &str, d: &Dataset, e: &Dataset, out: &mut Vec<String>) {
    if d.shape != e.shape {
        out.push(format!("{path}: shapes {:?} and {:?}", d.shape, e.shape));
    }
    if !same_element(&d.element, &e.element) {
        out.push(format!("{path}: elements {:?} and {:?}", d.element, e.element));
    }
    let storage = match (&d.storage, &e.storage) {
        // The reference library does not tell the stored size.
        (Storage::Contiguous { offset: m, .. }, Storage::Contiguous { offset: n, .. }) => m == n,
        (m, n) => m == n,
    };
    if !storage {
        out.push(format!("{path}: storage {:?} and {:?}", d.storage, e.storage));
    }
    let ids = |d: &Dataset| d.filters.iter().map(|f| f.id).collect::<Vec<_>>();
    if ids(d) != ids(e) {
        out.push(format!("{path}: filters {:?} and {:?}", d.filters, e.filters));
    }
    if let (Some(f), Some(g)) = (&d.fill, &e.fill)
        && f != g
    {
        out.push(format!("{path}: fill values {f:?} and {g:?}"));
    }
}

fn same_element(a: &ElementType, b: &ElementType) -> bool {
    match (a, b) {
        // Layout and words differ between the readers.
        (ElementType::Compound { fields: f, .. }, ElementType::Compound { fields: g, .. }) => {
            f.len() == g.len()
                && f.iter()
                    .zip(g)
                    .all(|(x, y)| x.name == y.name && same_element(&x.element, &y.element))
        }
        (ElementType::Other { .. }, ElementType::Other { .. })
        // The reference library's binding has no half precision in this build.
        | (ElementType::Float { bytes: 2, .. }, ElementType::Other { .. }) => true,
        _ => a == b,
    }
}

fn attributes(path: &str, a: &Attributes, b: &Attributes, out: &mut Vec<String>) {
    let names = |x: &Attributes| x.iter().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
    if names(a) != names(b) {
        out.push(format!("{path}: attributes {:?} and {:?}", names(a), names(b)));
    }
    for (name, v) in a.iter() {
        let same = match (v, b.get(name)) {
            (AttributeValue::Other(_), Some(AttributeValue::Other(_))) | (_, None) => true,
            (AttributeValue::Floats(x), Some(AttributeValue::Floats(y))) => {
                x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits())
            }
            (v, Some(w)) => v == w,
        };
        if !same {
            out.push(format!("{path}@{name}: {v:?} and {:?}", b.get(name)));
        }
    }
}
