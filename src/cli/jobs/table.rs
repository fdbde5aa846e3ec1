//! How jobs are printed: tables of 80 columns, times in UTC, and JSON.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;

/// So that no line of a list is longer than a terminal is wide.
const KIND: usize = 20;
const QUEUE: usize = 12;

/// So that two times have place beside it.
const PAIR: usize = 40;

/// One line of a list, or its head.
pub(super) fn line(cells: [&str; 6]) -> String {
    let [id, state, queue, kind, attempt, time] = cells;
    let (queue, kind) = (cut(queue, QUEUE), cut(kind, KIND));
    let line = format!("{id:>8} {state:<10} {queue:<QUEUE$} {kind:<KIND$} {attempt:>6} {time:<19}");
    line.trim_end().to_owned() + "\n"
}

/// Two cells; the second goes below a first that is too long, since that is one to be typed.
pub(super) fn pair(one: &str, other: &str) -> String {
    let (one, other) = (plain(one), plain(other));
    if one.chars().count() <= PAIR {
        return format!("{one:<PAIR$} {other}\n");
    }
    format!("{one}\n{:PAIR$} {other}\n", "")
}

/// To the second.
pub(super) fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

pub(super) fn json(value: &impl Serialize) -> String {
    // Names, numbers and texts; no map with other keys.
    let json = serde_json::to_string_pretty(value).expect("what is printed can be JSON");
    json + "\n"
}

/// On one line, and without what would do something to a terminal.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let is_bad = |c: char| c.is_control();
    Cow::Owned(text.replace(is_bad, " "))
}

fn cut(text: &str, width: usize) -> Cow<'_, str> {
    let text = plain(text);
    if text.chars().count() <= width {
        return text;
    }
    let start: String = text.chars().take(width - 1).collect();
    Cow::Owned(start + "…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_as_wide_as_a_terminal() {
        let long = "a_name_that_is_much_too_long_for_it";
        let time = utc(Timestamp::UNIX_EPOCH);
        let line = line(["12345678", "executing", long, long, "19/20", &time]);
        assert_eq!(line.trim_end().chars().count(), 80, "{line}");
        assert!(line.contains("a_name_that…"), "{line}");
        assert!(line.ends_with("1970-01-01 00:00:00\n"), "{line}");
    }

    #[test]
    fn a_name_that_is_too_long_for_its_cell_is_whole() {
        let (name, long) = ("n".repeat(PAIR), "n".repeat(PAIR + 1));
        assert_eq!(pair(&name, "x"), format!("{name} x\n"));
        let below = " ".repeat(PAIR);
        assert_eq!(pair(&long, "x"), format!("{long}\n{below} x\n"));
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(plain("one\u{1b}[2J\ntwo"), "one [2J two");
    }
}
