//! A form on its way into a type: all fields are read, also where some of them do not fit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use serde::Deserializer;
use serde::de::DeserializeOwned;
use serde::de::DeserializeSeed;
use serde::de::IntoDeserializer;
use serde::de::MapAccess;
use serde::de::Visitor;

use crate::http::form::Errors;
use crate::http::form::value::Flaw;
use crate::http::form::value::Mode;
use crate::http::form::value::Value;

/// More is not told of one form.
const ERRORS_MAX: usize = 100;

/// What came of a form.
pub(super) struct Read<T> {
    /// `None` where a field does not fit and nothing else fits in its place.
    pub(super) value: Option<T>,
    pub(super) errors: Errors,
    /// Fields that are never shown again.
    pub(super) secrets: BTreeSet<String>,
    /// Fields that may come more than once.
    pub(super) lists: BTreeSet<String>,
    /// The fields of the type, in their order.
    pub(super) order: &'static [&'static str],
}

/// What is learned of the fields while they are read.
#[derive(Default)]
pub(super) struct Notes(RefCell<Learned>);

#[derive(Default)]
struct Learned {
    current: Option<String>,
    secrets: BTreeSet<String>,
    lists: BTreeSet<String>,
    order: &'static [&'static str],
}

impl Notes {
    pub(super) fn is_secret(&self, field: &str) {
        self.0.borrow_mut().secrets.insert(field.to_owned());
    }

    pub(super) fn is_list(&self, field: &str) {
        self.0.borrow_mut().lists.insert(field.to_owned());
    }
}

/// What is known of a field that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is missing, and may be something that a browser sends only sometimes.
    Absent,
    /// It is wrong, and something stands in its place.
    Stand,
    /// Nothing can stand in its place: it is left out, so that the others are read.
    Left,
}

/// Reads fields into a type.
///
/// Serde ends at the first flaw. So it is read again, each time with what is known of one field more, until all of it
/// is read: who has made three mistakes is told of three.
pub(super) fn read<T: DeserializeOwned>(pairs: &[(String, String)], reserved: &str) -> Read<T> {
    let groups = groups(pairs, reserved);
    let notes = Notes::default();
    let mut known = BTreeMap::new();
    let mut errors = Errors::default();
    let value = loop {
        let fields = Fields {
            groups: &groups,
            known: &known,
            notes: &notes,
        };
        let flaw = match T::deserialize(fields) {
            Ok(value) => break Some(value),
            Err(flaw) => flaw,
        };
        let Some(field) = flaw.field.or_else(|| notes.0.borrow_mut().current.take()) else {
            errors.add("", flaw.text);
            break None;
        };
        let next = match known.get(&field) {
            None if flaw.is_missing => Known::Absent,
            None | Some(Known::Absent) => {
                errors.add(&*field, flaw.text);
                Known::Stand
            }
            Some(Known::Stand) => Known::Left,
            Some(Known::Left) => break None,
        };
        known.insert(field, next);
        if errors.len() >= ERRORS_MAX {
            break None;
        }
    };
    let learned = notes.0.into_inner();
    Read {
        value,
        errors,
        secrets: learned.secrets,
        lists: learned.lists,
        order: learned.order,
    }
}

type Group<'a> = (&'a str, Vec<&'a str>);

/// The values of each field, in the order in which the fields came.
fn groups<'a>(pairs: &'a [(String, String)], reserved: &str) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut places = HashMap::new();
    for (name, value) in pairs.iter().filter(|(name, _)| name != reserved) {
        let place = *places.entry(name.as_str()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(value);
    }
    groups
}

#[derive(Clone, Copy)]
struct Fields<'a> {
    groups: &'a [Group<'a>],
    known: &'a BTreeMap<String, Known>,
    notes: &'a Notes,
}

impl<'a> Fields<'a> {
    /// Those that were sent, and those that are known to be missing.
    fn values(self) -> impl Iterator<Item = Value<'a>> {
        let value = move |name, texts, mode| Value {
            name,
            texts,
            mode,
            notes: self.notes,
        };
        let sent = self.groups.iter().filter_map(move |(name, texts)| {
            let mode = match self.known.get(*name) {
                None => Mode::Sent,
                Some(Known::Absent | Known::Stand) => Mode::Stand,
                Some(Known::Left) => return None,
            };
            Some(value(*name, texts.as_slice(), mode))
        });
        let is_sent = move |name: &str| self.groups.iter().any(|(sent, _)| *sent == name);
        let missing = self.known.iter().filter_map(move |(name, known)| {
            let mode = match known {
                Known::Absent => Mode::Absent,
                Known::Stand => Mode::Stand,
                Known::Left => return None,
            };
            (!is_sent(name)).then(|| value(name.as_str(), &[], mode))
        });
        sent.chain(missing)
    }

    fn map<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_map(Entries {
            values: self.values().collect::<Vec<_>>().into_iter(),
            value: None,
        })
    }
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Flaw;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        self.notes.0.borrow_mut().order = fields;
        self.map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        self.map(visitor)
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
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Flaw> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Flaw> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf seq tuple tuple_struct map
        enum identifier ignored_any
    }
}

struct Entries<'a> {
    values: std::vec::IntoIter<Value<'a>>,
    value: Option<Value<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Flaw;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Flaw> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        value.notes.0.borrow_mut().current = Some(value.name.to_owned());
        self.value = Some(value);
        seed.deserialize(value.name.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Flaw> {
        let Some(value) = self.value.take() else {
            return Err(serde::de::Error::custom(
                "a value is asked for before its key",
            ));
        };
        let read = seed.deserialize(value)?;
        value.notes.0.borrow_mut().current = None;
        Ok(read)
    }
}
