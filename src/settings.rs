//! What a section of the settings is made of.
//!
//! Each floor has a section, a struct named `Settings` beside what it configures, and a site may
//! have one of its own; all of them are a [`Section`]. Reading files and the environment is left
//! to `config`.

use std::fmt;
use std::fmt::Display;
use std::ops::RangeInclusive;

use figment::providers::Format;
use figment::providers::Toml;
use figment::value::Dict;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::DeserializeOwned;
use serde::de::Unexpected;
use serde::de::Visitor;

/// The settings of the framework with their defaults, as they stand in `config/default.toml`.
pub(crate) const DEFAULTS: &str = include_str!("../config/default.toml");

/// What stands in the place of a secret wherever it would be printed.
pub(crate) const REDACTED: &str = "[redacted]";

/// One section of the settings: a flat struct that says its defaults, secrets and limits.
///
/// Derive `Serialize` and `Deserialize`, with `#[serde(deny_unknown_fields)]`. A value may be a
/// number, a string, a boolean, an array or an inline table, but not a section of its own.
///
/// ```
/// use houseboat::settings::{Problems, Secret, Section};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     keep_days: u32,
///     webhook_url: Secret,
/// }
///
/// impl Section for Settings {
///     const DEFAULTS: &'static str = r#"
///         # How long history is kept, in days; 1 to 365.
///         keep_days = 90
///         # Where alerts are sent; a secret, because the address is all one needs to send.
///         webhook_url = ""
///     "#;
///     const SECRETS: &'static [&'static str] = &["webhook_url"];
///
///     fn check(&self, problems: &mut Problems) {
///         problems.range("keep_days", self.keep_days, 1..=365);
///     }
/// }
/// ```
pub trait Section: DeserializeOwned + Serialize + Send + Sync + 'static {
    /// Every key of a site's own section with its default, as TOML; secrets as an empty string.
    ///
    /// The sections of the framework leave it empty: theirs stand in `config/default.toml`.
    const DEFAULTS: &'static str = "";

    /// The keys that come only from the environment and are never printed.
    const SECRETS: &'static [&'static str] = &[];

    /// Puts in place what `"auto"` stands for in this environment, such as `development`; done once, after the check.
    fn decide(&mut self, environment: &str) {
        let _ = environment;
    }

    /// Reports each value that has the right type and cannot be used all the same.
    fn check(&self, problems: &mut Problems) {
        let _ = problems;
    }
}

/// Returns a framework section as `config/default.toml` has it.
pub(crate) fn defaults<T: Section>(section: &str) -> T {
    let sections: Dict = Toml::from_str(DEFAULTS).expect("a test parses the embedded file");
    let values = sections.get(section).expect("a test reads every section");
    values
        .deserialize()
        .expect("a test reads every section into its type")
}

/// What [`Section::check`] found wrong.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<(&'static str, String)>,
}

impl Problems {
    /// Reports `key`; the reason goes on where "`key` = value" ends: "must be a web address".
    pub fn add(&mut self, key: &'static str, reason: impl Into<String>) {
        self.found.push((key, reason.into()));
    }

    /// Reports `key` unless its value is in the range, ends included.
    pub fn range<T: Copy + PartialOrd + Display>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            let reason = format!("must be from {} to {}", range.start(), range.end());
            self.add(key, reason);
        }
    }

    pub(crate) fn into_found(self) -> Vec<(&'static str, String)> {
        self.found
    }
}

/// The section of a site that has no settings of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Section for NoSettings {}

/// A string that is never printed: its `Debug` and its `Serialize` say `[redacted]`.
///
/// An empty one, which is one that nobody set, shows as an empty string.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nobody set it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { REDACTED }
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// A number, or `"auto"` to leave the choice to the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// The program chooses.
    #[default]
    Auto,
    /// The operator chose.
    Given(T),
}

impl<T> Auto<T> {
    /// Returns the number that was given, if one was.
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Given(value) => Some(value),
        }
    }

    /// Returns the number that was given, or the one that `choose` finds.
    pub fn unwrap_or_else(self, choose: impl FnOnce() -> T) -> T {
        self.into_option().unwrap_or_else(choose)
    }
}

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Given(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AutoVisitor(std::marker::PhantomData))
    }
}

struct AutoVisitor<T>(std::marker::PhantomData<T>);

impl<T: TryFrom<u64>> Visitor<'_> for AutoVisitor<T> {
    type Value = Auto<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"auto\" or a whole number")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Self::Value, E> {
        match word {
            "auto" => Ok(Auto::Auto),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        match T::try_from(number) {
            Ok(value) => Ok(Auto::Given(value)),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_only_whether_it_is_set() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "\"[redacted]\"");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
        assert_eq!(serde_json::to_string(&Secret::default()).unwrap(), "\"\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn auto_is_the_word_or_a_number_that_fits() {
        let read = |text| serde_json::from_str::<Auto<u8>>(text).ok();
        assert_eq!(read("\"auto\""), Some(Auto::Auto));
        assert_eq!(read("7"), Some(Auto::Given(7)));
        assert_eq!(read("256"), None);
        assert_eq!(read("-1"), None);
        assert_eq!(read("\"seven\""), None);
    }

    #[test]
    fn a_range_includes_both_of_its_ends() {
        let mut problems = Problems::default();
        for value in [0, 1, 5, 6] {
            problems.range("x", value, 1..=5);
        }
        assert_eq!(problems.into_found().len(), 2);
    }
}
