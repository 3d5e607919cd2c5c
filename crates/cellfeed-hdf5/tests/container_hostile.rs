//! Damaged and hostile files: whatever the bytes, the pure reader answers in bounded time and
//! memory. Mutations are drawn from a fixed seed. A test binary of its own, since it counts what is
//! allocated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests panic, and say what they skip"
)]

#[allow(dead_code, unused_imports, reason = "tests use a part of it")]
#[path = "../src/container/mod.rs"]
mod container;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use container::walk::{Reach, walk};
use container::{Container as _, Limits, guard, open_pure};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged; counting changes nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: they share the counters and the panic hook.
static ONE: Mutex<()> = Mutex::new(());

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

/// Small files of different ages: superblocks 0 to 3, old and new groups, all chunk indexes.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("written here".to_owned(), written())];
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in [
        "bpcells_mini_mat.anndata-v0.6.22.h5ad",
        "bpcells_mini_mat_uint_16.anndata-v0.10.9.h5ad",
        "10x_v3_tiny.h5",
        "anndata_v0.7.0_adata.h5ad",
    ] {
        match std::fs::read(crate_dir.join("../../../shared/data").join(name)) {
            Ok(bytes) => files.push((name.to_owned(), bytes)),
            Err(e) => eprintln!("SKIPPED: {name}: {e}"),
        }
    }
    files
}

fn written() -> Vec<u8> {
    let mut f = hdf5_pure::FileBuilder::new();
    let values: Vec<i32> = (0..1000).collect();
    f.create_dataset("fixed").with_i32_data(&values).with_chunks(&[64]).with_deflate(4);
    f.create_dataset("growing")
        .with_i32_data(&values)
        .with_chunks(&[64])
        .with_maxshape(&[hdf5_pure::MaxExtent::Unlimited])
        .with_deflate(4);
    f.create_dataset("plain").with_i32_data(&values).with_chunks(&[64]);
    f.create_dataset("single").with_i32_data(&values).with_chunks(&[1000]).with_shuffle();
    f.create_dataset("run").with_i32_data(&values).set_attr(
        "names",
        hdf5_pure::AttrValue::VarLenStringArray(vec!["a".to_owned(), "b".to_owned()]),
    );
    for i in 0..12 {
        f.set_attr(&format!("attribute {i}"), hdf5_pure::AttrValue::I64(i));
    }
    f.finish().unwrap()
}

fn mutate(bytes: &mut [u8], random: &mut Random) {
    let len = bytes.len();
    // Most of a small file is unused; what is not zero is a likelier target.
    let place = |random: &mut Random, bytes: &[u8]| {
        let tries: Vec<usize> = (0..8).map(|_| random.below(len - 8)).collect();
        tries.iter().copied().find(|&at| bytes[at] != 0).unwrap_or(tries[0])
    };
    for _ in 0..=random.below(3) {
        match random.below(4) {
            0 => bytes[place(random, bytes)] ^= 1 << random.below(8),
            1 => bytes[place(random, bytes)] = u8::try_from(random.below(256)).unwrap(),
            kind => {
                let width = [2, 4, 8][random.below(3)];
                let long = u64::try_from(len).unwrap();
                let huge = [u64::MAX, u64::MAX - 1, 1 << 62, 1 << 40, 1 << 32, 1 << 20, long, 0];
                let value = if kind == 2 {
                    huge[random.below(huge.len())]
                } else {
                    // An address inside the file: loops and wrong structures.
                    random.next() % long
                };
                // Metadata is aligned to eight bytes mostly, and so are the best targets.
                let mut at = place(random, bytes);
                if random.below(2) == 0 {
                    at &= !7;
                }
                bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    tried: usize,
    opened: usize,
    with_errors: usize,
    slowest: Duration,
    peak: usize,
    panics: BTreeMap<String, usize>,
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn try_one(bytes: Vec<u8>, tally: &mut Tally, what: &str) {
    let limits = Limits { read_bytes: 16 << 20, ..Limits::default() };
    let reach = Reach { depth: 6, nodes: 200, bytes: 1 << 20 };
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = guard::deep(|| {
        let file = open_pure(bytes, "hostile", limits)?;
        Ok::<_, cellfeed_core::Error>(walk(&file, reach))
    });
    let spent = start.elapsed();
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    tally.tried += 1;
    if let Ok(all) = result.expect("no panic gets out") {
        tally.opened += 1;
        tally.with_errors += usize::from(all.values().any(|f| !f.errors().is_empty()));
    }
    assert!(spent < Duration::from_secs(20), "{what} took {spent:?}");
    assert!(peak < 256 << 20, "{what} allocated {} MiB", peak >> 20);
    tally.slowest = tally.slowest.max(spent);
    tally.peak = tally.peak.max(peak);
    for place in PANICS.lock().unwrap().drain(..) {
        *tally.panics.entry(place).or_default() += 1;
    }
}

/// Runs `work` with panics counted by place instead of printed.
fn counting_panics(work: impl FnOnce()) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let here = std::thread::current().name() == Some("hdf5-metadata");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let place = place.rsplit_once("/src/").map_or(place.as_str(), |(_, p)| p).to_owned();
        if here {
            PANICS.lock().unwrap().push(place);
        } else {
            before(info);
        }
    }));
    work();
    drop(std::panic::take_hook());
}

#[test]
fn mutated_files_end_in_errors() {
    // More on request, for a longer search.
    let rounds = std::env::var("CELLFEED_MUTATIONS").ok().and_then(|n| n.parse().ok());
    let rounds: usize = rounds.unwrap_or(600);
    counting_panics(|| {
        for (name, original) in files() {
            let mut random = Random(u64::try_from(original.len()).unwrap());
            let mut tally = Tally::default();
            try_one(original.clone(), &mut tally, &name);
            assert_eq!((tally.opened, tally.with_errors), (1, 0), "{name} itself is sound");
            for round in 0..rounds {
                let mut bytes = original.clone();
                mutate(&mut bytes, &mut random);
                try_one(bytes, &mut tally, &format!("{name}, round {round}"));
            }
            eprintln!("{name}: {tally:?}");
        }
    });
}

#[test]
fn truncated_files_end_in_errors() {
    counting_panics(|| {
        for (name, original) in files() {
            let mut tally = Tally::default();
            for part in 0..100 {
                let cut = original[..original.len() * part / 100].to_vec();
                try_one(cut, &mut tally, &format!("{name} cut at {part}%"));
            }
            assert_eq!(tally.opened, 0, "{name}");
        }
    });
}

#[test]
fn lying_lengths_of_the_source_end_in_errors() {
    // The superblock believes in a whole file, and the end is missing.
    counting_panics(|| {
        for (name, original) in files() {
            let mut tally = Tally::default();
            for part in 1..10 {
                let mut bytes = original.clone();
                let keep = bytes.len() * part / 10;
                bytes[keep..].fill(0);
                try_one(bytes, &mut tally, &format!("{name} zeroed from {part}0%"));
            }
        }
    });
}

/// A file whose root group has one attribute, of the given datatype message.
fn file_with_attribute(datatype: &[u8]) -> Vec<u8> {
    let padded = datatype.len().next_multiple_of(8);
    let mut body = vec![1, 0];
    for len in [2, datatype.len(), 8] {
        body.extend_from_slice(&u16::try_from(len).unwrap().to_le_bytes());
    }
    body.extend_from_slice(b"a\0\0\0\0\0\0\0");
    body.extend_from_slice(datatype);
    body.resize(16 + padded, 0);
    body.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]); // a scalar
    body.extend_from_slice(&[0; 16]);

    let mut f = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0\x04\0\x10\0\0\0\0\0".to_vec();
    let end = u64::try_from(96 + 16 + 8 + body.len()).unwrap();
    for n in [0, u64::MAX, end, u64::MAX, 0, 96, 0, 0, 0] {
        f.extend_from_slice(&n.to_le_bytes());
    }
    assert_eq!(f.len(), 96);
    f.extend_from_slice(&[1, 0, 1, 0, 1, 0, 0, 0]);
    f.extend_from_slice(&u32::try_from(body.len() + 8).unwrap().to_le_bytes());
    f.extend_from_slice(&[0; 4]);
    f.extend_from_slice(&[0x0c, 0]);
    f.extend_from_slice(&u16::try_from(body.len()).unwrap().to_le_bytes());
    f.extend_from_slice(&[0; 4]);
    f.extend_from_slice(&body);
    f
}

#[test]
fn a_deeply_nested_type_does_not_end_the_stack() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for levels in [0, 1, 100, 8000] {
        // Sequences of variable length of sequences of variable length ... of 32-bit integers.
        let mut datatype = [0x19, 0, 0, 0, 16, 0, 0, 0].repeat(levels);
        datatype.extend_from_slice(&[0x10, 8, 0, 0, 4, 0, 0, 0, 0, 0, 32, 0]);
        let file = open_pure(file_with_attribute(&datatype), "deep", Limits::default()).unwrap();
        let Ok(container::Node::Group(root)) = file.node("/") else { panic!("{levels} levels") };
        let value = root.attributes.get("a").unwrap();
        let integer = matches!(value, container::AttributeValue::Integers(_));
        assert_eq!(integer, levels == 0, "{levels} levels: {value:?}");
    }
}
