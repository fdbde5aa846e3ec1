//! Which settings there are.

use figment::providers::Format;
use figment::providers::Toml;
use figment::value::Dict;
use figment::value::Value;

use crate::replication;
use crate::settings;
use crate::settings::Section;

/// The section that belongs to the site.
pub(super) const SITE: &str = "site";

/// Every setting with its default, in the order in which they are documented.
#[derive(Debug)]
pub(super) struct Schema {
    defaults: Dict,
    keys: Vec<(String, String)>,
    /// Section and key of each.
    secrets: Vec<(&'static str, &'static str)>,
}

impl Schema {
    /// Reads the embedded file and the defaults of the site.
    ///
    /// # Panics
    ///
    /// When `S::DEFAULTS` is not TOML: a mistake in the program that its first start shows.
    pub(super) fn of<S: Section>() -> Self {
        let text = format!("{}\n[{SITE}]\n{}", settings::DEFAULTS, S::DEFAULTS);
        let defaults: Dict = match Toml::from_str(&text) {
            Ok(defaults) => defaults,
            Err(error) => panic!("the DEFAULTS of the site's settings are not TOML: {error}"),
        };
        let own = S::SECRETS.iter().map(|key| (SITE, *key));
        let replication = replication::Settings::SECRETS
            .iter()
            .map(|key| ("replication", *key));
        let snapshots = replication::SnapshotSettings::SECRETS
            .iter()
            .map(|key| ("snapshots", *key));
        Self {
            keys: keys_in_order(&text, &defaults),
            defaults,
            secrets: own.chain(replication).chain(snapshots).collect(),
        }
    }

    pub(super) fn defaults(&self) -> &Dict {
        &self.defaults
    }

    pub(super) fn has_section(&self, section: &str) -> bool {
        self.defaults.contains_key(section)
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.defaults.keys().map(String::as_str)
    }

    /// Returns section and key of every setting.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|(s, k)| (s.as_str(), k.as_str()))
    }

    pub(super) fn default(&self, section: &str, key: &str) -> Option<&Value> {
        self.defaults.get(section)?.as_dict()?.get(key)
    }

    /// Returns the default when the setting is a string, where `"auto"` may be a number as well.
    pub(super) fn default_string(&self, section: &str, key: &str) -> Option<&str> {
        let default = self.default(section, key)?.as_str()?;
        (default != "auto").then_some(default)
    }

    pub(super) fn is_secret(&self, section: &str, key: &str) -> bool {
        self.secrets.contains(&(section, key))
    }
}

// A TOML table does not keep the order of its keys, but the lines of the file do.
fn keys_in_order(text: &str, defaults: &Dict) -> Vec<(String, String)> {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once('=') {
            keys.push((section.to_owned(), key.trim().to_owned()));
        }
    }
    keys.retain(|(section, key)| dict(defaults, section).is_some_and(|it| it.contains_key(key)));
    for (section, values) in defaults {
        for key in values.as_dict().into_iter().flat_map(Dict::keys) {
            let setting = (section.clone(), key.clone());
            if !keys.contains(&setting) {
                keys.push(setting);
            }
        }
    }
    keys
}

fn dict<'a>(sections: &'a Dict, section: &str) -> Option<&'a Dict> {
    sections.get(section)?.as_dict()
}

/// Returns the candidate that a typing mistake or two would turn into `word`.
pub(super) fn nearest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let limit = 1 + word.len() / 6;
    candidates
        .map(|candidate| (distance(word, &candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

// Levenshtein's: how many letters to put in, take out or change.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.chars().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_letters() {
        assert_eq!(distance("port", "port"), 0);
        assert_eq!(distance("prot", "port"), 2);
        assert_eq!(distance("", "port"), 4);
        assert_eq!(distance("ports", "port"), 1);
    }

    #[test]
    fn only_a_near_miss_is_taken_for_one() {
        let candidates = || ["poll_ms", "workers"].into_iter().map(str::to_owned);
        assert_eq!(nearest("worker", candidates()), Some("workers".to_owned()));
        assert_eq!(nearest("threads", candidates()), None);
    }
}
