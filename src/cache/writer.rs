//! The one thread that writes the cache file.
//!
//! It gathers what is put for a moment, and writes it in groups; then it sees to what is expired and what is too much.
//! While nobody uses the cache it sleeps.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::cache::bell::Reason;
use crate::cache::counters::Counters;
use crate::cache::counters::Op;
use crate::cache::entry::Spot;
use crate::cache::file;
use crate::cache::file::Failure;
use crate::cache::opened::Opened;
use crate::cache::opened::Others;
use crate::cache::opened::identity;
use crate::cache::opened::in_transaction;
use crate::cache::opened::keep_wal;
use crate::cache::presence::Presence;
use crate::cache::readers::HOLD;
use crate::cache::rows;
use crate::cache::rows::Counts;
use crate::cache::tiers::Tiers;
use crate::cache::waiting::PARTS;
use crate::database::connection;

/// So long a put may wait for others, to be written with them.
const GATHER: Duration = Duration::from_millis(250);

/// When no file could be opened, it is tried again after this time.
const RETRY: Duration = Duration::from_secs(30);

/// After a write that another process held up.
const RETRY_BUSY: Duration = Duration::from_millis(100);

/// So many deletions go into one transaction.
const DELETIONS: usize = 1_000;

/// So many pages are given back to the disk at a time.
const SHRINK_PAGES: u32 = 256;

/// Between two times that pages are given back.
const SHRINK_PAUSE: Duration = Duration::from_millis(50);

/// So many free pages, in bytes, are kept for what comes; or an eighth of those in use.
const FREE_BYTES_MAX: u64 = 1024 * 1024;

/// The writer, on its thread.
#[derive(Debug)]
pub(super) struct Writer {
    tiers: Arc<Tiers>,
    file: Option<Opened>,
    /// When an open failed last, and was told.
    failed_at: Option<Instant>,
    /// When the file was made anew last.
    made_anew_at: Option<Instant>,
    /// When it was seen that something waits.
    gathers_since: Option<Instant>,
    /// When it was seen that readers look at the file as it was.
    held_since: Option<Instant>,
    /// Whether room is being given back to the disk.
    is_shrinking: bool,
    /// When there is something to be done that nobody asks for.
    due_at: Option<Instant>,
}

impl Writer {
    pub(super) fn new(tiers: Arc<Tiers>) -> Self {
        Self {
            tiers,
            file: None,
            failed_at: None,
            made_anew_at: None,
            gathers_since: None,
            held_since: None,
            is_shrinking: false,
            due_at: None,
        }
    }

    /// Opens the file for the first time.
    pub(super) fn open_first(&mut self) {
        self.open(true);
        if let Err(failure) = self.tidy() {
            self.mend(failure);
        }
    }

    /// Writes until the cache is closed.
    pub(super) fn run(mut self) {
        while !self.tiers.bell.is_rung(Reason::Stop) {
            self.wait();
            self.round();
        }
        self.gathers_since = None;
        let mut done = Ok(());
        if self.tiers.bell.is_rung(Reason::Clear) {
            done = self.clear();
        }
        if let Err(failure) = done.and_then(|()| self.flush()) {
            tracing::warn!(?failure, "the last writes to the cache file were lost");
        }
    }

    fn wait(&mut self) {
        let bell = &self.tiers.bell;
        if bell.is_rung(Reason::Work) && self.gathers_since.is_none() {
            self.gathers_since = Some(Instant::now());
        }
        let is_held = bell.is_rung(Reason::Release) || self.tiers.readers.is_held();
        if is_held && self.held_since.is_none() {
            self.held_since = Some(Instant::now());
        }
        let gathered = self.gathers_since.map(|since| since + GATHER);
        let held = self.held_since.map(|since| since + HOLD);
        let until = [gathered, held, self.due_at].into_iter().flatten().min();
        let but = [
            self.gathers_since.map(|_| Reason::Work),
            self.held_since.map(|_| Reason::Release),
        ];
        bell.wait(&but, until);
    }

    fn round(&mut self) {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= Instant::now());
        let bell = &self.tiers.bell;
        if self.file.is_none() {
            bell.answer_all();
            self.held_since = None;
            if self.failed_at.is_none_or(|at| at.elapsed() >= RETRY) {
                self.open(false);
            }
            return;
        }
        let is_broken = bell.answer(Reason::Broken);
        let is_urgent = bell.answer(Reason::Urgent);
        let is_look = bell.answer(Reason::Look);
        let is_gathered = is_over(self.gathers_since.map(|since| since + GATHER));
        let is_due = is_over(self.due_at);
        let is_held = is_over(self.held_since.map(|since| since + HOLD));
        if is_held {
            bell.answer(Reason::Release);
            self.held_since = None;
            self.tiers.readers.release();
        }
        let done = if is_broken {
            Err(Failure::Damaged("it cannot be read".to_owned()))
        } else if bell.is_rung(Reason::Clear) {
            self.clear().and_then(|()| self.flush())
        } else if is_urgent || is_gathered {
            self.flush()
        } else if is_look || is_due {
            self.look().and_then(|()| self.tidy())
        } else if is_held {
            // Others may have written, and then nobody is to hold the file as it was.
            self.look()
        } else {
            Ok(())
        };
        if let Err(failure) = done {
            self.mend(failure);
        }
    }

    /// Writes what waits: all deletions, then the rest in groups.
    fn flush(&mut self) -> Result<(), Failure> {
        let tiers = Arc::clone(&self.tiers);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        tiers.bell.answer(Reason::Work);
        self.gathers_since = None;
        let timer = Counters::timer();
        let number = tiers.begin_group();
        let presence = tiers.presence();
        let mark = presence.as_ref().and_then(|presence| presence.mark());
        // Deletions first, since somebody waits for them.
        let deletions = tiers.waiting.take_deletions();
        for deletions in deletions.chunks(DELETIONS) {
            file.transaction(&tiers, deletions)?;
        }
        tiers.waiting.written();
        if let (Some(presence), Some(mark)) = (presence, mark) {
            presence.cross_out(mark);
        }
        tiers.written.send_replace(number);
        let mut part = 0;
        while part < PARTS {
            let (mut writes, next) = tiers.waiting.take(part, tiers.shape.transaction_bytes);
            part = next;
            if writes.is_empty() {
                continue;
            }
            // In the order in which `keys` has them.
            writes.sort_unstable_by_key(|(hash, _)| *hash);
            file.transaction(&tiers, &writes)?;
            tiers.waiting.written();
            tiers.moved();
        }
        tiers.counters.record(Op::Flush, timer);
        // Also when much is written: nothing else would notice that the file was deleted.
        self.look()?;
        self.tidy()
    }

    /// Sees whether another process has written, or the file is gone.
    fn look(&mut self) -> Result<(), Failure> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if identity(&self.tiers) != file.identity {
            return Err(Failure::Gone);
        }
        file.others.look(&file.connection, &self.tiers)?;
        Ok(())
    }

    /// Expires, evicts, and gives room back to the disk; a little at a time.
    fn tidy(&mut self) -> Result<(), Failure> {
        let tiers = Arc::clone(&self.tiers);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let (used, free) = rows::sizes(&file.connection)?;
        let mut is_unfinished = false;
        if used > tiers.shape.pages_bytes_max {
            file.transaction(&tiers, &[])?;
            is_unfinished = true;
        } else if free > FREE_BYTES_MAX.max(used / 8) {
            rows::shrink(&file.connection, SHRINK_PAGES)?;
            file.written(&tiers)?;
            self.is_shrinking = true;
            is_unfinished = true;
        } else if std::mem::take(&mut self.is_shrinking) {
            // Only then the file is cut.
            file.checkpoint(&tiers)?;
        }
        let state = rows::state(&file.connection)?;
        *tiers.state.lock().unwrap_or_else(PoisonError::into_inner) = (state, used, free);
        self.due_at = is_unfinished.then(|| Instant::now() + SHRINK_PAUSE);
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Failure> {
        let tiers = Arc::clone(&self.tiers);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        // At once out of reach, whatever happens then.
        let seed = tiers.seed();
        rows::set_seed(&file.connection, seed)?;
        file.others.seed = seed;
        if seed == tiers.seed() {
            tiers.bell.answer(Reason::Clear);
        }
        in_transaction(&file.connection, |connection| {
            Ok(rows::delete_all(connection)?)
        })?;
        file.written(&tiers)
    }

    /// Does what a failed call asks for.
    fn mend(&mut self, failure: Failure) {
        match failure {
            Failure::Busy => {
                self.tiers.waiting.put_back();
                self.tiers.bell.ring(Reason::Work);
                self.gathers_since = Some(Instant::now());
                self.due_at = Some(Instant::now() + RETRY_BUSY);
            }
            Failure::Damaged(reason) => {
                let path = self.tiers.settings.path.clone();
                self.close();
                file::remove_cache(&path);
                // What comes again at once, as a full disk does, will come again.
                if self.made_anew_at.is_some_and(|at| at.elapsed() < RETRY) {
                    self.fail(&reason);
                    return;
                }
                tracing::warn!(path = %path.display(), reason, "the cache file is made anew");
                self.made_anew_at = Some(Instant::now());
                self.open(false);
            }
            Failure::Gone => {
                let path = self.tiers.settings.path.display();
                tracing::warn!(%path, "the cache file was deleted, or another is in its place");
                self.close();
                self.open(false);
            }
            Failure::Unusable(reason) => {
                self.close();
                self.fail(&reason);
            }
        }
    }

    fn close(&mut self) {
        self.tiers.lose_file();
        self.file = None;
        self.gathers_since = None;
        self.due_at = None;
    }

    fn fail(&mut self, reason: &str) {
        let path = self.tiers.settings.path.display();
        if self.failed_at.is_none() {
            tracing::warn!(%path, reason, "there is no cache file; it is tried again every {RETRY:?}");
        } else {
            tracing::debug!(%path, reason, "there is still no cache file");
        }
        self.failed_at = Some(Instant::now());
        self.due_at = Some(Instant::now() + RETRY);
    }

    fn open(&mut self, is_first: bool) {
        match self.try_open(is_first) {
            Ok(file) => {
                if self.failed_at.take().is_some() {
                    let path = self.tiers.settings.path.display();
                    tracing::info!(%path, "there is a cache file again");
                }
                self.file = Some(file);
                self.due_at = Some(Instant::now());
                self.tiers.set_file();
            }
            Err(reason) => {
                self.close();
                self.fail(&reason);
            }
        }
    }

    fn try_open(&mut self, is_first: bool) -> Result<Opened, String> {
        let tiers = &self.tiers;
        let path = &tiers.settings.path;
        connection::make_directory(path).map_err(|error| error.to_string())?;
        let (presence, left) = Presence::begin(path).map_err(|error| error.to_string())?;
        if left.is_of_another_start {
            tracing::info!(path = %path.display(), "the machine was started anew while the cache was open; it is made anew");
            file::remove_cache(path);
        }
        let opened = self.try_open_beside(is_first, &left.keys);
        match &opened {
            Ok(_) => {
                left.clear_away();
                let before = self.take_presence();
                if let Some(before) = before {
                    before.end();
                }
                *self
                    .tiers
                    .presence
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(presence));
            }
            Err(_) => presence.end(),
        }
        opened
    }

    fn try_open_beside(
        &self,
        is_first: bool,
        forgotten: &[(u64, Vec<u8>)],
    ) -> Result<Opened, String> {
        let tiers = &self.tiers;
        let path = &tiers.settings.path;
        let connection = file::open(path, tiers.shape, tiers.seed())?;
        keep_wal(&connection);
        let begun = || -> Result<Opened, Failure> {
            if is_first {
                tiers.set_seed(rows::seed(&connection)?);
            } else {
                // What was written while it was away, it does not have; what was deleted, it has.
                rows::set_seed(&connection, tiers.seed())?;
                in_transaction(&connection, |connection| Ok(rows::delete_all(connection)?))?;
            }
            let process = fastrand::i64(..);
            in_transaction(&connection, |connection| {
                let mut counts = Counts::default();
                for (space, key) in forgotten {
                    let hash = Spot::new(tiers.seed(), *space, key).hash;
                    rows::delete(connection, hash, process, &mut counts)?;
                }
                Ok(rows::add(connection, counts)?)
            })?;
            Ok(Opened {
                others: Others::new(&connection, tiers, tiers.seed(), process)?,
                identity: identity(tiers),
                connection,
            })
        };
        let file = begun().map_err(Failure::into_reason)?;
        let opened = tiers.readers.open(path, tiers.shape);
        opened.map_err(|error| error.to_string())?;
        Ok(file)
    }

    fn take_presence(&self) -> Option<Arc<Presence>> {
        let mut presence = self
            .tiers
            .presence
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        presence.take()
    }
}

impl Drop for Writer {
    /// Leaves the file, also if a round panicked: memory goes on alone.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the writer of the cache file panicked; the cache is in memory alone");
        }
        self.tiers.lose_file();
        self.file = None;
        if let Some(presence) = self.take_presence() {
            presence.end();
        }
        self.tiers.close();
    }
}
