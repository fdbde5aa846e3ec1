//! Performs one check of one address, over the network, and says what it found.
//!
//! A check never fails as a whole: whatever happens is a [`Finding`]. It takes no longer than the
//! target's timeout, reads no more than 256 KiB, follows no more than five redirects, and starts
//! from nothing each time: name, connection and certificate are checked anew. It reaches what its [`Network`] lets it.

mod address;
#[cfg(any(test, fuzzing))]
pub(crate) mod answers_tests;
mod cause;
mod failure;
mod network;
#[cfg(test)]
mod private_tests;
mod target;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::Response;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::site::format;

pub(crate) use self::cause::Cause;
pub(crate) use self::failure::Failure;
pub(crate) use self::network::Network;
pub(crate) use self::target::Method;
pub(crate) use self::target::Target;

/// A page's text stands early; what comes later costs memory and says little.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How long the check took, to the last byte that was read.
    pub(crate) duration: Duration,
    /// The status of the answer, when there was one.
    pub(crate) status: Option<u16>,
    /// Why the check failed; `None` when all was as expected.
    pub(crate) failure: Option<Failure>,
}

/// Checks the target once.
pub(crate) async fn probe(target: &Target, network: &Network) -> Finding {
    let start = Instant::now();
    let mut status = None;
    let exchange = exchange(target, network, &mut status);
    let outcome = match timeout_at(start + target.timeout, exchange).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(late(target, status)),
    };
    Finding {
        duration: start.elapsed(),
        status,
        failure: outcome.err(),
    }
}

fn late(target: &Target, status: Option<u16>) -> Failure {
    let what = if status.is_some() {
        "the body was not complete"
    } else {
        "no answer"
    };
    let within = format::duration(target.timeout);
    Failure::new(Cause::Timeout, format!("{what} within {within}"))
}

async fn exchange(
    target: &Target,
    network: &Network,
    status: &mut Option<u16>,
) -> Result<(), Failure> {
    network
        .refuse(&target.address)
        .map_err(|error| Failure::from(&error))?;
    let response = network
        .client(target.expected_status)
        .request(target.method.http(), &target.address)
        .send()
        .await
        .map_err(|error| Failure::from(&error))?;
    let got = response.status().as_u16();
    *status = Some(got);
    let expected = target.expected_status;
    if got != expected {
        return Err(Failure::new(
            Cause::Status,
            format!("expected {expected}, got {got}"),
        ));
    }
    let body = read(response).await?;
    match &target.body_text {
        Some(text) if !contains(&body, text) => Err(missing(text, body.len())),
        _ => Ok(()),
    }
}

/// Reads the body to its end, so that one that breaks off is seen, or to the limit.
async fn read(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX
        && let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| Failure::from(&error))?
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(BODY_BYTES_MAX);
    Ok(body)
}

fn contains(body: &[u8], text: &str) -> bool {
    text.is_empty()
        || body
            .windows(text.len())
            .any(|window| window == text.as_bytes())
}

fn missing(text: &str, body_bytes: usize) -> Failure {
    let mut shown: String = text.chars().take(80).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    let place = match body_bytes {
        0 => "an empty body".to_owned(),
        BODY_BYTES_MAX => "the first 256 KiB of the body".to_owned(),
        bytes => format!("a body of {bytes} bytes"),
    };
    Failure::new(Cause::MissingText, format!("\"{shown}\" is not in {place}"))
}
