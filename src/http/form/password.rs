//! What is entered and never shown again.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::Visitor;

/// By this name a form knows such a field.
pub(super) const PASSWORD: &str = "houseboat::http::Password";

/// A password, or another text that is entered and never shown again: not in a form's input, not by `Debug`.
///
/// ```
/// use garde::Validate;
/// use houseboat::http::Password;
///
/// #[derive(serde::Deserialize, Validate)]
/// struct SignIn {
///     #[garde(length(chars, min = 1, max = 200))]
///     email: String,
///     #[garde(length(chars, min = 12, max = 200))]
///     phrase: Password,
/// }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password([redacted])")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(PASSWORD, Text)
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Password;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, it: D) -> Result<Password, D::Error> {
        String::deserialize(it).map(Password)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Password, E> {
        Ok(Password(text.to_owned()))
    }
}

impl garde::rules::length::HasChars for Password {
    fn num_chars(&self) -> usize {
        self.0.chars().count()
    }
}

impl garde::rules::length::HasBytes for Password {
    fn num_bytes(&self) -> usize {
        self.0.len()
    }
}

impl garde::rules::length::HasSimpleLength for Password {
    fn length(&self) -> usize {
        self.0.len()
    }
}

/// Whether a field of this name is a secret, whatever its type.
pub(super) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 6] = ["password", "passphrase", "passwd", "secret", "token", "otp"];
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}
