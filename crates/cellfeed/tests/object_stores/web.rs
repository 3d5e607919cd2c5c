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
        let path: PathBuf = folder.join(words.next().unwrap_or_default().trim_start_matches('/'));
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
fn files_and_csr_stores_behind_a_web_server() {
    let folder = TempDir::new().unwrap();
    let stores = written(&folder);
    let address = serve(folder.path(), true);
    for (name, path) in stores {
        let local = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let url = format!("{address}/{}", path.file_name().unwrap().to_str().unwrap());
        let remote = cellfeed::open(&url, &options());
        if name == "zarr" {
            let error = remote.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("a web server does not tell"), "{error}");
            continue;
        }
        assert_eq!(digest(&local), digest(&remote.unwrap()), "{name}");
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
