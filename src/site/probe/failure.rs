//! Tells the errors of a check apart, by their types.

use std::error::Error;
use std::io;
use std::io::ErrorKind;
use std::iter;

use rustls::CertificateError;

use crate::site::probe::Cause;
use crate::site::probe::network::PrivateAddress;
use crate::site::probe::network::TooManyRedirects;

/// Longer details are cut, since they go into the database, the page and the alert.
const DETAIL_CHARS_MAX: usize = 200;

/// Why a check failed, for programs and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The kind of failure.
    pub(crate) cause: Cause,
    /// What was seen, in at most 200 characters: "expected 200, got 500".
    pub(crate) detail: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if let Some((cut, _)) = detail.char_indices().nth(DETAIL_CHARS_MAX) {
            detail.truncate(cut);
        }
        Self { cause, detail }
    }
}

impl From<&reqwest::Error> for Failure {
    fn from(error: &reqwest::Error) -> Self {
        if let Some(error) = find::<TooManyRedirects>(error) {
            Self::new(Cause::Redirects, error.to_string())
        } else if let Some(error) = find::<PrivateAddress>(error) {
            error.into()
        } else if error.is_dns() {
            Self::new(Cause::Dns, "the host's name has no address")
        } else if let Some(error) = find::<rustls::Error>(error) {
            Self::new(Cause::Tls, tls(error))
        } else if let Some(kind) = find::<io::Error>(error).map(io::Error::kind) {
            network(kind, error)
        } else {
            http(error)
        }
    }
}

impl From<&PrivateAddress> for Failure {
    fn from(error: &PrivateAddress) -> Self {
        Self::new(Cause::Private, error.to_string())
    }
}

fn network(kind: ErrorKind, error: &reqwest::Error) -> Failure {
    match kind {
        ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => Failure::new(Cause::Closed, kind.to_string()),
        ErrorKind::TimedOut => Failure::new(Cause::Timeout, "the network gave up waiting"),
        _ if error.is_connect() => Failure::new(Cause::Connect, kind.to_string()),
        _ => http(error),
    }
}

fn http(error: &reqwest::Error) -> Failure {
    match find::<hyper::Error>(error) {
        Some(error) if error.is_incomplete_message() || error.is_closed() => {
            Failure::new(Cause::Closed, "closed before the answer was complete")
        }
        Some(error) => Failure::new(Cause::Protocol, error.to_string()),
        None if error.is_connect() => Failure::new(Cause::Connect, "no connection"),
        None if error.is_redirect() => Failure::new(
            Cause::Protocol,
            "a redirect to something that is not an HTTP address",
        ),
        None => Failure::new(Cause::Protocol, "the request could not be made"),
    }
}

fn tls(error: &rustls::Error) -> String {
    let known = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the certificate is not valid yet"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            CertificateError::UnknownIssuer => "the certificate's issuer is not a known one",
            CertificateError::Revoked => "the certificate has been revoked",
            _ => return format!("the certificate is not valid: {error}"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS here",
        _ => return error.to_string(),
    };
    known.to_owned()
}

/// Finds the innermost error of a type: the outer ones only pass it on.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    iter::successors(Some(error), |error| inner(*error))
        .filter_map(<dyn Error>::downcast_ref)
        .last()
}

fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // The source of an I/O error is that of the error it holds; the one it holds is what we want.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(held) => Some(held),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let failure = Failure::new(Cause::Protocol, "ö".repeat(300));
        assert_eq!(failure.detail, "ö".repeat(200));
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let held = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let error = io::Error::other(io::Error::new(ErrorKind::InvalidData, held));
        let found = find::<rustls::Error>(&error).unwrap();
        assert_eq!(tls(found), "the certificate has expired");
    }
}
