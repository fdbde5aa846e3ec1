//! The rules of the lease: when it may be taken, and until when it holds.
//!
//! No clock of another machine is believed, and none that somebody can set. Who waits counts from the moment at which
//! it saw a record for the first time; who holds counts from the moment before it sent the renewal. The first is never
//! earlier than the second, so the holder's right has ended when the other one's wait has, as long as their clocks run
//! at the same speed to a tenth. Everything here is a function of what it is given, so that a test can try every order
//! of events (`tests/it/lease_model.rs`).

use std::time::Duration;

use crate::replication::Record;

/// Which part of the lease a holder does not use: for clocks that run faster than others.
const MARGIN: u32 = 10;

/// How many renewals there are in the time of a lease.
const RENEWALS: u32 = 3;

/// What a candidate makes of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nobody holds it.
    Free,
    /// Its holder has renewed it, or may still do so.
    Held,
    /// Its holder has not renewed it in time: it may be taken from it.
    Expired,
}

/// One who watches the record, to take the lease when it may be taken.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// The record that was seen last, and since when it has been like that.
    seen: Option<(Mark, Duration)>,
}

/// What differs between any two records that are ever written.
type Mark = (u64, u64, Option<String>);

impl Watch {
    /// Looks at the record; `now` is the own clock, and `lease` what the own settings say.
    ///
    /// The longer of the own lease and the holder's counts, so that two settings do not make two holders.
    pub fn look(&mut self, record: &Record, now: Duration, lease: Duration) -> Sight {
        let Some(holder) = &record.holder else {
            self.seen = None;
            return Sight::Free;
        };
        let mark = (record.epoch, record.beat, Some(holder.id.clone()));
        match &self.seen {
            Some((seen, since)) if *seen == mark => {
                let lease = lease.max(Duration::from_millis(holder.lease_ms));
                if now.saturating_sub(*since) >= lease {
                    Sight::Expired
                } else {
                    Sight::Held
                }
            }
            _ => {
                self.seen = Some((mark, now));
                Sight::Held
            }
        }
    }

    /// Begins to count anew: the holder has answered, so it lives.
    pub fn is_alive(&mut self, now: Duration) {
        if let Some((_, since)) = &mut self.seen {
            *since = now;
        }
    }
}

/// Until when a holder may write whose renewal, or whose taking, was sent at `sent`.
#[must_use]
pub fn end_of_right(sent: Duration, lease: Duration) -> Duration {
    sent + lease.saturating_sub(lease / MARGIN)
}

/// How long after one renewal the next one is due.
#[must_use]
pub fn renewal(lease: Duration) -> Duration {
    lease / RENEWALS
}
