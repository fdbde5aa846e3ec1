//! What can be wrong with an entry of the schedule.

/// What can be wrong with an entry of a [`Schedule`](super::Schedule), or with the name of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The expression cannot be read.
    #[error(
        "the schedule's entry {name:?}: {expression:?} is not a cron expression: {reason} (right are five fields, \
         minute, hour, day of month, month and day of week, as in \"30 2 * * mon-fri\"; six with seconds in front; \
         @hourly, @daily, @weekly, @monthly, @yearly; or \"@every 90s\")"
    )]
    Cron {
        /// The entry.
        name: String,
        /// What was given.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The expression names only days that no year has.
    #[error(
        "the schedule's entry {name:?}: {expression:?} never comes: no year has such a day (day of month and month \
         are its third and second fields from the end)"
    )]
    Never {
        /// The entry.
        name: String,
        /// What was given.
        expression: String,
    },
    /// The period cannot be read, or is out of its range.
    #[error(
        "the schedule's entry {name:?}: {expression:?} is not a period: right are whole seconds, from 1 s to \
         366 days, as in \"@every 90s\" or \"@every 1h 30m\""
    )]
    Period {
        /// The entry.
        name: String,
        /// What was given.
        expression: String,
    },
    /// The time zone is not known.
    #[error(
        "the schedule's entry {name:?}: the time zone {zone:?} is not known: right is \"UTC\", or a name of the \
         IANA database such as \"Europe/Berlin\""
    )]
    Zone {
        /// The entry.
        name: String,
        /// What was given.
        zone: String,
    },
    /// A time zone was given to an entry whose ticks are the same in all of them.
    #[error(
        "the schedule's entry {name:?}: {expression:?} is the same in every time zone: leave the zone {zone:?} out, \
         or give a cron expression"
    )]
    ZoneOfPeriod {
        /// The entry.
        name: String,
        /// When it is due.
        expression: String,
        /// What was given.
        zone: String,
    },
    /// An entry has a name that cannot be one.
    #[error(
        "{name:?} is no name for an entry of the schedule: right are 1 to 100 bytes without control characters"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Two entries have the same name.
    #[error(
        "two entries of the schedule are named {name:?}: give one of them another name (`Entry::name`; without one \
         it is the job's)"
    )]
    Twice {
        /// The name.
        name: String,
    },
    /// There is no entry of this name.
    #[error("the schedule has no entry {name:?}: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Which ones there are, as a sentence.
        known: String,
    },
}
