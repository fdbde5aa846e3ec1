//! Every order of steps: a search, breadth first, through all states that can be reached.

use std::collections::HashSet;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::BuildHasherDefault;
use std::hash::Hash;
use std::hash::Hasher;

/// More than that do not fit into a test's time.
const STATES_MAX: usize = 20_000_000;

/// What is done, and by which container.
pub(crate) type Step = (&'static str, usize);

/// What there is to search.
pub(crate) trait Model {
    type State: Clone + Debug + Hash;

    fn start(&self) -> Self::State;

    /// Everything that may happen next.
    fn steps(&self, state: &Self::State, next: &mut Vec<(Step, Self::State)>);

    /// What is wrong with a state, if anything is.
    fn wrong(&self, state: &Self::State) -> Option<&'static str>;

    /// How many steps are tried; what takes more is not searched.
    fn steps_max(&self) -> usize {
        usize::MAX
    }

    /// What happens next while nothing fails and nobody is in a hurry; `None` once all is well.
    fn calm(&self, _: &Self::State) -> Option<Self::State> {
        None
    }
}

/// What a search has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    /// What is wrong, and the shortest way to it.
    pub(crate) wrong: Option<(&'static str, Vec<Step>)>,
}

impl Found {
    /// What is wrong, without the way.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.wrong.as_ref().map(|(fault, _)| *fault)
    }

    /// Tells how much was searched, and fails when something is wrong.
    #[track_caller]
    pub(crate) fn is_sound(&self, what: &str) {
        #[expect(clippy::print_stdout, reason = "how much was searched is the result")]
        {
            println!("{what}: {} states, {} steps deep", self.states, self.depth);
        }
        assert!(self.wrong.is_none(), "{what}: {:?}", self.wrong);
    }
}

/// Searches until nothing is new, or something is wrong.
///
/// Of a state that was there only 64 bits are kept; of ten million states, one is taken for another by them with a
/// chance of one in 400 000.
pub(crate) fn search<M: Model>(model: &M) -> Found {
    let mut seen = Prints::default();
    let mut ways: Vec<(u32, Step)> = vec![(0, ("start", 0))];
    let mut open = VecDeque::from([(0_u32, 0_usize, model.start())]);
    seen.insert(print(&model.start()));
    let mut well = Prints::default();
    let mut next = Vec::new();
    let mut depth = 0;
    while let Some((way, steps, state)) = open.pop_front() {
        depth = steps;
        let wrong = model
            .wrong(&state)
            .or_else(|| stuck(model, &state, &mut well));
        if let Some(fault) = wrong {
            let wrong = Some((fault, back(&ways, way)));
            return Found {
                states: seen.len(),
                depth,
                wrong,
            };
        }
        if steps == model.steps_max() {
            continue;
        }
        model.steps(&state, &mut next);
        for (step, state) in next.drain(..) {
            if seen.insert(print(&state)) {
                let index = u32::try_from(ways.len()).unwrap();
                ways.push((way, step));
                open.push_back((index, steps + 1, state));
            }
        }
        assert!(
            seen.len() < STATES_MAX,
            "too many states: {steps} steps deep"
        );
    }
    Found {
        states: seen.len(),
        depth,
        wrong: None,
    }
}

/// Whether nothing comes of a state even if all goes well from there on.
fn stuck<M: Model>(model: &M, state: &M::State, well: &mut Prints) -> Option<&'static str> {
    let mut way = Prints::default();
    let mut state = state.clone();
    while !well.contains(&print(&state)) {
        if !way.insert(print(&state)) {
            return Some("no end, though all goes well");
        }
        match model.calm(&state) {
            Some(next) => state = next,
            None => break,
        }
    }
    well.extend(way);
    None
}

fn back(ways: &[(u32, Step)], mut way: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    while way != 0 {
        let (before, step) = ways[way as usize];
        steps.push(step);
        way = before;
    }
    steps.reverse();
    steps
}

fn print(state: &impl Hash) -> u64 {
    let mut mixer = Mixer(0);
    state.hash(&mut mixer);
    mixer.finish()
}

/// States, by what stands for each.
type Prints = HashSet<u64, BuildHasherDefault<Mixer>>;

/// The same in each run, and quick without the optimizer.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.cast_unsigned() as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
