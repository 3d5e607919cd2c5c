//! The eight laws on stores behind a server of S3's protocol.

use crate::server::{Server, write};
use cellfeed::{Backend, Encoding, Format, OpenOptions, Result, ValueSpan};
use cellfeed_testkit::{Limits, Oracle, Subject, conformance, fixtures};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The same reading of damaged bytes is tried three hundred times over local files.
const FEW: Limits =
    Limits { timeout: Duration::from_secs(60), damages: 4, memory: 256 << 20, seed: 20_250_601 };

/// The oracle as these formats have it: values in the smallest type.
fn as_kept(mut oracle: Oracle) -> Oracle {
    for matrix in &mut oracle.matrices {
        let mut span = ValueSpan::default();
        span.add(&matrix.values);
        matrix.values = matrix.values.cast(span.smallest()).unwrap();
        matrix.encoding = Encoding::Csr;
    }
    oracle
}

/// Opens the store itself, and then one damaged copy after the other.
fn opener(
    server: &Arc<Server>,
    options: &OpenOptions,
) -> impl Fn(&Path) -> Result<Arc<dyn Backend>> + Send + Sync + 'static {
    let (server, options) = (Arc::clone(server), options.clone());
    let (first, last) = (AtomicBool::new(true), Mutex::default());
    move |path| {
        let url = match first.swap(false, Relaxed) {
            true => server.put(path),
            false => server.put_instead(path, &last),
        };
        // A cache keeps nothing that was written just now, if a list tells of it.
        crate::cache::age(&server.file(&url), 3600);
        Ok(Arc::clone(cellfeed::open(&url, &options)?.backend()))
    }
}

fn stores(format: Format, codec: Option<&'static str>) -> Vec<Subject> {
    let server = Server::start();
    let options = server.options();
    stores_of(&server, &options, format, codec)
}

/// Stores of a server; each copy is opened anew, threads and connections are shared.
fn stores_of(
    server: &Arc<Server>,
    options: &OpenOptions,
    format: Format,
    codec: Option<&'static str>,
) -> Vec<Subject> {
    let few = ["small"];
    let oracles = fixtures::oracles().into_iter().filter(|o| few.contains(&o.name.as_str()));
    let subject = |oracle| {
        let open = opener(server, options);
        let store = Subject::written(
            &format!("store.{format}"),
            as_kept(oracle),
            move |path, oracle| write(path, oracle, format, codec),
            open,
        );
        store.unwrap().with_limits(FEW)
    };
    oracles.map(subject).collect()
}

/// Stores of testdata; of those in `damaged` damaged copies are opened too, and all of their files put
/// each time.
fn of_testdata(format: Format, whole: &[&str], damaged: &[&str]) -> Vec<Subject> {
    let server = Server::start();
    let options = server.options();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(format.as_str());
    let place = |stem: &str| {
        let oracle = Oracle::load(&data.join(format!("{stem}.oracle.json"))).unwrap();
        (data.join(format!("{stem}.{format}")), oracle)
    };
    let whole = whole.iter().map(|stem| {
        let (path, oracle) = place(stem);
        Subject::new(opener(&server, &options)(&path).unwrap(), oracle)
    });
    let damaged = damaged.iter().map(|stem| {
        let (path, oracle) = place(stem);
        Subject::on_disk(&path, oracle, opener(&server, &options)).unwrap().with_limits(FEW)
    });
    let mut all: Vec<Subject> = damaged.collect();
    // The server lives as long as the first of them.
    all.extend(whole);
    all
}

fn h5ad() -> Vec<Subject> {
    of_testdata(Format::H5ad, &["anndata-0.13.4", "store-dense-gzip"], &["anndata-0.7.8"])
}

fn zarr() -> Vec<Subject> {
    let whole = ["anndata-0.10.9-v2", "anndata-0.12.19-v3-sharded", "annbatch-collection"];
    of_testdata(Format::Zarr, &whole, &["v3-csr-one-cell-one-gene"])
}

fn csr_plain() -> Vec<Subject> {
    stores(Format::Csr, Some("plain"))
}

fn csr_packed() -> Vec<Subject> {
    stores(Format::Csr, Some("packed"))
}

/// Behind a cache that is full before long; its folder goes with the server's.
fn csr_cached() -> Vec<Subject> {
    let server = Server::start();
    let remote = server.remote().with_cache(server.root.path().join(".cache"), 256 << 10);
    let options = OpenOptions::default().with_remote(remote);
    stores_of(&server, &options, Format::Csr, Some("packed"))
}

fn parquet() -> Vec<Subject> {
    stores(Format::Parquet, None)
}

mod laws {
    use super::*;
    conformance!(h5ad, super::h5ad);
    conformance!(zarr, super::zarr);
    conformance!(csr_plain, super::csr_plain);
    conformance!(csr_packed, super::csr_packed);
    conformance!(csr_cached, super::csr_cached);
    conformance!(parquet, super::parquet);
}
