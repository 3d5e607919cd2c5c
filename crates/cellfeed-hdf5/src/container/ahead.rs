//! Nodes of version 1 B-trees that will be read next, of a source where each read waits long.
//!
//! h5py scatters the index of a dataset's chunks over the file, a node for about sixty chunks, and the pure
//! reader walks from node to node. When it has read an inner node, all of that node's children are had at
//! once here, their own bytes alone, and wait until they are asked for. Nothing is believed: what
//! does not look like a node is left to the walk, which reads and judges it as it always did.
//! Format: HDF5 File Format Specification 3.0, section III.A.1.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a node before its keys: signature, type, level, entries, two siblings of 8 bytes.
const HEADER: u64 = 24;
/// Entries of a full node, unless the file's superblock says otherwise.
const FULL: u64 = 64;
/// Bytes of an address.
const ADDRESS: u64 = 8;
/// Bytes that may wait.
const MOST: u64 = 16 << 20;

/// What was read ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where the keys of an inner node begin, whose header was read last, and how many entries it has.
    inner: Option<(u64, u64)>,
    waiting: BTreeMap<u64, Vec<u8>>,
    bytes: u64,
}

impl Ahead {
    /// Fills a buffer if what it wants waits here.
    pub(super) fn fill(&mut self, offset: u64, buf: &mut [u8]) -> bool {
        let Some((&start, node)) = self.waiting.range(..=offset).next_back() else { return false };
        let Ok(at) = usize::try_from(offset - start) else { return false };
        let Some(found) = at.checked_add(buf.len()).and_then(|end| node.get(at..end)) else {
            return false;
        };
        buf.copy_from_slice(found);
        // A node is read once: header first, then the rest.
        if offset == start + HEADER
            && let Some(node) = self.waiting.remove(&start)
        {
            self.bytes -= as_u64(node.len());
        }
        true
    }

    /// Looks at what was read; answers what is worth being read next, all at once.
    pub(super) fn after(&mut self, offset: u64, read: &[u8], len: u64) -> Vec<Range<u64>> {
        if as_u64(read.len()) == HEADER
            && let Some((b"TREE", rest)) = read.split_first_chunk()
            && let [1, level, low, high, ..] = *rest
            && level > 0
        {
            let entries = u64::from(u16::from_le_bytes([low, high]));
            self.inner = Some((offset.saturating_add(HEADER), entries));
            return Vec::new();
        }
        let Some((body, entries)) = self.inner.take() else { return Vec::new() };
        if body != offset {
            return Vec::new();
        }
        // entries x (key, address), and one key more.
        let keys = as_u64(read.len()).checked_sub(entries * ADDRESS);
        let Some(key) =
            keys.filter(|keys| keys % (entries + 1) == 0).map(|keys| keys / (entries + 1))
        else {
            return Vec::new();
        };
        let node = HEADER + entries.max(FULL) * (key + ADDRESS) + key;
        let (Ok(key), Ok(stride)) = (usize::try_from(key), usize::try_from(key + ADDRESS)) else {
            return Vec::new();
        };
        let room = MOST.saturating_sub(self.bytes) / node;
        let mut wanted: Vec<Range<u64>> = read
            .chunks_exact(stride)
            .take(usize::try_from(entries.min(room)).unwrap_or(0))
            .filter_map(|entry| {
                let start = u64::from_le_bytes(entry.get(key..)?.try_into().ok()?);
                let end = start.checked_add(node)?.min(len);
                (start.checked_add(HEADER)? < end && !self.waiting.contains_key(&start))
                    .then_some(start..end)
            })
            .collect();
        wanted.sort_unstable_by_key(|range| range.start);
        wanted.dedup();
        // Nothing is gained by one.
        if wanted.len() < 2 {
            wanted.clear();
        }
        wanted
    }

    /// Takes what came for ranges, end to end.
    pub(super) fn take(&mut self, ranges: &[Range<u64>], mut bytes: &[u8]) {
        for range in ranges {
            let Ok(len) = usize::try_from(range.end - range.start) else { return };
            let Some((node, rest)) = bytes.split_at_checked(len) else { return };
            bytes = rest;
            if self.waiting.insert(range.start, node.to_vec()).is_none() {
                self.bytes += as_u64(len);
            }
        }
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node of a dataset of one dimension: keys of 24 bytes.
    fn node(level: u8, children: &[u64]) -> Vec<u8> {
        let mut bytes = b"TREE\x01".to_vec();
        bytes.push(level);
        bytes.extend(u16::try_from(children.len()).unwrap().to_le_bytes());
        bytes.extend([0xff; 16]);
        for child in children {
            bytes.extend([7; 24]);
            bytes.extend(child.to_le_bytes());
        }
        bytes.extend([7; 24]);
        bytes
    }

    #[test]
    fn children_of_an_inner_node_are_wanted_at_once_and_given_once() {
        let mut ahead = Ahead::default();
        let inner = node(1, &[9000, 5000, 9000]);
        let (head, body) = inner.split_at(24);
        assert!(ahead.after(100, head, 20_000).is_empty());
        let full = 24 + 64 * 32 + 24;
        let wanted = ahead.after(124, body, 20_000);
        assert_eq!(wanted, [5000..5000 + full, 9000..9000 + full]);

        let mut came = node(0, &[1, 2]);
        came.resize(usize::try_from(2 * full).unwrap(), 3);
        ahead.take(&wanted, &came);
        let mut buf = [0; 24];
        assert!(ahead.fill(5000, &mut buf) && buf.starts_with(b"TREE"));
        let mut rest = [0; 88];
        assert!(ahead.fill(5024, &mut rest) && rest.starts_with(&[7; 24]));
        assert!(!ahead.fill(5000, &mut buf), "a node waits until it was read");
        assert!(ahead.fill(9000, &mut buf) && buf == [3; 24]);
        assert!(!ahead.fill(9000 + full - 4, &mut buf), "half of it is none of it");
        assert_eq!(ahead.bytes, full);
    }

    #[test]
    fn what_is_no_inner_node_asks_for_nothing() {
        for (head, body) in [
            // A leaf, a group's node, a stranger, and children past the end.
            (node(0, &[5000, 6000]), 100),
            ([b"TREE\x00\x01".to_vec(), node(1, &[5000, 6000])[6..].to_vec()].concat(), 100),
            ([b"SNOD".to_vec(), node(1, &[5000, 6000])[4..].to_vec()].concat(), 100),
            (node(1, &[u64::MAX, 20_000, 19_990]), 100),
            // Another place was read.
            (node(1, &[5000, 6000]), 200),
        ] {
            let mut ahead = Ahead::default();
            let (start, rest) = head.split_at(24);
            assert!(ahead.after(100, start, 20_000).is_empty());
            assert!(ahead.after(body + 24, rest, 20_000).is_empty());
        }
        // Lengths that no node has.
        let mut ahead = Ahead::default();
        let inner = node(1, &[5000, 6000]);
        ahead.after(100, &inner[..24], 20_000);
        assert!(ahead.after(124, &inner[24..inner.len() - 1], 20_000).is_empty());
    }
}
