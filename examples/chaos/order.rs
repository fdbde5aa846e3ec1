//! What is asked for: a job, with all that can be said of one, by chance.

use std::time::Duration;

use houseboat::database::{self, Transaction};
use houseboat::queue::{Conflict, Enqueued, Priority, Queue, Request, Unique};

use crate::act::{Act, Rare, What};

/// A job to be asked for, and how.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) act: Act,
    is_rare: bool,
    queue: &'static str,
    priority: Priority,
    attempts_max: u32,
    timeout: Option<Duration>,
    delay: Option<Duration>,
    unique: Option<Unique>,
    limit: Option<(String, u32)>,
    rate: Option<String>,
}

impl Order {
    fn plain(what: What, ms: u64) -> Self {
        let tag = fastrand::i64(1..);
        Self {
            act: Act { tag, what, ms },
            is_rare: fastrand::u32(..100) < 8,
            queue: fastrand::choice(["default", "mail", "bulk"]).unwrap_or("default"),
            priority: fastrand::choice(Priority::ALL).unwrap_or(Priority::Normal),
            attempts_max: 20,
            timeout: None,
            delay: (fastrand::u32(..5) == 0).then(|| Duration::from_millis(fastrand::u64(..1_500))),
            unique: None,
            limit: None,
            rate: None,
        }
    }

    pub(crate) fn child() -> Self {
        Self::plain(What::Succeed, fastrand::u64(..40))
    }

    /// One of all that there are.
    pub(crate) fn any() -> Self {
        let few = || fastrand::u32(1..6);
        let mut order = match fastrand::u32(..1_000) {
            ..350 => Self::plain(What::Succeed, fastrand::u64(..80)),
            350..400 => Self::plain(What::Succeed, fastrand::u64(400..2_500)),
            400..480 => Self::plain(What::Fail(few()), 0),
            480..530 => Self::plain(What::Panic(few()), 0),
            530..570 => Self::plain(What::Hang(few()), 0),
            570..640 => Self::plain(What::Snooze, fastrand::u64(..800)),
            640..680 => Self::plain(What::Cancel, 0),
            680..800 => Self::plain(What::Finish, fastrand::u64(..60)),
            800..880 => Self::plain(What::Steps(few() + 2), fastrand::u64(..600)),
            880..960 => Self::plain(What::Bear(few()), fastrand::u64(..60)),
            960..999 => Self::plain(What::Block, fastrand::u64(50..4_500)),
            _ => return Self::deadly(),
        };
        match order.act.what {
            What::Fail(_) | What::Panic(_) => order.attempts_max = 4,
            What::Hang(_) => {
                order.attempts_max = 3;
                order.timeout = Some(Duration::from_millis(300));
            }
            _ => order.constrain(),
        }
        order
    }

    /// Limits and keys.
    fn constrain(&mut self) {
        let number = fastrand::u32(..4);
        match fastrand::u32(..20) {
            ..5 => self.limit = Some((format!("one:{number}"), 1)),
            5..8 => self.limit = Some((format!("three:{}", number % 2), 3)),
            8 => self.limit = Some((format!("both:{}", number % 2), 2)),
            _ => {}
        }
        if matches!(fastrand::u32(..20), 8 | 9)
            || self
                .limit
                .as_ref()
                .is_some_and(|it| it.0.starts_with("both"))
        {
            self.rate = Some(format!("rate:{}", number % 2));
        }
        let conflict = [Conflict::Keep, Conflict::Replace, Conflict::Postpone];
        let conflict = fastrand::choice(conflict).unwrap_or(Conflict::Keep);
        // The one that is replaced keeps its limits and its time, so it is one that needs none.
        let is_simple = matches!(
            self.act.what,
            What::Succeed | What::Finish | What::Steps(_) | What::Bear(_)
        );
        if is_simple && fastrand::u32(..5) == 0 {
            self.unique = Some(match fastrand::u32(..4) {
                ..2 => Unique::new(format!("ended:{number}")).on_conflict(conflict),
                2 => Unique::new(format!("started:{number}"))
                    .until_started()
                    .on_conflict(conflict),
                _ => Unique::new(format!("within:{number}")).within(Duration::from_secs(2)),
            });
        }
    }

    /// One at a time.
    fn deadly() -> Self {
        let mut order = Self::plain(What::Die, 0);
        order.unique = Some(Unique::new("die").within(Duration::from_secs(15)));
        order
    }

    pub(crate) fn request(&self) -> Request {
        let mut request = if self.is_rare {
            Request::new(&Rare(self.act.clone()))
        } else {
            Request::new(&self.act)
        };
        request = request
            .queue(self.queue)
            .priority(self.priority)
            .attempts_max(self.attempts_max);
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        if let Some(delay) = self.delay {
            request = request.run_in(delay);
        }
        if let Some(unique) = &self.unique {
            request = request.unique(unique.clone());
        }
        if let Some((key, at_most)) = &self.limit {
            request = request.concurrency(key, *at_most);
        }
        if let Some(key) = &self.rate {
            request = request.rate(key, 4, Duration::from_millis(800));
        }
        request
    }

    pub(crate) fn enqueue(
        &self,
        tx: &Transaction<'_>,
        queue: &Queue,
        parent: Option<i64>,
    ) -> database::Result<()> {
        let enqueued = queue.enqueue(tx, self.request())?;
        self.record(tx, enqueued, parent)
    }

    pub(crate) fn record(
        &self,
        tx: &Transaction<'_>,
        enqueued: Enqueued,
        parent: Option<i64>,
    ) -> database::Result<()> {
        let became = match enqueued {
            Enqueued::New(_) => "new",
            Enqueued::Kept(_) => "kept",
            Enqueued::Replaced(_) => "replaced",
            Enqueued::Postponed(_) => "postponed",
        };
        tx.prepare_cached(
            "INSERT INTO requests (tag, job, became, parent) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute((self.act.tag, enqueued.id(), became, parent))?;
        Ok(())
    }
}
