//! Expressions and time zones of a schedule: what is taken has ticks that grow and come when they are said to.
//!
//! An input has three lines: the expression, the zone, and the second since 1970 from which it is looked at.

use std::cell::OnceCell;

use houseboat::database::BoxError;
use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::queue;
use houseboat::queue::Attempt;
use houseboat::queue::Entry;
use houseboat::queue::Job;
use houseboat::queue::Outcome;
use houseboat::queue::Queue;
use houseboat::queue::Schedule;
use houseboat::queue::Scheduled;
use houseboat::queue::Scheduler;
use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// Ticks that are looked at, one after the other.
const TICKS: usize = 5;

/// From 1970 on, for so many seconds: to the year 2200.
const TIME: i64 = 7_258_118_400;

/// So far a wall clock is followed by hand.
const BY_HAND: i32 = 3 * 24 * 60;

#[derive(Debug, Default, Deserialize, Serialize)]
struct Nothing {}

impl Job for Nothing {
    const NAME: &'static str = "nothing";
    type Context = ();

    async fn run(self, _: Attempt<()>) -> Result<Outcome, BoxError> {
        Ok(Outcome::Complete)
    }
}

struct Stage {
    runtime: Runtime,
    clock: Clock,
    database: Database,
    queue: Queue,
    _folder: TempDir,
}

thread_local! {
    static STAGE: OnceCell<Stage> = const { OnceCell::new() };
}

/// Looks at one input.
pub(crate) fn holds(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    STAGE.with(|stage| {
        let stage = stage.get_or_init(Stage::new);
        stage.runtime.block_on(stage.look(text));
    });
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = houseboat::database::Settings {
            path: folder.path().join("site.sqlite3"),
            ..houseboat::database::Settings::default()
        };
        let clock = Clock::held(Timestamp::UNIX_EPOCH);
        let database = runtime.block_on(async {
            let database = Database::open(&settings, clock.clone()).unwrap();
            database.migrate(&[queue::MIGRATIONS]).await.unwrap();
            database
        });
        Self {
            runtime,
            clock,
            queue: Queue::new(database.clone()),
            database,
            _folder: folder,
        }
    }

    async fn look(&self, text: &str) {
        let mut lines = text.splitn(3, '\n');
        let mut line = || lines.next().unwrap_or_default();
        let (expression, zone, from) = (line(), line(), line());
        let from: i64 = from.trim().parse().unwrap_or(1_800_000_000);
        let from = Timestamp::from_second(from.rem_euclid(TIME)).unwrap();
        self.clock.set(from);
        let entry = Entry::cron::<Nothing>(expression).overlapping();
        let entry = if zone.is_empty() {
            entry
        } else {
            entry.zone(zone)
        };
        let schedule = Schedule::default().entry(entry);
        let settings = queue::Settings::default();
        let scheduler = match Scheduler::new(self.queue.clone(), schedule, &settings) {
            Ok(scheduler) => scheduler,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("\"nothing\""), "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
                return;
            }
        };
        let ticks = self.walk(&scheduler, from).await;
        let status = self.status(&scheduler, from).await;
        assert_eq!(status.expression, expression);
        if !zone.is_empty() {
            let known = status.zone.unwrap();
            assert!(known.eq_ignore_ascii_case(zone), "{zone} is {known}");
        } else if let Some(fields) = Fields::of(expression) {
            fields.by_hand(from, ticks[0]);
        }
        self.tick(&scheduler, from, ticks[0]).await;
    }

    async fn status(&self, scheduler: &Scheduler, at: Timestamp) -> Scheduled {
        self.clock.set(at);
        scheduler.schedule().await.unwrap().remove(0)
    }

    /// The next ticks, each the same from wherever before it one looks.
    async fn walk(&self, scheduler: &Scheduler, from: Timestamp) -> Vec<Timestamp> {
        let mut ticks = Vec::new();
        let mut last = from;
        for _ in 0..TICKS {
            let next = self.status(scheduler, last).await.next;
            let next = next.unwrap_or_else(|| panic!("no tick after {last}"));
            assert!(next > last, "{next} after {last}");
            assert_eq!(next.subsec_nanosecond(), 0);
            let between = last + next.duration_since(last) / 2;
            for at in [between, next - SECOND] {
                let same = self.status(scheduler, at).await.next;
                assert_eq!(same, Some(next), "from {at}, and not from {last}");
            }
            ticks.push(next);
            last = next;
        }
        ticks
    }

    /// A tick has its job when its time has come, and not a second before.
    async fn tick(&self, scheduler: &Scheduler, from: Timestamp, next: Timestamp) {
        for (at, expected) in [(from, 0), (next - SECOND, 0), (next, 1), (next, 1)] {
            self.clock.set(at);
            scheduler.tick().await.unwrap();
            let count = self.database.read(|connection| {
                Ok(connection.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))?)
            });
            let count: i64 = count.await.unwrap();
            assert_eq!(count, expected, "jobs at {at}, with a tick at {next}");
        }
        let clear = self
            .database
            .write(|tx| Ok(tx.execute_batch("DELETE FROM schedule; DELETE FROM jobs")?));
        clear.await.unwrap();
    }
}

/// An expression of numbers alone, read once more and in another way: which values each field lets through.
struct Fields {
    sets: Vec<Vec<i8>>,
    is_any_day: bool,
    is_any_weekday: bool,
}

impl Fields {
    fn of(expression: &str) -> Option<Self> {
        let fields: Vec<&str> = expression.split(' ').collect();
        let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
        if fields.len() != ranges.len() {
            return None;
        }
        let sets = fields.iter().zip(ranges);
        let sets: Option<Vec<_>> = sets.map(|(field, range)| set(field, range)).collect();
        Some(Self {
            sets: sets?,
            is_any_day: fields[2] == "*",
            is_any_weekday: fields[4] == "*",
        })
    }

    /// Nothing matches after `from` and before `next`, which does.
    fn by_hand(&self, from: Timestamp, next: Timestamp) {
        let start = Timestamp::from_second(from.as_second().div_euclid(60) * 60).unwrap();
        for minutes in 1..BY_HAND {
            let at = start + MINUTE * minutes;
            let matches = self.has(at);
            assert_eq!(
                matches,
                at == next,
                "{at}, and the next is said to be {next}"
            );
            if at == next {
                return;
            }
        }
    }

    fn has(&self, at: Timestamp) -> bool {
        let at = at.to_zoned(TimeZone::UTC);
        let weekday = at.weekday().to_sunday_zero_offset();
        let has = |field: usize, value| self.sets[field].contains(&value);
        let is_day = has(2, at.day());
        let is_weekday = has(4, weekday) || weekday == 0 && has(4, 7);
        let is_date = match (self.is_any_day, self.is_any_weekday) {
            (true, _) => is_weekday,
            (_, true) => is_day,
            // Either is enough.
            (false, false) => is_day || is_weekday,
        };
        has(0, at.minute()) && has(1, at.hour()) && has(3, at.month()) && is_date
    }
}

/// `*`, `1`, `1-3` and lists of these; `None` for what is more.
fn set(field: &str, (min, max): (i8, i8)) -> Option<Vec<i8>> {
    let number = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse().ok().filter(|_| is_plain);
        value.filter(|value| (min..=max).contains(value))
    };
    let mut set = Vec::new();
    for part in field.split(',') {
        match part.split_once('-') {
            Some((first, last)) => set.extend(number(first)?..=number(last)?),
            None if part == "*" => set.extend(min..=max),
            None => set.push(number(part)?),
        }
    }
    Some(set)
}
