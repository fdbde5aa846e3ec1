//! The cache in each of its forms.

use std::cell::RefCell;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use houseboat::cache::Cache;
use houseboat::cache::Settings;
use houseboat::cache::Ttl;
use houseboat::database::Clock;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const NEVER: Option<Duration> = None;

/// A millisecond less.
pub(crate) fn before(time: Duration) -> Duration {
    time.checked_sub(MILLISECOND).unwrap()
}

/// Which of the two tiers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Memory before the file, as in a site.
    Both,
    Memory,
    File,
    /// Both, and at each [`Stage::settle`] closed and opened, so that what follows comes out of the file.
    Reopened,
}

pub(crate) const FORMS: [Form; 4] = [Form::Both, Form::Memory, Form::File, Form::Reopened];

impl Form {
    pub(crate) fn settings(self, folder: &Path) -> Settings {
        let mut settings = settings(folder);
        match self {
            Self::Memory => settings.bytes_max = 0,
            Self::File => settings.memory_bytes_max = 0,
            Self::Both | Self::Reopened => {}
        }
        settings
    }
}

pub(crate) fn settings(folder: &Path) -> Settings {
    Settings {
        path: folder.join("cache.sqlite3"),
        ..Settings::default()
    }
}

/// A cache in one of its forms, with a clock that stands still. Says which form it was when a test fails.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) form: Form,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    cache: RefCell<Cache>,
    _folder: TempDir,
}

impl Stage {
    pub(crate) async fn new(form: Form) -> Self {
        Self::with(form, |_| {}).await
    }

    pub(crate) async fn with(form: Form, change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = form.settings(folder.path());
        change(&mut settings);
        let clock = Clock::held("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap());
        let cache = Cache::open(&settings, clock.clone()).await;
        Self {
            form,
            clock,
            settings,
            cache: RefCell::new(cache),
            _folder: folder,
        }
    }

    /// The cache as it is open now; what [`settle`](Self::settle) and [`restart`](Self::restart) make old.
    pub(crate) fn cache(&self) -> Cache {
        self.cache.borrow().clone()
    }

    /// Between what is done and what is asked; see [`Form::Reopened`].
    pub(crate) async fn settle(&self) {
        if self.form == Form::Reopened {
            self.restart().await;
        }
    }

    pub(crate) async fn restart(&self) {
        self.cache().close().await;
        let cache = Cache::open(&self.settings, self.clock.clone()).await;
        self.cache.replace(cache);
    }

    pub(crate) fn has_file(&self) -> bool {
        self.form != Form::Memory
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a case that fails says in which form")]
            {
                eprintln!("this was the form {:?}", self.form);
            }
        }
    }
}

/// Runs a case in each form.
pub(crate) async fn in_each_form(case: impl AsyncFn(&Stage)) {
    in_each_form_with(|_| {}, case).await;
}

pub(crate) async fn in_each_form_with(change: fn(&mut Settings), case: impl AsyncFn(&Stage)) {
    for form in FORMS {
        let stage = Stage::with(form, change).await;
        case(&stage).await;
        stage.cache().close().await;
        assert_eq!(stage.settings.path.exists(), stage.has_file(), "{form:?}");
    }
}

pub(crate) async fn text(cache: &Cache, key: impl AsRef<[u8]>) -> Option<String> {
    cache.get(key).await
}

/// What `fetch` gives, where `value` would be computed, and whether it was.
pub(crate) async fn fetch<T>(
    cache: &Cache,
    key: impl AsRef<[u8]>,
    ttl: impl Into<Ttl>,
    value: T,
) -> (T, bool)
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let is_computed = Arc::new(AtomicBool::new(false));
    let computing = Arc::clone(&is_computed);
    let compute = move || async move {
        computing.store(true, Ordering::SeqCst);
        Ok::<_, Infallible>(value)
    };
    let Ok(value) = cache.fetch(key, ttl, compute).await;
    (value, is_computed.load(Ordering::SeqCst))
}
