//! A process whose jobs block the threads of its runtime, for the test that stops it.
//!
//! Each run of a job is a line in the file `begun` of the folder given, and lasts until there is a file `go`.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use houseboat::database::{self, BoxError, Clock, Database};
use houseboat::queue::{self, Attempt, Job, Jobs, Outcome, Queue, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Play {
    part: String,
}

impl Job for Play {
    const NAME: &'static str = "play";
    type Context = PathBuf;

    async fn run(self, folder: Attempt<PathBuf>) -> Result<Outcome, BoxError> {
        let mut begun = File::options()
            .create(true)
            .append(true)
            .open(folder.join("begun"))?;
        writeln!(begun, "{}", self.part)?;
        while !folder.join("go").exists() {
            #[expect(clippy::disallowed_methods, reason = "it blocks its thread on purpose")]
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Outcome::Complete)
    }
}

// Two jobs keep both threads busy; what else is claimed is begun when one of them has ended.
#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), BoxError> {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let stop = houseboat::shutdown::on_signals()?;
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    let folder = PathBuf::from(folder);
    let settings = database::Settings {
        path: folder.join("site.sqlite3"),
        ..database::Settings::default()
    };
    let database = Database::open(&settings, Clock::system())?;
    let settings = queue::Settings {
        workers: 3,
        lease_ms: 1_500,
        ..queue::Settings::default()
    };
    let jobs = Jobs::default().register::<Play>();
    Worker::new(Queue::new(database), jobs, folder, settings)
        .run(stop.soon)
        .await;
    Ok(())
}
