//! Pages: their headers, their bytes once decompressed, and where levels and values lie in them.

use crate::codec::Codec;
use crate::delta;
use crate::footer::Leaf;
use crate::hybrid::{Hybrid, gaps, row_starts};
use crate::thrift::{FALSE, Reader, TRUE};
use bytes::Bytes;
use cellfeed_core::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    Data,
    DataV2,
    Dictionary,
    /// One that holds no values.
    Other,
}

/// How values are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageEncoding {
    Plain,
    Dictionary,
    /// Truth values in runs.
    Runs,
    Other(i64),
}

/// A page's header.
#[derive(Debug, Clone)]
pub(crate) struct PageHeader {
    pub(crate) kind: PageKind,
    /// Of the header itself.
    pub(crate) bytes: usize,
    pub(crate) packed: usize,
    pub(crate) plain: usize,
    pub(crate) crc: Option<u32>,
    pub(crate) n_values: usize,
    /// Version 2 alone.
    pub(crate) n_rows: Option<usize>,
    pub(crate) encoding: PageEncoding,
    /// Version 2: lengths of the levels, which are not compressed.
    repetition: usize,
    definition: usize,
    compressed: bool,
}

/// No header of a page is longer: statistics may hold whole values.
const LONGEST_HEADER: usize = 1 << 20;

impl PageHeader {
    /// Reads a header from the front of bytes, and refuses what cannot be.
    pub(crate) fn parse(bytes: &[u8], codec: Codec) -> Result<Self> {
        let mut r = Reader::new(&bytes[..bytes.len().min(LONGEST_HEADER)]);
        let size = |r: &mut Reader<'_>, kind: u8| -> Result<usize> {
            Ok(usize::try_from(r.unsigned(kind)?).unwrap_or(usize::MAX))
        };
        let (mut plain, mut packed, mut crc, mut kind) = (None, None, None, None);
        let (mut n_values, mut n_rows, mut encoding) = (None, None, None);
        let (mut repetition, mut definition, mut compressed) = (0, 0, true);
        let mut odd_levels = false;
        r.fields(|r, id, field| {
            match id {
                1 => {
                    kind = Some(match r.integer(field)? {
                        0 => PageKind::Data,
                        2 => PageKind::Dictionary,
                        3 => PageKind::DataV2,
                        _ => PageKind::Other,
                    });
                }
                2 => plain = Some(size(r, field)?),
                3 => packed = Some(size(r, field)?),
                4 => crc = Some(u32::try_from(r.integer(field)? & 0xffff_ffff).unwrap_or(0)),
                5 | 7 | 8 if field == crate::thrift::STRUCT => r.fields(|r, inner, field| {
                    match (id, inner) {
                        (_, 1) => n_values = Some(size(r, field)?),
                        (5 | 7, 2) | (8, 4) => encoding = Some(r.integer(field)?),
                        // Levels in the retired bit-packed encoding.
                        (5, 3 | 4) => odd_levels |= r.integer(field)? != 3,
                        (8, 3) => n_rows = Some(size(r, field)?),
                        (8, 5) => definition = size(r, field)?,
                        (8, 6) => repetition = size(r, field)?,
                        (8, 7) if field == TRUE || field == FALSE => compressed = field == TRUE,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let missing = || Error::corrupt("a page's header lacks a field");
        let kind = kind.ok_or_else(missing)?;
        let (plain, packed) = (plain.ok_or_else(missing)?, packed.ok_or_else(missing)?);
        let n_values = match kind {
            PageKind::Other => 0,
            _ => n_values.ok_or_else(missing)?,
        };
        if packed > bytes.len() - r.position() {
            return Err(Error::corrupt(format!(
                "a page of {packed} bytes, where {} are left",
                bytes.len() - r.position()
            )));
        }
        let levels = repetition.checked_add(definition).ok_or_else(missing)?;
        if levels > packed || levels > plain || plain / codec.most() > packed {
            return Err(Error::corrupt(format!(
                "a page of {packed} bytes cannot have {plain} decompressed ones"
            )));
        }
        if kind == PageKind::Data && odd_levels {
            return Err(Error::unsupported("levels in the retired encoding BIT_PACKED"));
        }
        let encoding = match encoding {
            Some(0) => PageEncoding::Plain,
            Some(2 | 8) => PageEncoding::Dictionary,
            Some(3) => PageEncoding::Runs,
            Some(other) => PageEncoding::Other(other),
            None if kind == PageKind::Other => PageEncoding::Other(-1),
            None => return Err(missing()),
        };
        Ok(Self {
            kind,
            bytes: r.position(),
            packed,
            plain,
            crc,
            n_values,
            n_rows,
            encoding,
            repetition,
            definition,
            compressed,
        })
    }

    /// Header and body.
    pub(crate) fn whole(&self) -> usize {
        self.bytes + self.packed
    }
}

/// Memory that pages are decompressed into, one behind the other. It is kept and written over, never
/// zeroed again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    bytes: Vec<u8>,
    used: usize,
}

impl Scratch {
    /// How many bytes are in use.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Forgets what is behind the first `used` bytes.
    pub(crate) fn cut(&mut self, used: usize) {
        self.used = used.min(self.used);
    }

    /// How many bytes it holds on to.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Keeps bytes that were made elsewhere.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Body {
        let start = self.used;
        self.take(bytes.len()).copy_from_slice(bytes);
        Body::Scratch(start..self.used)
    }

    /// The next `n` bytes, with unspecified contents.
    fn take(&mut self, n: usize) -> &mut [u8] {
        let end = self.used + n;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let part = &mut self.bytes[self.used..end];
        self.used = end;
        part
    }
}

/// Where a page's decompressed bytes are: among those that were read, or in scratch.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Read(Bytes),
    Scratch(Range<usize>),
}

impl Body {
    pub(crate) fn bytes<'a>(&'a self, scratch: &'a Scratch) -> &'a [u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Scratch(range) => scratch.bytes.get(range.clone()).unwrap_or_default(),
        }
    }

    /// As bytes that stay when scratch is written over.
    pub(crate) fn into_bytes(self, scratch: &Scratch) -> Bytes {
        match self {
            Self::Read(bytes) => bytes,
            Self::Scratch(_) => Bytes::copy_from_slice(self.bytes(scratch)),
        }
    }
}

/// Checks the page against its checksum, where it has one, and decompresses it, to the end of `scratch`
/// if it is compressed. `bytes` begin with the header.
pub(crate) fn open(
    header: &PageHeader,
    bytes: &Bytes,
    codec: Codec,
    scratch: &mut Scratch,
) -> Result<Body> {
    let body = bytes.slice(header.bytes..header.whole());
    if let Some(crc) = header.crc {
        let found = crc32fast::hash(&body);
        if found != crc {
            return Err(Error::corrupt(format!(
                "a page's checksum is {found:08x}, but its header says {crc:08x}: its bytes are \
                 damaged"
            )));
        }
    }
    if codec == Codec::Plain || (header.kind == PageKind::DataV2 && !header.compressed) {
        if header.plain != header.packed {
            return Err(Error::corrupt("an uncompressed page of two lengths"));
        }
        return Ok(Body::Read(body));
    }
    let start = scratch.used();
    let out = scratch.take(header.plain);
    // Levels of version 2 stay as they are.
    let levels =
        if header.kind == PageKind::DataV2 { header.repetition + header.definition } else { 0 };
    out[..levels].copy_from_slice(&body[..levels]);
    if header.plain > levels {
        codec.decompress(&body[levels..], &mut out[levels..])?;
    }
    Ok(Body::Scratch(start..start + header.plain))
}

/// A data page's levels, understood, and its values.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    /// Where rows begin, if the column repeats.
    pub(crate) starts: Option<Vec<u32>>,
    /// Values that are not there, with their levels.
    pub(crate) gaps: Vec<(u32, u8)>,
    /// Plain values or codes; new ones, where the page has another encoding.
    pub(crate) values: Cow<'a, [u8]>,
    pub(crate) encoding: PageEncoding,
}

/// Takes a data page apart; `rows` are as many as it can have.
pub(crate) fn contents<'a>(
    header: &PageHeader,
    body: &'a [u8],
    leaf: &Leaf,
    rows: usize,
) -> Result<Contents<'a>> {
    let (max_def, max_rep) = (leaf.max_def, leaf.max_rep);
    let n = header.n_values;
    if u32::try_from(n).is_err() {
        return Err(Error::corrupt("a page of 2^32 values and more"));
    }
    let short = || Error::corrupt("a page ends within its levels");
    let (mut repetition, mut definition, values);
    if header.kind == PageKind::DataV2 {
        let (r, rest) = body.split_at_checked(header.repetition).ok_or_else(short)?;
        let (d, rest) = rest.split_at_checked(header.definition).ok_or_else(short)?;
        repetition = (max_rep > 0).then(|| Hybrid::of_levels(r, max_rep));
        definition = (max_def > 0).then(|| Hybrid::of_levels(d, max_def));
        values = rest;
    } else {
        let mut rest = body;
        (repetition, definition) = (None, None);
        for (most, slot) in [(max_rep, &mut repetition), (max_def, &mut definition)] {
            if most > 0 {
                let (levels, after) = Hybrid::levels(rest, most)?;
                *slot = Some(levels);
                rest = after;
            }
        }
        values = rest;
    }
    let starts = repetition.as_mut().map(|levels| row_starts(levels, n, rows)).transpose()?;
    let gaps = definition.as_mut().map(|levels| gaps(levels, n, max_def, rows)).transpose()?;
    let gaps = gaps.unwrap_or_default();
    let other = match header.encoding {
        PageEncoding::Other(number) => delta::plain(number, leaf, values, n - gaps.len())?,
        _ => None,
    };
    let (values, encoding) = match other {
        Some(plain) => (Cow::Owned(plain), PageEncoding::Plain),
        None => (Cow::Borrowed(values), header.encoding),
    };
    Ok(Contents { starts, gaps, values, encoding })
}
