//! Stores behind URLs: options on the command line and in the environment, and what is said of them.
#![allow(clippy::unwrap_used)]
#![cfg(feature = "http")]

mod common;

use common::{fails, json, out};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tempfile::TempDir;

/// Serves a file by ranges until the process ends; answers its URL and how often it was asked.
fn serve(path: &Path) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/atlas.h5ad", listener.local_addr().unwrap());
    let bytes: Arc<[u8]> = std::fs::read(path).unwrap().into();
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (bytes, asked) = (Arc::clone(&bytes), Arc::clone(&counted));
            std::thread::spawn(move || answer(&socket, &bytes, &asked));
        }
    });
    (url, asked)
}

fn answer(socket: &TcpStream, bytes: &[u8], asked: &AtomicU64) -> std::io::Result<()> {
    let mut lines = BufReader::new(socket).lines();
    let mut out = socket;
    while let Some(_request) = lines.next().transpose()? {
        let (mut start, mut end) = (0, bytes.len());
        for line in lines.by_ref() {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some((a, b)) = line.strip_prefix("range: bytes=").and_then(|r| r.split_once('-'))
            {
                (start, end) =
                    (a.parse().unwrap(), bytes.len().min(b.parse::<usize>().unwrap() + 1));
            }
        }
        asked.fetch_add(1, Relaxed);
        let (n, all) = (end - start, bytes.len());
        write!(
            out,
            "HTTP/1.1 206 Partial Content\r\netag: \"1\"\r\nlast-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
             content-range: bytes {start}-{}/{all}\r\ncontent-length: {n}\r\n\r\n",
            end - 1
        )?;
        out.write_all(&bytes[start..end])?;
    }
    Ok(())
}

fn atlas(folder: &TempDir) -> String {
    let path = folder.path().join("atlas.h5ad");
    let path = path.to_str().unwrap();
    out(&["generate", path, "--cells", "1000", "--genes", "300", "--compression", "gzip"]);
    path.to_owned()
}

#[test]
fn a_second_stream_comes_from_the_cache() {
    let folder = TempDir::new().unwrap();
    let path = atlas(&folder);
    let (url, asked) = serve(Path::new(&path));
    let cache = folder.path().join("cache");
    let cache = cache.to_str().unwrap();
    let stream = |source: &str, more: &[&str]| {
        let words = ["stream", source, "--digest", "--json", "--fetch-factor", "4"];
        json(&[&words[..], more].concat())
    };
    let local = stream(&path, &[]);
    assert!(local["cache_hit_bytes"].is_null() && local["cache_miss_bytes"].is_null());
    let options =
        ["--cache-dir", cache, "--cache-size", "1GiB", "--gap", "0", "--connections", "8"];
    let first = stream(&url, &options);
    assert_eq!(first["digest"], local["digest"]);
    asked.store(0, Relaxed);
    let second = stream(&url, &options);
    assert_eq!(second["digest"], local["digest"]);
    assert!(second["cache_hit_bytes"].as_u64() > Some(0), "{second}");
    assert_eq!((second["reads"].as_u64(), asked.load(Relaxed)), (Some(0), 1), "{second}");
    let text = out(&["stream", &url, "--cache-dir", cache, "--attempts", "2", "--timeout", "5"]);
    assert!(text.contains("from the cache"), "{text}");
    // The other commands take it too.
    asked.store(0, Relaxed);
    out(&["inspect", &url, "--cache-dir", cache]);
    out(&["entropy", &url, "--label", "plate", "--cache-dir", cache]);
    out(&["verify", &url, &path, "--cache-dir", cache]);
    let converted = folder.path().join("converted.csr");
    out(&["convert", &url, converted.to_str().unwrap(), "--cache-dir", cache]);
    // By the environment.
    let run = Command::new(env!("CARGO_BIN_EXE_cellfeed"))
        .args(["stream", &url])
        .env("CELLFEED_CACHE_DIR", cache)
        .env("CELLFEED_CACHE_SIZE", "1GiB")
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success() && text.contains("from the cache"), "{text}");
}

#[test]
fn wrong_options_are_said_and_values_are_not() {
    let folder = TempDir::new().unwrap();
    let path = atlas(&folder);
    let (url, _) = serve(Path::new(&path));
    let (code, text) = fails(&["inspect", &url, "--store-option", "colour=red-hot"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("colour") && !text.contains("red-hot"), "{text}");
    for words in [&["--store-option", "colour"][..], &["--timeout", "0"], &["--connections", "0"]] {
        let (code, text) = fails(&[&["inspect", &url], words].concat());
        assert!(code == 2 && text.contains(words[0]), "{text}");
    }
    let (code, text) = fails(&["inspect", &url, "--cache-size", "1GiB"]);
    assert!(code == 2 && text.contains("--cache-dir"), "{text}");
    // A folder with other files in it.
    let dir = folder.path().to_str().unwrap();
    let (code, text) = fails(&["inspect", &url, "--cache-dir", dir]);
    assert!(code == 2 && text.contains("holds other files") && text.contains(dir), "{text}");
    // Nothing of it matters for a local file.
    out(&["inspect", &path, "--cache-dir", dir, "--store-option", "colour=red"]);
}
