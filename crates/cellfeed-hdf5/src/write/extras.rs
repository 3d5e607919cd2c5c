//! `uns`, `obsm` and the like, written as they were read. What HDF5 has no place for is left out, with
//! the reason.

use super::chunked::{Stream, guess_chunk};
use super::elements::{Attribute as Out, Elements};
use super::frame::Strings;
use super::matrix::value_bytes;
use super::message::{Datatype, Extent};
use cellfeed_core::{ArrayValues, Attribute, Element, Error, ErrorKind, Node, Result};

/// Arrays of sparse matrices from this many bytes on are compressed as matrices are.
const PACKED_FROM: usize = 64 << 10;

/// Writes an element and all below it; `None` if it had to be left out, which `dropped` then says.
pub(super) fn write(
    elements: &mut Elements<'_>,
    path: &str,
    element: &Element,
    dropped: &mut Vec<(String, String)>,
) -> Result<Option<u64>> {
    match try_write(elements, path, element, dropped) {
        // The disk's errors are everybody's; these are about the element alone.
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => {
            dropped.push((path.to_owned(), e.message().to_owned()));
            Ok(None)
        }
        other => other,
    }
}

fn try_write(
    elements: &mut Elements<'_>,
    path: &str,
    element: &Element,
    dropped: &mut Vec<(String, String)>,
) -> Result<Option<u64>> {
    let texts = owned_texts(&element.attributes);
    let attributes = attributes(&element.attributes, &texts);
    let kind = element.text("encoding-type").unwrap_or("");
    match &element.node {
        Node::Group(members) => {
            let mut links = Vec::with_capacity(members.len());
            for (name, member) in members {
                let below = format!("{path}/{name}");
                if name.is_empty() || name == "." || name.contains(['/', '\0']) {
                    dropped
                        .push((below, "no member of an HDF5 group can have this name".to_owned()));
                    continue;
                }
                let written = write(elements, &below, member, dropped)?;
                links.extend(written.map(|address| (name.as_str(), address)));
            }
            // Dictionaries may lose a member, other groups are nothing without.
            if links.len() < members.len() && !matches!(kind, "" | "dict") {
                dropped.push((path.to_owned(), "a part of it could not be written".to_owned()));
                return Ok(None);
            }
            links.sort_unstable();
            elements.plain_group(&attributes, &links).map(Some)
        }
        Node::Array { shape, values } => {
            let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            if count != u64::try_from(values.len()).ok() || shape.len() > 32 {
                return Err(Error::invalid_input(format!(
                    "{} values do not make an array of shape {shape:?}",
                    values.len()
                )));
            }
            let extent = match shape.as_slice() {
                _ if kind == "null" => Extent::Null,
                [] => Extent::Scalar,
                _ => Extent::Shape(shape.clone()),
            };
            array(elements, &extent, &attributes, values).map(Some)
        }
        _ => Err(Error::unsupported("it is neither a group nor an array")),
    }
}

fn array(
    elements: &mut Elements<'_>,
    extent: &Extent,
    attributes: &[(&str, Out<'_>)],
    values: &ArrayValues,
) -> Result<u64> {
    let len = values.len();
    match values {
        ArrayValues::Numbers(numbers) => {
            let bytes = value_bytes(numbers)?;
            let value_type = numbers.value_type();
            // A chunked dataset has no place for attributes here; sparse matrices' have none.
            let flat = matches!(extent, Extent::Shape(shape) if shape.len() == 1);
            if flat && attributes.is_empty() && bytes.len() >= PACKED_FROM {
                let chunk = guess_chunk(len as u64, value_type.size());
                let mut stream = Stream::new(value_type, chunk, elements.packing)?;
                for part in bytes.chunks(elements.packing.batch.next_multiple_of(8)) {
                    stream.grow(part.len() / value_type.size()).copy_from_slice(part);
                    if stream.is_ripe() {
                        stream.write_ripe(elements.sink)?;
                    }
                }
                return stream.finish(elements.sink);
            }
            let address = elements.sink.append_aligned(&[])?;
            elements.sink.append(bytes)?;
            elements.dataset(Datatype::Number(value_type), extent, attributes, address, len)
        }
        ArrayValues::Bools(bools) => {
            let address = elements.sink.append_aligned(&[])?;
            let bytes: Vec<u8> = bools.iter().map(|&b| b.into()).collect();
            elements.sink.append(&bytes)?;
            elements.dataset(Datatype::Bool, extent, attributes, address, len)
        }
        ArrayValues::Texts(texts) => {
            let text = |row: usize, out: &mut String| {
                if !arrow_array::Array::is_null(texts, row) {
                    out.push_str(texts.value(row));
                }
            };
            let address = elements.string_references(&Strings::with(text), len)?;
            elements.dataset(Datatype::String, extent, attributes, address, len)
        }
        _ => Err(Error::unsupported("values of this kind are not written")),
    }
}

/// The texts of lists, which attributes borrow.
fn owned_texts(attributes: &[(String, Attribute)]) -> Vec<Vec<&str>> {
    attributes
        .iter()
        .map(|(_, value)| match value {
            Attribute::Texts(texts) => texts.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        })
        .collect()
}

fn attributes<'a>(
    attributes: &'a [(String, Attribute)],
    texts: &'a [Vec<&'a str>],
) -> Vec<(&'a str, Out<'a>)> {
    let one = |((name, value), texts): (&'a (String, Attribute), &'a Vec<&'a str>)| {
        let value = match value {
            Attribute::Bool(v) => Out::Bool(*v),
            Attribute::Integer(v) => Out::Integer(*v),
            Attribute::Float(v) => Out::Float(*v),
            Attribute::Text(v) => Out::String(v),
            Attribute::Integers(v) => Out::Integers(v),
            Attribute::Floats(v) => Out::Floats(v),
            Attribute::Texts(_) => Out::Strings(texts),
            _ => return None,
        };
        Some((name.as_str(), value))
    };
    attributes.iter().zip(texts).filter_map(one).collect()
}
