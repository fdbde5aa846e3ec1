//! How far a worker has got past the jobs that are others'.
//!
//! While two versions of a program live, any number of jobs that only the other one can run may stand before its own. It
//! remembers how far it has looked, and begins at the front again only so often that this takes little time.

use std::collections::BTreeMap;

/// Where so many or fewer are passed, they are looked at each time, and nothing is remembered; so many a round looks at.
pub(super) const LOOKS: usize = if cfg!(test) { 4 } else { 2_000 };

/// A thousand that are passed take about a millisecond, and twenty times that until they are looked at again.
const PASSED_PER_MS: i64 = 50;

/// One whose end was not reached is forgotten after this time, in which nobody looked at it: its jobs may be gone.
const LEFT_MS: i64 = 60_000;

/// The jobs of one queue that have one priority, in their order.
pub(super) type Name = (String, u8);

/// How far each line was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    lines: BTreeMap<Name, Line>,
}

/// How far one line was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The last one that was looked at.
    pub(super) run_at: i64,
    pub(super) id: i64,
    /// How many of those up to it are others'.
    pub(super) passed: i64,
    /// Whether the end was reached, and when the front is to be looked at again.
    is_through: bool,
    again_at: i64,
}

impl Line {
    const FRONT: Self = Self {
        run_at: i64::MIN,
        id: 0,
        passed: 0,
        is_through: false,
        again_at: i64::MIN,
    };

    fn rest(&self) -> i64 {
        if self.is_through {
            self.passed / PASSED_PER_MS
        } else {
            LEFT_MS
        }
    }
}

impl Passed {
    /// Forgets what is to be looked at from the front again by now: it is time, or the clock was set back.
    pub(super) fn forget(&mut self, now: i64) {
        self.lines.retain(|_, line| {
            let is_to_rest = line.again_at > now && line.again_at - now <= line.rest();
            line.run_at <= now && is_to_rest
        });
    }

    /// Where to go on in a line.
    pub(super) fn line(&self, name: &Name) -> Line {
        self.lines.get(name).copied().unwrap_or(Line::FRONT)
    }

    /// Remembers how far a look has come: to the end of what is due, or not; and whether it was cut short, so that what
    /// it was for may come after that.
    pub(super) fn keep(
        &mut self,
        name: Name,
        mut line: Line,
        (is_end, is_cut): (bool, bool),
        now: i64,
    ) {
        let is_short = usize::try_from(line.passed).is_ok_and(|passed| passed <= LOOKS);
        if is_short && !is_cut {
            self.lines.remove(&name);
            return;
        }
        if !line.is_through {
            line.is_through = is_end;
            line.again_at = now.saturating_add(line.rest());
        }
        self.lines.insert(name, line);
    }

    /// When a front is to be looked at again.
    pub(super) fn again_at(&self) -> Option<i64> {
        self.lines.values().map(|line| line.again_at).min()
    }

    /// Whether nothing was passed that is not looked at each time.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
