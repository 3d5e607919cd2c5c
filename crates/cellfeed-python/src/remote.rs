//! How object stores are reached, as Python says it.

use cellfeed::object::RemoteOptions;
use cellfeed::{ConvertOptions, OpenOptions};
use pyo3::prelude::*;
use std::path::PathBuf;
use std::time::Duration;

/// Of a dictionary that has all of these; values of settings may be secrets.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Remote {
    settings: Vec<(String, String)>,
    connections: Option<usize>,
    gap: Option<u64>,
    attempts: Option<u32>,
    timeout: Option<f64>,
    cache_dir: Option<PathBuf>,
    cache_size: Option<u64>,
}

impl Remote {
    pub(crate) fn apply(mut self, options: OpenOptions) -> OpenOptions {
        let cache = self.cache_dir.take();
        let size = self.cache_size;
        let remote = self.options();
        options.with_remote(match cache {
            Some(dir) => remote.with_cache(dir, size),
            None => remote,
        })
    }

    /// For a destination, of which nothing is kept.
    pub(crate) fn apply_to_destination(self, options: ConvertOptions) -> ConvertOptions {
        options.with_remote(self.options())
    }

    fn options(self) -> RemoteOptions {
        let mut remote = RemoteOptions::default();
        for (name, value) in self.settings {
            remote = remote.with_setting(name, value);
        }
        if let Some(connections) = self.connections {
            remote = remote.with_connections(connections);
        }
        if let Some(gap) = self.gap {
            remote = remote.with_gap(gap);
        }
        if let Some(attempts) = self.attempts {
            remote = remote.with_attempts(attempts);
        }
        if let Some(seconds) = self.timeout {
            // Checked before it came here.
            remote =
                remote.with_timeout(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
        }
        remote
    }
}
