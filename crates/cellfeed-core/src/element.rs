//! What AnnData stores beside matrices, obs and var (`uns`, `obsm`, `varm`, `obsp`, `varp`), as a
//! tree of elements that HDF5 and Zarr share. Nothing in Cellfeed interprets it; conversion carries
//! it over.

use crate::value::Values;
use arrow_array::StringArray;

/// A value of an attribute.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Attribute {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

/// The values of an array element, in row-major order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ArrayValues {
    /// Numbers.
    Numbers(Values),
    /// Truth values.
    Bools(Vec<bool>),
    /// Text; missing values are nulls.
    Texts(StringArray),
}

impl ArrayValues {
    /// How many values.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Bools(values) => values.len(),
            Self::Texts(values) => arrow_array::Array::len(values),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A group or an array.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Node {
    /// Members by name, in the store's order.
    Group(Vec<(String, Element)>),
    /// An array of any number of dimensions; none for a scalar.
    Array {
        /// Length of each dimension.
        shape: Vec<u64>,
        /// As many values as the product of `shape`.
        values: ArrayValues,
    },
}

/// A group or an array with its attributes, `encoding-type` and `encoding-version` among them, as
/// AnnData writes them: a sparse matrix, for example, is a group with the attribute `shape` and the
/// members `data`, `indices` and `indptr`; a data frame a group with a member a column.
#[derive(Debug, Clone)]
pub struct Element {
    /// Attributes, in the store's order.
    pub attributes: Vec<(String, Attribute)>,
    /// What it is.
    pub node: Node,
}

impl Element {
    /// An attribute that is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).and_then(|(_, value)| match value {
            Attribute::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The element at a path of member names below this one, as `neighbors/params`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Self> {
        let (first, rest) = path.split_once('/').map_or((path, None), |(a, b)| (a, Some(b)));
        let Node::Group(members) = &self.node else { return None };
        let (_, found) = members.iter().find(|(name, _)| name == first)?;
        rest.map_or(Some(found), |rest| found.get(rest))
    }
}

/// Everything of a store but matrices, obs and var.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Top-level elements by name: `uns`, `obsm`, `varm`, `obsp`, `varp`, in the store's order; empty
    /// ones are left out.
    pub elements: Vec<(String, Element)>,
    /// Paths of what could not be had, and why.
    pub left_out: Vec<(String, String)>,
}
