//! Damage to a store's files: truncations, flipped bits, overwritten numbers, missing files. Drawn
//! from a seed, with an eye to where headers are.

use crate::fixtures::Rng;
use crate::subject::StoreFiles;
use std::fmt;

/// One damage to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// What is done to it.
    pub kind: DamageKind,
}

/// What is done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageKind {
    /// Cut to so many bytes.
    Truncate(usize),
    /// One bit, of the byte at this offset, is flipped.
    Flip(usize, u8),
    /// Bytes are overwritten from this offset on, as far as the file reaches.
    Overwrite(usize, Vec<u8>),
    /// The file is not there.
    Remove,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match &self.kind {
            DamageKind::Truncate(len) => write!(f, "{file} cut to {len} bytes"),
            DamageKind::Flip(at, bit) => write!(f, "bit {bit} of byte {at} of {file} flipped"),
            DamageKind::Overwrite(at, bytes) => {
                write!(f, "bytes from {at} of {file} overwritten with {bytes:02x?}")
            }
            DamageKind::Remove => write!(f, "{file} removed"),
        }
    }
}

impl Damage {
    /// A damaged copy of the files.
    #[must_use]
    pub fn apply(&self, files: &StoreFiles) -> StoreFiles {
        let mut files = files.clone();
        if self.kind == DamageKind::Remove {
            files.retain(|(name, _)| *name != self.file);
            return files;
        }
        for (_, bytes) in files.iter_mut().filter(|(name, _)| *name == self.file) {
            match &self.kind {
                DamageKind::Truncate(len) => bytes.truncate(*len),
                DamageKind::Flip(at, bit) => {
                    bytes.iter_mut().skip(*at).take(1).for_each(|b| *b ^= 1 << bit);
                }
                DamageKind::Overwrite(at, with) => {
                    bytes.iter_mut().skip(*at).zip(with).for_each(|(b, w)| *b = *w);
                }
                DamageKind::Remove => {}
            }
        }
        files
    }
}

/// How near an end of a file "near an end" is: headers and footers are there.
const END: u64 = 2048;

/// How many files are truncated, or removed, at most.
const FILES: usize = 24;

/// The damages to try: each file cut at every tenth of its length and by one byte, each file of
/// several removed, and `n` random ones.
#[must_use]
pub fn damages(files: &StoreFiles, n: usize, seed: u64) -> Vec<Damage> {
    let mut out = Vec::new();
    let rng = &mut Rng::new(seed);
    let step = files.len().div_ceil(FILES).max(1);
    for (name, bytes) in files.iter().step_by(step) {
        let damage = |kind| Damage { file: name.clone(), kind };
        let mut cuts: Vec<usize> = (0..10).map(|tenth| bytes.len() * tenth / 10).collect();
        cuts.extend(bytes.len().checked_sub(1));
        cuts.dedup();
        cuts.retain(|&cut| cut < bytes.len());
        out.extend(cuts.into_iter().map(|cut| damage(DamageKind::Truncate(cut))));
        if files.len() > 1 {
            out.push(damage(DamageKind::Remove));
        }
    }
    let damageable: Vec<_> = files.iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
    let count = u64::try_from(damageable.len()).unwrap_or(0);
    for _ in 0..if count == 0 { 0 } else { n } {
        let (name, bytes) = damageable[usize::try_from(rng.below(count)).unwrap_or(0)];
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let at = match rng.below(3) {
            0 => rng.below(len.min(END)),
            1 => len - 1 - rng.below(len.min(END)),
            _ => rng.below(len),
        };
        let at = usize::try_from(at).unwrap_or(0);
        out.push(Damage { file: name.clone(), kind: random_kind(at, rng) });
    }
    out
}

fn random_kind(at: usize, rng: &mut Rng) -> DamageKind {
    let bit = u8::try_from(rng.below(8)).unwrap_or(0);
    match rng.below(8) {
        0..3 => DamageKind::Flip(at, bit),
        3 => DamageKind::Overwrite(at, vec![0xff; 1 << (bit % 4)]),
        4 => DamageKind::Overwrite(at, vec![0; 1 << (bit % 4)]),
        // Numbers that are huge, but not absurd, where a length may stand.
        5 => DamageKind::Overwrite(at, (1u64 << (30 + 4 * bit)).to_le_bytes().into()),
        6 => DamageKind::Overwrite(at & !7, (1u64 << (30 + 4 * bit)).to_le_bytes().into()),
        _ => DamageKind::Overwrite(at, rng.bits().to_le_bytes().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_repeatable_and_changes_the_file() {
        let files = vec![("a".to_owned(), vec![7u8; 5000]), ("b".to_owned(), vec![])];
        let list = damages(&files, 100, 3);
        assert_eq!(list, damages(&files, 100, 3));
        assert_eq!(list.len(), 11 + 1 + 1 + 100);
        let changed = list.iter().filter(|d| d.apply(&files) != files).count();
        assert!(changed > 95, "{changed}");
        assert_eq!(list[0].to_string(), "a cut to 0 bytes");
    }
}
