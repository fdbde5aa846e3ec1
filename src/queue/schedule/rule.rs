//! When an entry is due.

use std::time::Duration;

use croner::parser::CronParser;
use croner::parser::Year;
use jiff::SignedDuration;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::queue::schedule::calendar::Calendar;
use crate::queue::schedule::entry::Entry;
use crate::queue::schedule::entry::Missed;
use crate::queue::schedule::entry::Timing;
use crate::queue::schedule::error::ScheduleError;

/// The longest period of an entry.
const PERIOD_MAX: Duration = Duration::from_hours(366 * 24);

/// So many missed ticks of an entry are made up for at the most.
const MISSED_MAX: usize = 1_000;

/// What was missed longer ago is not made up for one by one.
const MISSED_AGE_MAX_MS: i64 = 31 * 86_400_000;

/// A tick that is later than this is missed: the scheduler looks at the clock at least this often.
const LATE_MAX_MS: i64 = 60_000;

/// The ticks of an entry. Here times are milliseconds since 1970, as in the table; ticks are whole seconds.
#[derive(Debug)]
pub(super) enum Rule {
    Calendar(Box<Calendar>),
    /// At the multiples of so many seconds.
    Every(i64),
}

impl Rule {
    /// Reads what an entry says; `zone` is for those that name none.
    pub(super) fn new(entry: &Entry, zone: &str, now: Timestamp) -> Result<Self, ScheduleError> {
        let period = match &entry.timing {
            Timing::Every(period) => Some(whole_seconds(*period)),
            Timing::Expression(text) => period_text(text).map(|text| {
                let period = text.trim().parse::<SignedDuration>().ok()?;
                whole_seconds(Duration::try_from(period).ok()?)
            }),
        };
        match period {
            Some(period) => every(entry, period),
            None => calendar(entry, zone, now),
        }
    }

    /// Whether it has ticks every hour, or several in one: such an entry is not kept waiting by a clock set back.
    pub(super) fn is_often(&self) -> bool {
        match self {
            Self::Calendar(calendar) => calendar.is_often(),
            Self::Every(period) => *period <= 3_600,
        }
    }

    /// The zone it is read in, if it is in one.
    pub(super) fn zone(&self) -> Option<&str> {
        match self {
            Self::Calendar(calendar) => calendar.zone(),
            Self::Every(_) => None,
        }
    }

    /// The first tick after `after_ms`.
    pub(super) fn next(&self, after_ms: i64) -> Option<i64> {
        let after = after_ms.div_euclid(1_000);
        let next = match self {
            Self::Calendar(calendar) => calendar.next(after)?,
            Self::Every(period) => (after.div_euclid(*period) + 1) * period,
        };
        next.checked_mul(1_000)
    }

    /// The last tick up to `up_to_ms`.
    pub(super) fn previous(&self, up_to_ms: i64) -> Option<i64> {
        let up_to = up_to_ms.div_euclid(1_000);
        let previous = match self {
            Self::Calendar(calendar) => calendar.previous(up_to)?,
            Self::Every(period) => up_to.div_euclid(*period) * period,
        };
        previous.checked_mul(1_000)
    }

    /// Those of the ticks after `after_ms`, the last of which is `latest`, that are to have a job at `now_ms`.
    pub(super) fn due(&self, missed: Missed, after_ms: i64, latest: i64, now_ms: i64) -> Vec<i64> {
        match missed {
            Missed::Skip if now_ms - latest > LATE_MAX_MS => Vec::new(),
            Missed::Once | Missed::Skip => vec![latest],
            Missed::All => {
                let after = after_ms.max(now_ms - MISSED_AGE_MAX_MS);
                let earlier = |tick: &i64| self.previous(tick - 1);
                let mut ticks: Vec<i64> = std::iter::successors(Some(latest), earlier)
                    .take_while(|tick| *tick > after)
                    .take(MISSED_MAX)
                    .collect();
                ticks.reverse();
                ticks
            }
        }
    }
}

/// The zone of an IANA name.
pub(in crate::queue) fn zone_of(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// What stands behind `@every`.
fn period_text(expression: &str) -> Option<&str> {
    let (word, rest) = expression.trim().split_at_checked("@every".len())?;
    word.eq_ignore_ascii_case("@every").then_some(rest)
}

fn whole_seconds(period: Duration) -> Option<i64> {
    let is_right = period.subsec_nanos() == 0 && !period.is_zero() && period <= PERIOD_MAX;
    is_right.then(|| i64::try_from(period.as_secs()).ok())?
}

fn every(entry: &Entry, period: Option<i64>) -> Result<Rule, ScheduleError> {
    let (name, expression) = (entry.name.clone(), entry.timing.to_string());
    match (period, entry.zone.clone()) {
        (None, _) => Err(ScheduleError::Period { name, expression }),
        (Some(period), None) => Ok(Rule::Every(period)),
        (Some(_), Some(zone)) => Err(ScheduleError::ZoneOfPeriod {
            name,
            expression,
            zone,
        }),
    }
}

fn calendar(entry: &Entry, zone: &str, now: Timestamp) -> Result<Rule, ScheduleError> {
    let (name, expression) = (entry.name.clone(), entry.timing.to_string());
    // A year would be an expression that comes no more one day, and an error at the start from then on.
    let parser = CronParser::builder().year(Year::Disallowed).build();
    // `croner` takes a list with nothing in it, and looks for its ticks for many seconds and in vain.
    let is_full = |field: &str| field.split(',').all(|part| !part.is_empty());
    let parsed = if expression.split_whitespace().all(is_full) {
        parser.parse(&expression).map_err(|error| error.to_string())
    } else {
        Err("a list has an empty place".to_owned())
    };
    let cron = match parsed {
        Ok(cron) => cron,
        Err(reason) => {
            // It quotes what was given as it is.
            let reason = reason.trim_end_matches('.').replace(char::is_control, "?");
            return Err(ScheduleError::Cron {
                name,
                expression,
                reason,
            });
        }
    };
    let zone = entry.zone.as_deref().unwrap_or(zone);
    let Some(zone) = zone_of(zone) else {
        let zone = zone.to_owned();
        return Err(ScheduleError::Zone { name, zone });
    };
    let calendar = Calendar::new(cron, zone);
    if calendar.next(now.as_second()).is_none() {
        return Err(ScheduleError::Never { name, expression });
    }
    Ok(Rule::Calendar(Box::new(calendar)))
}
