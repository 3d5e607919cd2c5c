//! A compressor for LZF, h5py's second filter (registered as 32000).
//!
//! An LZF stream is a run of tokens. A control byte below 32 announces that many plus one literal
//! bytes; any other is a back-reference: its upper three bits are the length minus two (7 means
//! that a further byte is to be added), its lower five bits and the last byte the distance minus
//! one. This is a greedy compressor with one hash slot per three-byte prefix.

const SLOTS_LOG2: u32 = 14;
const MAX_LITERALS: usize = 32;
const MAX_LENGTH: usize = 264;
const MAX_DISTANCE: usize = 8192;

/// A compressor with its hash table, to be used again for every chunk.
pub(super) struct Lzf {
    /// One past the position where the hashed prefix was last seen; 0 for never.
    slots: Vec<u32>,
}

impl Lzf {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; 1 << SLOTS_LOG2] }
    }

    /// Appends the compressed form of `input` to `out`; false, with `out` as it was, if that
    /// would take as many bytes as `input` itself.
    pub(super) fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if u32::try_from(input.len()).is_err() {
            return false;
        }
        self.slots.fill(0);
        let start = out.len();
        let limit = start + input.len();
        let (mut at, mut literals) = (0, 0);
        while at + 3 <= input.len() {
            if out.len() + (at - literals) >= limit {
                out.truncate(start);
                return false;
            }
            let Some(reference) = self.find(input, at) else {
                at += 1;
                continue;
            };
            let length = match_length(input, reference, at);
            put_literals(&input[literals..at], out);
            put_reference(at - reference, length, out);
            // The last two positions are hashed too: they often start the next match.
            for inside in at + length.saturating_sub(2)..at + length {
                if inside + 3 <= input.len() {
                    self.find(input, inside);
                }
            }
            at += length;
            literals = at;
        }
        put_literals(&input[literals..], out);
        if out.len() >= limit {
            out.truncate(start);
            return false;
        }
        true
    }

    /// The last place within reach with the three bytes at `at`; remembers `at`, which must be
    /// followed by two more bytes.
    #[inline]
    fn find(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let prefix = &input[at..at + 3];
        let key = u32::from(prefix[0]) << 16 | u32::from(prefix[1]) << 8 | u32::from(prefix[2]);
        let hash = key.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS_LOG2);
        let slot = self.slots.get_mut(usize::try_from(hash).ok()?)?;
        let seen = usize::try_from(*slot).ok()?.checked_sub(1);
        *slot = u32::try_from(at).ok()? + 1;
        let seen = seen?;
        (at - seen <= MAX_DISTANCE && input[seen..seen + 3] == *prefix).then_some(seen)
    }
}

/// How many bytes at `reference` and at `at` are equal; at least the three that were compared.
#[inline]
fn match_length(input: &[u8], reference: usize, at: usize) -> usize {
    let longest = MAX_LENGTH.min(input.len() - at);
    let (old, new) = (&input[reference..reference + longest], &input[at..at + longest]);
    3 + old[3..].iter().zip(&new[3..]).take_while(|(a, b)| a == b).count()
}

#[inline]
fn put_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(MAX_LITERALS) {
        out.push(low_byte(run.len() - 1));
        out.extend_from_slice(run);
    }
}

#[inline]
fn put_reference(distance: usize, length: usize, out: &mut Vec<u8>) {
    let (distance, length) = (distance - 1, length - 2);
    let high = low_byte(distance >> 8);
    if length < 7 {
        out.push(low_byte(length) << 5 | high);
    } else {
        out.push(7 << 5 | high);
        out.push(low_byte(length - 7));
    }
    out.push(low_byte(distance));
}

#[inline]
fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::Lzf;

    fn decompress(mut input: &[u8]) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::new();
        while let Some((&control, rest)) = input.split_first() {
            let control = usize::from(control);
            if control < 32 {
                let (literals, rest) = rest.split_at(control + 1);
                out.extend_from_slice(literals);
                input = rest;
                continue;
            }
            let (mut length, mut rest) = (control >> 5, rest);
            if length == 7 {
                length += usize::from(rest[0]);
                rest = &rest[1..];
            }
            let distance = ((control & 31) << 8 | usize::from(rest[0])) + 1;
            for _ in 0..length + 2 {
                out.push(out[out.len() - distance]);
            }
            input = &rest[1..];
        }
        out
    }

    #[test]
    fn round_trips() {
        let mut lzf = Lzf::new();
        let zeros = vec![0u8; 100_000];
        let counts: Vec<u8> = (0..50_000u32).flat_map(|i| (i * i % 7).to_le_bytes()).collect();
        let text = b"abcabcabcabcabcabcabcabcabcabcabcabcab".to_vec();
        for input in [zeros, counts, text] {
            let mut out = vec![9];
            assert!(lzf.compress(&input, &mut out));
            assert!(out.len() < input.len());
            assert_eq!(decompress(&out[1..]), input);
        }
    }

    #[test]
    fn gives_up_on_noise() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..10_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()[7]
            })
            .collect();
        for input in [&noise[..], b"", b"ab", b"abc"] {
            let mut out = vec![1, 2];
            assert!(!Lzf::new().compress(input, &mut out));
            assert_eq!(out, [1, 2]);
        }
    }
}
