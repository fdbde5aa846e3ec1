//! Log lines: for people, or for machines.
//!
//! Everything goes to standard error. What a line belongs to (a request, a job) comes from the
//! spans around it, so their ids are on every line without anybody passing them along.

use std::backtrace::Backtrace;
use std::backtrace::BacktraceStatus;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use serde::Deserialize;
use serde::Serialize;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings;
use crate::settings::Problems;
use crate::settings::Section;

/// Crates that tell at `info` what is of no use to an operator.
const QUIET: &str = "refinery_core=warn,object_store=warn";

/// The environment of whoever works on the site.
const DEVELOPMENT: &str = "development";

/// What is logged, and in which form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A level, or directives such as `info,houseboat::queue=debug`; `info` by default.
    pub level: String,
    /// The form of a line; `auto` by default.
    pub format: Format,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text in the environment `development`, JSON in every other.
    Auto,
    /// For people; in colour on a terminal.
    Text,
    /// One object a line, with the fields of the line at its top and its spans in `spans`.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        settings::defaults("log")
    }
}

impl Section for Settings {
    fn check(&self, problems: &mut Problems) {
        if let Err(error) = EnvFilter::builder().parse(&self.level) {
            problems.add("level", format!("is not a level or a directive: {error}"));
        } else if let Some(word) = bare_target(&self.level) {
            let reason = format!(
                "must be error, warn, info, debug, trace or off, or name a module with its level, such as {word}=debug"
            );
            problems.add("level", reason);
        }
    }
}

// The filter takes a word it does not know for a module, so that `inof` would log nothing at all.
fn bare_target(level: &str) -> Option<&str> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    level
        .split(',')
        .map(str::trim)
        .find(|word| !word.contains(['=', '[', '{', '}']) && !is_any_of(word, &LEVELS))
}

fn is_any_of(word: &str, levels: &[&str]) -> bool {
    levels.iter().any(|level| word.eq_ignore_ascii_case(level))
}

/// Sends log lines to standard error from now on, for the whole process.
///
/// The environment decides what [`Format::Auto`] is.
///
/// The first call decides: a second one, or one after another subscriber was installed, changes
/// nothing. A level that [`Section::check`] would refuse counts as `info`.
pub fn init(settings: &Settings, environment: &str) {
    let is_new = subscriber(settings, environment, io::stderr)
        .try_init()
        .is_ok();
    if is_new {
        log_panics();
    }
    if is_new && EnvFilter::builder().parse(&settings.level).is_err() {
        tracing::warn!(level = settings.level, "no such log level; logging at info");
    }
}

/// A panic is a line of the log like any other, in its form and with the ids of its request or job.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let text = panic.payload_as_str().unwrap_or("without a text");
        tracing::error!(place, text, "panicked");
        // Only where RUST_BACKTRACE asks for one; on lines of its own, for it has dozens.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = writeln!(io::stderr(), "{backtrace}");
        }
    }));
}

fn subscriber<W>(
    settings: &Settings,
    environment: &str,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // First in line, so that whoever wants to see more of a quiet crate can say so.
    let level = format!("{QUIET},{}", settings.level);
    let filter = EnvFilter::builder()
        .parse(level)
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match settings.format {
        Format::Auto => environment != DEVELOPMENT,
        format => format == Format::Json,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!json && io::stderr().is_terminal())
        // It would be told by a panic, in whatever tried to log: a full disk must not stop the site.
        .log_internal_errors(false)
        .with_writer(writer);
    if !json {
        return Box::new(lines.compact().finish());
    }
    let lines = lines.json().flatten_event(true);
    Box::new(lines.with_current_span(false).with_span_list(true).finish())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &Settings, environment: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(settings, environment, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            let request = tracing::info_span!("request", request.id = "r-1");
            let _request = request.enter();
            tracing::info!(job.id = 7, "enqueued");
            tracing::debug!("too fine for info");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_of_json_carries_its_fields_and_the_id_of_its_request() {
        let json = Settings {
            format: Format::Json,
            ..Settings::default()
        };
        for line in [
            logged(&json, DEVELOPMENT),
            logged(&Settings::default(), "production"),
        ] {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["message"], "enqueued");
            assert_eq!(line["job.id"], 7);
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["spans"][0]["request.id"], "r-1");
        }
    }

    #[test]
    fn a_line_of_text_carries_the_id_of_its_request_and_no_colour() {
        let line = logged(&Settings::default(), DEVELOPMENT);
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains("enqueued"), "{line}");
        assert!(line.contains("request.id=\"r-1\""), "{line}");
        assert!(!line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn a_second_init_does_nothing() {
        init(&Settings::default(), DEVELOPMENT);
        init(&Settings::default(), DEVELOPMENT);
    }

    #[test]
    fn a_word_that_is_no_level_is_a_problem() {
        let problems = |level: &str| {
            let mut problems = Problems::default();
            let level = level.to_owned();
            let settings = Settings {
                level,
                ..Settings::default()
            };
            settings.check(&mut problems);
            problems.into_found().len()
        };
        assert_eq!(problems("info,houseboat::queue=debug,[request]=trace"), 0);
        assert_eq!(problems("WARN"), 0);
        assert_eq!(problems("inof"), 1);
        assert_eq!(problems("houseboat=loud"), 1);
        assert_eq!(problems(""), 1);
    }
}
