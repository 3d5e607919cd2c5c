//! Metadata of an array, v2 or v3, in one form: shape, chunks, shards, codecs, names of files.

use super::dtype::{self, Kind};
use super::{Node, record};
use crate::codec::{self, Codec};
use cellfeed_core::{ArrayStorage, Error, Result};
use serde_json::Value;

/// The largest chunk that is decoded.
const LARGEST: u64 = 2 << 30;

/// How inner chunks lie in a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharding {
    pub(crate) at_end: bool,
    pub(crate) checksum: bool,
}

/// An array.
#[derive(Debug, Clone)]
pub(crate) struct ArrayMeta {
    pub(crate) path: String,
    pub(crate) shape: Vec<u64>,
    /// What one file holds, in elements.
    pub(crate) outer: Vec<u64>,
    /// What is decoded at once; `outer` where there are no shards.
    pub(crate) inner: Vec<u64>,
    pub(crate) sharding: Option<Sharding>,
    pub(crate) kind: Kind,
    pub(crate) big_endian: bool,
    pub(crate) codecs: Vec<Codec>,
    /// The order in which dimensions are stored, where it is not the usual one.
    pub(crate) order: Option<Vec<usize>>,
    pub(crate) fill: Value,
    separator: char,
    prefix: bool,
}

fn lengths(value: &Value, what: &str) -> Result<Vec<u64>> {
    let list = value.as_array().and_then(|l| l.iter().map(Value::as_u64).collect());
    list.ok_or_else(|| Error::corrupt(format!("{what} is {value}, not a list of lengths")))
}

impl ArrayMeta {
    /// Understands a node's metadata.
    pub(crate) fn new(node: &Node) -> Result<Self> {
        let Some((meta, version)) = &node.array else {
            return Err(Error::corrupt("this is a group where an array should be")
                .with("element", &node.path));
        };
        let parsed = if *version == 3 { v3(&node.path, meta) } else { v2(&node.path, meta) };
        parsed.and_then(Self::checked).map_err(|e| e.with_default("element", &node.path))
    }

    fn checked(self) -> Result<Self> {
        if self.outer.len() != self.shape.len() || self.inner.len() != self.shape.len() {
            return Err(Error::corrupt(format!(
                "the array has {} dimensions, its chunks {} and {}",
                self.shape.len(),
                self.outer.len(),
                self.inner.len()
            )));
        }
        if self.outer.iter().chain(&self.inner).any(|&n| n == 0) {
            return Err(Error::corrupt("chunks have a length of 0"));
        }
        if self.outer.iter().zip(&self.inner).any(|(o, i)| !o.is_multiple_of(*i)) {
            return Err(Error::corrupt(format!(
                "shards of {:?} are no whole number of inner chunks of {:?}",
                self.outer, self.inner
            )));
        }
        let product = |l: &[u64]| l.iter().try_fold(1u64, |a, &n| a.checked_mul(n));
        let size = u64::try_from(self.kind.size().unwrap_or(1)).unwrap_or(8).max(1);
        let inner = product(&self.inner).and_then(|n| n.checked_mul(size));
        if inner.is_none_or(|n| n > LARGEST) {
            return Err(Error::unsupported(format!(
                "chunks of {:?} are larger than {LARGEST} bytes: write the store again with smaller \
                 chunks",
                self.inner
            )));
        }
        if product(&self.shape).and_then(|n| n.checked_mul(size)).is_none()
            || product(&self.outer).is_none()
        {
            return Err(Error::corrupt(format!("the shape {:?} is beyond 64 bits", self.shape)));
        }
        Ok(self)
    }

    /// Elements of an inner chunk.
    pub(crate) fn chunk_len(&self) -> usize {
        usize::try_from(self.inner.iter().product::<u64>()).unwrap_or(usize::MAX)
    }

    /// Decoded bytes of an inner chunk, where elements have a size.
    pub(crate) fn chunk_bytes(&self) -> Option<usize> {
        self.kind.size().map(|s| s.saturating_mul(self.chunk_len()))
    }

    /// Elements of the array.
    pub(crate) fn len(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inner chunks along each dimension.
    pub(crate) fn grid(&self) -> Vec<u64> {
        self.shape.iter().zip(&self.inner).map(|(s, c)| s.div_ceil(*c)).collect()
    }

    /// The file that holds an inner chunk, and the chunk's number in it.
    pub(crate) fn place(&self, chunk: &[u64]) -> (String, u64) {
        let (mut file, mut number) = (Vec::with_capacity(chunk.len()), 0);
        for ((c, outer), inner) in chunk.iter().zip(&self.outer).zip(&self.inner) {
            let ratio = outer / inner;
            file.push((c / ratio).to_string());
            number = number * ratio + c % ratio;
        }
        let mut key = file.join(&self.separator.to_string());
        if self.prefix {
            key = if key.is_empty() { "c".to_owned() } else { format!("c{}{key}", self.separator) };
        } else if key.is_empty() {
            "0".clone_into(&mut key);
        }
        (super::join(&self.path, &key), number)
    }

    /// Inner chunks in a shard.
    pub(crate) fn chunks_in_file(&self) -> u64 {
        let ratios = self.outer.iter().zip(&self.inner).map(|(o, i)| o / i);
        ratios.fold(1u64, u64::saturating_mul)
    }

    /// For people and estimates.
    pub(crate) fn storage(&self, bytes: u64) -> ArrayStorage {
        let mut codecs: Vec<String> = self.codecs.iter().map(|c| c.name().to_owned()).collect();
        if self.sharding.is_some() {
            codecs.push(format!("sharded({:?})", self.outer));
        }
        ArrayStorage {
            name: self.path.clone(),
            element: self.kind.name(),
            shape: self.shape.clone(),
            chunk: Some(self.inner.clone()),
            n_chunks: self.grid().iter().fold(1, |a: u64, &n| a.saturating_mul(n)),
            codecs,
            bytes,
        }
    }
}

fn v2(path: &str, meta: &Value) -> Result<ArrayMeta> {
    let shape = lengths(&meta["shape"], "shape")?;
    let outer = lengths(&meta["chunks"], "chunks")?;
    let filters = meta["filters"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = filters.iter().filter_map(|f| f["id"].as_str()).collect();
    let vlen = names == ["vlen-utf8"];
    if !filters.is_empty() && !vlen {
        return Err(Error::unsupported(format!("the filters {names:?} are not read")));
    }
    let (kind, big_endian) = match &meta["dtype"] {
        structured @ Value::Array(_) => (Kind::Record(record::fields(structured)?.1), false),
        simple => dtype::v2(simple, vlen)?,
    };
    let order = (meta["order"].as_str() == Some("F") && shape.len() > 1)
        .then(|| (0..shape.len()).rev().collect());
    Ok(ArrayMeta {
        path: path.to_owned(),
        inner: outer.clone(),
        outer,
        shape,
        sharding: None,
        kind,
        big_endian,
        codecs: codec::v2_compressor(&meta["compressor"])?,
        order,
        fill: meta["fill_value"].clone(),
        separator: if meta["dimension_separator"].as_str() == Some("/") { '/' } else { '.' },
        prefix: false,
    })
}

/// Codecs of elements, then of bytes.
#[derive(Default)]
struct Chain {
    big_endian: bool,
    order: Option<Vec<usize>>,
    codecs: Vec<Codec>,
}

fn chain(list: &[Value], rank: usize) -> Result<Chain> {
    let mut chain = Chain::default();
    for codec in list {
        let name = codec["name"].as_str().or_else(|| codec.as_str()).unwrap_or("(unnamed)");
        match name {
            "bytes" => chain.big_endian = codec["configuration"]["endian"] == "big",
            "vlen-utf8" => {}
            "transpose" => {
                let order = lengths(&codec["configuration"]["order"], "the order of a transpose")?;
                let order: Vec<usize> =
                    order.iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect();
                let mut sorted = order.clone();
                sorted.sort_unstable();
                if sorted != (0..rank).collect::<Vec<_>>() || chain.order.is_some() {
                    return Err(Error::unsupported(format!("the transpose {order:?} is not read")));
                }
                chain.order = Some(order);
            }
            other => chain.codecs.push(Codec::parse(other)?),
        }
    }
    Ok(chain)
}

fn v3(path: &str, meta: &Value) -> Result<ArrayMeta> {
    let shape = lengths(&meta["shape"], "shape")?;
    let grid = &meta["chunk_grid"];
    if grid["name"] != "regular" {
        return Err(Error::unsupported(format!("the chunk grid {} is not read", grid["name"])));
    }
    let outer = lengths(&grid["configuration"]["chunk_shape"], "chunk_shape")?;
    let kind = dtype::v3(&meta["data_type"])?;
    let keys = &meta["chunk_key_encoding"];
    let (prefix, usual) = match keys["name"].as_str() {
        Some("default") => (true, '/'),
        Some("v2") => (false, '.'),
        _ => return Err(Error::unsupported(format!("the chunk key encoding {keys} is not read"))),
    };
    let separator = match keys["configuration"]["separator"].as_str() {
        Some("/") => '/',
        Some(".") => '.',
        _ => usual,
    };
    let none = Vec::new();
    let codecs = meta["codecs"].as_array().unwrap_or(&none);
    let first = codecs.first().unwrap_or(&Value::Null);
    let (inner, sharding, chain) = if first["name"] == "sharding_indexed" {
        if codecs.len() > 1 {
            return Err(Error::unsupported("codecs around shards are not read"));
        }
        let c = &first["configuration"];
        let index = c["index_codecs"].as_array().unwrap_or(&none);
        let names: Vec<&str> = index.iter().filter_map(|c| c["name"].as_str()).collect();
        let checksum = match names.as_slice() {
            ["bytes", "crc32c"] => true,
            ["bytes"] => false,
            _ => {
                return Err(Error::unsupported(format!("shard indexes by {names:?} are not read")));
            }
        };
        if index.iter().any(|c| c["configuration"]["endian"] == "big") {
            return Err(Error::unsupported("big-endian shard indexes are not read"));
        }
        let sharding = Sharding { at_end: c["index_location"] != "start", checksum };
        let inner = lengths(&c["chunk_shape"], "the shape of inner chunks")?;
        let list = c["codecs"].as_array().unwrap_or(&none);
        (inner, Some(sharding), chain(list, shape.len())?)
    } else {
        (outer.clone(), None, chain(codecs, shape.len())?)
    };
    Ok(ArrayMeta {
        path: path.to_owned(),
        shape,
        outer,
        inner,
        sharding,
        kind,
        big_endian: chain.big_endian,
        codecs: chain.codecs,
        order: chain.order,
        fill: meta["fill_value"].clone(),
        separator,
        prefix,
    })
}
