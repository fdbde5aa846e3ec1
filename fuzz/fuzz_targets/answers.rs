#![no_main]

// By the name that it has in the program.
#[path = "../properties/monitor.rs"]
mod site;

libfuzzer_sys::fuzz_target!(|data: &[u8]| site::probe::answers_tests::holds(data));
