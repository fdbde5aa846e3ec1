//! The tests: one binary, a module per theme.

#![expect(clippy::unwrap_used, reason = "a test that panics says where")]

mod support;

mod backup;
mod browser;
mod cache;
mod cli;
mod config;
mod crash;
mod database;
mod deadlines;
mod disk;
mod files;
mod foreign;
mod http;
mod lifecycle;
mod load;
mod migrations;
mod model;
mod monitor;
mod queue;
mod restore;
mod schedule;
mod start;
mod tidy;
