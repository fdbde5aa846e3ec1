//! What the tests stand on: the real program, servers to check, a client, a browser.

pub(crate) mod browser;
pub(crate) mod chaos;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod containers;
pub(crate) mod docker;
pub(crate) mod fake;
pub(crate) mod holder;
pub(crate) mod jobs;
pub(crate) mod kills;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod mounts;
pub(crate) mod plans;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod replica;
pub(crate) mod s3;
pub(crate) mod search;
pub(crate) mod site;
pub(crate) mod sources;
pub(crate) mod targets;
pub(crate) mod tmpfs;
pub(crate) mod visitors;
pub(crate) mod waiting;
