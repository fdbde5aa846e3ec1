//! The tests: one binary, a module per theme.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod support;

mod backup;
mod browser;
mod bucket;
mod cache;
mod cli;
mod config;
mod crash;
mod damage;
mod database;
mod deadlines;
mod disk;
mod files;
mod foreign;
mod http;
mod killed;
mod lanes;
mod lifecycle;
mod links;
mod load;
mod migration_copies;
mod migration_processes;
mod migrations;
mod model;
mod monitor;
mod queue;
mod recover;
mod restore;
mod schedule;
mod snapshots;
mod start;
mod stats;
mod tidy;
mod wal;
