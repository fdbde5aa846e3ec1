//! A small web framework with an embedded SQLite stack.
