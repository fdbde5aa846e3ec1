//! The process that copies the database to the bucket, second by second.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::replication::Error;
use crate::replication::Result;
use crate::replication::Settings;
use crate::replication::barrier::Barrier;
use crate::replication::control::Control;
use crate::replication::control::Position;
use crate::replication::lines::Lines;
use crate::replication::program;
use crate::replication::program::Program;

/// The pause before it is started again; it doubles with each death, up to the second.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Who has lived so long has died of something new.
const LIVES: Duration = Duration::from_mins(1);

/// How long it may take to end by itself, after the last copy; that takes some 15 ms.
const END: Duration = Duration::from_millis(400);

/// Between two questions to one that does not answer yet, as it does not in its first 20 ms.
const AGAIN: Duration = Duration::from_millis(20);

/// How long a process that was left by a killed one of us may take to be gone after its kill.
const GONE: Duration = Duration::from_secs(5);

/// `litestream replicate` for one database and one generation, started again when it dies.
///
/// It is killed when this is dropped.
#[derive(Debug)]
pub struct Litestream {
    program: Program,
    control: Control,
    barrier: Barrier,
    generation: String,
    /// None between two of them.
    running: tokio::sync::Mutex<Option<Running>>,
    /// The process, for whoever has no time to wait for the lock.
    process: Mutex<Option<Pid>>,
    /// Cancelled when it is to be started no more.
    ending: CancellationToken,
    /// Cancelled when it is to run no more.
    killed: CancellationToken,
    restarts: AtomicU64,
}

#[derive(Debug)]
struct Running {
    child: Child,
    lines: Lines,
    since: Instant,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that was committed is in the bucket.
    Synced {
        /// The last transaction, as Litestream counts them.
        txid: u64,
    },
    /// The last of what was committed may not be in the bucket, for this reason.
    NotSynced(String),
}

impl Litestream {
    /// Makes sure that the program can be run, and is not too old; to be asked before anything else.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when it is missing, does not answer within 5 s, or is older than 0.5.17.
    pub async fn check(settings: &Settings) -> Result<()> {
        program::check(settings).await
    }

    /// Starts it for a database that is there, into a generation that nobody has written to.
    ///
    /// Its notes of another generation are removed first, and one that a killed process of ours has left is ended.
    /// The caller holds the lock on the database, and runs [`Litestream::run`] until it stops this.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when it cannot be run; [`Error::Io`] when its settings cannot be written, or its old
    /// notes not removed.
    pub async fn start(settings: &Settings, database: &Path, generation: &str) -> Result<Self> {
        let program = Program::new(settings, database, generation)?;
        let control = Control::new(&program.socket, &program.database);
        end_orphan(&control).await?;
        remove_notes(&program.notes)?;
        let litestream = Self {
            program,
            barrier: Barrier::new(control.clone()),
            control,
            generation: generation.to_owned(),
            running: tokio::sync::Mutex::default(),
            process: Mutex::default(),
            ending: CancellationToken::new(),
            killed: CancellationToken::new(),
            restarts: AtomicU64::new(0),
        };
        let running = litestream.spawn()?;
        *litestream.running.lock().await = Some(running);
        tracing::info!(
            generation,
            folder = program::folder(settings, generation),
            bucket = settings.bucket,
            endpoint = litestream.program.endpoint,
            "replicating"
        );
        Ok(litestream)
    }

    /// Starts it again whenever it dies, after a pause that grows from 0.5 s to 30 s, until `stop` or the end.
    pub async fn run(&self, stop: CancellationToken) {
        let mut slot = self.running.lock().await;
        let mut pause = PAUSE;
        loop {
            if let Some(running) = slot.as_mut() {
                let died = tokio::select! {
                    biased;
                    () = self.ending.cancelled() => return,
                    () = stop.cancelled() => return,
                    died = running.child.wait() => died,
                };
                if let Some(running) = slot.take() {
                    if running.since.elapsed() >= LIVES {
                        pause = PAUSE;
                    }
                    self.told_of_death(running, died, pause).await;
                }
            }
            tokio::select! {
                biased;
                () = self.ending.cancelled() => return,
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
            self.restarts.fetch_add(1, Ordering::Relaxed);
            match self.spawn() {
                Ok(running) => *slot = Some(running),
                Err(error) => tracing::error!(%error, "nothing is replicated"),
            }
        }
    }

    /// Waits until everything that is committed now is in the bucket, for `within` at most; all who wait share a copy.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when that did not come about in time.
    pub async fn sync(&self, within: Duration) -> Result<Position> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let error = match self.barrier.pass(left).await {
                Ok(position) => return Ok(position),
                Err(error) => error,
            };
            if Instant::now() + AGAIN >= end {
                return Err(error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Ends it once everything is in the bucket, or when the time is over: then nothing more is uploaded.
    ///
    /// The database is closed by now, or nobody writes. One that has died is started once more for that.
    pub async fn stop(&self, within: Duration) -> Stopped {
        let start = Instant::now();
        self.ending.cancel();
        let mut slot = self.running.lock().await;
        let synced = tokio::select! {
            biased;
            () = self.killed.cancelled() => Err(Error::Litestream("it was killed".to_owned())),
            synced = self.sync_last(&mut slot, within.saturating_sub(END)) => synced,
        };
        let stopped = match synced {
            Ok(Position { txid, .. }) => Stopped::Synced { txid },
            Err(error) => Stopped::NotSynced(error.to_string()),
        };
        // In the middle of a snapshot it does not end by itself for a long time; nobody needs that one any more.
        let left = within.saturating_sub(start.elapsed()).min(END);
        let had_to_be_killed = match slot.take() {
            Some(running) => self.end(running, left).await,
            None => false,
        };
        let took = start.elapsed();
        match &stopped {
            Stopped::Synced { txid } => {
                tracing::info!(
                    ?took,
                    txid,
                    had_to_be_killed,
                    "litestream stopped; the bucket has everything"
                );
            }
            Stopped::NotSynced(reason) => {
                tracing::error!(
                    ?took,
                    reason,
                    had_to_be_killed,
                    "litestream stopped; the bucket may lack the last writes"
                );
            }
        }
        stopped
    }

    /// Ends it at once: not a byte more is to be uploaded.
    pub fn kill(&self) {
        self.ending.cancel();
        self.killed.cancel();
        self.signal(Signal::KILL);
    }

    /// What it can be asked while it runs.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The database that it copies, by its real and absolute name.
    #[must_use]
    pub fn database(&self) -> &Path {
        &self.program.database
    }

    /// The generation that it writes.
    #[must_use]
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// How often it had to be started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    fn spawn(&self) -> Result<Running> {
        let mut command = self.program.command("replicate");
        let mut child = command
            .spawn()
            .map_err(|error| self.program.not_started(&error))?;
        let lines = Lines::of(&self.program, &mut child);
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        self.set_process(id.and_then(Pid::from_raw));
        if self.killed.is_cancelled() {
            self.signal(Signal::KILL);
        }
        Ok(Running {
            child,
            lines,
            since: Instant::now(),
        })
    }

    async fn told_of_death(
        &self,
        running: Running,
        died: std::io::Result<ExitStatus>,
        pause: Duration,
    ) {
        self.set_process(None);
        let lived = running.since.elapsed();
        let said = running.lines.end().await;
        let status = match died {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(
            status,
            said,
            ?lived,
            again_in = ?pause,
            restarts = self.restarts(),
            "litestream died: nothing is replicated until it runs again"
        );
    }

    /// The last copy; one that has died is started once more.
    async fn sync_last(&self, slot: &mut Option<Running>, within: Duration) -> Result<Position> {
        let has_died = match slot.as_mut() {
            Some(running) => !matches!(running.child.try_wait(), Ok(None)),
            None => true,
        };
        if has_died {
            *slot = Some(self.spawn()?);
        }
        self.sync(within).await
    }

    /// Asks it to end, and kills it when the time is over; says whether it had to.
    async fn end(&self, mut running: Running, within: Duration) -> bool {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(within, running.child.wait()).await;
        if ended.is_err() {
            // It fails only when the process is gone already.
            let _ = running.child.kill().await;
        }
        self.set_process(None);
        running.lines.end().await;
        ended.is_err()
    }

    fn set_process(&self, process: Option<Pid>) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = *process
            && let Err(error) = kill_process(process, signal)
        {
            tracing::debug!(%error, "litestream is gone already");
        }
    }
}

/// Ends what a process of ours has left that was killed itself, and had the lock that the caller has now.
async fn end_orphan(control: &Control) -> Result<()> {
    let Some(process) = control.process().await? else {
        return Ok(());
    };
    tracing::warn!(
        process,
        "a litestream was left by a process that was killed; it is ended"
    );
    if let Some(process) = Pid::from_raw(process) {
        // It fails only when the process is gone already.
        let _ = kill_process(process, Signal::KILL);
    }
    let end = Instant::now() + GONE;
    // Asked while it dies, it may fail to answer.
    while !matches!(control.process().await, Ok(None)) {
        if Instant::now() >= end {
            return Err(Error::Litestream(format!(
                "the process {process} cannot be ended, and works on this database: end it by hand"
            )));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// Without its notes it begins with a whole copy of the database.
fn remove_notes(notes: &Path) -> Result<()> {
    match std::fs::remove_dir_all(notes) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::Io(
            format!("cannot remove Litestream's old notes {}", notes.display()),
            error,
        )),
        _ => Ok(()),
    }
}
