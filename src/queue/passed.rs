//! How far a worker has got past the jobs that are others'.
//!
//! While two versions of a program live, any number of jobs that only the other one can run may stand before its own. It
//! remembers how far it has looked, and begins at the front again only so often that this takes little time.

use std::collections::BTreeMap;

/// Where so many or fewer are passed, they are looked at each time, and nothing is remembered; so many a round looks at.
pub(super) const LOOKS: usize = if cfg!(test) { 4 } else { 2_000 };

/// A thousand that are passed take about a millisecond, and twenty times that until they are looked at again.
const PASSED_PER_MS: i64 = 50;

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
    /// When the front is to be looked at again, once the end was reached.
    again_at: Option<i64>,
}

impl Line {
    const FRONT: Self = Self {
        run_at: i64::MIN,
        id: 0,
        passed: 0,
        again_at: None,
    };

    fn rest(&self) -> i64 {
        self.passed / PASSED_PER_MS
    }
}

impl Passed {
    /// Forgets what is to be looked at from the front again by now: it is time, or the clock was set back.
    pub(super) fn forget(&mut self, now: i64) {
        self.lines.retain(|_, line| {
            let is_to_rest = |at: i64| at > now && at - now <= line.rest();
            line.run_at <= now && line.again_at.is_none_or(is_to_rest)
        });
    }

    /// Where to go on in a line.
    pub(super) fn line(&self, name: &Name) -> Line {
        self.lines.get(name).copied().unwrap_or(Line::FRONT)
    }

    /// Remembers where that ended: at the last one that is due, or before it for want of time, or since all was found
    /// that was looked for.
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
        if is_end {
            line.again_at = line.again_at.or(Some(now.saturating_add(line.rest())));
        }
        self.lines.insert(name, line);
    }

    /// When a front is to be looked at again.
    pub(super) fn again_at(&self) -> Option<i64> {
        self.lines.values().filter_map(|line| line.again_at).min()
    }

    /// Whether nothing was passed that is not looked at each time.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
