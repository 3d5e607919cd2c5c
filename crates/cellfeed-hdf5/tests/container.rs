//! The container interface on real files: everything in them is read, and the two readers agree.
//! The module is private, so it is compiled into this test.

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

use std::path::{Path, PathBuf};

use cellfeed_core::ErrorKind;
use container::walk::{Reach, walk};
use container::{Container, Limits, LocalFile, Node, Storage, open_pure};

fn folders() -> [PathBuf; 2] {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    [crate_dir.join("../../../shared/data"), crate_dir.join("../../testdata/h5ad")]
}

/// HDF5 files of the shared data and of testdata.
fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in folders() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            eprintln!("SKIPPED: {} does not exist", folder.display());
            continue;
        };
        files.extend(entries.filter_map(|e| {
            let path = e.ok()?.path();
            let extension = path.extension()?.to_str()?;
            matches!(extension, "h5" | "h5ad" | "h5mu" | "loom").then_some(path)
        }));
    }
    files.sort();
    files
}

fn open(path: &Path) -> cellfeed_core::Result<container::PureContainer> {
    open_pure(LocalFile::open(path)?, &path.display().to_string(), Limits::default())
}

#[test]
fn every_file_is_read_whole() {
    for path in files() {
        let file = open(&path).unwrap();
        let start = std::time::Instant::now();
        let all = container::guard::deep(|| walk(&file, Reach::WHOLE)).unwrap();
        let (mut groups, mut datasets, mut chunks, mut unsupported) = (0, 0, 0, 0);
        for (name, found) in &all {
            // Filters, chunk indexes and layouts that this reader does not know: named as such.
            for (kind, text) in found.errors() {
                assert_eq!(kind, ErrorKind::Unsupported, "{} {name}: {text}", path.display());
                unsupported += 1;
            }
            if found.node.is_err() {
                continue;
            }
            match found.node.as_ref().unwrap() {
                Node::Group(_) => groups += 1,
                Node::Dataset(_) => datasets += 1,
            }
            if let Some(Ok(table)) = &found.chunks {
                chunks += table.stored();
            }
        }
        eprintln!(
            "{}: {groups} groups, {datasets} datasets, {chunks} chunks, {unsupported} unsupported, {:?}",
            path.display(),
            start.elapsed()
        );
        assert!(groups > 0 && datasets > 0);
    }
}

#[cfg(feature = "libhdf5")]
#[test]
fn both_readers_agree() {
    for path in files() {
        let pure = open(&path).unwrap();
        let native = container::open_libhdf5(&path, Limits::default()).unwrap();
        let a = container::guard::deep(|| walk(&pure, Reach::WHOLE)).unwrap();
        let b = container::guard::deep(|| walk(&native, Reach::WHOLE)).unwrap();
        let differences = container::walk::differences(&a, &b);
        assert!(differences.is_empty(), "{}: {differences:#?}", path.display());
        for (name, found) in &b {
            for (kind, text) in found.errors() {
                // Filters that come as plugins.
                assert_eq!(kind, ErrorKind::Unsupported, "{} {name}: {text}", path.display());
            }
        }
    }
}

#[test]
fn what_is_missing_is_said_with_what_is_there() {
    let Some(path) = files().into_iter().next() else { return };
    let file = open(&path).unwrap();
    let error = file.node("no/such/thing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(
        text.contains("the root group has ") && text.contains("element no/such/thing"),
        "{text}"
    );
}

#[test]
fn soft_links_are_followed_and_lead_somewhere() {
    let folder = &folders()[1];
    let Ok(file) = open(&folder.join("container-soft-link-x.h5ad")) else {
        eprintln!("SKIPPED: container-soft-link-x.h5ad does not exist");
        return;
    };
    assert!(file.node("X").is_ok(), "{:?}", file.node("X"));
    for (name, kind, word) in [
        ("link-cycle", ErrorKind::Corrupt, "circle"),
        ("link-dangling", ErrorKind::NotFound, "soft link"),
        ("link-external", ErrorKind::Unsupported, "another file"),
    ] {
        let file = open(&folder.join("bad").join(name).with_extension("h5ad")).unwrap();
        let Node::Group(root) = file.node("").unwrap() else { panic!("{name}") };
        assert!(root.members.iter().any(|m| m == "X"), "{name} is listed");
        let error = file.node("X").unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_group_is_not_read_as_a_dataset() {
    let Some(path) = files().into_iter().next() else { return };
    let file = open(&path).unwrap();
    let error = file.read_raw("/", 0..1).unwrap_err();
    assert!(error.to_string().contains("group"), "{error}");
}

#[test]
fn a_truncated_file_says_both_lengths() {
    let Some(path) = files().into_iter().next() else { return };
    let bytes = std::fs::read(&path).unwrap();
    for part in 1..10 {
        let cut = bytes[..bytes.len() * part / 10].to_vec();
        let len = cut.len();
        let error = open_pure(cut, "cut.h5ad", Limits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(
            text.contains(&len.to_string()) && text.contains(&bytes.len().to_string()),
            "{text}"
        );
    }
}

#[test]
fn a_read_beyond_the_limit_is_refused_before_it_allocates() {
    for path in files().into_iter().take(3) {
        let limits = Limits { read_bytes: 64, ..Limits::default() };
        let name = path.display().to_string();
        let file = open_pure(LocalFile::open(&path).unwrap(), &name, limits).unwrap();
        let all = walk(&file, Reach { bytes: 1 << 16, ..Reach::WHOLE });
        let over = all.values().flat_map(container::walk::Found::errors).collect::<Vec<_>>();
        assert!(!over.is_empty());
        for (_, text) in &over {
            assert!(
                text.contains("more than 64 bytes") || text.contains("beyond the 64"),
                "{text}"
            );
        }
    }
}

#[test]
fn chunks_hold_what_the_library_reads() {
    // Of an unfiltered chunked dataset, the first chunk in the file is the first rows.
    for path in files() {
        let file = open(&path).unwrap();
        let all = walk(&file, Reach { bytes: 0, ..Reach::WHOLE });
        for (name, found) in &all {
            let (Ok(Node::Dataset(d)), Some(Ok(table))) = (&found.node, &found.chunks) else {
                continue;
            };
            let Storage::Chunked { chunk_shape } = &d.storage else { continue };
            let rows = chunk_shape[0].min(d.rows());
            if !d.filters.is_empty() || d.shape.len() != 1 || d.element.plain_order().is_none() {
                continue;
            }
            let Some(chunk) = table.get(0).map(container::StoredChunk::range) else { continue };
            let bytes = std::fs::read(&path).unwrap();
            let stored =
                &bytes[usize::try_from(chunk.start).unwrap()..usize::try_from(chunk.end).unwrap()];
            let raw = file.read_raw(name, 0..rows).unwrap();
            assert_eq!(raw, stored[..raw.len()], "{} {name}", path.display());
        }
    }
}
