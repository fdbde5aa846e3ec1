//! Namespaces: numbers before the keys, which are entries themselves.
//!
//! A namespace has a number by chance. To clear it is to delete that number: what was put with it is out of reach, and
//! ages in its place; so are the namespaces in it, whose numbers stand under its own. So there may be any number of
//! namespaces, and none is ever counted or listed.

use std::sync::Arc;

use bytes::Bytes;

use crate::cache::entry::Entry;
use crate::cache::tiers::Change;
use crate::cache::tiers::Found;
use crate::cache::tiers::Tiers;
use crate::cache::ttl::Ttl;

/// The number of what is in no namespace.
pub(super) const ROOT: u64 = 0;

/// The number of the numbers.
pub(super) const NUMBERS: u64 = 1;

/// What is known of a namespace's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Id(u64),
    /// There is none, so there is nothing in it.
    None,
    /// The disk is too slow to say.
    No,
}

/// One namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    within: Option<Arc<Self>>,
    name: Box<[u8]>,
}

impl Namespace {
    pub(super) fn new(within: Option<Arc<Self>>, name: &str) -> Self {
        let name = name.as_bytes().into();
        Self { within, name }
    }

    /// Its number, if there can be anything in it; waits for the disk.
    pub(super) fn id(&self, tiers: &Tiers) -> Option<u64> {
        let key = self.key(tiers)?;
        let spot = tiers.spot(NUMBERS, &key);
        let entry = match tiers.look(spot) {
            Found::Here(entry) => entry,
            Found::Nowhere => return None,
            Found::AskFile(guard) => tiers.read_file(spot, guard)?,
        };
        number(&entry)
    }

    /// Under which key its number is, if the one that it is within has a number.
    pub(super) fn key(&self, tiers: &Tiers) -> Option<Vec<u8>> {
        let within = match &self.within {
            None => ROOT,
            Some(within) => within.id(tiers)?,
        };
        Some(self.key_within(within))
    }

    /// Its number, where the disk need not be waited for.
    pub(super) fn id_now(&self, tiers: &Tiers) -> Known {
        let within = match self.within.as_ref().map(|within| within.id_now(tiers)) {
            None => ROOT,
            Some(Known::Id(id)) => id,
            Some(unknown) => return unknown,
        };
        let key = self.key_within(within);
        let spot = tiers.spot(NUMBERS, &key);
        let entry = match tiers.look(spot) {
            Found::Here(entry) => Some(entry),
            Found::Nowhere => None,
            Found::AskFile(_) if tiers.readers.is_slow() => return Known::No,
            Found::AskFile(guard) => tiers.read_file(spot, guard),
        };
        let id = entry.and_then(|entry| number(&entry));
        id.map_or(Known::None, Known::Id)
    }

    /// Its number, or a new one. One that a slow disk does not give in time is replaced, which clears the namespace.
    pub(super) fn id_or_new(&self, tiers: &Tiers) -> u64 {
        let known = self.id_now(tiers);
        if let Known::Id(id) = known {
            return id;
        }
        let within = match &self.within {
            None => ROOT,
            Some(within) => within.id_or_new(tiers),
        };
        let key = self.key_within(within);
        let spot = tiers.spot(NUMBERS, &key);
        if known == Known::No {
            tiers.delete(spot);
        }
        tiers.update(spot, None, |entry| {
            if let Some(id) = entry.and_then(number) {
                return (Change::Leave, id);
            }
            let id = fastrand::u64(NUMBERS + 1..);
            let value = Bytes::copy_from_slice(&id.to_le_bytes());
            (Change::Put(value, Ttl::forever().times(0)), id)
        })
    }

    /// Nothing is in it any more; waits for the disk only to find the one that it is within.
    pub(super) fn clear(&self, tiers: &Tiers) {
        if let Some(key) = self.key(tiers) {
            tiers.delete(tiers.spot(NUMBERS, &key));
        }
    }

    fn key_within(&self, within: u64) -> Vec<u8> {
        [&within.to_le_bytes()[..], &self.name].concat()
    }
}

fn number(entry: &Entry) -> Option<u64> {
    Some(u64::from_le_bytes((*entry.value).try_into().ok()?))
}
