//! How a store is made of the settings: nothing comes from the environment.

use std::time::Duration;

use object_store::BackoffConfig;
use object_store::RetryConfig;
use object_store::aws::AmazonS3;
use object_store::aws::AmazonS3Builder;
use reqwest::Url;

use crate::database::chain;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::bucket::client;
use crate::replication::bucket::client::Connector;
use crate::replication::bucket::client::Patience;
use crate::settings::Secret;

/// The region that most providers but AWS take for any.
const REGION: &str = "us-east-1";

/// Where a bucket is, and who asks.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The name of the bucket.
    pub bucket: &'a str,
    /// The folder in it.
    pub path: &'a str,
    /// The address of the server; empty is AWS.
    pub endpoint: &'a str,
    /// The region; empty is `us-east-1`.
    pub region: &'a str,
    /// The name of the key.
    pub access_key_id: &'a Secret,
    /// The key.
    pub secret_access_key: &'a Secret,
}

/// The store at a place, with a client of its own.
pub(super) fn store(
    builder: AmazonS3Builder,
    place: Place<'_>,
    patience: Patience,
) -> Result<AmazonS3> {
    let endpoint = place.endpoint.trim_end_matches('/');
    let is_https = !endpoint.starts_with("http://");
    let client = client::build(is_https, patience)
        .map_err(|error| unusable("the certificates of this machine cannot be used", &error))?;
    let region = if place.region.is_empty() {
        REGION
    } else {
        place.region
    };
    let mut builder = builder
        .with_http_connector(Connector(client))
        .with_bucket_name(place.bucket)
        .with_region(region)
        .with_access_key_id(place.access_key_id.expose())
        .with_secret_access_key(place.secret_access_key.expose())
        // Every provider can delete one object; not every one can delete many.
        .with_disable_bulk_delete(true)
        .with_allow_http(!is_https);
    if endpoint.is_empty() {
        // A name with a dot does not fit AWS's certificate.
        builder = builder.with_virtual_hosted_style_request(!place.bucket.contains('.'));
    } else {
        builder = builder.with_endpoint(endpoint);
    }
    builder
        .build()
        .map_err(|error| unusable("the settings make no bucket", &error))
}

fn unusable(what: &str, reason: &(dyn std::error::Error + 'static)) -> Error {
    Error::Refused(format!("{what}: {}", chain(reason)))
}

/// After the first try, so many others are begun within this time.
pub(super) fn retries(max_retries: usize, retry_timeout: Duration) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 3.0,
        },
        max_retries,
        retry_timeout,
    }
}

/// Who is asked, for error texts: an address may hold a password.
pub(super) fn host(endpoint: &str) -> String {
    let url = Url::parse(endpoint).ok();
    let host = url
        .as_ref()
        .and_then(|url| Some((url.host_str()?, url.port())));
    match host {
        Some((host, Some(port))) => format!("{host}:{port}"),
        Some((host, None)) => host.to_owned(),
        None => "AWS".to_owned(),
    }
}
