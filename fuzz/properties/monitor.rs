//! Of the reference site, which is a program, what reads what its peers answer.
#![allow(dead_code, reason = "the rest of the site is not here")]

#[path = "../../src/site/format.rs"]
pub(crate) mod format;
#[path = "../../src/site/probe/mod.rs"]
pub(crate) mod probe;
