//! What it costs to check a password: the same, whoever is meant.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use argon2::Algorithm;
use argon2::Argon2;
use argon2::Params;
use argon2::Version;
use argon2::password_hash::phc::PasswordHash;

/// Hashes of more kinds than these are told apart by their time.
const KINDS_MAX: usize = 4;

/// The parameters of the hashes that are kept: today's, and those of the settings before, until their users sign in.
///
/// Each check runs once by each of them. By one alone it would take another time for a hash that is old, and where
/// there is none; and so it would tell who has an account.
#[derive(Clone)]
pub(super) struct Costs(Arc<Mutex<Vec<Params>>>);

impl Costs {
    pub(super) fn new(today: &Params) -> Self {
        Self(Arc::new(Mutex::new(vec![today.clone()])))
    }

    /// Notes the parameters of a hash.
    pub(super) fn learn(&self, hash: &PasswordHash) {
        let Ok(params) = Params::try_from(hash) else {
            return;
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KINDS_MAX && !known.iter().any(|it| is_same(it, &params)) {
            known.push(params);
        }
    }

    /// Spends what a hash of each kind takes, but for the kind of the one that is compared.
    pub(super) fn spend(&self, password: &[u8], compared: Option<&PasswordHash>) {
        let compared = compared.and_then(|hash| Params::try_from(hash).ok());
        // The lock is not held while it is spent.
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let others = known
            .into_iter()
            .filter(|it| !compared.as_ref().is_some_and(|own| is_same(it, own)));
        for params in others {
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
            // What comes of it is nothing, and a failure would be as well.
            let _ = argon.hash_password_into(password, b"no salt of a user", &mut hash);
            black_box(hash);
        }
    }
}

/// Whether a hash of the one takes what a hash of the other takes.
pub(super) fn is_same(one: &Params, other: &Params) -> bool {
    let costs = |it: &Params| (it.m_cost(), it.t_cost(), it.p_cost());
    costs(one) == costs(other)
}
