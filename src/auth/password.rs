//! Passwords: which are taken, and what is kept of them.

use std::fmt;
use std::sync::Arc;

use argon2::Algorithm;
use argon2::Argon2;
use argon2::Params;
use argon2::Version;
use argon2::password_hash::PasswordHasher;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::auth::Settings;
use crate::auth::costs::Costs;
use crate::auth::costs::is_same;
use crate::auth::email::Email;
use crate::digits::random;
use crate::http;

/// Fewer characters are refused.
pub(super) const CHARS_MIN: usize = 8;

/// More characters are refused.
pub(super) const CHARS_MAX: usize = 256;

/// So many may wait for each that is checked.
const WAITING: usize = 16;

/// When to try again, in seconds.
const SOON: u16 = 2;

/// The most common ones, in small letters; lines with `#` are comments.
const COMMON: &str = include_str!("passwords.txt");

/// A password as it was entered, in one spelling (NFC): the same keys on two machines may give different ones.
#[derive(Clone)]
pub(super) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password")
    }
}

impl Password {
    /// One to compare with what is kept; what is too long is nobody's.
    pub(super) fn entered(text: &str) -> Self {
        let chars = text.nfc().take(CHARS_MAX + 1);
        Self(chars.collect())
    }

    /// One that is to be kept.
    ///
    /// # Errors
    ///
    /// Why it is not a good one, for who entered it.
    pub(super) fn chosen(text: &str, email: Option<&Email>, site: &str) -> Result<Self, String> {
        let password = Self::entered(text);
        let count = password.0.chars().count();
        if count < CHARS_MIN {
            return Err(format!("It needs {CHARS_MIN} characters at least."));
        }
        if count > CHARS_MAX {
            return Err(format!("It may have {CHARS_MAX} characters at most."));
        }
        let small = password.0.to_lowercase();
        let small = small.trim();
        let address = email.map_or("", Email::key);
        let local = address.rsplit_once('@').map_or("", |(local, _)| local);
        if small == address || small == local || small == site.to_lowercase() {
            return Err("It must not be your address, nor the name of this site.".to_owned());
        }
        if is_common(small) || is_one_character(small) {
            return Err("It is among the first that anybody tries. Choose another one.".to_owned());
        }
        Ok(password)
    }
}

fn is_common(small: &str) -> bool {
    let mut lines = COMMON.lines().filter(|line| !line.starts_with('#'));
    lines.any(|line| line == small)
}

fn is_one_character(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next();
    chars.all(|c| Some(c) == first)
}

/// What makes and checks hashes: in threads of their own, a few at a time.
#[derive(Clone)]
pub(super) struct Hasher {
    argon: Argon2<'static>,
    /// For those that are checked and those that wait.
    places: Arc<Semaphore>,
    running: Arc<Semaphore>,
    costs: Costs,
}

/// What came of a password.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) is_right: bool,
    /// A hash by today's parameters, where the one that is kept has others.
    pub(super) new_hash: Option<String>,
}

impl Hasher {
    pub(super) fn new(settings: &Settings) -> Self {
        let (memory, passes) = (settings.hash_memory_kib, settings.hash_passes);
        let params = Params::new(memory, passes, settings.hash_lanes, None)
            .expect("the settings have ranges within those of argon2");
        let at_once = settings.hashes_max as usize;
        Self {
            costs: Costs::new(&params),
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            places: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
            running: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// The hash to keep, with its parameters in it.
    ///
    /// # Errors
    ///
    /// 503 where too many wait.
    pub(super) async fn hash(&self, password: Password) -> http::Result<String> {
        let argon = self.argon.clone();
        self.run(move || hash(&argon, &password)).await
    }

    /// Notes which kinds of hashes are kept: to check a password is to take the time of each.
    pub(super) fn learn(&self, hashes: &[String]) {
        for hash in hashes.iter().filter_map(|it| PasswordHash::new(it).ok()) {
            self.costs.learn(&hash);
        }
    }

    /// Whether it is the password of this hash; without a hash it is not, after the same time.
    ///
    /// # Errors
    ///
    /// 503 where too many wait.
    pub(super) async fn verify(
        &self,
        password: Password,
        kept: Option<String>,
    ) -> http::Result<Verdict> {
        let (argon, costs) = (self.argon.clone(), self.costs.clone());
        self.run(move || verify(&argon, &costs, &password, kept.as_deref()))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> http::Result<T> {
        let permits = self.turn().await?;
        // Who goes away leaves it to be finished: its place is free only then.
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permits);
            done
        });
        done.await.map_err(http::Error::internal)
    }

    async fn turn(&self) -> http::Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let busy = || http::Error::later("Too many people sign in just now.", SOON);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| busy())?;
        let turn = Arc::clone(&self.running).acquire_owned().await;
        Ok((place, turn.map_err(|_| busy())?))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hasher")
            .field("params", self.argon.params())
            .finish_non_exhaustive()
    }
}

fn hash(argon: &Argon2<'_>, password: &Password) -> String {
    let hash: PasswordHash = argon
        .hash_password_with_salt(password.0.as_bytes(), &random::<16>())
        .expect(
            "the parameters, and the lengths of salt and password, are within what argon2 takes",
        );
    hash.to_string()
}

fn verify(argon: &Argon2<'_>, costs: &Costs, password: &Password, kept: Option<&str>) -> Verdict {
    let kept = kept.and_then(|kept| PasswordHash::new(kept).ok());
    if let Some(kept) = &kept {
        costs.learn(kept);
    }
    let bytes = password.0.as_bytes();
    costs.spend(bytes, kept.as_ref());
    let is_equal = kept
        .as_ref()
        .is_some_and(|it| argon.verify_password(bytes, it).is_ok());
    let is_right = is_equal && password.0.chars().count() <= CHARS_MAX;
    let is_old = |it: &PasswordHash| {
        Params::try_from(it).map_or(true, |old| !is_same(&old, argon.params()))
            || it.algorithm.as_str() != Algorithm::Argon2id.as_str()
    };
    let new_hash = (is_right && kept.as_ref().is_some_and(is_old)).then(|| hash(argon, password));
    Verdict { is_right, new_hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(memory: u32) -> Hasher {
        Hasher::new(&Settings {
            hash_memory_kib: memory,
            hash_passes: 1,
            hashes_max: 1,
            ..Settings::default()
        })
    }

    #[test]
    fn the_list_of_common_passwords_is_short_and_of_use() {
        let lines = COMMON.lines().filter(|line| !line.starts_with('#'));
        let lines: Vec<&str> = lines.collect();
        assert_eq!(lines.len(), 1_000);
        for line in lines {
            assert_eq!(line, line.to_lowercase());
            assert!(
                line.chars().count() >= CHARS_MIN,
                "{line} is refused anyway"
            );
        }
    }

    #[test]
    fn a_bad_password_is_refused_with_a_reason() {
        let email = Email::parse("Stephanie@Example.org").unwrap();
        let refused = |text: &str| Password::chosen(text, Some(&email), "Lighthouse").err();
        for text in [
            "",
            "short 7",
            "Password",
            "qwertyuiop",
            "aaaaaaaaaaaa",
            "LIGHTHOUSE",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
        for text in ["stephanie", " stephanie@example.ORG "] {
            assert!(refused(text).is_some(), "{text}");
        }
        assert!(refused(&"é".repeat(257)).is_some());
        for text in ["pälzisch", "correct horse battery", &"ab".repeat(128)] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_in_either_spelling() {
        let hasher = hasher(128);
        let hash = hasher.hash(Password::entered("caf\u{e9} au lait")).await;
        let hash = hash.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=128,t=1,p=1$"), "{hash}");
        let verdict = async |text: &str| {
            let verdict = hasher.verify(Password::entered(text), Some(hash.clone()));
            verdict.await.unwrap().is_right
        };
        assert!(verdict("cafe\u{301} au lait").await);
        assert!(!verdict("cafe au lait").await);
        let nobody = hasher.verify(Password::entered("dummy"), None).await;
        assert!(!nobody.unwrap().is_right);
        let broken = hasher.verify(Password::entered("x"), Some("$argon2id$".to_owned()));
        assert!(!broken.await.unwrap().is_right);
    }

    #[tokio::test]
    async fn a_hash_of_other_parameters_is_made_anew() {
        let old = hasher(128).hash(Password::entered("correct horse")).await;
        let new = hasher(256);
        let verdict = new
            .verify(Password::entered("correct horse"), old.ok())
            .await;
        let hash = verdict.unwrap().new_hash.unwrap();
        assert!(hash.contains("$m=256,"), "{hash}");
        let verdict = new
            .verify(Password::entered("correct horse"), Some(hash))
            .await;
        let verdict = verdict.unwrap();
        assert!(verdict.is_right && verdict.new_hash.is_none());
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_sent_away() {
        let hasher = hasher(128);
        let running = hasher.running.clone().acquire_many_owned(1).await;
        let mut waiting: Vec<_> = (0..=WAITING)
            .map(|_| Box::pin(hasher.hash(Password::entered("correct horse"))))
            .collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert!(
            hasher
                .hash(Password::entered("correct horse"))
                .await
                .is_err()
        );
        drop(running);
        for one in waiting {
            one.await.unwrap();
        }
    }
}
