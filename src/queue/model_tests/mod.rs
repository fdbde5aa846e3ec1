//! The real statements, in orders that nobody would write down: several workers on one file, with a clock that is held.
//!
//! Each sequence comes of its number, so one that fails can be run again. After each step the table is looked at; at
//! the end everything that somebody can run has to come to its end.

mod crew;
mod requests;
mod table;

use self::crew::Crew;

/// So many sequences, of so many steps each; `TEST_ALL` is looked at when this is compiled.
const SEQUENCES: u64 = if option_env!("TEST_ALL").is_some() {
    250
} else {
    20
};
const STEPS: u32 = 120;

#[tokio::test]
async fn no_order_of_events_loses_a_job_or_breaks_a_limit() {
    let mut crew = Crew::open().await;
    for seed in 0..SEQUENCES {
        crew.begin(seed).await;
        for _ in 0..STEPS {
            crew.step().await;
            crew.check().await;
        }
        crew.drain().await;
    }
}
