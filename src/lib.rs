#![doc = include_str!("../README.md")]

// The floors, in order: a module uses only those above it in this list, and siblings do not see one another.
// `tests/it/tidy.rs` holds that.

pub mod settings;

mod digits;
pub mod logs;
pub mod shutdown;

pub mod database;

pub mod cache;
pub mod queue;
pub mod replication;

pub mod context;

pub mod http;

pub mod auth;

pub mod config;

pub mod error;

pub mod app;

pub mod cli;

// So that a site has the versions that fit: a program can link SQLite once only.
pub use axum;
pub use jiff;
pub use rusqlite;

pub use crate::app::App;
pub use crate::cli::run;
pub use crate::config::Config;
pub use crate::context::Context;
pub use crate::error::Error;
