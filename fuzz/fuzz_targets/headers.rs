#![no_main]

#[path = "../properties/headers.rs"]
mod headers;
#[path = "../properties/support.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| headers::holds(data));
