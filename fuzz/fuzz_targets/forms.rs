#![no_main]

#[path = "../properties/forms.rs"]
mod forms;
#[path = "../properties/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| forms::holds(data));
