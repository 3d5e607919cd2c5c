//! From an address and settings to a store of the crate `object_store`. Retries are ours: see
//! `attempt.rs`; its own are off.

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
use crate::address::Kind;
use crate::address::{Address, shown};
use crate::options::RemoteOptions;
use cellfeed_core::{Error, Result};
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use std::sync::Arc;

/// A store, and what tells it from others: the URL up to the key, and endpoint or account.
pub(crate) type Connected = (Arc<dyn ObjectStore>, String);

/// A store to write to: the same one, as what takes objects and as what takes them in parts.
#[derive(Clone)]
pub(crate) struct Writable {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) parts: Arc<dyn MultipartStore>,
}

/// Connects to the store of an address: nothing is sent yet.
pub(crate) fn connect(address: &Address, options: &RemoteOptions) -> Result<Connected> {
    install_tls();
    let connected: Result<Connected> = match address.kind {
        #[cfg(feature = "aws")]
        Kind::S3 => cloud::s3(address, options, Waits::Read).map(erased),
        #[cfg(feature = "gcp")]
        Kind::Gcs => cloud::gcs(address, options, Waits::Read).map(erased),
        #[cfg(feature = "azure")]
        Kind::Azure => cloud::azure(address, options, Waits::Read).map(erased),
        #[cfg(feature = "http")]
        Kind::Http => cloud::http(address, options).map(erased),
        #[allow(unreachable_patterns)]
        _ => Err(not_built(address)),
    };
    let (store, place) = connected?;
    let store = match &options.wrapper {
        Some(wrap) => wrap(store),
        None => store,
    };
    // A proxy's URL may have a password in it.
    Ok((store, format!("{} {}", address.store, shown(&place))))
}

/// As [`connect`], for writing. Whoever asks limits how long a request may take.
pub(crate) fn connect_to_write(address: &Address, options: &RemoteOptions) -> Result<Writable> {
    install_tls();
    let writable: Result<Writable> = match address.kind {
        #[cfg(feature = "aws")]
        Kind::S3 => cloud::s3(address, options, Waits::Unlimited).map(|(store, _)| both(store)),
        #[cfg(feature = "gcp")]
        Kind::Gcs => cloud::gcs(address, options, Waits::Unlimited).map(|(store, _)| both(store)),
        #[cfg(feature = "azure")]
        Kind::Azure => {
            cloud::azure(address, options, Waits::Unlimited).map(|(store, _)| both(store))
        }
        #[cfg(feature = "http")]
        Kind::Http => Err(Error::unsupported(
            "a web server is not written to: give a path on this machine, or s3://, gs:// or az://",
        )
        .with("url", address)),
        #[allow(unreachable_patterns)]
        _ => Err(not_built(address)),
    };
    let Writable { store, parts } = writable?;
    Ok(Writable {
        store: match &options.wrapper {
            Some(wrap) => wrap(store),
            None => store,
        },
        parts: match &options.parts_wrapper {
            Some(wrap) => wrap(parts),
            None => parts,
        },
    })
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
fn erased((store, place): (impl ObjectStore, String)) -> Connected {
    (Arc::new(store), place)
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn both(store: impl ObjectStore + MultipartStore) -> Writable {
    let store = Arc::new(store);
    Writable { store: Arc::clone(&store) as Arc<dyn ObjectStore>, parts: store }
}

fn install_tls() {
    #[cfg(feature = "tls")]
    {
        // One provider a process; whoever came first has decided.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[allow(dead_code)] // in a build with all of them
fn not_built(address: &Address) -> Error {
    Error::unsupported(format!(
        "this build does not reach {}: build it with the feature {}",
        address.store,
        address.kind.feature()
    ))
}

/// How long an answer may stay away.
#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// As the options say.
    Read,
    /// As whoever asks says: the time that a body takes to be sent counts for the client of HTTP too.
    #[allow(dead_code)] // where only web servers are reached
    Unlimited,
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure", feature = "http"))]
mod cloud {
    use super::{Address, Error, RemoteOptions, Result, Waits};
    use object_store::{ClientOptions, RetryConfig};
    use std::str::FromStr;

    /// A store, and the endpoint or account that tells it from others of the same URL.
    pub(super) type Found<T> = Result<(T, String)>;

    fn client(options: &RemoteOptions, waits: Waits) -> ClientOptions {
        let client = ClientOptions::new()
            .with_connect_timeout(options.timeout / 2)
            // A large answer over a slow line takes as long as it takes, while bytes come.
            .with_timeout_disabled()
            .with_pool_max_idle_per_host(options.connections);
        match waits {
            Waits::Read => client.with_read_timeout(options.timeout),
            Waits::Unlimited => client,
        }
    }

    fn once() -> RetryConfig {
        RetryConfig { max_retries: 0, ..RetryConfig::default() }
    }

    /// A key of a setting; its value is never shown.
    fn key<K: FromStr>(name: &str, store: &str) -> Result<K> {
        name.to_ascii_lowercase().parse().map_err(|_| {
            Error::invalid_input(format!(
                "stores behind {store} have no setting {name:?}; docs/object-stores.md lists them"
            ))
        })
    }

    fn refused(error: &object_store::Error, address: &Address) -> Error {
        Error::invalid_input(format!(
            "cannot connect: {}",
            crate::attempt::tame(&error.to_string())
        ))
        .with("url", address)
    }

    #[cfg(feature = "aws")]
    pub(super) fn s3(
        address: &Address,
        options: &RemoteOptions,
        waits: Waits,
    ) -> Found<object_store::aws::AmazonS3> {
        use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
        let (_, bucket) = address.store.split_once("://").unwrap_or_default();
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(client(options, waits))
            .with_retry(once())
            .with_bucket_name(bucket);
        for (name, value) in &options.settings {
            builder = builder.with_config(key(name, "s3://")?, value);
        }
        // Who names an endpoint without TLS means it.
        let plain = |key| builder.get_config_value(&key).is_some_and(|v| v.starts_with("http://"));
        if plain(Key::Endpoint) || plain(Key::S3Endpoint) {
            builder = builder.with_allow_http(true);
        }
        let endpoint = builder.get_config_value(&Key::S3Endpoint);
        let endpoint = endpoint.or_else(|| builder.get_config_value(&Key::Endpoint));
        let store = builder.build().map_err(|e| refused(&e, address))?;
        Ok((store, endpoint.unwrap_or_default()))
    }

    #[cfg(feature = "gcp")]
    pub(super) fn gcs(
        address: &Address,
        options: &RemoteOptions,
        waits: Waits,
    ) -> Found<object_store::gcp::GoogleCloudStorage> {
        use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
        let (_, bucket) = address.store.split_once("://").unwrap_or_default();
        let mut builder = GoogleCloudStorageBuilder::from_env()
            .with_client_options(client(options, waits))
            .with_retry(once())
            .with_bucket_name(bucket);
        for (name, value) in &options.settings {
            builder = builder.with_config(key(name, "gs://")?, value);
        }
        let endpoint = builder.get_config_value(&GoogleConfigKey::BaseUrl);
        let store = builder.build().map_err(|e| refused(&e, address))?;
        Ok((store, endpoint.unwrap_or_default()))
    }

    #[cfg(feature = "azure")]
    pub(super) fn azure(
        address: &Address,
        options: &RemoteOptions,
        waits: Waits,
    ) -> Found<object_store::azure::MicrosoftAzure> {
        use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
        let mut builder = MicrosoftAzureBuilder::from_env()
            .with_client_options(client(options, waits))
            .with_retry(once())
            .with_url(format!("{}/", address.store));
        for (name, value) in &options.settings {
            builder = builder.with_config(key(name, "az://")?, value);
        }
        let plain =
            builder.get_config_value(&Key::Endpoint).is_some_and(|v| v.starts_with("http://"));
        if plain {
            builder = builder.with_allow_http(true);
        }
        let part = |key| builder.get_config_value(&key).unwrap_or_default();
        let account = format!("{} {}", part(Key::AccountName), part(Key::Endpoint));
        let store = builder.build().map_err(|e| refused(&e, address))?;
        Ok((store, account))
    }

    #[cfg(feature = "http")]
    pub(super) fn http(
        address: &Address,
        options: &RemoteOptions,
    ) -> Found<object_store::http::HttpStore> {
        use object_store::http::HttpBuilder;
        let plain = address.store.starts_with("http://");
        let mut builder = HttpBuilder::new()
            .with_client_options(client(options, Waits::Read).with_allow_http(plain))
            .with_retry(once())
            .with_url(&address.store);
        for (name, value) in &options.settings {
            builder = builder.with_config(key(name, "https://")?, value);
        }
        let store = builder.build().map_err(|e| refused(&e, address))?;
        Ok((store, String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(url: &str, settings: &[(&str, &str)]) -> Result<()> {
        let options =
            settings.iter().fold(RemoteOptions::default(), |o, (k, v)| o.with_setting(*k, *v));
        connect(&Address::parse(url)?, &options).map(|_| ())
    }

    #[test]
    fn stores_that_are_built_take_their_settings_and_others_are_refused() {
        let stores = [
            (
                cfg!(feature = "aws"),
                "s3://b/x",
                vec![("region", "eu-west-1"), ("aws_skip_signature", "true")],
            ),
            (cfg!(feature = "gcp"), "gs://b/x", vec![("google_skip_signature", "true")]),
            (
                cfg!(feature = "azure"),
                "az://c/x",
                vec![("account_name", "a"), ("azure_skip_signature", "true")],
            ),
            (
                cfg!(feature = "azure"),
                "abfss://c@a.dfs.core.windows.net/x",
                vec![("azure_storage_account_key", "c2VjcmV0")],
            ),
            (cfg!(feature = "http"), "https://h/x", vec![("proxy_url", "http://p")]),
        ];
        for (built_in, url, settings) in stores {
            match built(url, &settings) {
                Ok(()) => assert!(built_in, "{url}"),
                Err(e) => {
                    assert!(
                        !built_in && e.to_string().contains("build it with the feature"),
                        "{url}: {e}"
                    );
                }
            }
            if built_in {
                let error = built(url, &[("colour", "secret")]).unwrap_err().to_string();
                assert!(error.contains("colour") && !error.contains("secret"), "{error}");
            }
        }
        if cfg!(feature = "azure") && std::env::var_os("AZURE_STORAGE_ACCOUNT_NAME").is_none() {
            let error = built("az://c/x", &[]).unwrap_err().to_string();
            assert!(error.to_lowercase().contains("account"), "{error}");
        }
    }
}
