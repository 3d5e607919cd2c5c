//! Tests of `object.rs`.

use super::*;
use crate::client::Remote;
use crate::options::RemoteOptions;
use futures::executor::block_on;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result as StoreResult,
};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A store of empty objects that answers as one over HTTP does, and is not always there.
#[derive(Debug)]
struct Empty {
    inner: InMemory,
    heads: AtomicU32,
    /// So many first questions what an object is are not answered.
    failing: u32,
}

impl fmt::Display for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Empty")
    }
}

fn status(status: &str) -> object_store::Error {
    let source = format!("Server returned non-2xx status code: {status}: ").into();
    object_store::Error::Generic { store: "Empty", source }
}

#[async_trait]
impl ObjectStore for Empty {
    async fn put_opts(
        &self,
        at: &Path,
        bytes: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.inner.put_opts(at, bytes, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if !options.head {
            return Err(status("416 Range Not Satisfiable"));
        }
        if self.heads.fetch_add(1, Relaxed) < self.failing {
            return Err(status("503 Slow Down"));
        }
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[test]
fn an_empty_object_is_asked_for_again_as_others_are() {
    let address = Address::parse("s3://b/x").unwrap();
    let engine = Arc::new(Engine::default());
    for (failing, attempts, found) in [(0, 1, true), (2, 3, true), (2, 2, false)] {
        let options = RemoteOptions::default().with_attempts(attempts);
        let client = Remote::new(options).unwrap().0;
        let empty = Empty { inner: InMemory::new(), heads: AtomicU32::new(0), failing };
        block_on(empty.inner.put(&address.key, PutPayload::default())).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(empty);
        let opened = Object::open(&client, &store, &engine, None, address.clone());
        match opened {
            Ok(object) => assert!(found && object.size() == 0),
            Err(e) => assert!(!found && e.to_string().contains("503"), "{e}"),
        }
    }
}

#[test]
fn an_object_is_known_by_its_tag_or_else_by_its_time() {
    let seen =
        |size, modified, tag: Option<&str>| Seen { size, modified, tag: tag.map(str::to_owned) };
    let a = seen(5, 7, Some("\"x\""));
    assert!(a.is(&seen(5, 9, Some("W/\"x\""))));
    // Listings of Azure have no quotes.
    assert!(a.is(&seen(5, 9, Some("x"))));
    let condition = |tag| seen(5, 7, tag).condition();
    assert_eq!(condition(Some("x")).as_deref(), Some("\"x\""));
    assert_eq!(condition(Some("\"x\"")).as_deref(), Some("\"x\""));
    assert_eq!((condition(Some("W/\"x\"")), condition(None)), (None, None));
    assert!(!a.is(&seen(5, 7, Some("\"y\""))));
    assert!(!a.is(&seen(6, 7, Some("\"x\""))));
    assert!(a.is(&seen(5, 7, None)) && !a.is(&seen(5, 8, None)));
}
#[test]
fn without_a_strong_tag_what_was_changed_lately_has_no_version() {
    let version = |modified, tag: Option<&str>| {
        Seen { size: 5, modified, tag: tag.map(str::to_owned) }.version(100)
    };
    assert_eq!(version(500, Some("\"x\"")), Some("5 x".to_owned()));
    // As a listing has it.
    assert_eq!(version(0, Some("x")), version(500, Some("\"x\"")));
    assert_eq!(version(100, Some("W/\"x\"")), Some("5 100 x".to_owned()));
    assert_eq!(
        (version(101, Some("W/\"x\"")), version(101, None), version(0, None)),
        (None, None, None)
    );
    assert_ne!(version(99, None), version(100, None));
}
