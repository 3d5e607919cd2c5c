//! A Parquet file's footer: schema, row groups, column chunks, key-value metadata.
//!
//! Read here and not by the `parquet` crate, since that sizes allocations by lengths that it has not
//! checked, and keeps some hundred bytes a column chunk; thousands of shards have a million of them.

use crate::codec::Codec;
use crate::thrift::{FALSE, Reader, STRUCT, TRUE};
use cellfeed_core::{Error, Result, ValueType};

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    Int96,
    Float,
    Double,
    Bytes,
    /// Of so many bytes each.
    Fixed(usize),
}

/// What stored values mean, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    Plain,
    Text,
    Integer {
        bits: u8,
        signed: bool,
    },
    Half,
    /// Something that no column here has.
    Other(&'static str),
}

/// A column that holds values: a leaf of the schema's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Name of the top-level column.
    pub(crate) name: String,
    /// How many leaves that column has.
    pub(crate) siblings: usize,
    pub(crate) physical: Physical,
    pub(crate) meaning: Meaning,
    pub(crate) max_def: u8,
    pub(crate) max_rep: u8,
    /// Definition level of the repeated node: what is below has no element there.
    pub(crate) list_def: u8,
}

impl Leaf {
    /// The type of numbers that it holds.
    pub(crate) fn value_type(&self) -> Option<ValueType> {
        let bits = |default: u8| match self.meaning {
            Meaning::Plain => Some((default, true)),
            Meaning::Integer { bits, signed } => Some((bits, signed)),
            _ => None,
        };
        Some(match self.physical {
            Physical::Int32 => match bits(32)? {
                (8, true) => ValueType::I8,
                (8, false) => ValueType::U8,
                (16, true) => ValueType::I16,
                (16, false) => ValueType::U16,
                (32, true) => ValueType::I32,
                (32, false) => ValueType::U32,
                _ => return None,
            },
            Physical::Int64 => match bits(64)? {
                (64, true) => ValueType::I64,
                (64, false) => ValueType::U64,
                _ => return None,
            },
            Physical::Float if self.meaning == Meaning::Plain => ValueType::F32,
            Physical::Double if self.meaning == Meaning::Plain => ValueType::F64,
            Physical::Fixed(2) if self.meaning == Meaning::Half => ValueType::F16,
            _ => return None,
        })
    }
}

/// A column chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChunkMeta {
    /// Where its first page is, be it the dictionary's.
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Bytes of its pages once decompressed, headers included.
    pub(crate) plain: u64,
    pub(crate) n_values: u64,
    pub(crate) codec: Codec,
    /// Where its offset index is, if it has one.
    pub(crate) index: Option<(u64, u64)>,
}

/// A row group.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupMeta {
    pub(crate) n_rows: u64,
    /// As many as leaves.
    pub(crate) chunks: Vec<ChunkMeta>,
}

/// A footer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Footer {
    pub(crate) n_rows: u64,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) groups: Vec<GroupMeta>,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) writer: Option<String>,
}

/// A node of the schema, as stored: depth first.
#[derive(Debug, Default)]
struct Node {
    physical: Option<i64>,
    length: usize,
    repetition: i64,
    name: String,
    children: usize,
    converted: Option<i64>,
    logical: Option<Meaning>,
}

impl Footer {
    /// Parses a footer of a file of `file_len` bytes and checks it against that and itself.
    pub(crate) fn parse(bytes: &[u8], file_len: u64) -> Result<Self> {
        let mut footer = Self::default();
        let mut nodes = Vec::new();
        let mut n_rows = None;
        Reader::new(bytes).fields(|r, id, kind| {
            match id {
                2 => r.structs(kind, |r| {
                    nodes.push(node(r)?);
                    Ok(())
                })?,
                3 => n_rows = Some(r.unsigned(kind)?),
                4 => r.structs(kind, |r| {
                    footer.groups.push(group(r)?);
                    Ok(())
                })?,
                5 => r.structs(kind, |r| {
                    let (mut key, mut value) = (String::new(), String::new());
                    r.fields(|r, id, kind| {
                        match id {
                            1 => r.text(kind)?.clone_into(&mut key),
                            2 => r.text(kind)?.clone_into(&mut value),
                            _ => return Ok(false),
                        }
                        Ok(true)
                    })?;
                    footer.metadata.push((key, value));
                    Ok(())
                })?,
                6 => footer.writer = Some(r.text(kind)?.to_owned()),
                8 => return Err(Error::unsupported("the file is encrypted")),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        footer.n_rows = n_rows.ok_or_else(|| Error::corrupt("no number of rows in the footer"))?;
        let mut nodes = nodes.into_iter();
        let root = nodes.next().ok_or_else(|| Error::corrupt("no schema in the footer"))?;
        for _ in 0..root.children {
            let first = footer.leaves.len();
            let mut name = None;
            leaves(&mut nodes, &mut name, [0, 0, 0], 0, &mut footer.leaves)?;
            let siblings = footer.leaves.len() - first;
            footer.leaves[first..].iter_mut().for_each(|leaf| leaf.siblings = siblings);
        }
        if nodes.next().is_some() {
            return Err(Error::corrupt("the schema has more columns than it says"));
        }
        footer.check(file_len)?;
        Ok(footer)
    }

    fn check(&self, file_len: u64) -> Result<()> {
        let mut rows = 0u64;
        for (i, group) in self.groups.iter().enumerate() {
            let place = |e: Error| e.with("row group", i);
            rows = rows.saturating_add(group.n_rows);
            if u32::try_from(group.n_rows).is_err() {
                return Err(place(Error::corrupt(format!("{} rows in one group", group.n_rows))));
            }
            if group.chunks.len() != self.leaves.len() {
                return Err(place(Error::corrupt(format!(
                    "{} column chunks for {} columns",
                    group.chunks.len(),
                    self.leaves.len()
                ))));
            }
            // What holds no rows has no place in some files.
            let places = group.chunks.iter().zip(&self.leaves).filter(|_| group.n_rows > 0);
            for (chunk, leaf) in places {
                let inside = |start: u64, len: u64| {
                    start >= 4 && start.checked_add(len).is_some_and(|end| end <= file_len)
                };
                let indexed = chunk.index.is_none_or(|(start, len)| inside(start, len));
                if !inside(chunk.start, chunk.len) || !indexed {
                    return Err(place(Error::corrupt(format!(
                        "the column {:?} lies outside the file, which is truncated or damaged",
                        leaf.name
                    ))));
                }
                let most = u64::try_from(chunk.codec.most()).unwrap_or(1);
                let flat = leaf.max_rep == 0;
                if chunk.plain / most > chunk.len || flat && chunk.n_values != group.n_rows {
                    return Err(place(Error::corrupt(format!(
                        "the column {:?} says it has {} values in {} bytes, {} compressed, for {} \
                         rows",
                        leaf.name, chunk.n_values, chunk.plain, chunk.len, group.n_rows
                    ))));
                }
            }
        }
        if rows != self.n_rows {
            return Err(Error::corrupt(format!(
                "the row groups have {rows} rows, but the footer says {}",
                self.n_rows
            )));
        }
        Ok(())
    }

    /// A value of the key-value metadata.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The leaf of a column that has just one.
    pub(crate) fn leaf(&self, name: &str) -> Option<usize> {
        self.leaves.iter().position(|l| l.name == name && l.siblings == 1)
    }
}

fn node(r: &mut Reader<'_>) -> Result<Node> {
    let mut node = Node::default();
    r.fields(|r, id, kind| {
        match id {
            1 => node.physical = Some(r.integer(kind)?),
            2 => node.length = usize::try_from(r.unsigned(kind)?).unwrap_or(usize::MAX),
            3 => node.repetition = r.integer(kind)?,
            4 => r.text(kind)?.clone_into(&mut node.name),
            5 => node.children = usize::try_from(r.unsigned(kind)?).unwrap_or(usize::MAX),
            6 => node.converted = Some(r.integer(kind)?),
            10 if kind == STRUCT => node.logical = logical(r)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(node)
}

fn logical(r: &mut Reader<'_>) -> Result<Option<Meaning>> {
    let mut meaning = None;
    r.fields(|r, id, kind| {
        meaning = Some(match id {
            1 | 4 | 12 => Meaning::Text,
            5 => Meaning::Other("decimal"),
            6 => Meaning::Other("date"),
            7 => Meaning::Other("time"),
            8 => Meaning::Other("timestamp"),
            10 if kind == STRUCT => {
                let (mut bits, mut signed) = (0, true);
                r.fields(|r, id, kind| {
                    match id {
                        1 => bits = u8::try_from(r.integer(kind)?).unwrap_or(0),
                        2 if kind == TRUE || kind == FALSE => signed = kind == TRUE,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                meaning = Some(Meaning::Integer { bits, signed });
                return Ok(true);
            }
            15 => Meaning::Half,
            2 | 3 => return Ok(false),
            _ => Meaning::Other("of a type that Cellfeed does not know"),
        });
        Ok(false)
    })?;
    Ok(meaning)
}

fn converted(number: i64) -> Meaning {
    let integer = |bits, signed| Meaning::Integer { bits, signed };
    match number {
        0 | 4 | 19 => Meaning::Text,
        11 => integer(8, false),
        12 => integer(16, false),
        13 => integer(32, false),
        14 => integer(64, false),
        15 => integer(8, true),
        16 => integer(16, true),
        17 => integer(32, true),
        18 => integer(64, true),
        5 => Meaning::Other("decimal"),
        6 => Meaning::Other("date"),
        7 | 8 => Meaning::Other("time"),
        9 | 10 => Meaning::Other("timestamp"),
        1..=3 => Meaning::Plain,
        _ => Meaning::Other("of a type that Cellfeed does not know"),
    }
}

/// Takes the leaves below the next node; `[def, rep, list_def]` are the levels above it.
fn leaves(
    nodes: &mut impl Iterator<Item = Node>,
    top: &mut Option<String>,
    [mut def, mut rep, mut list_def]: [u8; 3],
    depth: u32,
    out: &mut Vec<Leaf>,
) -> Result<()> {
    let node = nodes.next().ok_or_else(|| Error::corrupt("the schema ends too early"))?;
    if depth > 24 {
        return Err(Error::corrupt("the schema is nested too deeply"));
    }
    match node.repetition {
        0 => {}
        1 => def += 1,
        2 => {
            def += 1;
            rep += 1;
            list_def = def;
        }
        other => return Err(Error::corrupt(format!("a column of repetition {other}"))),
    }
    let name = top.get_or_insert(node.name).clone();
    let Some(physical) = node.physical.filter(|_| node.children == 0) else {
        return (0..node.children)
            .try_for_each(|_| leaves(nodes, top, [def, rep, list_def], depth + 1, out));
    };
    let physical = match physical {
        0 => Physical::Boolean,
        1 => Physical::Int32,
        2 => Physical::Int64,
        3 => Physical::Int96,
        4 => Physical::Float,
        5 => Physical::Double,
        6 => Physical::Bytes,
        7 => Physical::Fixed(node.length),
        other => return Err(Error::corrupt(format!("a column of physical type {other}"))),
    };
    let meaning = node.logical.or_else(|| node.converted.map(converted)).unwrap_or(Meaning::Plain);
    out.push(Leaf { name, siblings: 1, physical, meaning, max_def: def, max_rep: rep, list_def });
    Ok(())
}

fn group(r: &mut Reader<'_>) -> Result<GroupMeta> {
    let mut group = GroupMeta::default();
    let mut n_rows = None;
    r.fields(|r, id, kind| {
        match id {
            1 => r.structs(kind, |r| {
                group.chunks.push(chunk(r)?);
                Ok(())
            })?,
            3 => n_rows = Some(r.unsigned(kind)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    group.n_rows = n_rows.ok_or_else(|| Error::corrupt("a row group without a number of rows"))?;
    Ok(group)
}

fn chunk(r: &mut Reader<'_>) -> Result<ChunkMeta> {
    let mut chunk = ChunkMeta::default();
    let (mut at, mut len, mut seen) = (None, None, false);
    let (mut data, mut dictionary) = (None, None);
    r.fields(|r, id, kind| {
        match id {
            1 => return Err(Error::unsupported("columns in another file")),
            3 if kind == STRUCT => {
                seen = true;
                r.fields(|r, id, kind| {
                    match id {
                        4 => chunk.codec = Codec::from_number(r.integer(kind)?),
                        5 => chunk.n_values = r.unsigned(kind)?,
                        6 => chunk.plain = r.unsigned(kind)?,
                        7 => chunk.len = r.unsigned(kind)?,
                        9 => data = Some(r.unsigned(kind)?),
                        11 => dictionary = Some(r.unsigned(kind)?),
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
            }
            4 => at = Some(r.unsigned(kind)?),
            5 => len = Some(r.unsigned(kind)?),
            8 | 9 => return Err(Error::unsupported("the columns are encrypted")),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let data = data.filter(|_| seen);
    let data = data.ok_or_else(|| Error::corrupt("a column chunk without a place"))?;
    // Some writers say 0 where there is no dictionary.
    chunk.start = dictionary.filter(|&d| d > 0 && d < data).unwrap_or(data);
    chunk.index = at.zip(len).filter(|&(_, len)| len > 0);
    Ok(chunk)
}
