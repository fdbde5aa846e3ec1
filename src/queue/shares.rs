//! How the hands that are free are shared among the queues that have something due.
//!
//! A queue may have so many of the workers as its weight says, and of those that have not, the one is next that has had
//! the least, again by its weight: where there are fewer workers than queues, each gets its turn.

use std::collections::BTreeMap;

/// What one claim costs a queue of weight 1.
const CLAIM: u64 = 1_000_000;

/// What each queue that has something due has had lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    had: BTreeMap<String, u64>,
}

/// A queue that has something due.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) name: String,
    pub(super) weight: usize,
    /// How many of it run.
    pub(super) running: usize,
    /// How many more of it may run, by its own bound.
    pub(super) room: usize,
}

impl Shares {
    /// Says how many to claim of each queue that has something due; they are sorted by name.
    pub(super) fn divide(
        &mut self,
        due: Vec<Due>,
        workers: usize,
        free: usize,
    ) -> Vec<(String, usize)> {
        let sum: usize = due.iter().map(|queue| queue.weight).sum();
        let rooms = due.iter().map(|queue| {
            let most = (workers * queue.weight).div_ceil(sum.max(1));
            most.saturating_sub(queue.running).min(queue.room)
        });
        let mut rooms: Vec<usize> = rooms.collect();
        let mut had = self.come_in(&due, &rooms);
        let mut given = vec![0; due.len()];
        for _ in 0..free {
            let open = (0..due.len()).filter(|at| rooms[*at] > 0);
            let Some(next) = open.min_by_key(|at| had[*at]) else {
                break;
            };
            rooms[next] -= 1;
            given[next] += 1;
            had[next] += CLAIM / u64::try_from(due[next].weight).unwrap_or(1).max(1);
        }
        let names = due.into_iter().map(|queue| queue.name);
        self.had = names.clone().zip(had).collect();
        names.zip(given).collect()
    }

    /// What each has had; who is new, or could not be given anything, has had no less than those who can.
    fn come_in(&self, due: &[Due], rooms: &[usize]) -> Vec<u64> {
        let of = |queue: &Due| self.had.get(&queue.name).copied();
        let open = due.iter().zip(rooms).filter(|(_, room)| **room > 0);
        let least = open.filter_map(|(queue, _)| of(queue)).min().unwrap_or(0);
        let had = due.iter().map(|queue| of(queue).unwrap_or(least));
        had.map(|had| had.saturating_sub(least)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(name: &str, weight: usize, running: usize) -> Due {
        Due {
            name: name.to_owned(),
            weight,
            running,
            room: usize::MAX,
        }
    }

    #[test]
    fn one_hand_goes_round_by_weight() {
        let mut shares = Shares::default();
        let mut given = BTreeMap::new();
        for _ in 0..400 {
            let queues = vec![due("a", 1, 0), due("b", 3, 0)];
            for (name, count) in shares.divide(queues, 1, 1) {
                *given.entry(name).or_insert(0) += count;
            }
        }
        assert_eq!(given["a"], 100);
        assert_eq!(given["b"], 300);
    }

    #[test]
    fn who_comes_in_late_has_its_share_and_not_what_it_missed() {
        let mut shares = Shares::default();
        for _ in 0..1_000 {
            shares.divide(vec![due("a", 1, 0)], 1, 1);
        }
        let mut given = 0;
        for _ in 0..10 {
            let given_now = shares.divide(vec![due("a", 1, 0), due("b", 1, 0)], 1, 1);
            given += given_now[1].1;
        }
        assert_eq!(given, 5);
    }
}
