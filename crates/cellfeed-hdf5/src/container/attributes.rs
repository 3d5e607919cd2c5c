//! Attributes: the little of HDF5's value zoo that AnnData uses, looked up by name and kind.

use std::collections::BTreeMap;

use cellfeed_core::{Error, Result};

/// The value of an attribute. Arrays of any rank are flattened; a scalar is a vector of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AttributeValue {
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    /// Text that is not UTF-8 has its bad bytes replaced.
    Strings(Vec<String>),
    Bool(bool),
    /// The absolute path of the object that it points to.
    Reference(String),
    /// What it is and why it is not one of the above.
    Other(String),
}

impl AttributeValue {
    fn kind(&self) -> &'static str {
        match self {
            Self::Integers(_) => "integers",
            Self::Floats(_) => "floats",
            Self::Strings(_) => "strings",
            Self::Bool(_) => "a boolean",
            Self::Reference(_) => "a reference",
            Self::Other(_) => "of another type",
        }
    }
}

/// The attributes of one object. Each lookup is `Ok(None)` when there is no such attribute and an
/// error when there is one of another kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Attributes(BTreeMap<String, AttributeValue>);

impl Attributes {
    /// The value, whatever its kind.
    pub(crate) fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// One string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<&str>> {
        self.find(name, "one string", |value| match value {
            AttributeValue::Strings(s) => match s.as_slice() {
                [one] => Some(one.as_str()),
                _ => None,
            },
            _ => None,
        })
    }

    /// Any number of strings.
    pub(crate) fn strings(&self, name: &str) -> Result<Option<&[String]>> {
        self.find(name, "strings", |value| match value {
            AttributeValue::Strings(s) => Some(s.as_slice()),
            // An empty list has no element type worth the name: writers choose floats.
            AttributeValue::Floats(f) if f.is_empty() => Some(&[]),
            AttributeValue::Integers(i) if i.is_empty() => Some(&[]),
            _ => None,
        })
    }

    /// Any number of integers.
    pub(crate) fn integers(&self, name: &str) -> Result<Option<&[i64]>> {
        self.find(name, "integers", |value| match value {
            AttributeValue::Integers(i) => Some(i.as_slice()),
            _ => None,
        })
    }

    /// A boolean; a single integer serves, zero being false.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.find(name, "a boolean", |value| match value {
            AttributeValue::Bool(b) => Some(*b),
            AttributeValue::Integers(i) => match i.as_slice() {
                [one] => Some(*one != 0),
                _ => None,
            },
            _ => None,
        })
    }

    /// The path that an object reference points to.
    pub(crate) fn reference(&self, name: &str) -> Result<Option<&str>> {
        self.find(name, "an object reference", |value| match value {
            AttributeValue::Reference(path) => Some(path.as_str()),
            _ => None,
        })
    }

    fn find<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        take: impl FnOnce(&'a AttributeValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match take(value) {
            Some(found) => Ok(Some(found)),
            None => {
                let why = match value {
                    AttributeValue::Other(why) => format!(" ({why})"),
                    _ => String::new(),
                };
                Err(Error::corrupt(format!(
                    "attribute {name:?} should be {wanted} and is {}{why}",
                    value.kind()
                )))
            }
        }
    }
}

impl FromIterator<(String, AttributeValue)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (String, AttributeValue)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}
