//! The tests: one binary, a module per theme.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod support;

mod backup;
mod browser;
mod bucket;
mod cache;
mod cli;
mod config;
mod container;
mod crash;
mod damage;
mod database;
mod deadlines;
mod disk;
mod drill;
mod fence;
mod files;
mod foreign;
mod handover;
mod handover_hold;
mod handover_pass;
mod handover_peers;
mod health;
mod http;
mod killed;
mod lanes;
mod lifecycle;
mod links;
mod litestream;
mod load;
mod migration_copies;
mod migration_processes;
mod migrations;
mod model;
mod monitor;
mod platform;
mod queue;
mod recover;
mod replica;
mod replica_damage;
mod replica_restore;
mod restore;
mod schedule;
mod snapshots;
mod start;
mod stats;
mod tidy;
mod wal;
