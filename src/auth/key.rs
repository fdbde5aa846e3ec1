//! Secrets of our making, and what is kept of them.

use std::fmt;

use ring::digest;

use crate::digits::hex;
use crate::digits::random;

/// What is kept of a secret: its SHA-256. Who reads the database can sign in by none of them.
///
/// The secrets have 256 bits of chance, so there is nothing to salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// A secret of 256 bits as it goes into a cookie or a link: 64 hexadecimal digits.
pub(super) struct Ticket(String);

impl Key {
    /// The key of what came in a cookie or a link, if that can be one at all: nobody is asked about anything else.
    pub(super) fn of_ticket(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(is_digit)).then(|| Self::of(text.as_bytes()))
    }

    /// The key of any bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(key)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, for a key of the cache.
    pub(super) fn to_hex(self) -> String {
        hex(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

impl Ticket {
    pub(super) fn new() -> Self {
        Self(hex(&random::<32>()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn key(&self) -> Key {
        Key::of(self.0.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_a_ticket_has_a_key() {
        let ticket = Ticket::new();
        assert_eq!(Key::of_ticket(ticket.as_str()), Some(ticket.key()));
        let wrong = [
            String::new(),
            ticket.as_str()[1..].to_owned(),
            ticket.as_str().to_owned() + "0",
            ticket.as_str().replace(|c: char| c.is_ascii_digit(), "g"),
            "A".repeat(64),
            "é".repeat(32),
        ];
        for text in wrong {
            assert_eq!(Key::of_ticket(&text), None, "{text}");
        }
        assert_ne!(Ticket::new().as_str(), ticket.as_str());
    }
}
