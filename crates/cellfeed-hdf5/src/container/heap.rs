//! Strings of variable length: 16-byte references into global heap collections.
//!
//! The pure reader resolves them too, but with one read of the source a string, a search over all
//! collections a string, and bad UTF-8 replaced in silence.

use std::collections::HashMap;

use cellfeed_core::{Error, Result};

use super::cache::Paged;
use super::header::Sizes;

/// Collections that are kept while strings are resolved.
const KEPT_BYTES: usize = 16 << 20;

struct Collection {
    bytes: Vec<u8>,
    /// Object number -> start and length in `bytes`.
    objects: HashMap<u32, (usize, usize)>,
}

/// Resolves references, keeping the collections that it met last.
pub(crate) struct Heap<'a> {
    source: &'a Paged,
    sizes: Sizes,
    collections: HashMap<u64, Collection>,
    kept: usize,
}

impl<'a> Heap<'a> {
    pub(crate) fn new(source: &'a Paged, sizes: Sizes) -> Self {
        Self { source, sizes, collections: HashMap::new(), kept: 0 }
    }

    /// Bytes of a reference: length, collection address, object number.
    pub(crate) fn reference_size(&self) -> usize {
        8 + self.sizes.offset
    }

    /// The bytes that a reference names; empty for a null one.
    pub(crate) fn resolve(&mut self, reference: &[u8]) -> Result<&[u8]> {
        let short = || Error::corrupt("a reference to a string is cut short");
        let (len, rest) = reference.split_first_chunk::<4>().ok_or_else(short)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let (address, rest) = rest.split_at_checked(self.sizes.offset).ok_or_else(short)?;
        let address = self.sizes.address(address);
        let index = u32::from_le_bytes(*rest.first_chunk::<4>().ok_or_else(short)?);
        let Some(address) = address else {
            if len == 0 {
                return Ok(&[]);
            }
            return Err(Error::corrupt("a string has a length and no address"));
        };
        if len == 0 {
            return Ok(&[]);
        }
        if !self.collections.contains_key(&address) {
            let collection = self.load(address)?;
            if self.kept.saturating_add(collection.bytes.len()) > KEPT_BYTES {
                self.collections.clear();
                self.kept = 0;
            }
            self.kept = self.kept.saturating_add(collection.bytes.len());
            self.collections.insert(address, collection);
        }
        self.collections
            .get(&address)
            .and_then(|c| {
                let &(start, size) = c.objects.get(&index)?;
                if len > size { None } else { c.bytes.get(start..start.checked_add(len)?) }
            })
            .ok_or_else(|| {
                Error::corrupt(format!(
                    "the string heap has no object {index} of {len} bytes or more"
                ))
                .with("offset", address)
            })
    }

    fn load(&self, address: u64) -> Result<Collection> {
        let wrong = |what: &str| {
            Error::corrupt(format!("the string heap is damaged: {what}")).with("offset", address)
        };
        let head = self.source.read(address, 8 + self.sizes.length)?;
        if head.get(..5) != Some(b"GCOL\x01".as_slice()) {
            return Err(wrong("no signature"));
        }
        let size = self.sizes.length_at(&head, 8).ok_or_else(|| wrong("no size"))?;
        let bytes = self.source.read(address, size)?;
        let mut objects = HashMap::new();
        let object_head = 8 + self.sizes.length;
        let mut at = object_head;
        // Object 0 is the free space that ends the collection.
        while let Some(object) = bytes.get(at..).filter(|rest| rest.len() >= object_head) {
            let (Some(index), Some(len)) =
                (object.first_chunk::<2>(), self.sizes.length_at(object, 8))
            else {
                break;
            };
            let index = u32::from(u16::from_le_bytes(*index));
            if index == 0 {
                break;
            }
            let start = at + object_head;
            let end = start.checked_add(len).filter(|&end| end <= bytes.len());
            let Some(end) = end else { return Err(wrong("an object ends past its collection")) };
            objects.insert(index, (start, len));
            at = end.next_multiple_of(8);
        }
        Ok(Collection { bytes, objects })
    }
}
