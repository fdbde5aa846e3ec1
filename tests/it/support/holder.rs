//! The program with a replica on a real S3 server, in as many folders as a test likes.

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;

use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::s3::S3;
use crate::support::waiting::wait_for;

const LONG: Duration = Duration::from_secs(30);

/// Where the replica is in the bucket.
pub(crate) const PLACE: &str = "site";

pub(crate) const FILE: &str = "data/site.sqlite3";

/// What all of them are told; `more` are names without their beginning.
pub(crate) fn variables(s3: &S3, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut variables = s3.variables(PLACE);
    let own = [
        ("REPLICATION__SYNC_MS", "200"),
        ("HANDOVER__LINGER_MS", "100"),
    ];
    let own = own.iter().chain(more);
    variables.extend(own.map(|(name, value)| (format!("HOUSEBOAT_{name}"), (*value).to_owned())));
    variables
}

/// Runs a command in `folder` until it ends.
pub(crate) fn command(
    s3: &S3,
    folder: &Path,
    arguments: &[&str],
    more: &[(&str, &str)],
) -> Printed {
    let variables = variables(s3, more);
    let variables = variables.iter();
    let variables: Vec<_> = variables
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    run(folder, arguments, &variables)
}

/// Runs a command that is to go well, and gives what it printed.
pub(crate) fn done(s3: &S3, folder: &Path, arguments: &[&str]) -> String {
    let printed = command(s3, folder, arguments, &[]);
    assert_eq!(printed.code, Some(0), "{arguments:?}: {printed:?}");
    printed.out
}

/// Runs a command that is to fail with 1, and gives what it complained of.
pub(crate) fn refused(s3: &S3, folder: &Path, arguments: &[&str]) -> String {
    let printed = command(s3, folder, arguments, &[]);
    assert_eq!(printed.code, Some(1), "{arguments:?}: {printed:?}");
    printed.err
}

/// Starts a container in `folder` and waits until all of its data is in the bucket, and the record says so.
pub(crate) async fn start(s3: &S3, folder: &Path, more: &[(&str, &str)]) -> TestProcess {
    let variables = variables(s3, more);
    let builder = TestProcess::builder().folder(folder).argument("start");
    let builder = variables
        .into_iter()
        .fold(builder, |builder, (name, value)| {
            builder.variable(&name, value)
        });
    let process = builder.start().await;
    wait_for("its generation in the record", LONG, async || {
        process
            .log()
            .contains("everything is in the bucket")
            .then_some(())
    })
    .await;
    process
}

/// The files of a generation's objects, sorted.
pub(crate) fn objects(s3: &S3, generation: &str) -> Vec<PathBuf> {
    let objects = s3.list(&format!("{PLACE}/generations/{generation}"));
    let objects = objects.into_iter().map(|name| s3.objects().join(name));
    objects
        .filter(|path| path.extension().is_some_and(|it| it == "ltx"))
        .collect()
}

/// The generation that the record names.
pub(crate) fn generation(s3: &S3) -> String {
    let record = std::fs::read(s3.objects().join(PLACE).join("lease.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["generation"].as_str().unwrap().to_owned()
}

/// Adds a row to a table of the test's own.
pub(crate) fn insert(folder: &Path, text: &str) {
    let database = open(&folder.join(FILE));
    database
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS words (id INTEGER PRIMARY KEY, word TEXT UNIQUE NOT NULL)",
        )
        .unwrap();
    database
        .execute("INSERT INTO words (word) VALUES (?1)", [text])
        .unwrap();
}

/// The rows of that table, in a file that may be in use.
pub(crate) fn words(path: &Path) -> Vec<String> {
    let database = open(path);
    let mut words = database
        .prepare("SELECT word FROM words ORDER BY id")
        .unwrap();
    let words = words.query_map([], |row| row.get(0)).unwrap();
    words.map(Result::unwrap).collect()
}

fn open(path: &Path) -> Connection {
    #[expect(
        clippy::disallowed_methods,
        reason = "another program beside the site, as an operator's shell is"
    )]
    let database = Connection::open(path).unwrap();
    database.busy_timeout(LONG).unwrap();
    database
}
