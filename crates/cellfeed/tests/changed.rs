//! Files that are cut short, or written anew, while a loader has them mapped: an error that names the
//! file, and no minibatch of anything else than what was there.
#![cfg(all(target_os = "linux", feature = "hdf5", feature = "csr"))]
#![allow(clippy::unwrap_used, clippy::panic)]

use cellfeed::io::Access;
use cellfeed::{Digest, ErrorKind, LoaderOptions, OpenOptions, Plan, PlanOptions, Strategy};
use cellfeed_core::{Extras, WriteOptions};
use cellfeed_testkit::fixtures;
use cellfeed_testkit::writing::{batches, new_store};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const ROWS: u64 = 20_000;

fn store(folder: &Path, codec: &str) -> PathBuf {
    let oracle = fixtures::oracle(codec, ROWS, 90, 4);
    let new = new_store(&oracle, Extras::default()).unwrap();
    let options = WriteOptions::default().with_codec(codec);
    let path = folder.join(format!("{codec}.{}", if codec == "none" { "h5ad" } else { "csr" }));
    let create = if codec == "none" { cellfeed_hdf5::create } else { cellfeed_csr::create };
    let mut writer = create(&path, new.clone(), &options).unwrap();
    for batch in batches(&oracle, &new).unwrap() {
        writer.append(&batch).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// The files that hold values and genes of `X`.
fn files(store: &Path) -> Vec<PathBuf> {
    if store.is_file() {
        return vec![store.to_owned()];
    }
    let arrays = ["X/data", "X/indices", "X/rows"].map(|name| store.join(name));
    arrays.into_iter().filter(|path| path.exists()).collect()
}

fn loader(path: &Path, access: Access) -> cellfeed::Loader {
    let options = OpenOptions::default().with_access(access);
    let store = cellfeed::open(path.to_str().unwrap(), &options).unwrap();
    let options = PlanOptions::default().with_batch_size(32).with_fetch_factor(64);
    let strategy = Strategy::BlockShuffling { block_size: 4 };
    let plan = Plan::new(store.n_obs(), strategy, &options).unwrap();
    // Few minibatches wait, so that most are gathered after the file has changed.
    store.loader(plan, LoaderOptions::default().with_memory(2 << 20)).unwrap()
}

/// Digests of the minibatches of an epoch.
fn pristine(path: &Path) -> Vec<String> {
    let minibatches = loader(path, Access::Read).epoch(0).unwrap();
    minibatches.map(|minibatch| digest(&minibatch.unwrap())).collect()
}

fn digest(minibatch: &cellfeed::Minibatch) -> String {
    let mut digest = Digest::new();
    digest.update(minibatch, 0).unwrap();
    digest.hex()
}

/// Changes a store's files once some minibatches are there.
fn changed(path: &Path, access: Access, change: impl Fn(&Path)) {
    let want = pristine(path);
    let mut minibatches = loader(path, access).epoch(0).unwrap();
    let mut got: Vec<_> = minibatches.by_ref().take(3).map(|m| digest(&m.unwrap())).collect();
    files(path).iter().for_each(|file| change(file));
    let error = loop {
        match minibatches.next() {
            Some(Ok(minibatch)) => got.push(digest(&minibatch)),
            Some(Err(error)) => break error,
            None => panic!("{access:?}: the epoch of {} went to its end", path.display()),
        }
    };
    // A read that has met the end says so.
    let told = error.to_string().contains("was truncated since it was opened");
    assert!(error.kind() == ErrorKind::Changed || told, "{error}");
    let named = files(path).iter().any(|file| error.to_string().contains(file.to_str().unwrap()));
    assert!(named, "{error}");
    assert!(minibatches.next().is_none());
    assert_eq!(got, want[..got.len()], "{access:?}: {}", path.display());
}

#[test]
fn a_file_that_is_cut_short_in_the_middle_of_an_epoch_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["plain", "packed", "none"] {
        for access in [Access::Map, Access::Auto] {
            for part in [0, 3] {
                let path = store(folder.path(), codec);
                changed(&path, access, |file| {
                    let len = file.metadata().unwrap().len();
                    File::options()
                        .write(true)
                        .open(file)
                        .unwrap()
                        .set_len(len * part / 7)
                        .unwrap();
                });
                remove(&path);
            }
        }
    }
}

#[test]
fn a_file_that_is_written_anew_in_its_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["plain", "packed", "none"] {
        let path = store(folder.path(), codec);
        changed(&path, Access::Map, |file| {
            // As long as it was, in the same place, and of another time even if the clock is coarse.
            let bytes: Vec<u8> = fs::read(file).unwrap().into_iter().rev().collect();
            fs::write(file, bytes).unwrap();
            let later = SystemTime::now() + Duration::from_secs(2);
            File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
        });
        remove(&path);
    }
}

fn remove(path: &Path) {
    if path.is_file() { fs::remove_file(path) } else { fs::remove_dir_all(path) }.unwrap();
}
