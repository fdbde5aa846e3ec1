//! The ticks of a cron expression in a time zone.
//!
//! `croner` says which times on the wall match; which moments those are is decided here. At a change of the clocks
//! `croner` leaves out or doubles whatever has more than one hour or minute in it, "30 2,14 * * *" for one.

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron expression and the zone it is read in. Moments are whole seconds since 1970.
#[derive(Debug)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
    /// Whether it follows the clocks as they go.
    is_hourly: bool,
}

/// A time in which the zone's clocks go evenly: from a moment to the one before `end`.
///
/// What a clock shows is counted in seconds, too, as if its zone was UTC.
#[derive(Debug)]
struct Stretch {
    start: i64,
    end: i64,
    /// What the clocks are ahead of UTC.
    offset: i64,
    /// What they were ahead before.
    before: i64,
}

impl Calendar {
    pub(super) fn new(cron: Cron, zone: TimeZone) -> Self {
        let is_hourly = (0..24).all(|hour| cron.pattern.hour_match(hour).unwrap_or(false));
        Self {
            cron,
            zone,
            is_hourly,
        }
    }

    /// Whether there are ticks every hour, or several in one.
    pub(super) fn is_often(&self) -> bool {
        let minutes = (0..60).filter(|minute| {
            let matches = self.cron.pattern.minute_match(*minute);
            matches.unwrap_or(false)
        });
        self.is_hourly || minutes.count() > 1
    }

    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.iana_name()
    }

    /// The first tick after a moment.
    pub(super) fn next(&self, after: i64) -> Option<i64> {
        let mut from = after.checked_add(1)?;
        loop {
            let stretch = Stretch::around(&self.zone, from)?;
            let first = self.first_shown(&stretch);
            let shown = if from <= stretch.start {
                first
            } else {
                first.max(from + stretch.offset)
            };
            let found = self.shown_from(shown)?;
            if found < stretch.end + stretch.offset {
                return Some(stretch.moment(found));
            }
            from = stretch.end;
        }
    }

    /// The last tick up to a moment.
    pub(super) fn previous(&self, up_to: i64) -> Option<i64> {
        let mut to = up_to;
        loop {
            let stretch = Stretch::around(&self.zone, to)?;
            let found = self.shown_up_to(to + stretch.offset)?;
            if found >= self.first_shown(&stretch) {
                return Some(stretch.moment(found));
            }
            to = stretch.start - 1;
        }
    }

    /// From which time on the wall a stretch has the ticks.
    ///
    /// From the one that the stretch before did not come to: so a time that no clock shows belongs to the moment when
    /// it is leapt over, and one that is shown again belongs to the stretch before.
    fn first_shown(&self, stretch: &Stretch) -> i64 {
        let offset = if self.is_hourly {
            stretch.offset
        } else {
            stretch.before
        };
        stretch.start + offset
    }

    fn shown_from(&self, shown: i64) -> Option<i64> {
        let from = Timestamp::from_second(shown).ok()?.to_zoned(TimeZone::UTC);
        let found = self.cron.find_next_occurrence(&from, true).ok()?;
        Some(found.timestamp().as_second())
    }

    fn shown_up_to(&self, shown: i64) -> Option<i64> {
        let to = Timestamp::from_second(shown).ok()?.to_zoned(TimeZone::UTC);
        let found = self.cron.find_previous_occurrence(&to, true).ok()?;
        Some(found.timestamp().as_second())
    }
}

impl Stretch {
    fn around(zone: &TimeZone, at: i64) -> Option<Self> {
        let moment = Timestamp::from_second(at).ok()?;
        let moment_after = Timestamp::from_second(at + 1).ok()?;
        let change = |found: Option<jiff::tz::TimeZoneTransition<'_>>| {
            found.map(|change| change.timestamp().as_second())
        };
        let start = change(zone.preceding(moment_after).next());
        let end = change(zone.following(moment).next());
        let offset = i64::from(zone.to_offset(moment).seconds());
        let before = start.and_then(|start| Timestamp::from_second(start - 1).ok());
        Some(Self {
            start: start.unwrap_or(Timestamp::MIN.as_second()),
            end: end.unwrap_or(Timestamp::MAX.as_second()),
            offset,
            before: before.map_or(offset, |before| i64::from(zone.to_offset(before).seconds())),
        })
    }

    /// When a time is shown in it, or was leapt over at its start.
    fn moment(&self, shown: i64) -> i64 {
        self.start.max(shown - self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(expression: &str, zone: &str) -> Calendar {
        let cron = expression.parse().unwrap();
        Calendar::new(cron, TimeZone::get(zone).unwrap())
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn the_way_back_meets_the_ticks_of_the_way_there() {
        let mut random = fastrand::Rng::with_seed(5);
        for (zone, from) in [
            ("UTC", "2026-11-21T10:00:07Z"),
            ("Europe/Berlin", "2026-03-28T20:00:00Z"),
            ("America/New_York", "2026-10-31T20:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T06:00:00Z"),
            // A minute after midnight.
            ("America/St_Johns", "2006-10-28T20:00:00Z"),
            // A day that was left out.
            ("Pacific/Apia", "2011-12-30T02:00:00Z"),
            // At midnight.
            ("Africa/Cairo", "2026-04-24T14:00:00Z"),
        ] {
            for (expression, count) in [
                ("*/7 * * * *", 150),
                ("30 * * * *", 30),
                ("30 2 * * *", 30),
                ("0 0 * * *", 30),
                ("1-59/19 0-3 * * *", 30),
                ("0 12 31 * *", 5),
                ("0 0 29 2 *", 5),
                ("59 59 23 * * sat#2", 5),
            ] {
                let calendar = calendar(expression, zone);
                let next = |tick: &i64| calendar.next(*tick);
                let there: Vec<i64> = std::iter::successors(Some(at(from)), next)
                    .skip(1)
                    .take(count)
                    .collect();
                assert!(
                    there.is_sorted_by(|one, other| one < other),
                    "{expression} {zone}"
                );
                for pair in there.windows(2) {
                    let (tick, after) = (pair[0], pair[1]);
                    for moment in [tick, random.i64(tick..after), after - 1] {
                        let found = (calendar.previous(moment), calendar.next(moment));
                        assert_eq!(
                            found,
                            (Some(tick), Some(after)),
                            "{expression} {zone} {moment}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_day_that_was_left_out_has_its_ticks_when_the_next_one_begins() {
        let calendar = calendar("0 7 * * *", "Pacific/Apia");
        let ticks = [
            "2011-12-29T07:00:00-10:00",
            "2011-12-31T00:00:00+14:00",
            "2011-12-31T07:00:00+14:00",
        ];
        for pair in ticks.windows(2) {
            assert_eq!(calendar.next(at(pair[0])), Some(at(pair[1])));
            assert_eq!(calendar.previous(at(pair[1]) - 1), Some(at(pair[0])));
        }
    }

    #[test]
    fn what_comes_often_is_told_from_what_does_not() {
        for (expression, is_often) in [
            ("* * * * *", true),
            ("30 * * * *", true),
            ("30 0-23 * * mon", true),
            ("*/20 9-17 * * *", true),
            ("30 */2 * * *", false),
            ("30 2,14 * * *", false),
        ] {
            assert_eq!(
                calendar(expression, "UTC").is_often(),
                is_often,
                "{expression}"
            );
        }
    }
}
