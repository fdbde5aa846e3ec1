//! How workers learn that there is something to do, without asking the database.
//!
//! In one process a commit tells them. Other processes that share the file watch a small one beside it, and a commit
//! that brings a job writes a byte there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::Notify;

use crate::database::Database;

/// Within this time the file is written once; who watches it waits a little longer than that before it looks.
const QUIET: Duration = Duration::from_millis(5);

/// What a queue's handles share.
#[derive(Debug)]
pub(super) struct Wake {
    /// Told by each commit that brings a job.
    notify: Notify,
    path: PathBuf,
    file: OnceLock<Option<File>>,
    /// Whether other processes may run jobs, as far as is known.
    has_others: AtomicBool,
    since: Instant,
    /// When the file was written last, in microseconds since `since`; 0 for never.
    told: AtomicU64,
}

impl Wake {
    pub(super) fn new(database: &Database) -> Self {
        Self {
            notify: Notify::new(),
            path: beside(database.path()),
            file: OnceLock::new(),
            has_others: AtomicBool::new(true),
            since: Instant::now(),
            told: AtomicU64::new(0),
        }
    }

    /// Something may be claimed now.
    pub(super) fn wake(&self) {
        self.notify.notify_one();
        if self.has_others.load(Ordering::Relaxed) {
            self.tell();
        }
    }

    /// From now on there are others, or none.
    pub(super) fn has_others(&self, has_others: bool) {
        self.has_others.store(has_others, Ordering::Relaxed);
    }

    /// Tells the other processes.
    pub(super) fn tell(&self) {
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let told = self.told.load(Ordering::Relaxed);
        let quiet = u64::try_from(QUIET.as_micros()).unwrap_or(u64::MAX);
        if told != 0 && now.saturating_sub(told) < quiet {
            // Who was told then has not looked yet.
            return;
        }
        self.told.store(now.max(1), Ordering::Relaxed);
        if let Some(file) = self.file()
            && let Err(error) = file.write_at(b"!", 0)
        {
            tracing::debug!(%error, "other processes are not told of a job; they find it when they look next");
        }
    }

    fn file(&self) -> Option<&File> {
        let open = || {
            let options = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&self.path);
            options
                .inspect_err(|error| {
                    let path = self.path.display();
                    tracing::debug!(%error, %path, "other processes cannot be told of jobs");
                })
                .ok()
        };
        self.file.get_or_init(open).as_ref()
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Wakes the workers of this process whenever another one tells of a job, as long as it is polled.
    #[cfg(target_os = "linux")]
    pub(super) async fn listen(&self) {
        if let Err(error) = self.watch().await {
            tracing::warn!(%error, "jobs of other processes are found only every `queue.poll_ms`");
        }
        std::future::pending().await
    }

    /// Elsewhere they are found when the worker looks next.
    #[cfg(not(target_os = "linux"))]
    pub(super) async fn listen(&self) {
        std::future::pending().await
    }

    #[cfg(target_os = "linux")]
    async fn watch(&self) -> std::io::Result<()> {
        use rustix::fs::inotify;
        use tokio::io::unix::AsyncFd;

        let missing = || std::io::Error::other(format!("cannot open {}", self.path.display()));
        self.file().ok_or_else(missing)?;
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, &self.path, inotify::WatchFlags::MODIFY)?;
        #[expect(deprecated, reason = "sound for an OwnedFd, which stays the same file")]
        let watch = AsyncFd::new(watch)?;
        let mut buffer = [0; 4096];
        loop {
            let mut ready = watch.readable().await?;
            // What it says is always the same.
            while rustix::io::read(watch.get_ref(), &mut buffer).is_ok_and(|read| read > 0) {}
            ready.clear_ready();
            // A worker with no hand free does not look for a while; what it enqueues till then is to be told.
            self.has_others(true);
            tokio::time::sleep(QUIET + Duration::from_millis(1)).await;
            // A worker without a free hand, or with none at all, does not look who came.
            self.has_others(true);
            self.notify.notify_one();
        }
    }
}

fn beside(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".wake");
    name.into()
}
