//! Stores behind a web server, which the test starts: one that answers byte ranges, and one that does not.

use crate::requests::{digest, written};
use cellfeed::object::RemoteOptions;
use cellfeed::{ErrorKind, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Serves a folder until the process ends; answers the address.
fn serve(folder: &Path, ranges: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_path_buf();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let folder = folder.clone();
            // A client that goes away ends its connection, and that alone.
            std::thread::spawn(move || answer(&socket, &folder, ranges));
        }
    });
    address
}

/// The path of a request, whose spaces and the like come as %20.
fn decoded(path: &str) -> String {
    let mut parts = path.trim_start_matches('/').split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn answer(socket: &TcpStream, folder: &Path, ranges: bool) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut lines = BufReader::new(socket).lines();
    let mut out = socket;
    while let Some(request) = lines.next().transpose()? {
        let mut range: Option<(usize, usize)> = None;
        for line in lines.by_ref() {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("range: bytes=") {
                range =
                    value.split_once('-').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
            }
        }
        let mut words = request.split_whitespace();
        let head = words.next() == Some("HEAD");
        let path: PathBuf = folder.join(decoded(words.next().unwrap_or_default()));
        let Ok(bytes) = std::fs::read(&path) else {
            out.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let tag =
            format!("etag: \"{}\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT", bytes.len());
        let (status, extra, body) = match range.filter(|_| ranges) {
            Some((start, _)) if start >= bytes.len() => {
                ("416 Range Not Satisfiable", String::new(), &bytes[..0])
            }
            Some((start, end)) => {
                let end = bytes.len().min(end + 1);
                let place = format!("content-range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
                ("206 Partial Content", place, &bytes[start..end])
            }
            None => ("200 OK", String::new(), &bytes[..]),
        };
        let n = body.len();
        write!(out, "HTTP/1.1 {status}\r\n{tag}\r\n{extra}content-length: {n}\r\n\r\n")?;
        if !head {
            out.write_all(body)?;
        }
    }
    Ok(())
}

fn options() -> OpenOptions {
    let remote = RemoteOptions::default().with_timeout(Duration::from_secs(5));
    OpenOptions::default().with_remote(remote)
}

#[test]
fn stores_behind_a_web_server() {
    let folder = TempDir::new().unwrap();
    let stores = written(&folder);
    let address = serve(folder.path(), true);
    for (name, path) in stores {
        let local = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let url = format!("{address}/{}", path.file_name().unwrap().to_str().unwrap());
        let remote = cellfeed::open(&url, &options()).unwrap();
        assert_eq!(digest(&local), digest(&remote), "{name}");
    }
    let error = cellfeed::open(&format!("{address}/none.h5ad"), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn a_web_server_without_byte_ranges_is_said() {
    let folder = TempDir::new().unwrap();
    let (_, path) = written(&folder).remove(0);
    let address = serve(folder.path(), false);
    let url = format!("{address}/{}", path.file_name().unwrap().to_str().unwrap());
    let error = cellfeed::open(&url, &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("byte ranges"), "{error}");
}

#[test]
fn zarr_behind_a_web_server_is_what_its_consolidated_metadata_says() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/zarr");
    let address = serve(&data, true);
    let open = |name: &str| cellfeed::open(&format!("{address}/{name}.zarr"), &options());
    let consolidated = [
        "anndata-0.12.19-v2",
        "anndata-0.12.19-v3-sharded",
        "anndata-0.13.4-v3-unsharded",
        "anndata-0.13.4-dense-v3",
        "v2-dense-keys-with-slash",
    ];
    for name in consolidated {
        let path = data.join(format!("{name}.zarr"));
        let local = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let remote = open(name).unwrap();
        assert_eq!(digest(&local), digest(&remote), "{name}");
        assert!(cellfeed::verify(&local, &remote, &mut |_, _| true).unwrap().equal(), "{name}");
    }
    for name in ["anndata-0.10.9-v2", "annbatch-collection"] {
        let error = open(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        assert!(error.to_string().contains("consolidate_metadata"), "{error}");
    }
}

#[test]
fn zarr_without_consolidated_metadata_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let (_, path) = written(&folder).remove(1);
    let address = serve(folder.path(), true);
    let url = format!("{address}/{}", path.file_name().unwrap().to_str().unwrap());
    let root = path.join("zarr.json");
    let text = std::fs::read_to_string(&root).unwrap();
    let open = || cellfeed::open(&url, &options());
    for (to, kind, word) in [
        (
            text.replace("consolidated_metadata", "other"),
            ErrorKind::Unsupported,
            "consolidate_metadata",
        ),
        (text.replace("\"metadata\"", "\"other\""), ErrorKind::Corrupt, "names no members"),
        ("{".to_owned(), ErrorKind::Corrupt, "JSON"),
        // A member that is not there: a chunk of it is asked for, in vain.
        (text.replace("\"X/indices\"", "\"X/../../out\""), ErrorKind::Corrupt, "X"),
    ] {
        std::fs::write(&root, to).unwrap();
        let error = open().unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(word), "{kind:?}: {error:?}");
    }
    std::fs::write(&root, text).unwrap();
    open().unwrap();
}
