//! The bucket, and the containers around it: what the model of the lease knows of them.
//!
//! A record is kept small here, and is made the real one for each question to the real rules.

use std::time::Duration;

use houseboat::replication::Holder;
use houseboat::replication::Record;
use houseboat::replication::rules;
use houseboat::replication::rules::Sight;
use houseboat::replication::rules::Watch;
use jiff::Timestamp;

/// So many containers there are at most; one that starts anew is another one.
pub(super) const CONTAINERS: usize = 3;

/// An age that nothing grows beyond: every right has ended, and every wait.
pub(super) const OLD: u8 = 4;

/// The lease: three ticks of the quick clock.
const LEASE: Duration = Duration::from_millis(30);

/// What each clock shows at the start, and how far it goes with a tick: as far apart as is allowed.
const CLOCKS: [(u64, u64); CONTAINERS] = [(40_000, 9), (100_000, 10), (700_000, 9)];

/// The record; the lists of bits and the numbers are small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Note {
    pub(super) epoch: u8,
    pub(super) beat: u8,
    /// The container's number, from one; zero is nobody.
    pub(super) holder: u8,
    /// The epoch of the generation; zero is none.
    pub(super) generation: u8,
}

impl Note {
    pub(super) fn is_of(self, other: Self) -> bool {
        (self.epoch, self.holder) == (other.epoch, other.holder)
    }

    pub(super) fn by(self, change: impl FnOnce(&Record) -> Record) -> Self {
        Self::from(&change(&self.record()))
    }

    fn record(self) -> Record {
        Record {
            epoch: self.epoch.into(),
            beat: self.beat.into(),
            holder: (self.holder > 0).then(|| holder(self.holder)),
            generation: (self.generation > 0).then(|| self.generation.to_string()),
            ..Record::new()
        }
    }
}

impl From<&Record> for Note {
    fn from(record: &Record) -> Self {
        let number = |text: &String| text.parse().unwrap();
        Self {
            epoch: record.epoch.try_into().unwrap(),
            beat: record.beat.try_into().unwrap(),
            holder: record
                .holder
                .as_ref()
                .map_or(0, |holder| number(&holder.id)),
            generation: record.generation.as_ref().map_or(0, number),
        }
    }
}

pub(super) fn holder(number: u8) -> Holder {
    Holder {
        site: String::new(),
        id: number.to_string(),
        addresses: Vec::new(),
        key: String::new(),
        since: Timestamp::UNIX_EPOCH,
        lease_ms: u64::try_from(LEASE.as_millis()).unwrap(),
    }
}

/// What a container's clock showed so many ticks ago.
fn clock(container: usize, age: u8) -> Duration {
    let (start, speed) = CLOCKS[container];
    Duration::from_millis(start + (u64::from(OLD) - u64::from(age)) * speed)
}

/// Whether a right lasts that was sent for so long ago.
pub(super) fn is_open(container: usize, age: u8) -> bool {
    clock(container, 0) < rules::end_of_right(clock(container, age), LEASE)
}

/// What the rules make of `note`, for one who saw `seen` first so many ticks ago.
pub(super) fn sight(container: usize, note: Note, seen: Option<(Note, u8)>) -> Sight {
    let mut watch = Watch::default();
    if let Some((seen, age)) = seen {
        watch.look(&seen.record(), clock(container, age), LEASE);
    }
    watch.look(&note.record(), clock(container, 0), LEASE)
}

/// As [`sight`], for one who believes the time that the holder has written into the record.
pub(super) fn sight_by_stamp(container: usize, holder: usize, age: u8) -> Sight {
    if clock(container, 0) >= clock(holder, age) + LEASE {
        Sight::Expired
    } else {
        Sight::Held
    }
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Not started.
    Off,
    /// It looks at the record now and then, and waits until it may take the lease.
    Looking,
    /// It has asked for the lease after this record.
    Taking(Note),
    /// It has the lease, which this record was before.
    Restoring(Note),
    Serving,
    /// No write begins any more.
    Draining,
    /// Everything is in the bucket, or is not: whether it is.
    Copied(bool),
    /// It has left, in order or not; it takes no step any more.
    Gone,
}

/// Why the record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    Take,
    Renew,
    Announce,
    Release,
}

/// Where a conversation with the bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Under way to the bucket.
    Sent,
    /// The answer is under way.
    Written,
    /// The bucket has refused; next is to read what is there.
    Refused,
}

/// A conversation with the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Talk {
    pub(super) why: Why,
    pub(super) stage: Stage,
    /// Whether it is the second write, after a refusal.
    pub(super) is_second: bool,
    pub(super) put: Put,
    /// How long ago it began.
    pub(super) age: u8,
}

/// A write on the condition that the object is what it was.
///
/// What S3 compares is a hash of what is in it; so the content stands for the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Put {
    pub(super) old: Note,
    pub(super) new: Note,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Container {
    pub(super) phase: Phase,
    /// What it has written last, as far as it knows.
    pub(super) held: Note,
    /// How long ago the renewal was sent that the fence rests on; [`OLD`] is a fence that is shut for good.
    pub(super) right: u8,
    pub(super) talk: Option<Talk>,
    /// A write that it gave up, which may still arrive.
    pub(super) stray: Option<Put>,
    /// The record that it watches, and for how long.
    pub(super) seen: Option<(Note, u8)>,
    /// The writes in its database, a bit each.
    pub(super) data: u8,
    /// A write that is committed, and not answered yet.
    pub(super) open: u8,
    pub(super) writes: u8,
    pub(super) renewals: u8,
}

impl Container {
    pub(super) const OFF: Self = Self {
        phase: Phase::Off,
        held: Note {
            epoch: 0,
            beat: 0,
            holder: 0,
            generation: 0,
        },
        right: OLD,
        talk: None,
        stray: None,
        seen: None,
        data: 0,
        open: 0,
        writes: 0,
        renewals: 0,
    };

    /// Whether Litestream runs beside it.
    pub(super) fn is_copied(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Draining)
    }

    /// Whether it renews the lease.
    pub(super) fn keeps(&self) -> bool {
        self.is_copied() || matches!(self.phase, Phase::Restoring(_))
    }

    /// Ends it where it stands; what is under way to the bucket may arrive.
    pub(super) fn end(&mut self) {
        self.give_up();
        *self = Self {
            phase: Phase::Gone,
            stray: self.stray,
            ..Self::OFF
        };
    }

    /// Waits no more for the bucket's answer; what is under way may still arrive.
    pub(super) fn give_up(&mut self) {
        let talk = self.talk.take();
        let sent = talk.filter(|talk| talk.stage == Stage::Sent);
        self.stray = sent.map(|talk| talk.put).or(self.stray);
    }

    pub(super) fn grow_older(&mut self, index: usize) {
        let older = |age: u8| {
            if is_open(index, age + 1) {
                age + 1
            } else {
                OLD
            }
        };
        self.right = older(self.right.min(OLD - 1));
        if let Some(talk) = &mut self.talk {
            talk.age = older(talk.age.min(OLD - 1));
        }
        if let Some((_, age)) = &mut self.seen {
            *age = (*age + 1).min(OLD);
        }
    }
}
