//! What the fuzzing of bytes from outside has found worth keeping, looked at once more: `fuzz/README.md`.
//!
//! The answers of peers are looked at by the tests of the program, which alone can.

#[path = "../../fuzz/properties/cron.rs"]
mod cron;
#[path = "../../fuzz/properties/forms.rs"]
mod forms;
#[path = "../../fuzz/properties/headers.rs"]
mod headers;

include!("../../fuzz/properties/corpus.rs");

fn each(target: &str, holds: fn(&[u8])) {
    for input in corpus(target) {
        holds(&input);
    }
}

#[test]
fn forms_of_the_corpus_are_read_or_refused() {
    each("forms", forms::holds);
}

#[test]
fn heads_of_the_corpus_are_answered() {
    each("headers", headers::holds);
}

#[test]
fn schedules_of_the_corpus_tick_or_are_refused() {
    each("cron", cron::holds);
}
