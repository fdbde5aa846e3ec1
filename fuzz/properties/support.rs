//! What the properties share with the ordinary tests.
#![allow(dead_code, reason = "each target uses some of it")]

#[path = "../../tests/it/support/in_process.rs"]
pub(crate) mod in_process;
