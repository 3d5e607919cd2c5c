//! Object stores as a byte source: S3, Google Cloud Storage, Azure and plain HTTP, each behind a cargo
//! feature (`aws`, `gcp`, `azure`, `http`), through the crate `object_store`.
//!
//! ```text
//! address.rs   URLs
//! options.rs   how stores are reached
//! connect.rs   an address and settings to a store
//! client.rs    threads, the bound on requests, what a URL leads to
//! attempt.rs   which failures are tried again, and what the others are called
//! object.rs    an object as a byte source
//! pieces.rs    parts of an answer
//! cache/       ranges that are kept on a local disk
//! through.rs   an object read through the cache
//! folder.rs    a prefix as a folder
//! writing.rs   where a store is to be written: whether it may be, and is free
//! upload.rs    the files of a store, put there; what makes it open goes last
//! simulate.rs  a network that is as slow and as bad as one says
//! ```
//!
//! Backends know nothing of this crate: they read through core's [`ByteSource`] and [`Folder`]. Whatever
//! polls, requests run on the client's own threads.
//!
//! [`ByteSource`]: cellfeed_core::io::ByteSource
//! [`Folder`]: cellfeed_core::io::Folder
#![forbid(unsafe_code)]

mod address;
mod attempt;
mod cache;
mod client;
mod connect;
mod folder;
mod object;
mod options;
mod pieces;
#[cfg(feature = "simulate")]
pub mod simulate;
mod through;
mod upload;
mod writing;

pub use client::{Located, Remote};
pub use options::RemoteOptions;
pub use writing::Destination;

/// Whether a store is named by a URL, not by a path.
#[must_use]
pub fn is_url(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}
