//! Bob Jenkins' `lookup3` hash, the checksum of version 2 superblocks and object headers (HDF5
//! File Format Specification 3.0, sections II.A and IV.A.1.b name it; the algorithm is public
//! domain).

const SEED: u32 = 0xdead_beef;

/// The checksum of `bytes`, with the initial value 0 that HDF5 uses.
pub(super) fn lookup3(bytes: &[u8]) -> u32 {
    // The hash is defined on lengths modulo 2^32; metadata blocks are far shorter.
    let length = u32::try_from(bytes.len() & 0xffff_ffff).unwrap_or(u32::MAX);
    let start = SEED.wrapping_add(length);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = bytes;
    while rest.len() > 12 {
        let (head, tail) = rest.split_at(12);
        a = a.wrapping_add(word(head, 0));
        b = b.wrapping_add(word(head, 1));
        c = c.wrapping_add(word(head, 2));
        (a, b, c) = mix(a, b, c);
        rest = tail;
    }
    if rest.is_empty() {
        return c;
    }
    // Missing bytes of the last words count as zero.
    a = a.wrapping_add(word(rest, 0));
    b = b.wrapping_add(word(rest, 1));
    c = c.wrapping_add(word(rest, 2));
    last(a, b, c)
}

/// The `i`-th little-endian word of `bytes`, padded with zeros.
fn word(bytes: &[u8], i: usize) -> u32 {
    bytes.iter().skip(4 * i).take(4).rev().fold(0, |sum, &byte| (sum << 8) | u32::from(byte))
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn last(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::lookup3;

    #[test]
    fn published_vectors() {
        // From the self-test of lookup3.c (`driver5`).
        assert_eq!(lookup3(b""), 0xdead_beef);
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }
}
