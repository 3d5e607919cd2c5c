//! Parquet files as they are written: pages, row groups, page index, footer. No `parquet` crate: pages
//! are compressed in parallel as they fill, carry checksums, and begin and end with rows.

use crate::codec::Codec;
use crate::footer::{Meaning, Physical};
use crate::thrift::Writer as Thrift;
use cellfeed_core::{Error, Result};
use std::io::Write;

/// Plain, runs, dictionary codes, by Parquet's numbers.
const PLAIN: i32 = 0;
const RUNS: i32 = 3;
const CODES: i32 = 8;

/// How a column is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Required,
    Optional,
    /// A list that is never missing, of elements that are never missing.
    List,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) physical: Physical,
    pub(crate) meaning: Meaning,
}

/// A page, compressed, with its header.
#[derive(Debug)]
pub(crate) struct EncodedPage {
    pub(crate) bytes: Vec<u8>,
    /// Header and body once decompressed.
    plain: u64,
    n_values: u64,
    pub(crate) n_rows: u32,
    dictionary: bool,
}

/// What a page is made of.
#[derive(Debug)]
pub(crate) struct RawPage {
    /// Levels and values.
    pub(crate) body: Vec<u8>,
    pub(crate) n_values: u32,
    pub(crate) n_rows: u32,
    pub(crate) content: Content,
}

/// What the body of a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Values,
    /// Codes into the dictionary.
    Codes,
    Dictionary,
}

/// How pages are compressed, with zstd's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compression {
    pub(crate) codec: Codec,
    pub(crate) level: i32,
}

impl RawPage {
    pub(crate) fn encode(self, compression: Compression) -> Result<EncodedPage> {
        let long = || Error::invalid_input("a page of 2 GiB and more; write fewer rows in a page");
        let plain = i32::try_from(self.body.len()).map_err(|_| long())?;
        let body = match compression.codec {
            Codec::Plain => self.body,
            codec => codec.compress(&self.body, compression.level)?,
        };
        let packed = i32::try_from(body.len()).map_err(|_| long())?;
        let count = i32::try_from(self.n_values).map_err(|_| long())?;
        let dictionary = self.content == Content::Dictionary;
        let mut header = Thrift::default();
        header.i32(1, if dictionary { 2 } else { 0 });
        header.i32(2, plain);
        header.i32(3, packed);
        header.i32(4, crc32fast::hash(&body).cast_signed());
        if dictionary {
            header.structure(7, |w| {
                w.i32(1, count);
                w.i32(2, PLAIN);
            });
        } else {
            header.structure(5, |w| {
                w.i32(1, count);
                w.i32(2, if self.content == Content::Codes { CODES } else { PLAIN });
                w.i32(3, RUNS);
                w.i32(4, RUNS);
            });
        }
        let mut bytes = header.finish();
        let plain = size(bytes.len()) + u64::from(plain.cast_unsigned());
        bytes.extend_from_slice(&body);
        Ok(EncodedPage {
            bytes,
            plain,
            n_values: self.n_values.into(),
            n_rows: self.n_rows,
            dictionary,
        })
    }
}

fn size(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[derive(Debug)]
struct ChunkInfo {
    start: u64,
    /// Where the first page of values is.
    data: u64,
    len: u64,
    plain: u64,
    n_values: u64,
    /// The page index, encoded.
    index: Vec<u8>,
    index_at: u64,
}

#[derive(Debug)]
struct GroupInfo {
    n_rows: u64,
    chunks: Vec<ChunkInfo>,
}

/// A file under construction.
#[derive(Debug)]
pub(crate) struct FileWriter<W: Write> {
    out: W,
    at: u64,
    codec: Codec,
    groups: Vec<GroupInfo>,
}

impl<W: Write> FileWriter<W> {
    pub(crate) fn new(out: W, codec: Codec) -> Result<Self> {
        let mut file = Self { out, at: 0, codec, groups: Vec::new() };
        file.put(b"PAR1")?;
        Ok(file)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("cannot write", e))?;
        self.at += size(bytes.len());
        Ok(())
    }

    /// Bytes that no column has, between row groups and footer; answers where they begin.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<u64> {
        let at = self.at;
        self.put(bytes)?;
        Ok(at)
    }

    /// A row group: the pages of each column, in the order of the fields.
    pub(crate) fn group(&mut self, n_rows: u64, columns: Vec<Vec<EncodedPage>>) -> Result<()> {
        let mut chunks = Vec::new();
        for pages in columns {
            let start = self.at;
            let (mut data, mut plain, mut n_values, mut row) = (None, 0, 0, 0u64);
            let mut places = Vec::new();
            for page in pages {
                if !page.dictionary {
                    data.get_or_insert(self.at);
                    n_values += page.n_values;
                    places.push((self.at, page.bytes.len(), row));
                    row += u64::from(page.n_rows);
                }
                plain += page.plain;
                self.put(&page.bytes)?;
            }
            if row != n_rows {
                return Err(Error::internal(format!("{row} rows in a group of {n_rows}")));
            }
            let mut index = Thrift::default();
            index.structs(1, &places, |w, &(at, len, row)| {
                w.i64(1, at);
                w.i32(2, i32::try_from(len).unwrap_or(i32::MAX));
                w.i64(3, row);
            });
            chunks.push(ChunkInfo {
                start,
                data: data.unwrap_or(start),
                len: self.at - start,
                plain,
                n_values,
                index: index.finish(),
                index_at: 0,
            });
        }
        self.groups.push(GroupInfo { n_rows, chunks });
        Ok(())
    }

    /// Page index and footer. Answers what was written to, and how many bytes it has.
    pub(crate) fn finish(
        mut self,
        fields: &[Field],
        metadata: &[(String, String)],
    ) -> Result<(W, u64)> {
        for g in 0..self.groups.len() {
            for c in 0..self.groups[g].chunks.len() {
                let index = std::mem::take(&mut self.groups[g].chunks[c].index);
                self.groups[g].chunks[c].index_at = self.at;
                self.put(&index)?;
                self.groups[g].chunks[c].index = index;
            }
        }
        let footer = self.footer(fields, metadata);
        let len = u32::try_from(footer.len())
            .map_err(|_| Error::invalid_input("a footer of 4 GiB and more"))?;
        self.put(&footer)?;
        self.put(&len.to_le_bytes())?;
        self.put(b"PAR1")?;
        self.out.flush().map_err(|e| Error::io("cannot write", e))?;
        Ok((self.out, self.at))
    }

    fn footer(&self, fields: &[Field], metadata: &[(String, String)]) -> Vec<u8> {
        let mut w = Thrift::default();
        w.i32(1, 2);
        // The nodes of the schema's tree, depth first.
        let mut nodes = vec![Node::Root(fields.len())];
        for field in fields {
            if field.shape == Shape::List {
                nodes.extend([Node::List(field), Node::Repeated, Node::Leaf(field, "element")]);
            } else {
                nodes.push(Node::Leaf(field, &field.name));
            }
        }
        w.structs(2, &nodes, Node::write);
        w.i64(3, self.groups.iter().map(|g| g.n_rows).sum());
        w.structs(4, &self.groups, |w, group| {
            let pairs: Vec<(&ChunkInfo, &Field)> = group.chunks.iter().zip(fields).collect();
            w.structs(1, &pairs, |w, (chunk, field)| self.chunk(w, chunk, field));
            w.i64(2, group.chunks.iter().map(|c| c.plain).sum());
            w.i64(3, group.n_rows);
            w.i64(5, group.chunks.first().map_or(0, |c| c.start));
            w.i64(6, group.chunks.iter().map(|c| c.len).sum());
        });
        w.structs(5, metadata, |w, (key, value)| {
            w.text(1, key);
            w.text(2, value);
        });
        w.text(6, concat!("cellfeed version ", env!("CARGO_PKG_VERSION")));
        w.finish()
    }

    fn chunk(&self, w: &mut Thrift, chunk: &ChunkInfo, field: &Field) {
        w.i64(2, 0);
        w.structure(3, |w| {
            w.i32(1, physical(field.physical).0);
            w.numbers(2, &[PLAIN, RUNS, CODES]);
            let path = match field.shape {
                Shape::List => vec![field.name.clone(), "list".to_owned(), "element".to_owned()],
                _ => vec![field.name.clone()],
            };
            w.texts(3, &path);
            w.i32(4, self.codec.number());
            w.i64(5, chunk.n_values);
            w.i64(6, chunk.plain);
            w.i64(7, chunk.len);
            w.i64(9, chunk.data);
            if chunk.data > chunk.start {
                w.i64(11, chunk.start);
            }
        });
        w.i64(4, chunk.index_at);
        w.i32(5, i32::try_from(chunk.index.len()).unwrap_or(i32::MAX));
    }
}

/// Parquet's number of a type, and its length, where it has one.
fn physical(physical: Physical) -> (i32, Option<i32>) {
    match physical {
        Physical::Boolean => (0, None),
        Physical::Int32 => (1, None),
        Physical::Int64 => (2, None),
        Physical::Int96 => (3, None),
        Physical::Float => (4, None),
        Physical::Double => (5, None),
        Physical::Bytes => (6, None),
        Physical::Fixed(n) => (7, Some(i32::try_from(n).unwrap_or(0))),
    }
}

/// A node of the schema.
enum Node<'a> {
    Root(usize),
    List(&'a Field),
    Repeated,
    Leaf(&'a Field, &'a str),
}

impl Node<'_> {
    fn write(w: &mut Thrift, node: &Self) {
        match node {
            Self::Root(n) => {
                w.text(4, "cells");
                w.i32(5, i32::try_from(*n).unwrap_or(i32::MAX));
            }
            Self::List(field) => {
                w.i32(3, 0);
                w.text(4, &field.name);
                w.i32(5, 1);
                w.i32(6, 3);
                w.structure(10, |w| w.structure(3, |_| {}));
            }
            Self::Repeated => {
                w.i32(3, 2);
                w.text(4, "list");
                w.i32(5, 1);
            }
            Self::Leaf(field, name) => {
                let (number, length) = physical(field.physical);
                w.i32(1, number);
                if let Some(length) = length {
                    w.i32(2, length);
                }
                w.i32(3, i32::from(field.shape == Shape::Optional));
                w.text(4, name);
                match &field.meaning {
                    Meaning::Text => {
                        w.i32(6, 0);
                        w.structure(10, |w| w.structure(1, |_| {}));
                    }
                    &Meaning::Integer { bits, signed } => {
                        let step = i32::try_from(bits.trailing_zeros()).unwrap_or(3) - 3;
                        w.i32(6, if signed { 15 } else { 11 } + step);
                        w.structure(10, |w| {
                            w.structure(10, |w| {
                                w.byte(1, bits);
                                w.bool(2, signed);
                            });
                        });
                    }
                    Meaning::Half => w.structure(10, |w| w.structure(15, |_| {})),
                    Meaning::Plain | Meaning::Other(_) => {}
                }
            }
        }
    }
}
