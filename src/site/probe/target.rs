//! What is checked, and how.

use std::time::Duration;

/// One address and what is expected of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The method of the request.
    pub(crate) method: Method,
    /// An `http` or `https` address.
    pub(crate) address: String,
    /// The status that counts as up.
    pub(crate) expected_status: u16,
    /// A text that must be in the first 256 KiB of the body.
    pub(crate) body_text: Option<String>,
    /// The time for everything: name, connection, request, answer.
    pub(crate) timeout: Duration,
}

/// The method of a check's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Asks for the page.
    Get,
    /// Asks for the page's headers only.
    Head,
    /// Sends an empty POST.
    Post,
    /// Sends an empty PUT.
    Put,
    /// Asks what the address allows.
    Options,
}

impl Method {
    /// Every method, in the order of the form.
    pub(crate) const ALL: [Self; 5] = [Self::Get, Self::Head, Self::Post, Self::Put, Self::Options];

    /// Returns the method's name, in capitals, as HTTP and the database have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Options => "OPTIONS",
        }
    }

    /// Finds the method that `as_str` wrote.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    pub(super) fn http(self) -> reqwest::Method {
        match self {
            Self::Get => reqwest::Method::GET,
            Self::Head => reqwest::Method::HEAD,
            Self::Post => reqwest::Method::POST,
            Self::Put => reqwest::Method::PUT,
            Self::Options => reqwest::Method::OPTIONS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_comes_back_from_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(method));
        }
        assert_eq!(Method::parse("DELETE"), None);
    }
}
