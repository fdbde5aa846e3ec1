//! Every statement on the tables of people; a file for each table.

pub(super) mod codes;
pub(super) mod sessions;
pub(super) mod tokens;
pub(super) mod users;
