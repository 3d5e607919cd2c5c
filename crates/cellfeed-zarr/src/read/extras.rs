//! What a store holds beside matrices, obs and var, as a tree of elements.
//!
//! First the tree is described from metadata alone: so what is too large, or of a kind that is not
//! carried over, is known before memory is taken for it. Then the arrays are read, one by one.

use super::array::Array;
use super::{Context, as_u64};
use crate::meta::array::ArrayMeta;
use crate::meta::dtype::Kind;
use crate::meta::{Node, join, members, node};
use arrow_array::StringArray;
use bytes::Bytes;
use cellfeed_core::{
    ArrayValues, Attribute, Element, Error, ErrorKind, Extras, Node as Tree, Result, Values,
};
use futures::future::{BoxFuture, FutureExt};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::Arc;

/// The groups that are read.
const GROUPS: [&str; 5] = ["uns", "obsm", "varm", "obsp", "varp"];
/// Other members of an AnnData group that are known, and read elsewhere.
const ELSEWHERE: [&str; 5] = ["X", "layers", "obs", "var", "raw"];
/// Groups in groups, and elements in all: no sane store has more.
const DEPTH: usize = 64;
const ELEMENTS: usize = 1 << 20;

/// So much an array may say whatever its files have: all that is read together has a limit besides.
const VOUCHED: u64 = 1 << 30;

/// A described element, by its path below the AnnData group.
struct Plan {
    path: String,
    attributes: Vec<(String, Attribute)>,
    node: PlanNode,
    /// What its arrays take in memory.
    bytes: u64,
}

enum PlanNode {
    Group(Vec<(String, Plan)>),
    Array(Arc<Array>),
}

impl Plan {
    /// A dictionary may lose a member; other groups are nothing without.
    fn is_dict(&self) -> bool {
        matches!(self.node, PlanNode::Group(_)) && kind(&self.attributes) == "dict"
    }

    /// What is kept or left out as a whole.
    fn units<'a>(&'a self, out: &mut Vec<&'a Self>) {
        match &self.node {
            PlanNode::Group(members) if self.is_dict() => {
                members.iter().for_each(|(_, member)| member.units(out));
            }
            _ => out.push(self),
        }
    }
}

struct Planner<'a> {
    context: &'a Context,
    at: &'a str,
    left_out: Vec<(String, String)>,
    elements: usize,
}

/// Reads all of the AnnData group at `at` that takes at most `limit` bytes.
pub(crate) async fn read_extras(context: &Context, at: &str, limit: u64) -> Result<Extras> {
    let (owned, group) = (context.clone(), at.to_owned());
    let describe = move || {
        let mut planner =
            Planner { context: &owned, at: &group, left_out: Vec::new(), elements: 0 };
        let tops = planner.top()?;
        Ok((tops, planner.left_out))
    };
    let (tops, mut left_out) = context.engine.blocking(describe).await?;
    let dropped = beyond(&tops, limit, &mut left_out);
    let mut elements = Vec::with_capacity(tops.len());
    for plan in tops {
        let name = plan.path.clone();
        match build(context, plan, false, &dropped, &mut left_out).await? {
            Some(Element { node: Tree::Group(members), .. }) if members.is_empty() => {}
            element => elements.extend(element.map(|e| (name, e))),
        }
    }
    Ok(Extras { elements, left_out })
}

/// Names of what there is, which is not looked into.
pub(crate) async fn extra_names(context: &Context, at: &str) -> Result<Vec<String>> {
    let (owned, group) = (context.clone(), at.to_owned());
    let list = move || {
        let planner = Planner { context: &owned, at: &group, left_out: Vec::new(), elements: 0 };
        let mut names = Vec::new();
        for name in planner.members("")? {
            let name = if name == "raw" { "raw/varm".to_owned() } else { name };
            // What cannot be looked at is there all the same.
            let is_node = || !matches!(planner.node(&name), Ok(None));
            let has_members = || planner.members(&name).map_or(true, |members| !members.is_empty());
            if !ELSEWHERE.contains(&name.as_str()) && is_node() && has_members() {
                names.push(name);
            }
        }
        Ok(names)
    };
    context.engine.blocking(list).await
}

/// Paths of what is left out, the largest first, until the rest fits.
fn beyond(tops: &[Plan], limit: u64, left_out: &mut Vec<(String, String)>) -> HashSet<String> {
    let mut units = Vec::new();
    tops.iter().for_each(|plan| plan.units(&mut units));
    units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
    let mut total = units.iter().fold(0u128, |n, unit| n + u128::from(unit.bytes));
    let mut dropped = HashSet::new();
    for unit in units.into_iter().take_while(|unit| unit.bytes > 0) {
        if total <= u128::from(limit) {
            break;
        }
        total -= u128::from(unit.bytes);
        let why = format!("it takes {} bytes, more than are to be carried over", unit.bytes);
        left_out.push((unit.path.clone(), why));
        dropped.insert(unit.path.clone());
    }
    dropped
}

fn may_be_left_out(error: &Error) -> bool {
    let cause = std::error::Error::source(error);
    // Text in another encoding was written so, and is no damage.
    let other_text =
        cause.is_some_and(<dyn std::error::Error + 'static>::is::<std::str::Utf8Error>);
    error.kind() == ErrorKind::Unsupported || other_text
}

impl Planner<'_> {
    fn node(&self, path: &str) -> Result<Option<Node>> {
        node(&*self.context.files, &join(self.at, path))
    }

    fn members(&self, path: &str) -> Result<Vec<String>> {
        let path = if path.is_empty() { self.at.to_owned() } else { join(self.at, path) };
        members(&*self.context.files, &path)
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        self.left_out.push((path.to_owned(), why.to_owned()));
    }

    fn top(&mut self) -> Result<Vec<Plan>> {
        let mut tops = Vec::new();
        for name in self.members("")? {
            if GROUPS.contains(&name.as_str()) {
                tops.extend(self.describe(&name, false, 0)?);
            } else if name == "raw" {
                if self.node("raw/varm")?.is_some() && !self.members("raw/varm")?.is_empty() {
                    self.leave_out("raw/varm", "of raw, only X and var are kept");
                }
            } else if !ELSEWHERE.contains(&name.as_str()) && self.node(&name)?.is_some() {
                self.leave_out(&name, "it is no part of AnnData");
            }
        }
        Ok(tops)
    }

    /// Describes an element, unless there is none; `inside` of a group that is kept or left out whole.
    fn describe(&mut self, path: &str, inside: bool, depth: usize) -> Result<Option<Plan>> {
        self.elements += 1;
        if depth > DEPTH || self.elements > ELEMENTS {
            return Err(Error::corrupt("groups are nested without an end").with("element", path));
        }
        let Some(found) = self.node(path)? else {
            return Ok(None);
        };
        let described = match &found.array {
            Some(_) => self.array(path, &found, inside).map(Some),
            None => self.group(path, &found, inside, depth).map(Some),
        };
        match described {
            Err(e) if !inside && may_be_left_out(&e) => {
                self.leave_out(path, e.message());
                Ok(None)
            }
            other => other,
        }
    }

    fn group(&mut self, path: &str, found: &Node, inside: bool, depth: usize) -> Result<Plan> {
        let mut attributes = self.attributes(path, &found.attributes);
        if !inside && kind(&attributes).is_empty() {
            attributes.extend(encoding("dict", "0.1.0"));
        }
        let names = self.members(path)?;
        if kind(&attributes) == "dataframe" && names.iter().any(|m| m == "__categories") {
            return Err(Error::unsupported(
                "a data frame of anndata 0.7, whose categories are kept apart, is not carried over",
            ));
        }
        let inside = inside || kind(&attributes) != "dict";
        let mut plans = Vec::with_capacity(names.len());
        for name in names {
            let below = self.describe(&format!("{path}/{name}"), inside, depth + 1)?;
            plans.extend(below.map(|plan| (name, plan)));
        }
        let bytes = plans.iter().fold(0u64, |n, (_, plan)| n.saturating_add(plan.bytes));
        Ok(Plan { path: path.to_owned(), attributes, node: PlanNode::Group(plans), bytes })
    }

    fn array(&mut self, path: &str, found: &Node, inside: bool) -> Result<Plan> {
        if found.attributes.contains_key("categories") {
            return Err(Error::unsupported(
                "a column of anndata 0.7, whose categories are kept apart, is not carried over",
            ));
        }
        let mut array = Array::new(ArrayMeta::new(found)?);
        if let Kind::Record(_) = array.meta.kind {
            return Err(Error::unsupported("a table of records is not carried over"));
        }
        array.vouched = array.says() <= VOUCHED;
        // What takes more is not taken for damage of the whole store.
        array.measure(self.context).map_err(|e| Error::unsupported(e.message().to_owned()))?;
        // From here on it is the limit that says how much memory there is.
        array.vouched = true;
        let text = matches!(array.meta.kind, Kind::Text | Kind::Fixed(_) | Kind::Bytes(_));
        let mut attributes = self.attributes(path, &found.attributes);
        if !inside && kind(&attributes).is_empty() {
            attributes.extend(match (text, array.meta.shape.is_empty()) {
                (true, true) => encoding("string", "0.2.0"),
                (true, false) => encoding("string-array", "0.2.0"),
                (false, true) => encoding("numeric-scalar", "0.2.0"),
                (false, false) => encoding("array", "0.2.0"),
            });
        }
        let width = array.meta.kind.size().map_or(32, as_u64);
        let bytes = array.meta.len().saturating_mul(width);
        let node = PlanNode::Array(Arc::new(array));
        Ok(Plan { path: path.to_owned(), attributes, node, bytes })
    }

    fn attributes(&mut self, path: &str, all: &Map<String, Value>) -> Vec<(String, Attribute)> {
        let mut out = Vec::with_capacity(all.len());
        for (name, value) in all {
            match attribute(name, value) {
                Some(value) => out.push((name.clone(), value)),
                None => {
                    self.leave_out(&format!("{path}@{name}"), "an attribute of another type");
                }
            }
        }
        out
    }
}

fn attribute(name: &str, value: &Value) -> Option<Attribute> {
    Some(match value {
        Value::Bool(v) => Attribute::Bool(*v),
        Value::String(v) => Attribute::Text(v.clone()),
        Value::Number(v) => match v.as_i64() {
            Some(v) => Attribute::Integer(v),
            None => Attribute::Float(v.as_f64()?),
        },
        Value::Array(list) => {
            let texts: Option<Vec<String>> =
                list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
            let integers: Option<Vec<i64>> = list.iter().map(Value::as_i64).collect();
            // A list of columns is one of texts also where it has no member.
            match (texts, integers) {
                (Some(texts), None) => Attribute::Texts(texts),
                (Some(texts), _) if name == "column-order" => Attribute::Texts(texts),
                (_, Some(integers)) => Attribute::Integers(integers),
                (None, None) => {
                    Attribute::Floats(list.iter().map(Value::as_f64).collect::<Option<_>>()?)
                }
            }
        }
        Value::Null | Value::Object(_) => return None,
    })
}

fn encoding(kind: &str, version: &str) -> Vec<(String, Attribute)> {
    [("encoding-type", kind), ("encoding-version", version)]
        .map(|(name, value)| (name.to_owned(), Attribute::Text(value.to_owned())))
        .to_vec()
}

fn kind(attributes: &[(String, Attribute)]) -> &str {
    match attributes.iter().find(|(name, _)| name == "encoding-type") {
        Some((_, Attribute::Text(kind))) => kind,
        _ => "",
    }
}

/// Reads what a plan describes; none if it is left out.
fn build<'a>(
    context: &'a Context,
    plan: Plan,
    inside: bool,
    dropped: &'a HashSet<String>,
    left_out: &'a mut Vec<(String, String)>,
) -> BoxFuture<'a, Result<Option<Element>>> {
    async move {
        let dict = plan.is_dict();
        if !inside && !dict && dropped.contains(&plan.path) {
            return Ok(None);
        }
        let Plan { path, attributes, node, .. } = plan;
        let node = match node {
            PlanNode::Group(members) => {
                let mut kept = Vec::with_capacity(members.len());
                let mut failed = None;
                for (name, member) in members {
                    match build(context, member, inside || !dict, dropped, left_out).await {
                        Ok(element) => kept.extend(element.map(|e| (name, e))),
                        Err(e) => {
                            failed = Some(e);
                            break;
                        }
                    }
                }
                failed.map_or(Ok(Tree::Group(kept)), Err)
            }
            PlanNode::Array(array) => read_array(context, &array).await.map_err(|e| array.blame(e)),
        };
        match node {
            Ok(node) => Ok(Some(Element { attributes, node })),
            Err(e) if !inside && may_be_left_out(&e) => {
                left_out.push((path, e.message().to_owned()));
                Ok(None)
            }
            Err(e) => Err(e.with_default("file", context.files.location())),
        }
    }
    .boxed()
}

async fn read_array(context: &Context, array: &Arc<Array>) -> Result<Tree> {
    let values = match array.meta.kind {
        Kind::Text | Kind::Fixed(_) | Kind::Bytes(_) => {
            let texts = array.read_text(context).await?;
            let build = move || {
                if texts.iter().map(String::len).sum::<usize>() > super::parts::MOST {
                    return Err(Error::unsupported("it has more than 2 GiB of text"));
                }
                Ok(StringArray::from_iter_values(texts))
            };
            ArrayValues::Texts(context.engine.compute(build).await?)
        }
        Kind::Record(_) => return Err(Error::internal("a table of records")),
        Kind::Bool => {
            let bytes = array.read_all(context).await?;
            ArrayValues::Bools(bytes.iter().map(|&b| b != 0).collect())
        }
        Kind::Number(t) => {
            let bytes = array.read_all(context).await?;
            ArrayValues::Numbers(Values::from_bytes(t, Bytes::from(bytes))?)
        }
    };
    Ok(Tree::Array { shape: array.meta.shape.clone(), values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_in_another_encoding_is_left_out_and_damage_is_not() {
        let latin = [1, 0, 0, 0, 1, 0, 0, 0, 0xe9];
        let error = super::super::text::texts(&latin, 1, 1).unwrap_err();
        assert!(may_be_left_out(&error), "{error}");
        assert!(may_be_left_out(&error.with("element", "uns/x")));
        let error = super::super::text::fixed(Kind::Bytes(1), &[0xe9]).unwrap_err();
        assert!(may_be_left_out(&error), "{error}");
        let short = super::super::text::texts(&latin[..8], 1, 1).unwrap_err();
        assert!(!may_be_left_out(&short), "{short}");
        assert!(!may_be_left_out(&Error::corrupt("a text is not UTF-8: so it says")));
    }
}
