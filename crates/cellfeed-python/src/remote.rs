//! How object stores are reached, as Python says it.

use cellfeed::OpenOptions;
use cellfeed::object::RemoteOptions;
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
    pub(crate) fn apply(self, options: OpenOptions) -> OpenOptions {
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
        if let Some(dir) = self.cache_dir {
            remote = remote.with_cache(dir, self.cache_size);
        }
        options.with_remote(remote)
    }
}
