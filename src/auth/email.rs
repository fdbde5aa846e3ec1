//! An e-mail address, and the one spelling by which it is found.

use unicode_normalization::UnicodeNormalization;

/// As long as an address can be (RFC 5321).
pub(super) const BYTES_MAX: usize = 254;

/// An address that could be one. Whether anybody reads there only a message tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Email {
    text: String,
    key: String,
}

impl Email {
    /// # Errors
    ///
    /// What is wrong with it, for who entered it.
    pub(super) fn parse(entered: &str) -> Result<Self, &'static str> {
        if entered.len() > 4 * BYTES_MAX {
            return Err("An address has at most 254 characters.");
        }
        let text: String = entered.trim().nfc().collect();
        if text.is_empty() {
            return Err("Enter an e-mail address.");
        }
        if text.len() > BYTES_MAX {
            return Err("An address has at most 254 characters.");
        }
        let is_wrong = |c: char| c.is_whitespace() || c.is_control() || "<>()[]\\,;:\"".contains(c);
        let is_address = text.rsplit_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !local.contains('@')
        });
        if !is_address || text.contains(is_wrong) {
            return Err("Enter an e-mail address such as name@example.org.");
        }
        let key: String = text.to_lowercase().nfc().collect();
        Ok(Self { text, key })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What no two users share.
    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_key_however_it_is_spelt() {
        let key = |text: &str| Email::parse(text).unwrap().key;
        assert_eq!(key(" Ann@Example.ORG\n"), "ann@example.org");
        assert_eq!(key("ANDRÉ@x.fr"), key("andre\u{301}@x.fr"));
        assert_eq!(Email::parse(" Ann@x.org ").unwrap().as_str(), "Ann@x.org");
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        let long = format!("{}@x.org", "a".repeat(250));
        for text in [
            "", "  ", "ann", "@", "a@", "@b", "a@b@c", "a b@c", "a@b c", "a\0@b", "<a@b>", "a:b@c",
            &long,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
        let longest = format!("{}@x.org", "a".repeat(248));
        assert!(Email::parse(&longest).is_ok());
    }
}
