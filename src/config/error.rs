//! What is wrong with the settings.

use std::fmt;

use figment::error::Kind;

/// Everything that is wrong with the settings; it displays as one line for each problem.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct Error {
    problems: Vec<Problem>,
}

impl Error {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// Returns each problem once, files before variables before limits.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// One thing that is wrong: what, where it came from, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    subject: String,
    origin: Option<String>,
    reason: String,
}

impl Problem {
    /// Makes the problem "`subject` `reason`".
    pub(super) fn new(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            origin: None,
            reason: reason.into(),
        }
    }

    /// Says where the subject came from: a file or a variable.
    pub(super) fn with_origin(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// Says what would be right, from what serde expected.
pub(super) fn reason(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected) => format!("must be {}", in_words(expected)),
        Kind::UnknownVariant(_, words) => {
            let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            format!("must be {}", words.join(" or "))
        }
        Kind::UnknownField(field, known) => {
            format!(
                "has {field:?}, which is not known: right are {}",
                known.join(", ")
            )
        }
        other => format!("is not valid: {other}"),
    }
}

fn in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "path string" => "a path",
        "a map" => "a table",
        name if name.starts_with("struct ") => "a table",
        other => other,
    }
}
