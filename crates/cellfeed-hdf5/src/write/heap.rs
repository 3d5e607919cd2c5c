//! Variable-length strings: global heap collections (section III.E of the HDF5 File Format
//! Specification 3.0) and the references to them that datasets and attributes hold.

use super::message::u32_of;
use super::sink::Sink;
use cellfeed_core::Result;

/// The usual size of a collection; a longer string gets a collection of its own.
const COLLECTION: usize = 64 << 10;
/// HDF5's least size of a collection.
const LEAST: usize = 4096;
const HEAD: usize = 16;

/// Collects strings and writes a collection whenever one is full.
#[derive(Debug)]
pub(super) struct Heap {
    objects: Vec<u8>,
    /// Length and object number of every string that waits; number 0 stands for "".
    waiting: Vec<(u32, u16)>,
    count: u16,
}

/// Length, collection and object number of a string: 16 bytes.
pub(super) type Reference = [u8; 16];

impl Heap {
    pub(super) fn new() -> Self {
        Self { objects: Vec::with_capacity(COLLECTION), waiting: Vec::new(), count: 0 }
    }

    /// Takes a string. The references of this and earlier strings are appended to `references`
    /// when their collection is written, in order.
    pub(super) fn push(
        &mut self,
        string: &str,
        sink: &mut Sink,
        references: &mut Vec<u8>,
    ) -> Result<()> {
        let length = u32_of(string.len())?;
        if string.is_empty() {
            self.waiting.push((0, 0));
            return Ok(());
        }
        let padded = string.len().next_multiple_of(8);
        let full = HEAD + self.objects.len() + HEAD + padded > COLLECTION;
        if self.count == u16::MAX || (full && self.count > 0) {
            self.flush(sink, references)?;
        }
        self.count += 1;
        self.objects.extend(self.count.to_le_bytes());
        self.objects.extend([0; 6]);
        self.objects.extend(u64::from(length).to_le_bytes());
        self.objects.extend(string.as_bytes());
        self.objects.resize(self.objects.len() + padded - string.len(), 0);
        self.waiting.push((length, self.count));
        Ok(())
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self, sink: &mut Sink, references: &mut Vec<u8>) -> Result<()> {
        let mut address = 0;
        if self.count > 0 {
            let used = HEAD + self.objects.len();
            let size = used.max(LEAST);
            let free = size - used;
            if free >= HEAD {
                // Object 0 is the free space that is left, this head included.
                self.objects.extend([0; 8]);
                self.objects.extend((free as u64).to_le_bytes());
            }
            self.objects.resize(size - HEAD, 0);
            let mut head = b"GCOL\x01\0\0\0".to_vec();
            head.extend((size as u64).to_le_bytes());
            address = sink.append_aligned(&head)?;
            sink.append(&self.objects)?;
        }
        for &(length, number) in &self.waiting {
            references.extend(reference(length, address, number));
        }
        self.objects.clear();
        self.waiting.clear();
        self.count = 0;
        Ok(())
    }
}

fn reference(length: u32, address: u64, number: u16) -> Reference {
    let mut out = [0; 16];
    if number > 0 {
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4..12].copy_from_slice(&address.to_le_bytes());
        out[12..].copy_from_slice(&u32::from(number).to_le_bytes());
    }
    out
}
