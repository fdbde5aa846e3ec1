//! Namespaces: numbers before the keys, which are entries themselves.
//!
//! A namespace has a number by chance. To clear it is to delete that number: what was put with it is out of reach, and
//! ages in its place. So there may be any number of namespaces, and none is ever counted or listed.

use bytes::Bytes;

use crate::cache::tiers::Change;
use crate::cache::tiers::Found;
use crate::cache::tiers::Tiers;
use crate::cache::ttl::Ttl;

/// The number of what is in no namespace.
pub(super) const ROOT: u64 = 0;

/// The number of the numbers.
const NUMBERS: u64 = 1;

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
    /// Its name, after those it is within; each begins with its length.
    path: Vec<u8>,
}

impl Namespace {
    pub(super) fn new(within: Option<&Self>, name: &str) -> Self {
        let mut path = within.map_or_else(Vec::new, |within| within.path.clone());
        path.extend_from_slice(&(name.len() as u64).to_le_bytes());
        path.extend_from_slice(name.as_bytes());
        Self { path }
    }

    /// Its number, if there can be anything in it; waits for the disk.
    pub(super) fn id(&self, tiers: &Tiers) -> Option<u64> {
        let spot = tiers.spot(NUMBERS, &self.path);
        let entry = match tiers.look(spot) {
            Found::Here(entry) => entry,
            Found::Nowhere => return None,
            Found::AskFile(guard) => tiers.read_file(spot, guard)?,
        };
        number(&entry.value)
    }

    /// Its number, where the disk need not be waited for.
    pub(super) fn id_now(&self, tiers: &Tiers) -> Known {
        match tiers.look(tiers.spot(NUMBERS, &self.path)) {
            Found::Here(entry) => number(&entry.value).map_or(Known::None, Known::Id),
            Found::Nowhere => Known::None,
            Found::AskFile(_) if tiers.readers.is_slow() => Known::No,
            Found::AskFile(_) => self.id(tiers).map_or(Known::None, Known::Id),
        }
    }

    /// A number, if it has none: in place of one that could not be read, which clears it.
    pub(super) fn new_id(&self, tiers: &Tiers, known: Known) -> u64 {
        let spot = tiers.spot(NUMBERS, &self.path);
        if known == Known::No {
            tiers.delete(spot);
        }
        tiers.update(spot, None, |entry| {
            if let Some(id) = entry.and_then(|entry| number(&entry.value)) {
                return (Change::Leave, id);
            }
            let id = fastrand::u64(NUMBERS + 1..);
            let value = Bytes::copy_from_slice(&id.to_le_bytes());
            (Change::Put(value, Ttl::forever().times(0)), id)
        })
    }

    pub(super) fn clear(&self, tiers: &Tiers) {
        tiers.delete(tiers.spot(NUMBERS, &self.path));
    }

    /// Where its number is, as notes have it: a namespace and a key.
    pub(super) fn place(&self) -> (u64, &[u8]) {
        (NUMBERS, &self.path)
    }
}

fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}
