//! What the library logs in this process.

use std::io;
use std::sync::LazyLock;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Begins to keep what is logged, by all tests of the process together.
pub(crate) fn keep() {
    static ONCE: LazyLock<()> = LazyLock::new(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(Keep);
        // Only this sets one.
        let _ = tracing::subscriber::set_global_default(subscriber.finish());
    });
    LazyLock::force(&ONCE);
}

/// The lines so far that hold all of these texts; one of them should be this test's alone.
pub(crate) fn lines(texts: &[&str]) -> Vec<String> {
    let lines = LINES.lock().unwrap();
    let has_all = |line: &&String| texts.iter().all(|text| line.contains(text));
    lines.iter().filter(has_all).cloned().collect()
}

struct Keep;

impl io::Write for Keep {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).into_owned();
        LINES.lock().unwrap().push(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Keep {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
