//! One field on its way into a type: every flaw becomes a sentence about it.

use std::str::FromStr;

use serde::Deserializer;
use serde::de;
use serde::de::DeserializeSeed;
use serde::de::IntoDeserializer;
use serde::de::Visitor;
use serde::de::value::StrDeserializer;

use crate::http::form::password::PASSWORD;
use crate::http::form::reading::Notes;

/// What is said of a value where nothing better is known.
const NOT_VALID: &str = "Enter a valid value.";
const MISSING: &str = "Fill in this field.";

/// Longer lists are not read out.
const CHOICES_MAX: usize = 10;

/// Why a field does not fit its type.
#[derive(Debug)]
pub(super) struct Flaw {
    /// The field, where serde names it.
    pub(super) field: Option<String>,
    /// Whether serde misses it.
    pub(super) is_missing: bool,
    pub(super) text: String,
}

impl Flaw {
    fn new(text: impl Into<String>) -> Self {
        Self {
            field: None,
            is_missing: false,
            text: text.into(),
        }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Flaw {}

impl de::Error for Flaw {
    /// A type's own sentence is shown; what is none speaks to programmers.
    fn custom<T: std::fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        if is_sentence(&text) {
            return Self::new(text);
        }
        tracing::debug!(text, "a field does not fit its type");
        Self::new(NOT_VALID)
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            field: Some(field.to_owned()),
            is_missing: true,
            text: MISSING.to_owned(),
        }
    }

    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self {
            field: Some(field.to_owned()),
            is_missing: false,
            text: "The form has no such field.".to_owned(),
        }
    }

    fn unknown_variant(_: &str, choices: &'static [&'static str]) -> Self {
        if choices.is_empty() || choices.len() > CHOICES_MAX {
            return Self::new("Choose one of the list.");
        }
        Self::new(format!("Choose one of {}.", choices.join(", ")))
    }
}

/// Whether a text is for people: it begins with a capital letter and ends as a sentence does.
pub(super) fn is_sentence(text: &str) -> bool {
    text.starts_with(char::is_uppercase) && text.ends_with(['.', '!', '?'])
}

/// What a box or a switch says; `None` for what is neither yes nor no.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text.trim() {
        "on" | "true" | "1" | "yes" => Some(true),
        "" | "off" | "false" | "0" | "no" => Some(false),
        _ => None,
    }
}

/// How a field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It was sent.
    Sent,
    /// It was not: a box that is not checked, a list of which nothing is chosen.
    Absent,
    /// What was sent does not fit, which is said already; any value of the type will do, so that the others are read.
    Stand,
}

/// One field.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) name: &'a str,
    pub(super) texts: &'a [&'a str],
    pub(super) mode: Mode,
    pub(super) notes: &'a Notes,
}

impl<'a> Value<'a> {
    /// The one text; `None` where any value will do.
    fn text(self) -> Result<Option<&'a str>, Flaw> {
        match (self.mode, self.texts) {
            (Mode::Stand, _) => Ok(None),
            (Mode::Absent, _) | (Mode::Sent, []) => Err(Flaw::new(MISSING)),
            (Mode::Sent, [text]) => Ok(Some(text)),
            (Mode::Sent, _) => Err(Flaw::new(
                "This field came more than once, and has one value only.",
            )),
        }
    }

    /// A whole number; `ends` are those of a small type, and empty for the others.
    fn whole<N: FromStr + Default>(self, ends: &str, is_signed: bool) -> Result<N, Flaw> {
        let Some(text) = self.text()?.map(str::trim) else {
            return Ok(N::default());
        };
        text.parse().map_err(|_| {
            let digits = text.trim_start_matches(['+', '-']);
            let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            Flaw::new(match (ends, is_signed) {
                ("", _) if is_whole && !text.starts_with('-') => {
                    "This number is too large.".to_owned()
                }
                ("", true) if is_whole => "This number is too small.".to_owned(),
                ("", true) => "Enter a whole number.".to_owned(),
                ("", false) => "Enter a whole number, 0 or more.".to_owned(),
                (ends, _) => format!("Enter a whole number from {ends}."),
            })
        })
    }

    fn decimal(self) -> Result<f64, Flaw> {
        let Some(text) = self.text()?.map(str::trim) else {
            return Ok(0.0);
        };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| Flaw::new("Enter a number, such as 2.5."))
    }

    fn nested<T>(self) -> Result<T, Flaw> {
        tracing::error!(
            field = self.name,
            "a field of a form has a type with fields of its own, which forms do not have"
        );
        Err(Flaw::new(NOT_VALID))
    }
}

macro_rules! whole {
    ($($method:ident $visit:ident $type:ty, $ends:expr, $signed:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
            visitor.$visit(self.whole::<$type>($ends, $signed)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Flaw;

    whole! {
        deserialize_i8 visit_i8 i8, "-128 to 127", true;
        deserialize_i16 visit_i16 i16, "-32768 to 32767", true;
        deserialize_i32 visit_i32 i32, "", true;
        deserialize_i64 visit_i64 i64, "", true;
        deserialize_i128 visit_i128 i128, "", true;
        deserialize_u8 visit_u8 u8, "0 to 255", false;
        deserialize_u16 visit_u16 u16, "0 to 65535", false;
        deserialize_u32 visit_u32 u32, "", false;
        deserialize_u64 visit_u64 u64, "", false;
        deserialize_u128 visit_u128 u128, "", false;
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_f64(self.decimal()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_f64(self.decimal()?)
    }

    /// A browser sends a box only if it is checked.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        if self.mode == Mode::Absent {
            return visitor.visit_bool(false);
        }
        let text = self.text()?.unwrap_or_default();
        visitor.visit_bool(flag(text).ok_or_else(|| Flaw::new("Choose yes or no."))?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let Some(text) = self.text()? else {
            return visitor.visit_char(' ');
        };
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(char), None) => visitor.visit_char(char),
            _ => Err(Flaw::new("Enter one character.")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_str(self.text()?.unwrap_or_default())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_bytes(self.text()?.unwrap_or_default().as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_bytes(visitor)
    }

    /// A field that was left empty is none.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        let is_empty = matches!(self.texts, [] | [""]);
        if self.mode != Mode::Sent || is_empty {
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        if name == PASSWORD {
            self.notes.is_secret(self.name);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.notes.is_list(self.name);
        let texts = if self.mode == Mode::Sent {
            self.texts
        } else {
            &[]
        };
        visitor.visit_seq(Each { value: self, texts })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Flaw> {
        self.nested()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Flaw> {
        self.nested()
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        choices: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        let first = choices.first().copied().unwrap_or_default();
        let text: StrDeserializer<'_, Flaw> = self.text()?.unwrap_or(first).into_deserializer();
        visitor.visit_enum(text)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.deserialize_str(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        match self.texts {
            [_, _, ..] => self.deserialize_seq(visitor),
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_unit()
    }
}

/// The texts of a field that came more than once, each by itself.
struct Each<'a> {
    value: Value<'a>,
    texts: &'a [&'a str],
}

impl<'de> de::SeqAccess<'de> for Each<'_> {
    type Error = Flaw;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Flaw> {
        let Some((first, rest)) = self.texts.split_at_checked(1) else {
            return Ok(None);
        };
        self.texts = rest;
        let value = Value {
            texts: first,
            ..self.value
        };
        seed.deserialize(value).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.texts.len())
    }
}
