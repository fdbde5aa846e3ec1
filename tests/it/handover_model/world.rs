//! Containers and visitors' requests: what the model of the hand-over knows of them.

/// So many containers there are at most.
pub(super) const CONTAINERS: usize = 3;

/// So many visitors' requests there are at most.
pub(super) const REQUESTS: usize = 2;

/// Of a longer way only who is on it is kept.
pub(super) const WAY_MAX: usize = 5;

/// The number of a container.
pub(super) type Who = usize;

/// What a front does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    Hold,
    Serve,
    Pass(Who),
}

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Not started.
    Off,
    /// It asks the bucket for the record.
    Looking,
    /// It has the record, as it was: who holds the lease, whether that has run out, and the version.
    Looked(Option<Who>, bool, u8),
    /// It has asked for the lease after this version.
    Taking(u8),
    /// The bucket has given it the lease; the answer is under way.
    Taken,
    /// Its question, which is to be answered when the lease is given back, is under way.
    Asking(Who),
    /// The question is there.
    Waiting(Who),
    /// The answer is under way: whether the other one has left.
    Answered(Who, bool),
    /// It looks again in a while.
    Sleeping,
    Restoring,
    Serving,
    /// No request begins any more; then the last copy.
    Draining,
    /// The lease is given back, or could not be.
    Released,
    /// It asks the next one whether it still passes requests on.
    Telling(Who),
    /// The answer is under way: no.
    Told(Who),
    /// It still takes requests, and passes them on.
    Lingering,
    /// It takes no more, and waits for those that it has passed on.
    Closed,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Container {
    pub(super) phase: Phase,
    pub(super) mode: Mode,
    /// The one that it knows to write no more.
    pub(super) gone: Option<Who>,
    /// What its desk says of it.
    pub(super) is_holder: bool,
    pub(super) has_left: bool,
    /// Whether nobody can connect to it.
    pub(super) is_closed: bool,
    /// Whose questions are at its desk, and whether their connections still stand.
    pub(super) questions: [Option<(Who, bool)>; CONTAINERS],
    /// Who waited when the signal came.
    pub(super) expected: Option<Who>,
    /// A release of which it heard nothing, and which may still arrive: the version that it is to replace.
    pub(super) late: Option<u8>,
}

impl Container {
    pub(super) const OFF: Self = Self {
        phase: Phase::Off,
        mode: Mode::Hold,
        gone: None,
        is_holder: false,
        has_left: false,
        is_closed: false,
        questions: [None; CONTAINERS],
        expected: None,
        late: None,
    };

    /// Whether it can be reached.
    pub(super) fn is_there(&self) -> bool {
        !self.is_closed && !matches!(self.phase, Phase::Off | Phase::Gone)
    }

    /// What it says when it is asked whether it holds the lease.
    pub(super) fn holds(&self) -> bool {
        self.is_holder
            && matches!(
                self.phase,
                Phase::Restoring | Phase::Serving | Phase::Draining
            )
    }

    /// Whether it has the site's data open.
    pub(super) fn has_site(&self) -> bool {
        matches!(self.phase, Phase::Serving | Phase::Draining)
    }

    /// Whether it is on its way out.
    pub(super) fn ends(&self) -> bool {
        matches!(
            self.phase,
            Phase::Draining
                | Phase::Released
                | Phase::Telling(_)
                | Phase::Told(_)
                | Phase::Lingering
                | Phase::Closed
        )
    }

    /// Whether it renews the lease no more.
    pub(super) fn has_stopped(&self) -> bool {
        self.ends() && self.phase != Phase::Draining || self.phase == Phase::Gone
    }

    /// The question of `who` is not at the desk any more.
    pub(super) fn drop_question(&mut self, who: Who) {
        let mut left = self
            .questions
            .into_iter()
            .flatten()
            .filter(|it| it.0 != who);
        self.questions = std::array::from_fn(|_| left.next());
    }

    pub(super) fn add_question(&mut self, who: Who) {
        self.drop_question(who);
        if let Some(place) = self.questions.iter_mut().find(|place| place.is_none()) {
            *place = Some((who, true));
        }
    }

    pub(super) fn first_question(&self) -> Option<Who> {
        self.questions[0].map(|(who, _)| who)
    }
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    /// Not sent yet.
    Visitor,
    /// On its way from the last container to this one.
    Between(Who),
    /// It waits for the front to be turned, or, if so, for a while.
    Held(bool),
    /// The site has it in hand.
    Site,
    Answered,
}

/// A request, and the containers that have passed it on, each of which waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) at: At,
    pub(super) way: [Option<Who>; WAY_MAX],
    /// Whether the way was longer.
    pub(super) is_shortened: bool,
}

impl Request {
    pub(super) const NEW: Self = Self {
        at: At::Visitor,
        way: [None; WAY_MAX],
        is_shortened: false,
    };

    fn length(&self) -> usize {
        self.way.iter().flatten().count()
    }

    /// How often it was passed on.
    pub(super) fn hops(&self) -> usize {
        self.length().saturating_sub(1)
    }

    /// The container that has it, or has passed it on last.
    pub(super) fn last(&self) -> Option<Who> {
        self.way.into_iter().flatten().last()
    }

    pub(super) fn push(&mut self, who: Who) {
        if self.length() == WAY_MAX {
            self.shorten();
        }
        let length = self.length();
        self.way[length] = Some(who);
    }

    fn shorten(&mut self) {
        self.is_shortened = true;
        let here = self.last();
        let mut way = (0..CONTAINERS)
            .filter(|who| self.is_with(*who) && Some(*who) != here)
            .map(Some)
            .collect::<Vec<_>>();
        way.resize(WAY_MAX - 2, way[0]);
        way.extend([here, None]);
        self.way.copy_from_slice(&way);
    }

    pub(super) fn pop(&mut self) {
        let length = self.length();
        self.way[length - 1] = None;
    }

    /// Whether this container has to do with it, now or when the answer comes.
    pub(super) fn is_with(&self, who: Who) -> bool {
        self.way.contains(&Some(who))
    }

    pub(super) fn way(&self) -> impl Iterator<Item = Who> {
        self.way.into_iter().flatten()
    }

    pub(super) fn is_held_at(&self, who: Who) -> bool {
        matches!(self.at, At::Held(_)) && self.last() == Some(who)
    }
}

#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    /// The record: who holds the lease, and how often it was written.
    pub(super) holder: Option<Who>,
    pub(super) version: u8,
    pub(super) containers: [Container; CONTAINERS],
    pub(super) requests: [Request; REQUESTS],
    pub(super) breaks: u8,
    pub(super) failures: u8,
    pub(super) wrong: Option<&'static str>,
}
