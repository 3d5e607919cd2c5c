//! Parts of an answer: which bytes of an object, and where they go to.

use std::ops::Range;

/// Bytes of an object, and where in an answer they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) range: Range<u64>,
    pub(crate) at: usize,
}

/// A range of the object and the place its bytes go to.
pub(crate) type Piece<'a> = (Range<u64>, &'a mut [u8]);

pub(crate) fn index(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

pub(crate) fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Part {
    pub(crate) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Ranges end to end.
pub(crate) fn end_to_end(ranges: &[Range<u64>]) -> Vec<Part> {
    let mut at = 0;
    let part = |range: &Range<u64>| {
        let part = Part { range: range.clone(), at };
        at += index(part.len());
        part
    };
    ranges.iter().map(part).collect()
}

/// Cuts the places of parts, which come in their order, out of an answer.
pub(crate) fn cut<'a>(parts: &[Part], buffer: &'a mut [u8]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::with_capacity(parts.len());
    let (mut rest, mut done) = (buffer, 0);
    for part in parts {
        let (_, tail) = rest.split_at_mut(part.at - done);
        let (piece, tail) = tail.split_at_mut(index(part.len()));
        (rest, done) = (tail, part.at + index(part.len()));
        pieces.push((part.range.clone(), piece));
    }
    pieces
}

/// Splits a piece at a byte of the object inside it.
pub(crate) fn split(piece: Piece<'_>, at: u64) -> (Piece<'_>, Piece<'_>) {
    let (range, bytes) = piece;
    let (head, tail) = bytes.split_at_mut(index(at - range.start));
    ((range.start..at, head), (at..range.end, tail))
}

/// Copies bytes that begin at `at` to the pieces that they belong to.
pub(crate) fn place(part: &[u8], at: u64, pieces: &mut [Piece<'_>]) {
    let end = at + as_u64(part.len());
    let first = pieces.partition_point(|(range, _)| range.end <= at);
    for (range, piece) in pieces.iter_mut().skip(first) {
        if range.start >= end {
            break;
        }
        let (start, stop) = (range.start.max(at), range.end.min(end));
        let to = &mut piece[index(start - range.start)..index(stop - range.start)];
        to.copy_from_slice(&part[index(start - at)..index(stop - at)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_find_their_places_across_gaps_and_parts() {
        let bytes: Vec<u8> = (0..100).collect();
        let (mut a, mut b, mut c) = ([0; 10], [0; 5], [0; 20]);
        let mut pieces: Vec<Piece<'_>> = vec![(10..20, &mut a), (30..35, &mut b), (35..55, &mut c)];
        for part in [10..13, 13..31, 31..32, 32..55] {
            let at = u64::try_from(part.start).unwrap();
            place(&bytes[part], at, &mut pieces);
        }
        assert_eq!((&a[..], &b[..], &c[..]), (&bytes[10..20], &bytes[30..35], &bytes[35..55]));
    }

    #[test]
    fn an_answer_is_cut_where_its_parts_are() {
        let mut buffer = [0u8; 30];
        let parts = end_to_end(&[50..60, 0..5, 5..20]);
        let pieces = cut(&parts[1..], &mut buffer);
        assert_eq!(pieces.iter().map(|(_, p)| p.len()).collect::<Vec<_>>(), [5, 15]);
        let (head, tail) = split(cut(&parts, &mut buffer).remove(0), 53);
        assert_eq!((head.0, head.1.len(), tail.0, tail.1.len()), (50..53, 3, 53..60, 7));
    }
}
