//! Answers that are taken too slowly.

use crate::http::connections::pulse::Pulse;

/// How a client takes what is written to it, where the connection's writes show that.
///
/// Who takes a byte now and then takes something, too, and has the answer for as long as it likes. So the time in which
/// a client was waited for is owed, and what it takes pays for as much of that as it may take at the least rate. What
/// is owed is as if nothing had been taken for so long. Time in which nobody waits for the client pays as well.
#[derive(Debug)]
pub(super) struct Taking {
    bytes_per_s_min: u64,
    /// In milliseconds, at the time below.
    owed: u64,
    /// When it was begun or ended to wait, in milliseconds as a [`Pulse`] counts them.
    at: u64,
    waits: bool,
}

impl Taking {
    /// A rate of 0 is none: each byte pays for all.
    pub(super) fn new(bytes_per_s_min: u64) -> Self {
        Self {
            bytes_per_s_min,
            owed: 0,
            at: 0,
            waits: false,
        }
    }

    /// So many bytes are taken, or none for now.
    pub(super) fn wrote(&mut self, bytes: Option<usize>, pulse: &Pulse) {
        let Some(bytes) = bytes else {
            if !self.waits {
                let since = self.begin(pulse.now());
                pulse.is_unread(Some(since));
            }
            return;
        };
        if self.waits {
            self.end(pulse.now());
            pulse.is_unread(None);
        }
        if self.owed > 0 {
            self.pay(bytes);
        }
    }

    /// Says since when it seems that nothing was taken.
    fn begin(&mut self, now: u64) -> u64 {
        self.owed = self.owed.saturating_sub(now.saturating_sub(self.at));
        self.at = now;
        self.waits = true;
        now.saturating_sub(self.owed).max(1)
    }

    fn end(&mut self, now: u64) {
        self.owed += now.saturating_sub(self.at);
        self.at = now;
        self.waits = false;
    }

    fn pay(&mut self, bytes: usize) {
        let milliseconds = (bytes as u64).saturating_mul(1000);
        let paid = milliseconds.checked_div(self.bytes_per_s_min);
        self.owed = paid.map_or(0, |paid| self.owed.saturating_sub(paid.max(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_waited_for_is_owed_until_bytes_or_time_have_paid() {
        let mut taking = Taking::new(100);
        assert_eq!(taking.begin(10_000), 10_000);
        taking.end(14_000);
        taking.pay(100);
        assert_eq!(taking.begin(14_000), 11_000);
        taking.end(15_000);
        taking.pay(50);
        assert_eq!(taking.begin(16_500), 14_500);
        taking.end(17_000);
        taking.pay(10_000);
        assert_eq!(taking.begin(17_000), 17_000);
    }

    #[test]
    fn without_a_rate_each_byte_pays_for_all() {
        let mut taking = Taking::new(0);
        taking.begin(1);
        taking.end(50_000);
        taking.pay(1);
        assert_eq!(taking.begin(50_000), 50_000);
    }
}
