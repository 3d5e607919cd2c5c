//! What was read back beside what was given.

use super::Check;
use crate::compare::bits;
use crate::oracle::{Category, Oracle, OracleValues};
use arrow_array::Array;
use cellfeed_core::{
    ArrayValues, Attribute, Backend, ColumnKind, Element, Extras, MatrixKey, Node, Schema, Values,
};
use futures::executor::block_on;

/// Gives the oracle's values the types that the store chose, which must hold every one of them. Text
/// of which some is missing may have become categories: not every format has missing text.
pub(super) fn narrow(oracle: &mut Oracle, schema: &Schema) -> Check {
    for matrix in &mut oracle.matrices {
        let Some(stored) = schema.find(&matrix.key) else { continue };
        let to = stored.value_type;
        let cast = matrix.values.cast(to).map_err(|e| format!("{}: {e}", matrix.key))?;
        let back = cast.cast(matrix.values.value_type());
        let back = back.map_err(|e| format!("{}: stored as {to}: {e}", matrix.key))?;
        // An integer type has no sign for zero.
        let same = |(a, b): (u64, u64)| a == b;
        let zeros =
            |v: &Values| -> Vec<bool> { v.to_f64_vec().iter().map(|v| *v == 0.0).collect() };
        let pairs = bits(&matrix.values).into_iter().zip(bits(&back));
        let zeros = zeros(&matrix.values).into_iter().zip(zeros(&back));
        if !pairs.zip(zeros).all(|(pair, (a, b))| same(pair) || a && b) {
            return Err(format!("{}: stored as {to}, which cannot hold every value", matrix.key));
        }
        matrix.values = cast;
    }
    let raw = schema.find(&MatrixKey::Raw);
    let raw_var = raw.map_or(&[][..], |m| &m.var.columns);
    let tables = [
        ("obs", &mut oracle.obs, schema.obs.as_slice()),
        ("var", &mut oracle.var, schema.var.columns.as_slice()),
        ("raw/var", oracle.raw_var.get_or_insert_default(), raw_var),
    ];
    for (table, columns, stored) in tables {
        for column in columns {
            let kind = stored.iter().find(|c| c.name == column.name).map(|c| &c.kind);
            let (Some(ColumnKind::Categorical { categories, .. }), OracleValues::String(values)) =
                (kind, &column.values)
            else {
                continue;
            };
            if values.iter().all(Option::is_some) {
                return Err(format!("{table}/{}: text became categories", column.name));
            }
            let code = |text: &Option<String>| match text {
                None => Ok(None),
                Some(text) => match (0..).zip(categories.iter()).find(|(_, c)| *c == text) {
                    Some((code, _)) => Ok(Some(code)),
                    None => Err(format!("{table}/{}: there is no {text:?}", column.name)),
                },
            };
            column.values = OracleValues::Categorical {
                codes: values.iter().map(code).collect::<Check<_>>()?,
                categories: categories.iter().map(|c| Category::Text(c.clone())).collect(),
                ordered: false,
            };
        }
    }
    Ok(())
}

/// Whether the extras that the writer kept are there, and no others.
pub(super) fn extras(store: &dyn Backend, given: &Extras, has: &impl Fn(String) -> bool) -> Check {
    let kept: Vec<&(String, Element)> =
        given.elements.iter().filter(|(name, _)| has(name.clone())).collect();
    let Some(archive) = store.archive() else {
        return match kept.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name} was not dropped, but nothing reads it back")),
        };
    };
    let read = block_on(archive.read_extras(u64::MAX)).map_err(|e| format!("extras: {e}"))?;
    if let Some((path, why)) = read.left_out.first() {
        return Err(format!("{path} was written, but is not read back: {why}"));
    }
    for (name, want) in &kept {
        let got = read.elements.iter().find(|(n, _)| n == name);
        let (_, got) = got.ok_or_else(|| format!("{name} was written, but is not there"))?;
        same(name, want, got, has)?;
    }
    match read.elements.iter().find(|(n, _)| kept.iter().all(|(k, _)| k != n)) {
        None => Ok(()),
        Some((name, _)) => Err(format!("{name} is there, but was not written")),
    }
}

fn same(path: &str, want: &Element, got: &Element, has: &impl Fn(String) -> bool) -> Check {
    let differs = |want: String, got: String| Err(format!("{path}: expected {want}, got {got}"));
    let sorted = |e: &Element| {
        let mut attributes: Vec<(String, String)> =
            e.attributes.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
        attributes.sort();
        attributes
    };
    let (a, b) = (sorted(want), sorted(got));
    if a != b {
        return differs(format!("the attributes {a:?}"), format!("{b:?}"));
    }
    match (&want.node, &got.node) {
        (Node::Group(want), Node::Group(got)) => {
            let names = |members: &[(String, Element)]| {
                let kept = members.iter().map(|(n, _)| n.clone());
                let mut names: Vec<String> = kept.filter(|n| has(format!("{path}/{n}"))).collect();
                names.sort();
                names
            };
            let (a, b) = (names(want), names(got));
            if a != b {
                return differs(format!("the members {a:?}"), format!("{b:?}"));
            }
            for (name, want) in want.iter().filter(|(n, _)| a.contains(n)) {
                if let Some((_, got)) = got.iter().find(|(n, _)| n == name) {
                    same(&format!("{path}/{name}"), want, got, has)?;
                }
            }
            Ok(())
        }
        (Node::Array { shape: a, values: want }, Node::Array { shape: b, values: got }) => {
            if a != b {
                return differs(format!("the shape {a:?}"), format!("{b:?}"));
            }
            let (a, b) = (list(want), list(got));
            if a == b { Ok(()) } else { differs(a, b) }
        }
        _ => Err(format!("{path}: a group was written and an array read, or the other way round")),
    }
}

/// Numbers of one value and lists of one are the same to formats that know only arrays.
fn shown(attribute: &Attribute) -> String {
    match attribute {
        Attribute::Integer(v) => format!("{:?}", [v]),
        Attribute::Float(v) => format!("{:?}", [v]),
        Attribute::Integers(v) => format!("{v:?}"),
        Attribute::Floats(v) => format!("{v:?}"),
        other => format!("{other:?}"),
    }
}

fn list(values: &ArrayValues) -> String {
    match values {
        ArrayValues::Numbers(v) => format!("{} {:?}", v.value_type(), bits(v)),
        ArrayValues::Bools(v) => format!("{v:?}"),
        ArrayValues::Texts(v) => {
            let texts: Vec<Option<&str>> =
                (0..v.len()).map(|i| v.is_valid(i).then(|| v.value(i))).collect();
            format!("{texts:?}")
        }
        other => format!("{other:?}"),
    }
}
