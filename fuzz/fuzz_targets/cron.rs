#![no_main]

#[path = "../properties/cron.rs"]
mod cron;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cron::holds(data));
