//! Static files: embedded in the binary, named by content, compressed once.

mod copies;
mod earlier;
mod file;
mod folder;
mod kind;
mod range;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;

use crate::database::Database;
use crate::http::Error;

pub(super) use self::file::AsItIs;

use self::earlier::Earlier;
use self::file::ASK_AGAIN;
use self::file::FOREVER;
use self::file::File;
use self::folder::OnDisk;

/// Where static files are.
const PATH: &str = "/assets/";

/// So that nobody keeps a page that says that there is no such file: the next build may have it.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");

/// The static files of a site.
///
/// They are in the program; nothing has to be collected or copied. A page names a file by its [`url`](Self::url), which
/// has a hash of the content in it. A browser may keep what is there for a year, since a file that changes gets
/// another address. A page of an earlier build still finds its files for a day after the deploy, up to 16 MiB.
///
/// ```
/// use houseboat::http::Assets;
///
/// let assets = Assets::new(&[("site.css", b"body { margin: 0 }")]);
/// assert_eq!(assets.url("site.css"), "/assets/site.a309fe5121cccde3.css");
/// ```
///
/// As a rule they are in a folder, and [`assets!`](crate::assets) embeds them.
///
/// Answered are GET and HEAD, conditions (`If-None-Match`, `If-Match`), and one range of bytes (`Range`, `If-Range`).
/// What gets smaller by it is compressed by brotli and gzip, once: behind the first visitor who can read that.
///
/// A file is there under its plain name, too (`/assets/site.css`), for style sheets that name a font, and is asked for
/// again each time then.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    sets: Vec<Arc<Set>>,
    earlier: Option<Earlier>,
}

/// The files of one call.
#[derive(Debug)]
struct Set {
    files: HashMap<&'static str, Entry>,
    /// Where they come from.
    folder: Option<PathBuf>,
    /// Whether that is looked at.
    is_live: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    embedded: Arc<File>,
    on_disk: OnDisk,
}

/// Embeds static files, and has them served from the disk in the environment `development`.
///
/// The folder is in the package's own (`CARGO_MANIFEST_DIR`). In the environment `development`, a file that was changed
/// there is served as it is now, under another address, without a build; one that was deleted there, or has a link out
/// of the folder in its place, as it is in the program. In all others the disk is not looked at.
///
/// ```
/// let assets = houseboat::assets!("assets": "site.css", "site.js");
/// assert!(assets.url("site.css").starts_with("/assets/site."));
/// ```
#[macro_export]
macro_rules! assets {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        $crate::http::Assets::in_folder(
            ::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", $folder),
            &[$((
                $name,
                ::core::include_bytes!(::core::concat!(
                    ::core::env!("CARGO_MANIFEST_DIR"), "/", $folder, "/", $name
                )),
            )),+],
        )
    };
}

impl Assets {
    /// The files given: name with ending, and content (`include_bytes!`).
    ///
    /// # Panics
    ///
    /// When a name has anything but letters, digits, `.`, `-`, `_`, and `/` between parts of it; or a part that begins
    /// with a dot.
    #[must_use]
    pub fn new(files: &[(&'static str, &'static [u8])]) -> Self {
        Self::from_set(None, files)
    }

    /// The files given, which are in this folder, as [`assets!`](crate::assets) says it.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>, files: &[(&'static str, &'static [u8])]) -> Self {
        Self::from_set(Some(folder.into()), files)
    }

    /// The framework's own, for the pages that it makes.
    pub(crate) fn own() -> Self {
        let error = include_bytes!("../../../assets/houseboat/error.css");
        Self::new(&[("houseboat.css", error)])
    }

    fn from_set(folder: Option<PathBuf>, files: &[(&'static str, &'static [u8])]) -> Self {
        let entry = |(name, content): &(&'static str, &'static [u8])| {
            assert!(
                is_name(name),
                "the name of a static file, {name:?}, should be letters, digits and . - _ /"
            );
            let embedded = Arc::new(File::embedded(name, content));
            let on_disk = OnDisk::default();
            (*name, Entry { embedded, on_disk })
        };
        let set = Set {
            files: files.iter().map(entry).collect(),
            folder,
            is_live: AtomicBool::new(false),
        };
        Self {
            sets: vec![Arc::new(set)],
            earlier: None,
        }
    }

    /// Where a file is served, such as `/assets/site.0123456789abcdef.css`.
    ///
    /// For a name that is not among the files it is an address that answers 404.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        match self.sets.iter().rev().find_map(|set| set.now(name)) {
            Some(file) => format!("{PATH}{}", file.address),
            None => format!("{PATH}{name}"),
        }
    }

    /// Adds the files of `others`.
    #[must_use]
    pub(crate) fn merge(mut self, others: Self) -> Self {
        self.sets.extend(others.sets);
        self.earlier = others.earlier.or(self.earlier);
        self
    }

    /// Whether files are served as they are on the disk now, where it is known where they are.
    pub(crate) fn set_live(&self, is_live: bool) {
        for set in &self.sets {
            set.is_live.store(is_live, Ordering::Relaxed);
        }
    }

    /// Finds the files of earlier builds, and keeps these for the next one.
    #[must_use]
    pub(crate) async fn remember(mut self, database: &Database) -> Self {
        let mine = self.embedded().map(|(_, file)| {
            let content = file.content.clone();
            (file.address.clone(), content)
        });
        let mine: HashMap<_, _> = mine.collect();
        match Earlier::remember(database, mine.into_iter().collect()).await {
            Ok(earlier) => self.earlier = Some(earlier),
            Err(error) => {
                tracing::warn!(%error, "the static files of earlier builds cannot be found");
            }
        }
        self
    }

    fn embedded(&self) -> impl Iterator<Item = (&'static str, &Arc<File>)> {
        let sets = self.sets.iter();
        sets.flat_map(|set| {
            set.files
                .iter()
                .map(|(name, entry)| (*name, &entry.embedded))
        })
    }

    /// The routes below `/assets/`.
    pub(super) fn routes(self) -> Router {
        let served = Arc::new(Served::new(self));
        let answer = move |request: Request| {
            let served = Arc::clone(&served);
            // Without its body, which no two threads may look at.
            let (asked, _) = request.into_parts();
            async move { served.answer(&asked).await }
        };
        Router::new().route("/assets/{*name}", get(answer))
    }
}

impl Set {
    /// A file as it is now; waits for the disk, if that is looked at.
    fn now(&self, name: &str) -> Option<Arc<File>> {
        let (name, entry) = self.files.get_key_value(name)?;
        let on_disk = self
            .live()
            .and_then(|folder| entry.on_disk.look(folder, name));
        Some(on_disk.unwrap_or_else(|| Arc::clone(&entry.embedded)))
    }

    /// The folder, if it is looked at.
    fn live(&self) -> Option<&PathBuf> {
        let is_live = self.is_live.load(Ordering::Relaxed);
        self.folder.as_ref().filter(|_| is_live)
    }
}

/// What the routes know.
#[derive(Debug)]
struct Served {
    /// By the name with the hash, and by the plain one.
    files: HashMap<String, (Arc<File>, HeaderValue)>,
    sets: Vec<Arc<Set>>,
    earlier: Option<Earlier>,
}

impl Served {
    fn new(assets: Assets) -> Self {
        let mut files = HashMap::new();
        for (name, file) in assets.embedded() {
            files.insert(name.to_owned(), (Arc::clone(file), ASK_AGAIN));
            files.insert(file.address.clone(), (Arc::clone(file), FOREVER));
        }
        Self {
            files,
            sets: assets.sets,
            earlier: assets.earlier,
        }
    }

    /// Only names that are known are looked for: nothing of a request ever becomes a path.
    async fn answer(&self, asked: &Parts) -> Response {
        // As it came: a name that is written in another way is another name.
        let name = asked.uri.path().strip_prefix(PATH).unwrap_or_default();
        let Some((file, cache_control)) = self.find(name).await else {
            return missing();
        };
        file.answer(&asked.method, &asked.headers, cache_control)
    }

    async fn find(&self, name: &str) -> Option<(Arc<File>, HeaderValue)> {
        if self.sets.iter().any(|set| set.live().is_some())
            && let Some(file) = self.find_live(name).await
        {
            return Some((file, ASK_AGAIN));
        }
        if let Some((file, cache_control)) = self.files.get(name) {
            return Some((Arc::clone(file), cache_control.clone()));
        }
        let file = self.earlier.as_ref()?.find(name).await?;
        Some((file, FOREVER))
    }

    /// The file on the disk that has this name now, plain or with the hash.
    async fn find_live(&self, name: &str) -> Option<Arc<File>> {
        let (sets, name) = (self.sets.clone(), name.to_owned());
        let look = move || {
            let live = sets.iter().rev().filter(|set| set.live().is_some());
            let mut files = live.flat_map(|set| {
                let names = set.files.keys();
                names.filter_map(|plain| Some((*plain, set.now(plain)?)))
            });
            files.find(|(plain, file)| *plain == name || file.address == name)
        };
        let found = tokio::task::spawn_blocking(look).await.ok()?;
        found.map(|(_, file)| file)
    }
}

fn missing() -> Response {
    let headers = [(header::CACHE_CONTROL, NOT_KEPT)];
    (headers, Error::not_found()).into_response()
}

/// Whether it can stand in an address as it is, and in a folder for nothing outside of it.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
    name.chars().all(is_plain) && name.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_of_a_file_below_the_folder() {
        for right in ["site.css", "fonts/a-b_c.woff2", "x", "a/b/c.tar.gz"] {
            assert!(is_name(right), "{right}");
        }
        let wrong = [
            "", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\\b", "C:a", "a%2e",
            "a\0", "ä",
        ];
        for wrong in wrong {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }
}
