//! A server of S3's protocol on this machine, over a folder of its own: a bucket is a folder in it.

use cellfeed::object::RemoteOptions;
use cellfeed::{Backend, Format, OpenOptions, Result, Store};
use cellfeed_testkit::{Oracle, fixtures};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const KEY: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret";
const BUCKET: &str = "stores";

/// Ends, with its folder, when it is dropped.
pub(crate) struct Server {
    pub(crate) root: TempDir,
    address: SocketAddr,
    copies: AtomicU32,
    // Ends with all connections.
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start() -> Arc<Self> {
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build().into_shared();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Else small answers wait for acknowledgements.
                let _ = socket.set_nodelay(true);
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Arc::new(Self { root, address, copies: AtomicU32::new(0), runtime: Some(runtime) })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How to reach it, with retries that do not take long.
    pub(crate) fn remote(&self) -> RemoteOptions {
        remote(&self.endpoint())
    }

    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions::default().with_remote(self.remote())
    }

    /// Puts a copy of a file or folder into the bucket; answers its URL.
    pub(crate) fn put(&self, path: &Path) -> String {
        self.put_as(path, path.file_name().unwrap().to_str().unwrap())
    }

    /// As [`put`](Self::put), by another name.
    pub(crate) fn put_as(&self, path: &Path, name: &str) -> String {
        let number = self.copies.fetch_add(1, Relaxed);
        let key = format!("{BUCKET}/{number}/{name}");
        copy(path, &self.root.path().join(&key));
        format!("s3://{key}")
    }

    /// Removes folders with nothing in them, which no real store has.
    pub(crate) fn prune(&self) {
        fn prune(folder: &Path) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    prune(&path);
                    let _ = std::fs::remove_dir(path);
                }
            }
        }
        prune(&self.root.path().join(BUCKET));
    }

    /// That no upload was left: the server keeps what was begun beside its buckets.
    pub(crate) fn assert_no_uploads(&self) {
        let entries = std::fs::read_dir(self.root.path()).unwrap().map(|e| e.unwrap().file_name());
        let begun: Vec<_> =
            entries.filter(|n| n.to_str().unwrap().starts_with(".upload")).collect();
        assert!(begun.is_empty(), "{begun:?}");
    }

    /// As [`put`](Self::put), and takes away what was put by this last.
    pub(crate) fn put_instead(&self, path: &Path, last: &Mutex<Option<String>>) -> String {
        let url = self.put(path);
        if let Some(old) = last.lock().unwrap().replace(url.clone()) {
            std::fs::remove_dir_all(self.file(&old).parent().unwrap()).unwrap();
        }
        url
    }

    /// Puts something else in the place of what has a URL.
    pub(crate) fn replace(&self, url: &str, path: &Path) {
        let there = self.file(url);
        let _ = std::fs::remove_file(&there);
        let _ = std::fs::remove_dir_all(&there);
        copy(path, &there);
    }

    /// Where an object of the server is.
    pub(crate) fn file(&self, url: &str) -> std::path::PathBuf {
        self.root.path().join(url.strip_prefix("s3://").unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// All files below a folder, or of one its own, by name.
pub(crate) fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut paths = vec![root.to_path_buf()];
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

/// How to reach a server of this kind.
pub(crate) fn remote(endpoint: &str) -> RemoteOptions {
    RemoteOptions::default()
        .with_setting("endpoint", endpoint)
        .with_setting("region", "us-east-1")
        .with_setting("access_key_id", KEY)
        .with_setting("secret_access_key", SECRET)
        .with_timeout(Duration::from_secs(5))
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

/// Writes a fixture in a format.
pub(crate) fn write(
    path: &Path,
    oracle: &Oracle,
    format: Format,
    codec: Option<&str>,
) -> Result<()> {
    let backend: Arc<dyn Backend> = Arc::new(fixtures::memory_backend(oracle)?);
    let source = Store::new(backend, Arc::default());
    let mut write = cellfeed::WriteOptions::default();
    if let Some(codec) = codec {
        write = write.with_codec(codec);
    }
    let options = cellfeed::ConvertOptions::default().with_format(format).with_write(write);
    cellfeed::convert(&source, path, &options, &mut |_| true).map(|_| ())
}
