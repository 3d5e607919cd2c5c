//! An emulator of a cloud, where one runs: `scripts/with-azurite` starts that of Azure.

use crate::requests::{digest, written};
use cellfeed::object::simulate::{Behaviour, Simulated};
use cellfeed::object::{Remote, RemoteOptions};
use cellfeed::{ConvertOptions, ErrorKind, OpenOptions, WriteOptions};
use std::sync::Arc;
use tempfile::TempDir;

/// The account and key that every emulator has.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// How the emulator is reached; none if there is none.
fn azurite() -> Option<RemoteOptions> {
    let Ok(address) = std::env::var("CELLFEED_TEST_AZURITE") else {
        eprintln!("skipped: no Azurite; scripts/with-azurite starts one");
        return None;
    };
    let options = RemoteOptions::default()
        .with_setting("account_name", ACCOUNT)
        .with_setting("account_key", KEY)
        .with_setting("endpoint", format!("{address}/{ACCOUNT}"));
    Some(options)
}

#[test]
fn azure_has_what_was_written() {
    let Some(remote) = azurite() else { return };
    let (folder, staging) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let stores = written(&folder);
    let open = OpenOptions::default().with_remote(remote.clone());
    let source = cellfeed::open(stores[0].1.to_str().unwrap(), &open).unwrap();
    let convert = |url: &str, remote: &RemoteOptions, overwrite: bool| {
        let options = ConvertOptions::default()
            .with_write(WriteOptions::default().with_overwrite(overwrite))
            .with_staging(staging.path())
            .with_remote(remote.clone());
        cellfeed::convert(&source, url, &options, &mut |_| true)
    };
    for (name, path) in &stores {
        let url = format!("az://cellfeed/made/{}", path.file_name().unwrap().to_str().unwrap());
        for overwrite in [false, true] {
            convert(&url, &remote, overwrite).unwrap();
            let store = cellfeed::open(&url, &open).unwrap();
            assert_eq!(digest(&store), digest(&source), "{name}");
        }
        let error = convert(&url, &remote, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    // Requests that fail, and answers that are lost.
    let bad = Behaviour { throttled: 30, reset: 70, seed: 5, ..Behaviour::default() };
    let bad = remote
        .clone()
        .with_attempts(12)
        .with_wrapper(move |s| Arc::new(Simulated::new(s, bad, Arc::default())))
        .with_parts_wrapper(move |s| Arc::new(Simulated::new(s, bad, Arc::default())));
    convert("az://cellfeed/bad.zarr", &bad, false).unwrap();
    let store = cellfeed::open("az://cellfeed/bad.zarr", &open).unwrap();
    assert_eq!(digest(&store), digest(&source));
    // Parts.
    let long = folder.path().join("long");
    std::fs::write(&long, vec![7; 17 << 20]).unwrap();
    let url = "az://cellfeed/long.h5ad";
    let to = Remote::new(bad).unwrap().destination(url, None, false).unwrap();
    to.upload(&long, &mut |_, _| true).unwrap();
    let text = cellfeed::open(url, &open).unwrap_err().to_string();
    assert!(text.contains("HDF5"), "{text}");

    let error = convert("az://no-such-container/x.zarr", &remote, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let wrong = remote.with_setting("account_key", "c2VjcmV0");
    let error = convert("az://cellfeed/new.zarr", &wrong, false).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains("credentials"), "{error}");
}
