//! All connections, and who has to go when there is no room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::http::address::network;
use crate::http::connections::limits::Limits;
use crate::http::connections::pulse::Order;
use crate::http::connections::pulse::Pulse;
use crate::http::connections::pulse::Standing;
use crate::http::connections::pulse::milliseconds;

/// A client that has taken no byte for so long may have to go where there is no room.
const UNREAD: Duration = Duration::from_secs(5);

/// Where all were busy, one more is refused for so long before they are looked at again.
const LOOK_AGAIN_MS: u64 = 20;

/// What is on its way when the server stops may still arrive.
const LAST_HEAD: Duration = Duration::from_millis(500);

/// How long an idle connection may take to end when it is told to.
const GOODBYE: Duration = Duration::from_secs(5);

/// Every connection there is.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    zero: Instant,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    next: u64,
    all: HashMap<u64, Row>,
    /// How many of each network, but those that many visitors come by.
    networks: HashMap<IpAddr, usize>,
    /// When all were busy, and when all of a network, in milliseconds; 0 where it was never.
    all_busy_at: u64,
    busy_at: Option<(IpAddr, u64)>,
}

#[derive(Debug)]
struct Row {
    pulse: Arc<Pulse>,
    network: Option<IpAddr>,
}

/// A place in the table, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    table: Arc<Table>,
    id: u64,
    pulse: Arc<Pulse>,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            zero: Instant::now(),
            rows: Mutex::default(),
        })
    }

    /// As a [`Pulse`] counts it.
    fn now(&self) -> u64 {
        milliseconds(self.zero)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection from `address`, for which others may have to go; none where all others are busy.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let is_shared = self.limits.is_shared(address);
        let network = (!is_shared).then(|| network(address));
        let now = self.now();
        let mut rows = self.rows();
        if let Some(network) = network {
            let of_it = rows.networks.get(&network).copied().unwrap_or_default();
            if of_it >= self.limits.share_max && !rows.make_room(Some(network), now) {
                return None;
            }
        }
        if rows.all.len() >= self.limits.connections_max && !rows.make_room(None, now) {
            return None;
        }
        let pulse = Arc::new(Pulse::new(self.zero));
        let id = rows.next;
        rows.next += 1;
        let row = Row {
            pulse: Arc::clone(&pulse),
            network,
        };
        rows.all.insert(id, row);
        if let Some(network) = network {
            *rows.networks.entry(network).or_default() += 1;
        }
        drop(rows);
        Some(Place {
            table: Arc::clone(self),
            id,
            pulse,
        })
    }

    /// Has some go, where the system has no room.
    pub(super) fn shed(&self) {
        self.rows().make_room(None, self.now());
    }

    /// Ends those that have taken longer than they may; `stopped` is how long ago the server was told to stop.
    pub(super) fn sweep(&self, stopped: Option<Duration>) {
        let now = self.now();
        for row in self.rows().all.values() {
            let order = self.order(row, now, stopped);
            if order != Order::GoOn {
                row.pulse.tell(order);
            }
        }
    }

    fn order(&self, row: &Row, now: u64, stopped: Option<Duration>) -> Order {
        let (standing, age) = row.pulse.standing(now);
        let is_late = stopped.is_some_and(|stopped| stopped > LAST_HEAD);
        let is_shared = row.network.is_none();
        let idle = self.limits.idle_of(is_shared);
        let is_unread = || {
            let longest = row.pulse.longest_given(now);
            longest.is_some_and(|longest| longest > self.limits.unread)
        };
        match standing {
            Standing::Unread if age > self.limits.unread => Order::Close,
            // A proxy's other visitors, who share the connection, are not cut off with the one who does not read.
            Standing::Unread if is_unread() && (!is_shared || age > UNREAD) => Order::Close,
            _ if is_unread() && is_shared => Order::Finish,
            _ if is_unread() => Order::Close,
            // The body of a request has a time of its own.
            _ if row.pulse.is_in_hand() => Order::GoOn,
            // Who speaks HTTP/2 is told first.
            Standing::Idle if is_late || age > idle + GOODBYE => Order::Close,
            Standing::Idle if age > idle => Order::Finish,
            Standing::Begun if is_late || age > self.limits.head => Order::Close,
            _ => Order::GoOn,
        }
    }

    /// Has all of them end after what they have in hand.
    pub(super) fn finish(&self) {
        for row in self.rows().all.values() {
            row.pulse.tell(Order::Finish);
        }
    }

    fn remove(&self, id: u64) {
        self.rows().remove(id);
    }
}

impl Rows {
    /// Has some connections go, of one network or of all: idle ones first, then those that have not sent a head, those
    /// whose body is waited for, and those that read no answer; of each kind, the one that has done nothing for longest.
    /// Says whether there were any.
    ///
    /// A few at once: looking at all of them is not cheap. Where all were busy, nobody looks again at once.
    fn make_room(&mut self, network: Option<IpAddr>, now: u64) -> bool {
        let of_all = self.all_busy_at;
        let of_it = self.busy_at.filter(|(it, _)| Some(*it) == network);
        let of_it = of_it.map_or(0, |(_, at)| at);
        let last = of_all.max(of_it);
        if last > 0 && last + LOOK_AGAIN_MS > now {
            return false;
        }
        let mut found: Vec<(Standing, Duration, u64)> = self
            .all
            .iter()
            .filter(|(_, row)| network.is_none() || row.network == network)
            .filter_map(|(id, row)| {
                let (standing, age) = row.pulse.standing(now);
                let may_go = match standing {
                    Standing::Busy => false,
                    Standing::Unread => age > UNREAD,
                    Standing::Idle | Standing::Begun | Standing::Sends => true,
                };
                may_go.then_some((standing, age, *id))
            })
            .collect();
        let is_first = |one: &(Standing, Duration, u64),
                        other: &(Standing, Duration, u64)|
         -> std::cmp::Ordering {
            (one.0, other.1, one.2).cmp(&(other.0, one.1, other.2))
        };
        let count = (found.len() / 64).clamp(1, 64);
        if found.len() > count {
            found.select_nth_unstable_by(count, is_first);
            found.truncate(count);
        }
        for (_, _, id) in &found {
            if let Some(row) = self.remove(*id) {
                row.pulse.tell(Order::Close);
            }
        }
        if found.is_empty() {
            match network {
                Some(network) => self.busy_at = Some((network, now)),
                None => self.all_busy_at = now,
            }
        }
        !found.is_empty()
    }

    fn remove(&mut self, id: u64) -> Option<Row> {
        let row = self.all.remove(&id)?;
        if let Some(network) = row.network
            && let Some(count) = self.networks.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
        Some(row)
    }
}

impl Place {
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.remove(self.id);
    }
}
