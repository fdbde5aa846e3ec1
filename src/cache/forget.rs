//! Deletions that happen with a transaction: after its commit, and in any case.

use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::namespace::NUMBERS;
use crate::cache::namespace::ROOT;
use crate::cache::presence::Presence;
use crate::database::Transaction;

/// A deletion that waits for a commit.
#[derive(Debug)]
struct Pending {
    presence: Option<Arc<Presence>>,
}

impl Cache {
    /// Deletes a key when the transaction has been committed, and not if it is rolled back.
    ///
    /// A [`fetch`](Self::fetch) that computes from before the commit does not bring the old value back: what it
    /// computes is not kept. If the process is killed between the commit and the deletion, it is deleted when the
    /// cache is opened again.
    pub fn forget(&self, tx: &Transaction<'_>, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        // What has no number now may have one at the commit, so it is asked for then again.
        let space = match &self.namespace {
            None => Some(ROOT),
            Some(namespace) => namespace.id(&self.tiers),
        };
        let pending = self.note(space.map(|space| (space, key)));
        let (cache, key) = (self.clone(), key.to_vec());
        tx.after_commit(move || {
            let space = match &cache.namespace {
                None => Some(ROOT),
                Some(namespace) => namespace.id(&cache.tiers),
            };
            if let Some(space) = space {
                let spot = cache.tiers.spot(space, &key);
                cache.flights.forget(spot);
                cache.tiers.delete(spot);
            }
            drop(pending);
        });
    }

    /// Deletes all keys of this namespace, or on the cache itself everything, when the transaction has been committed.
    ///
    /// As [`forget`](Self::forget), except that of the cache itself nothing is done after a kill between the two.
    pub fn forget_all(&self, tx: &Transaction<'_>) {
        let key = self
            .namespace
            .as_ref()
            .and_then(|namespace| namespace.key(&self.tiers));
        let pending = self.note(key.as_deref().map(|key| (NUMBERS, key)));
        let cache = self.clone();
        tx.after_commit(move || {
            cache.flights.clear();
            match &cache.namespace {
                Some(namespace) => namespace.clear(&cache.tiers),
                None => cache.tiers.clear(),
            }
            drop(pending);
        });
    }

    /// Notes what is to be deleted, for the case that this process is killed.
    fn note(&self, place: Option<(u64, &[u8])>) -> Pending {
        let presence = self.tiers.presence();
        let noted = match (&presence, place) {
            (Some(presence), Some((space, key))) => presence.note(space, key),
            _ => return Pending { presence: None },
        };
        match noted {
            Ok(()) => Pending { presence },
            Err(error) => {
                tracing::warn!(%error, "a deletion from the cache would be lost if the process were killed now");
                Pending { presence: None }
            }
        }
    }
}

impl Drop for Pending {
    /// Committed, and among the waiting writes; or rolled back.
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            presence.settle();
        }
    }
}
