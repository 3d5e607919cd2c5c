//! The chunk index: a version 1 B-tree of node type 1 (section III.A.1 of the HDF5 File Format
//! Specification 3.0), built from the bottom once all chunks are known. It is the index that
//! HDF5 1.8 and every later library and reader knows.

use super::message::{UNDEFINED, u16_of};
use super::sink::Sink;
use cellfeed_core::Result;

/// Children of a full node: twice the K of 32 that a file without a B-tree K message has.
const CHILDREN: usize = 64;
/// Chunk bytes and filter mask, the offset in the one dimension, the offset in the element (0).
const KEY: usize = 4 + 4 + 8 + 8;
const NODE: usize = 24 + CHILDREN * 8 + (CHILDREN + 1) * KEY;

/// Where a chunk is. Chunks are in order; the i-th starts at element i x chunk length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    pub(super) address: u64,
    pub(super) bytes: u32,
    pub(super) mask: u32,
}

/// The first key under a node and the node's address.
#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u32,
    mask: u32,
    first: u64,
    address: u64,
}

/// Writes the index and returns its root's address, undefined if there are no chunks.
pub(super) fn write(chunks: &[Chunk], chunk_len: u64, sink: &mut Sink) -> Result<u64> {
    if chunks.is_empty() {
        return Ok(UNDEFINED);
    }
    let past = chunk_len * chunks.len() as u64;
    let mut level = 0u8;
    let leaves = chunks.iter().zip((0u64..).step_by(usize::try_from(chunk_len).unwrap_or(1)));
    let leaves = leaves.map(|(chunk, first)| Entry {
        bytes: chunk.bytes,
        mask: chunk.mask,
        first,
        address: chunk.address,
    });
    let mut entries = write_level(leaves, chunks.len(), past, level, sink)?;
    while entries.len() > 1 {
        level += 1;
        entries = write_level(entries.iter().copied(), entries.len(), past, level, sink)?;
    }
    Ok(entries.first().map_or(UNDEFINED, |root| root.address))
}

/// Writes the nodes of a level, side by side, and returns an entry for each.
fn write_level(
    children: impl Iterator<Item = Entry>,
    count: usize,
    past: u64,
    level: u8,
    sink: &mut Sink,
) -> Result<Vec<Entry>> {
    let nodes = count.div_ceil(CHILDREN);
    let start = sink.append_aligned(&[])?.next_multiple_of(8);
    let at = |node: usize| start + (node * NODE) as u64;
    let mut children = children.peekable();
    let mut parents = Vec::with_capacity(nodes);
    for node in 0..nodes {
        // Nodes share the children evenly, so that none but a lone root is under half full.
        let used = count * (node + 1) / nodes - count * node / nodes;
        let mut bytes = b"TREE\x01".to_vec();
        bytes.push(level);
        bytes.extend(u16_of(used)?.to_le_bytes());
        let left = node.checked_sub(1).map_or(UNDEFINED, at);
        let right = if node + 1 < nodes { at(node + 1) } else { UNDEFINED };
        bytes.extend(left.to_le_bytes());
        bytes.extend(right.to_le_bytes());
        for child in children.by_ref().take(used) {
            if parents.len() == node {
                parents.push(Entry { address: at(node), ..child });
            }
            key(&child, &mut bytes);
            bytes.extend(child.address.to_le_bytes());
        }
        // The last key is the first one of what follows.
        let end = Entry { bytes: 0, mask: 0, first: past, address: UNDEFINED };
        key(children.peek().unwrap_or(&end), &mut bytes);
        bytes.resize(NODE, 0);
        sink.append(&bytes)?;
    }
    Ok(parents)
}

fn key(entry: &Entry, out: &mut Vec<u8>) {
    out.extend(entry.bytes.to_le_bytes());
    out.extend(entry.mask.to_le_bytes());
    out.extend(entry.first.to_le_bytes());
    out.extend(0u64.to_le_bytes());
}
