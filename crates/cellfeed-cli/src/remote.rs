//! How object stores are reached: options that every command has which opens a store.

use crate::people;
use cellfeed::{ConvertOptions, OpenOptions, Result, Store};
use std::io::Write;

#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp", feature = "http")))]
pub(crate) use none::Remote;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "http"))]
pub(crate) use there::Remote;

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "http"))]
mod there {
    use super::{ConvertOptions, OpenOptions, Result};
    use crate::people;
    use cellfeed::Error;
    use cellfeed::object::RemoteOptions;
    use std::fmt;
    use std::path::PathBuf;
    use std::time::Duration;

    /// Options for stores behind URLs; they do nothing for others.
    #[derive(Debug, Clone, Default, clap::Args)]
    pub(crate) struct Remote {
        /// A setting of the object store, as endpoint=http://host:9000, region=eu-west-1 or
        /// skip_signature=true; may be given several times. Secrets belong into environment variables:
        /// others see command lines.
        #[arg(long = "store-option", value_name = "NAME=VALUE", help_heading = "Object stores")]
        settings: Vec<Setting>,
        /// Requests that are under way at once [default: 256]. Divide it among the processes of one
        /// training.
        #[arg(long, value_name = "N", help_heading = "Object stores",
              value_parser = clap::value_parser!(u32).range(1..))]
        connections: Option<u32>,
        /// Merge ranges at most this far apart into one request [default: 64KiB].
        #[arg(long, value_name = "SIZE", help_heading = "Object stores", value_parser = parse_gap)]
        gap: Option<u64>,
        /// How often a request is tried before it has failed [default: 6].
        #[arg(long, value_name = "N", help_heading = "Object stores",
              value_parser = clap::value_parser!(u32).range(1..))]
        attempts: Option<u32>,
        /// After so long without a byte an attempt has failed [default: 20].
        #[arg(long, value_name = "SECONDS", help_heading = "Object stores", value_parser = parse_seconds)]
        timeout: Option<Duration>,
        /// Keep what is read in this folder, and read it from there the next time [default: the
        /// environment variable CELLFEED_CACHE_DIR, else no cache].
        #[arg(long, value_name = "DIR", help_heading = "Object stores")]
        cache_dir: Option<PathBuf>,
        /// How much the cache may hold [default: CELLFEED_CACHE_SIZE, else half of what its disk has
        /// free, at most 64GiB].
        #[arg(long, value_name = "SIZE", help_heading = "Object stores", value_parser = people::parse_bytes)]
        cache_size: Option<u64>,
    }

    /// A setting; its value may be a secret, and is not shown.
    #[derive(Clone)]
    struct Setting(String, String);

    impl fmt::Debug for Setting {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}=...", self.0)
        }
    }

    impl std::str::FromStr for Setting {
        type Err = &'static str;

        fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() => {
                    Ok(Self(name.to_owned(), value.to_owned()))
                }
                _ => Err("a setting looks like region=eu-west-1"),
            }
        }
    }

    fn parse_gap(text: &str) -> std::result::Result<u64, String> {
        // No gap at all is a size too.
        if text.trim() == "0" { Ok(0) } else { people::parse_bytes(text) }
    }

    fn parse_seconds(text: &str) -> std::result::Result<Duration, String> {
        let seconds = text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        seconds
            .filter(|s| !s.is_zero())
            .ok_or_else(|| "give a positive number of seconds".to_owned())
    }

    impl Remote {
        /// These options beside others.
        pub(crate) fn apply(&self, options: OpenOptions) -> Result<OpenOptions> {
            let mut remote = self.options();
            if let Some((dir, size)) = self.cache()? {
                remote = remote.with_cache(dir, size);
            }
            Ok(options.with_remote(remote))
        }

        /// The same for a destination, of which nothing is kept.
        pub(crate) fn apply_to_destination(&self, options: ConvertOptions) -> ConvertOptions {
            options.with_remote(self.options())
        }

        fn options(&self) -> RemoteOptions {
            let mut remote = RemoteOptions::default();
            for Setting(name, value) in &self.settings {
                remote = remote.with_setting(name, value);
            }
            if let Some(connections) = self.connections {
                remote =
                    remote.with_connections(usize::try_from(connections).unwrap_or(usize::MAX));
            }
            if let Some(gap) = self.gap {
                remote = remote.with_gap(gap);
            }
            if let Some(attempts) = self.attempts {
                remote = remote.with_attempts(attempts);
            }
            if let Some(timeout) = self.timeout {
                remote = remote.with_timeout(timeout);
            }
            remote
        }

        /// Whether there is a cache.
        pub(crate) fn caches(&self) -> bool {
            self.cache().is_ok_and(|cache| cache.is_some())
        }

        fn cache(&self) -> Result<Option<(PathBuf, Option<u64>)>> {
            let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
            let dir = self.cache_dir.clone();
            let dir = dir.or_else(|| variable("CELLFEED_CACHE_DIR").map(PathBuf::from));
            let Some(dir) = dir else {
                return match self.cache_size {
                    Some(_) => Err(Error::invalid_input(
                        "--cache-size says how much a cache may hold, but there is none; name its folder \
                         with --cache-dir",
                    )),
                    None => Ok(None),
                };
            };
            let size =
                match (self.cache_size, variable("CELLFEED_CACHE_SIZE")) {
                    (Some(size), _) => Some(size),
                    (None, Some(text)) => {
                        let size = people::parse_bytes(&text.to_string_lossy());
                        Some(size.map_err(|e| {
                            Error::invalid_input(format!("CELLFEED_CACHE_SIZE: {e}"))
                        })?)
                    }
                    (None, None) => None,
                };
            Ok(Some((dir, size)))
        }
    }
}

#[cfg(not(any(feature = "aws", feature = "azure", feature = "gcp", feature = "http")))]
mod none {
    use super::{ConvertOptions, OpenOptions, Result};

    /// Nothing: this build reads no object stores.
    #[derive(Debug, Clone, Default, clap::Args)]
    pub(crate) struct Remote {}

    impl Remote {
        #[allow(clippy::unnecessary_wraps, clippy::unused_self)] // as the one that may refuse
        pub(crate) fn apply(&self, options: OpenOptions) -> Result<OpenOptions> {
            Ok(options)
        }

        #[allow(clippy::unused_self)]
        pub(crate) fn apply_to_destination(&self, options: ConvertOptions) -> ConvertOptions {
            options
        }

        #[allow(clippy::unused_self)]
        pub(crate) fn caches(&self) -> bool {
            false
        }
    }
}

/// Hides the options above from the help of a command to which they are of no use.
pub(crate) fn hidden(arg: clap::Arg) -> clap::Arg {
    if arg.get_help_heading() == Some("Object stores") { arg.hide(true) } else { arg }
}

/// Tells what went wrong without failing anything, as a cache that could not be written.
pub(crate) fn warn(store: &Store) {
    for warning in store.engine().stats().take_warnings() {
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "warning: {}", people::clean(&warning));
    }
}
