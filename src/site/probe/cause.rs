//! Why a check failed.

/// What went wrong, in the order in which a check can meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The host's name has no address.
    Dns,
    /// The address is not on the internet, and the site checks nothing else.
    Private,
    /// Nobody accepted the connection.
    Connect,
    /// The certificate or the encryption was not right.
    Tls,
    /// The whole answer was not there in time.
    Timeout,
    /// The connection ended before the answer did.
    Closed,
    /// The address sent the check on more than five times.
    Redirects,
    /// The status was another than the expected one.
    Status,
    /// The expected text was not in the body.
    MissingText,
    /// What came back was not HTTP.
    Protocol,
}

impl Cause {
    const ALL: [Self; 10] = [
        Self::Dns,
        Self::Private,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Closed,
        Self::Redirects,
        Self::Status,
        Self::MissingText,
        Self::Protocol,
    ];

    /// Returns the word that stands for it in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Private => "private",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Redirects => "redirects",
            Self::Status => "status",
            Self::MissingText => "missing_text",
            Self::Protocol => "protocol",
        }
    }

    /// Finds the cause that `as_str` wrote.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }

    /// Says it to people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Dns => "the name could not be resolved",
            Self::Private => "the address is not a public one",
            Self::Connect => "no connection could be made",
            Self::Tls => "no secure connection could be made",
            Self::Timeout => "the answer took too long",
            Self::Closed => "the connection broke off",
            Self::Redirects => "too many redirects",
            Self::Status => "unexpected status",
            Self::MissingText => "the expected text is missing",
            Self::Protocol => "the answer is not valid HTTP",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_comes_back_from_its_word() {
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.as_str()), Some(cause));
        }
        assert_eq!(Cause::parse("DNS"), None);
    }
}
