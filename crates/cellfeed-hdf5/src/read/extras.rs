//! What a file holds beside matrices, obs and var, as a tree of elements.
//!
//! First the tree is described, without reading any values: so what is too large, or of a kind that is
//! not carried over, is known before memory is taken for it. Then the arrays are read, one by one.

use super::array::{Context, StoredArray};
use super::convert::Convert;
use super::index;
use crate::container::{
    AttributeValue, Attributes, Dataset, ElementType, Group, Node, Storage, guard,
};
use crate::layout::{join, value_type};
use arrow_array::StringArray;
use cellfeed_core::{
    ArrayValues, Attribute, Element, Error, ErrorKind, Extras, Node as Tree, Result, Values,
};
use std::sync::Arc;

/// The groups that are read.
const GROUPS: [&str; 5] = ["uns", "obsm", "varm", "obsp", "varp"];
/// Other members of the root that are known, and read elsewhere or not at all.
const ELSEWHERE: [&str; 8] = ["X", "layers", "obs", "var", "raw", "raw.X", "raw.var", "raw.varm"];
/// Groups in groups, and elements in all: no sane file has more.
const DEPTH: usize = 64;
const ELEMENTS: usize = 1 << 20;
/// Values read at once, in bytes.
const WINDOW: u64 = 32 << 20;
/// How many times larger than the file an array may be: deflate reaches 1,032.
const RATIO: u64 = 1100;

/// A described element.
#[derive(Debug)]
struct Plan {
    attributes: Vec<(String, Attribute)>,
    node: PlanNode,
}

#[derive(Debug)]
enum PlanNode {
    Group(Vec<(String, Plan)>),
    /// An array, by its place in the list of arrays.
    Array(usize),
}

/// An array to be read.
#[derive(Debug)]
struct Source {
    path: String,
    dataset: Dataset,
    /// The unit that it belongs to.
    unit: usize,
}

/// What is read or left out as a whole: an array, or a group that is more than a dictionary.
#[derive(Debug)]
struct Unit {
    path: String,
    bytes: u64,
    left_out: bool,
}

#[derive(Debug)]
struct Planner<'a> {
    context: &'a Context,
    /// Elements of `uns` that are the categories of columns of old files.
    categories: &'a [String],
    arrays: Vec<Source>,
    units: Vec<Unit>,
    left_out: Vec<(String, String)>,
    elements: usize,
}

/// Reads all of it that takes at most `limit` bytes. `categories` names elements of `uns` that obs
/// and var have taken.
pub(crate) async fn read_extras(
    context: &Context,
    root: &str,
    categories: Vec<String>,
    limit: u64,
) -> Result<Extras> {
    let (owned, root) = (context.clone(), root.to_owned());
    let plan = move || {
        guard::deep(|| {
            let mut planner = Planner {
                context: &owned,
                categories: &categories,
                arrays: Vec::new(),
                units: Vec::new(),
                left_out: Vec::new(),
                elements: 0,
            };
            let tops = planner.top(&root)?;
            planner.keep_within(limit);
            Ok((tops, planner.arrays, planner.units, planner.left_out))
        })?
    };
    let (tops, arrays, mut units, mut left_out) = context.engine.blocking(plan).await?;
    let mut values = Vec::with_capacity(arrays.len());
    for source in &arrays {
        if units[source.unit].left_out {
            values.push(None);
            continue;
        }
        match read_array(context, source).await {
            Ok(read) => values.push(Some(read)),
            Err(e) if may_be_left_out(&e) => {
                units[source.unit].left_out = true;
                left_out.push((source.path.clone(), crate::layout::reason(&e)));
                values.push(None);
            }
            Err(e) => return Err(context.blame(e, &source.path)),
        }
    }
    let build = Builder { arrays: &arrays, units: &units, values };
    Ok(build.extras(tops, left_out))
}

/// Names of what there is, which is not looked into; `taken` of uns is with obs and var.
pub(crate) async fn extra_names(
    context: &Context,
    root: &str,
    taken: Vec<String>,
) -> Result<Vec<String>> {
    let (owned, root) = (context.clone(), root.to_owned());
    let list = move || {
        let container = &owned.container;
        let Node::Group(top) = container.node(&root)? else { return Ok(Vec::new()) };
        // What cannot be looked at is there all the same.
        let has_members = |name: &str| match container.node(&join(&root, name)) {
            Ok(Node::Group(g)) => g.members.iter().any(|m| name != "uns" || !taken.contains(m)),
            _ => true,
        };
        let mut names = Vec::new();
        for name in top.members {
            if name == "raw" {
                let varm = container.node(&join(&root, "raw/varm"));
                if matches!(varm, Ok(Node::Group(varm)) if !varm.members.is_empty()) {
                    names.push("raw/varm".to_owned());
                }
            } else if !ELSEWHERE.contains(&name.as_str())
                && (!GROUPS.contains(&name.as_str()) || has_members(&name))
            {
                names.push(name);
            }
        }
        Ok(names)
    };
    context.engine.blocking(list).await
}

fn may_be_left_out(error: &Error) -> bool {
    error.kind() == ErrorKind::Unsupported || error.message().starts_with("a string is not UTF-8")
}

impl Planner<'_> {
    fn top(&mut self, root: &str) -> Result<Vec<(String, Plan)>> {
        let Node::Group(top) = self.context.container.node(root)? else { return Ok(Vec::new()) };
        let mut tops = Vec::new();
        for name in &top.members {
            let path = join(root, name);
            if GROUPS.contains(&name.as_str()) {
                match self.describe(&path, name, None, 0)? {
                    Some(plan) if matches!(&plan.node, PlanNode::Group(m) if m.is_empty()) => {}
                    plan => tops.extend(plan.map(|p| (name.clone(), p))),
                }
            } else if name == "raw" {
                if let Ok(Node::Group(varm)) = self.context.container.node(&join(&path, "varm"))
                    && !varm.members.is_empty()
                {
                    self.leave_out("raw/varm", "of raw, only X and var are kept");
                }
            } else if !ELSEWHERE.contains(&name.as_str()) {
                self.leave_out(name, "it is no part of AnnData");
            }
        }
        Ok(tops)
    }

    fn leave_out(&mut self, path: &str, why: impl Into<String>) {
        self.left_out.push((path.to_owned(), why.into()));
    }

    /// Describes an element. `name` is its path below the root; `unit` the unit that it is inside of.
    fn describe(
        &mut self,
        path: &str,
        name: &str,
        unit: Option<usize>,
        depth: usize,
    ) -> Result<Option<Plan>> {
        self.elements += 1;
        if depth > DEPTH || self.elements > ELEMENTS {
            let error = Error::corrupt("groups are nested without an end");
            return Err(self.context.blame(error, path));
        }
        let described = match self.context.container.node(path) {
            Ok(Node::Group(group)) => self.group(path, name, &group, unit, depth),
            Ok(Node::Dataset(dataset)) => self.array(path, name, dataset, unit),
            Err(e) => Err(e),
        };
        match described {
            Err(e) if unit.is_none() && may_be_left_out(&e) => {
                self.leave_out(name, crate::layout::reason(&e));
                Ok(None)
            }
            // A link that leads nowhere is as good as nothing.
            Err(e) if e.kind() == ErrorKind::NotFound && depth > 0 => {
                self.leave_out(name, "the link leads nowhere");
                Ok(None)
            }
            other => other,
        }
    }

    fn group(
        &mut self,
        path: &str,
        name: &str,
        group: &Group,
        unit: Option<usize>,
        depth: usize,
    ) -> Result<Option<Plan>> {
        let mut attributes = self.attributes(name, &group.attributes);
        let sparse = group.attributes.string("h5sparse_format").ok().flatten();
        if let Some(format) = sparse {
            // anndata 0.6 and before.
            let shape = group.attributes.integers("h5sparse_shape").ok().flatten();
            let shape = Attribute::Integers(shape.unwrap_or_default().to_vec());
            attributes = encoding(&format!("{format}_matrix"), "0.1.0");
            attributes.push(("shape".to_owned(), shape));
        } else if unit.is_none() && kind(&attributes).is_empty() {
            attributes.extend(encoding("dict", "0.1.0"));
        }
        let is_dict = kind(&attributes) == "dict";
        if kind(&attributes) == "dataframe" && group.members.iter().any(|m| m == "__categories") {
            return Err(Error::unsupported(
                "a data frame of anndata 0.7, whose categories are kept apart, is not carried over",
            ));
        }
        let first = self.units.len();
        let unit = match unit {
            None if !is_dict => {
                self.units.push(Unit { path: name.to_owned(), bytes: 0, left_out: false });
                Some(first)
            }
            unit => unit,
        };
        let mut members = Vec::with_capacity(group.members.len());
        for member in &group.members {
            let below = join(name, member);
            if name == "uns" && self.categories.contains(member) {
                continue;
            }
            // Dictionaries may lose a member, other groups are nothing without.
            let described = self.describe(&join(path, member), &below, unit, depth + 1)?;
            members.extend(described.map(|plan| (member.clone(), plan)));
        }
        Ok(Some(Plan { attributes, node: PlanNode::Group(members) }))
    }

    fn array(
        &mut self,
        path: &str,
        name: &str,
        dataset: Dataset,
        unit: Option<usize>,
    ) -> Result<Option<Plan>> {
        if dataset.attributes.get("categories").is_some() {
            return Err(Error::unsupported(
                "a column of anndata 0.7, whose categories are kept apart, is not carried over",
            ));
        }
        let width = match &dataset.element {
            ElementType::Bool => 1,
            element if element.is_string() => 32,
            ElementType::Compound { .. } => {
                return Err(Error::unsupported(
                    "a table of records (a compound array) is not carried over",
                ));
            }
            element => {
                value_type(element)?;
                element.size()
            }
        };
        let count = dataset.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
        let bytes = count.and_then(|n| n.checked_mul(width)).unwrap_or(u64::MAX);
        if bytes > self.context.source.len().saturating_mul(RATIO) {
            return Err(Error::corrupt(format!(
                "an array of shape {:?} takes more than a file of {} bytes can hold",
                dataset.shape,
                self.context.source.len()
            )));
        }
        let mut attributes = self.attributes(name, &dataset.attributes);
        if unit.is_none() && kind(&attributes).is_empty() {
            let scalar = dataset.shape.is_empty();
            attributes.extend(match (dataset.element.is_string(), scalar) {
                (true, true) => encoding("string", "0.2.0"),
                (true, false) => encoding("string-array", "0.2.0"),
                (false, true) => encoding("numeric-scalar", "0.2.0"),
                (false, false) => encoding("array", "0.2.0"),
            });
        }
        let unit = unit.unwrap_or_else(|| {
            self.units.push(Unit { path: name.to_owned(), bytes: 0, left_out: false });
            self.units.len() - 1
        });
        self.units[unit].bytes = self.units[unit].bytes.saturating_add(bytes);
        self.arrays.push(Source { path: path.to_owned(), dataset, unit });
        Ok(Some(Plan { attributes, node: PlanNode::Array(self.arrays.len() - 1) }))
    }

    fn attributes(&mut self, name: &str, attributes: &Attributes) -> Vec<(String, Attribute)> {
        let mut out = Vec::new();
        for (key, value) in attributes.iter() {
            // A list of columns is one also where it has one member or none.
            let list = key == "column-order";
            let value = match value {
                AttributeValue::Strings(v) => match v.as_slice() {
                    [one] if !list => Attribute::Text(one.clone()),
                    _ => Attribute::Texts(v.clone()),
                },
                AttributeValue::Floats(v) if list && v.is_empty() => Attribute::Texts(Vec::new()),
                AttributeValue::Integers(v) => match v.as_slice() {
                    [one] => Attribute::Integer(*one),
                    _ => Attribute::Integers(v.clone()),
                },
                AttributeValue::Floats(v) => match v.as_slice() {
                    [one] => Attribute::Float(*one),
                    _ => Attribute::Floats(v.clone()),
                },
                AttributeValue::Bool(v) => Attribute::Bool(*v),
                AttributeValue::Reference(_) | AttributeValue::Other(_) => {
                    self.leave_out(&format!("{name}@{key}"), "an attribute of another type");
                    continue;
                }
            };
            out.push((key.to_owned(), value));
        }
        out
    }

    /// Leaves the largest units out until the rest fits.
    fn keep_within(&mut self, limit: u64) {
        let mut total = self.units.iter().fold(0u64, |n, u| n.saturating_add(u.bytes));
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.units[i].bytes));
        for i in order {
            if total <= limit {
                return;
            }
            let unit = &mut self.units[i];
            unit.left_out = true;
            let why = format!("it takes {} bytes, more than are to be carried over", unit.bytes);
            let path = unit.path.clone();
            total = self.units.iter().filter(|u| !u.left_out).map(|u| u.bytes).sum();
            self.leave_out(&path, why);
        }
    }
}

fn encoding(kind: &str, version: &str) -> Vec<(String, Attribute)> {
    [("encoding-type", kind), ("encoding-version", version)]
        .map(|(name, value)| (name.to_owned(), Attribute::Text(value.to_owned())))
        .to_vec()
}

fn kind(attributes: &[(String, Attribute)]) -> &str {
    let found = attributes.iter().find(|(name, _)| name == "encoding-type");
    match found {
        Some((_, Attribute::Text(kind))) => kind,
        _ => "",
    }
}

/// The values of an array, in row-major order.
async fn read_array(context: &Context, source: &Source) -> Result<ArrayValues> {
    let Source { path, dataset, .. } = source;
    let count: u64 = dataset.shape.iter().product();
    if dataset.element.is_string() {
        let rows = if count == 0 { 0 } else { dataset.rows() };
        let (path, container) = (path.clone(), Arc::clone(&context.container));
        let window = (WINDOW / 32 / (count / rows.max(1)).max(1)).max(1);
        let work = move || {
            let mut texts = Vec::new();
            let mut at = 0;
            while at < rows {
                let end = (at + window).min(rows);
                texts.extend(container.read_strings(&path, at..end)?);
                at = end;
            }
            Ok(ArrayValues::Texts(StringArray::from_iter_values(texts)))
        };
        return context.engine.blocking(work).await;
    }
    let bytes = if count == 0 {
        bytes::Bytes::new()
    } else if let Some(flat) = flattened(dataset, count) {
        let array = StoredArray::open(context, path, &flat)?;
        array.read(context, std::slice::from_ref(&(0..count)), Convert::Keep).await?
    } else {
        read_rows(context, path, dataset, count).await?
    };
    if dataset.element == ElementType::Bool {
        return Ok(ArrayValues::Bools(bytes.iter().map(|&b| b != 0).collect()));
    }
    Ok(ArrayValues::Numbers(Values::from_bytes(value_type(&dataset.element)?, bytes)?))
}

/// The array as one of one dimension, where its values lie in that order.
fn flattened(dataset: &Dataset, count: u64) -> Option<Dataset> {
    let flat = match &dataset.storage {
        Storage::Contiguous { .. } => !dataset.shape.is_empty(),
        Storage::Chunked { .. } => dataset.shape.len() == 1,
        _ => false,
    };
    flat.then(|| Dataset { shape: vec![count], ..dataset.clone() })
}

/// Reads an array of several dimensions in windows of whole chunks.
async fn read_rows(
    context: &Context,
    path: &str,
    dataset: &Dataset,
    count: u64,
) -> Result<bytes::Bytes> {
    let (rows, total) = (dataset.rows(), count.saturating_mul(dataset.element.size()));
    let chunk = match &dataset.storage {
        Storage::Chunked { chunk_shape } => chunk_shape.first().copied().unwrap_or(1).max(1),
        _ => 1,
    };
    let row_bytes = (total / rows.max(1)).max(1);
    let window = (WINDOW / row_bytes / chunk).max(1).saturating_mul(chunk);
    let (path, container) = (path.to_owned(), Arc::clone(&context.container));
    let work = move || {
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < rows {
            let end = at.saturating_add(window).min(rows);
            bytes.extend(container.read_raw(&path, at..end)?);
            at = end;
        }
        if bytes.len() != index(total) {
            return Err(Error::corrupt(format!(
                "{total} bytes were expected, not {}",
                bytes.len()
            )));
        }
        Ok(bytes.into())
    };
    context.engine.blocking(work).await
}

struct Builder<'a> {
    arrays: &'a [Source],
    units: &'a [Unit],
    values: Vec<Option<ArrayValues>>,
}

impl Builder<'_> {
    fn extras(mut self, tops: Vec<(String, Plan)>, left_out: Vec<(String, String)>) -> Extras {
        let mut elements = Vec::with_capacity(tops.len());
        for (name, plan) in tops {
            match self.element(plan) {
                Some(Element { node: Tree::Group(members), .. }) if members.is_empty() => {}
                element => elements.extend(element.map(|e| (name, e))),
            }
        }
        Extras { elements, left_out }
    }

    /// The element, unless its unit is left out.
    fn element(&mut self, plan: Plan) -> Option<Element> {
        let Plan { attributes, node } = plan;
        let node = match node {
            PlanNode::Array(at) => {
                let values = self.values.get_mut(at).and_then(Option::take)?;
                if self.units[self.arrays[at].unit].left_out {
                    return None;
                }
                Tree::Array { shape: self.arrays[at].dataset.shape.clone(), values }
            }
            PlanNode::Group(members) => {
                let count = members.len();
                let dict = kind(&attributes) == "dict";
                let members: Vec<(String, Element)> = members
                    .into_iter()
                    .filter_map(|(name, plan)| self.element(plan).map(|e| (name, e)))
                    .collect();
                if !dict && members.len() < count {
                    return None;
                }
                Tree::Group(members)
            }
        };
        Some(Element { attributes, node })
    }
}
