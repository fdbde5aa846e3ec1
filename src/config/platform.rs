//! The names that platforms give to what is a setting here.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::http;

/// What tells that this is Coolify, which waits 30 s between its stop signal and its kill.
pub(super) const COOLIFY: &str = "COOLIFY_RESOURCE_UUID";

/// A setting, and the names that stand for it: the first that is set counts.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    pub(super) names: &'static [&'static str],
}

impl Setting {
    const fn new(section: &'static str, key: &'static str, names: &'static [&'static str]) -> Self {
        Self {
            section,
            key,
            names,
        }
    }
}

/// The bucket. Without one the other names of its section say nothing: half of a developer's machines has AWS keys.
pub(super) const BUCKET: Setting = Setting::new("replication", "bucket", &["LITESTREAM_BUCKET"]);

/// Every setting that platforms set. A secret has the names with `_FILE` as well.
pub(super) const SETTINGS: [Setting; 10] = [
    Setting::new("server", "host", &["HOST"]),
    Setting::new("server", "port", &["PORT"]),
    Setting::new("server", "url", &["APP_URL", "COOLIFY_URL", "COOLIFY_FQDN"]),
    Setting::new("server", "hosts", &["COOLIFY_URL", "COOLIFY_FQDN"]),
    BUCKET,
    Setting::new("replication", "path", &["LITESTREAM_PATH"]),
    Setting::new(
        "replication",
        "endpoint",
        &[
            "LITESTREAM_ENDPOINT",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL",
            "S3_ENDPOINT",
        ],
    ),
    Setting::new(
        "replication",
        "region",
        &[
            "LITESTREAM_REGION",
            "AWS_REGION",
            "AWS_DEFAULT_REGION",
            "S3_REGION",
        ],
    ),
    Setting::new(
        "replication",
        "access_key_id",
        &[
            "LITESTREAM_ACCESS_KEY_ID",
            "AWS_ACCESS_KEY_ID",
            "S3_ACCESS_KEY_ID",
        ],
    ),
    Setting::new(
        "replication",
        "secret_access_key",
        &[
            "LITESTREAM_SECRET_ACCESS_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "S3_SECRET_ACCESS_KEY",
        ],
    ),
];

/// What a variable means for the setting `key`: its text, a part of it, or nothing.
pub(super) fn read<'a>(name: &str, key: &str, text: &'a str) -> Option<Cow<'a, str>> {
    if key == "hosts" {
        return hosts(text).map(Cow::Owned);
    }
    part(name, text).map(Cow::Borrowed)
}

/// The hosts of several addresses or names, as the text of a list.
fn hosts(text: &str) -> Option<String> {
    let hosts = text.split(',').map(str::trim).filter_map(|url| {
        let host = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = host.split(['/', ':']).next()?;
        http::is_host(host).then(|| format!("\"{host}\""))
    });
    let hosts: Vec<String> = hosts.collect();
    (!hosts.is_empty()).then(|| format!("[{}]", hosts.join(", ")))
}

fn part<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    match name {
        // Shells export the machine's name by it.
        "HOST" => text.parse::<IpAddr>().is_ok().then_some(text),
        // All domains, of which the older versions of Coolify have the scheme in the second variable only.
        "COOLIFY_URL" | "COOLIFY_FQDN" => {
            let first = text.split(',').next().map(str::trim);
            first.filter(|url| http::is_url(url))
        }
        _ => Some(text),
    }
}
