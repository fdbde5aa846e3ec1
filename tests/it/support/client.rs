//! An HTTP client that does what it is told: no proxy, no redirects, no trust.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::Client;
use reqwest::Response;
use reqwest::Url;
use reqwest::header::COOKIE;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that keeps its connections and follows nothing.
pub(crate) fn client() -> Client {
    client_with("")
}

/// The same, which sends these cookies.
pub(crate) fn client_with(cookies: &str) -> Client {
    // Without a provider of its own the client panics, and the tests speak plain HTTP anyway.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut headers = HeaderMap::new();
    if !cookies.is_empty() {
        headers.insert(COOKIE, cookies.parse().unwrap());
    }
    let builder = Client::builder()
        .default_headers(headers)
        .no_proxy()
        .redirect(Policy::none())
        .timeout(TIMEOUT);
    builder.tls_backend_preconfigured(tls).build().unwrap()
}

/// The pairs as a browser sends a form.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let url = Url::parse_with_params("http://localhost/", pairs).unwrap();
    url.query().unwrap_or_default().to_owned()
}

/// The key of a form that may be done once, as its page has it.
pub(crate) fn once_key() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:032x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Sends a form as a browser on the site's own page does.
pub(crate) async fn post_form(
    client: &Client,
    url: &str,
    pairs: &[(&str, &str)],
) -> reqwest::Result<Response> {
    let request = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("sec-fetch-site", "same-origin");
    request.body(form(pairs)).send().await
}
