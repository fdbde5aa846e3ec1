//! Where a page is in the cache: at its address, or at one of its variants.

use axum::http::HeaderMap;
use axum::http::HeaderName;
use ring::digest;
use serde::Deserialize;
use serde::Serialize;

use crate::digits::hex;
use crate::http::page_cache::asked::add_values;

/// A place in the cache.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) key: String,
    /// What the address said, for a variant.
    pub(super) varies: Option<Varies>,
}

/// What is kept at an address whose pages depend on headers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Varies {
    /// In the keys of its variants: where this is not kept, because the path was forgotten meanwhile, they are not found.
    mark: u64,
    names: Vec<String>,
    /// The keys of the variants that are kept, the oldest first.
    keys: Vec<String>,
}

impl Place {
    pub(super) fn address(key: String) -> Self {
        Self { key, varies: None }
    }

    /// Whether all of these headers are in the key.
    pub(super) fn knows(&self, names: &[HeaderName]) -> bool {
        let known = self.varies.as_ref().map_or(&[][..], |varies| &varies.names);
        names
            .iter()
            .all(|name| known.iter().any(|known| known == name.as_str()))
    }
}

impl Varies {
    pub(super) fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self {
            mark: fastrand::u64(..),
            names,
            keys: Vec::new(),
        }
    }

    /// With more headers, and so with other places for all variants.
    pub(super) fn and(&self, names: impl IntoIterator<Item = String>) -> Self {
        Self::new(self.names.iter().cloned().chain(names).collect())
    }

    /// Where the page is for a visitor with these headers.
    pub(super) fn place(&self, address: &str, headers: &HeaderMap) -> Place {
        let mut values = String::new();
        for name in &self.names {
            values.push_str(name);
            if let Ok(name) = HeaderName::try_from(name) {
                add_values(&mut values, headers, &name);
            }
            values.push('\n');
        }
        // A header can be long, and nobody may find two that make one key.
        let hash = digest::digest(&digest::SHA256, values.as_bytes());
        let hash = hex(&hash.as_ref()[..16]);
        Place {
            key: format!("{address}\n~{:x}~{hash}", self.mark),
            varies: Some(self.clone()),
        }
    }

    /// With one more variant; returns what has to go for it.
    pub(super) fn add(&mut self, key: &str, variants_max: usize) -> Vec<String> {
        self.keys.retain(|kept| kept != key);
        self.keys.push(key.to_owned());
        let over = self.keys.len().saturating_sub(variants_max);
        self.keys.drain(..over).collect()
    }

    /// What it takes in memory beside the value itself.
    pub(super) fn bytes(&self) -> usize {
        let texts = self.names.iter().chain(&self.keys);
        texts.map(|text| size_of::<String>() + text.len()).sum()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|kept| kept == key)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    #[test]
    fn no_two_lists_of_values_make_one_variant() {
        let varies = Varies::new(vec!["accept".to_owned(), "accept-language".to_owned()]);
        let lists: [&[(HeaderName, &'static str)]; 6] = [
            &[],
            &[(header::ACCEPT, "")],
            &[(header::ACCEPT, "a")],
            &[(header::ACCEPT, "a"), (header::ACCEPT, "b")],
            &[(header::ACCEPT, "a, b")],
            &[(header::ACCEPT, "a"), (header::ACCEPT_LANGUAGE, "b")],
        ];
        let mut keys: Vec<String> = lists
            .iter()
            .map(|list| {
                let mut headers = HeaderMap::new();
                for (name, value) in *list {
                    headers.append(name, value.parse().unwrap());
                }
                varies.place("", &headers).key
            })
            .collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), lists.len());
    }

    #[test]
    fn one_variant_too_many_takes_the_place_of_the_oldest() {
        let mut varies = Varies::new(Vec::new());
        assert!(varies.add("a", 2).is_empty());
        assert!(varies.add("b", 2).is_empty());
        assert!(varies.add("a", 2).is_empty());
        assert_eq!(varies.add("c", 2), ["b"]);
        assert!(varies.has("a") && varies.has("c") && !varies.has("b"));
    }
}
