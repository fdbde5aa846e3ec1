//! What is brought back from a damaged file.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::backup::DATABASE;
use crate::backup::assert_sound;
use crate::backup::damage;
use crate::backup::fill;
use crate::backup::names;
use crate::backup::notes;
use crate::backup::open;
use crate::database::database;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::site::number;
use crate::support::tmpfs::Tmpfs;

const NO_SHELL: (&str, &str) = ("PATH", "/nowhere");

/// Three pages of the table, of which two are neighbours, are no pages any more; gives how many rows they had.
async fn damaged() -> (TempDir, PathBuf, i64) {
    let (folder, database) = database().await;
    fill(&database, 5_000).await;
    let path = database.path().to_owned();
    database.close().await;
    let conn = open(&path);
    let sql =
        "SELECT pageno, ncell FROM dbstat WHERE name = 'notes' AND pagetype = 'leaf' ORDER BY path";
    let mut statement = conn.prepare(sql).unwrap();
    let pages = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let pages: Vec<(usize, i64)> = pages.unwrap().map(Result::unwrap).collect();
    let hit = [pages[50], pages[51], pages[400]];
    drop(statement);
    drop(conn);
    for (page, _) in hit {
        damage(&path, page - 1);
    }
    (folder, path, hit.map(|(_, rows)| rows).iter().sum())
}

fn recover(folder: &Path, variables: &[(&str, &str)]) -> Printed {
    run(folder, &["recover"], &[&[DATABASE], variables].concat())
}

/// What the report says of a table.
fn line<'a>(printed: &'a Printed, table: &str) -> Vec<&'a str> {
    let mut lines = printed.out.lines().filter(|line| line.starts_with(table));
    let line = lines.next().unwrap_or_else(|| panic!("{}", printed.out));
    line.split("  ")
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

async fn assert_recovers_the_other_rows(variables: &[(&str, &str)]) -> Printed {
    let (folder, path, lost) = damaged().await;
    let before = std::fs::read(&path).unwrap();
    let recovered = recover(folder.path(), variables);
    assert_eq!(recovered.code, Some(0), "{}", recovered.err);
    let rows = (5_000 - lost).to_string();
    assert_eq!(
        line(&recovered, "notes"),
        ["notes", "cannot be read", &rows],
        "{}",
        recovered.out
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let data = path.parent().unwrap();
    assert_eq!(names(data), ["test.sqlite3", "test.sqlite3.recovered"]);
    let new = data.join("test.sqlite3.recovered");
    assert_eq!(notes(&new), 5_000 - lost);
    let numbered = "SELECT count(*) FROM notes WHERE text LIKE id || ' %'";
    assert_eq!(number(&open(&new), numbered), 5_000 - lost);
    let next = "put it in place with: houseboat restore data/test.sqlite3.recovered";
    assert!(recovered.out.contains(next), "{}", recovered.out);
    let restored = run(
        folder.path(),
        &["restore", "data/test.sqlite3.recovered"],
        &[DATABASE],
    );
    assert_eq!(restored.code, Some(0), "{}", restored.err);
    assert_eq!(notes(&path), 5_000 - lost);
    recovered
}

#[tokio::test]
async fn without_the_shell_rows_are_read_around_the_damage() {
    let recovered = assert_recovers_the_other_rows(&[NO_SHELL]).await;
    for part in [
        "there is no sqlite3 on the PATH",
        "https://sqlite.org/download.html",
    ] {
        assert!(recovered.out.contains(part), "{}", recovered.out);
    }
}

#[tokio::test]
async fn the_shell_is_used_where_it_can_recover() {
    let has_pages = "SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_dbpage'";
    let probe = Command::new("sqlite3")
        .args([":memory:", has_pages])
        .output();
    let is_able = probe.is_ok_and(|probe| probe.stdout.trim_ascii() == b"1");
    let recovered = assert_recovers_the_other_rows(&[]).await;
    assert_eq!(
        !recovered.out.contains("read row by row"),
        is_able,
        "{}",
        recovered.out
    );
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    if !is_able {
        eprintln!("skipped: the sqlite3 here has no .recover, as Debian's");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_at_all_takes_the_shell() {
    let (folder, path, _) = damaged().await;
    damage(&path, 0);
    let refused = recover(folder.path(), &[NO_SHELL]);
    assert_eq!(refused.code, Some(1));
    for part in [
        "cannot recover: data/test.sqlite3",
        ".recover",
        "download.html",
    ] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert_eq!(names(path.parent().unwrap()), ["test.sqlite3"]);
}

#[tokio::test]
async fn a_file_that_exists_is_left_alone() {
    let (folder, path, _) = damaged().await;
    let mine = path.with_added_extension("recovered");
    std::fs::write(&mine, "mine").unwrap();
    let refused = recover(folder.path(), &[NO_SHELL]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .err
            .contains("test.sqlite3.recovered exists already"),
        "{}",
        refused.err
    );
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
}

#[tokio::test]
async fn it_works_beside_a_server_and_sees_what_is_in_the_wal() {
    let site = TestProcess::start().await;
    for number in 0..3 {
        let monitor = Monitor::new(&format!("monitor {number}"), "http://127.0.0.1:1/");
        monitor.create(&site).await;
    }
    for variables in [&[][..], &[NO_SHELL]] {
        let to = site.folder().join("new");
        let recovered = run(site.folder(), &["recover", "--to", "new"], variables);
        assert_eq!(recovered.code, Some(0), "{}", recovered.err);
        assert_eq!(line(&recovered, "monitors"), ["monitors", "3", "3"]);
        assert_eq!(number(&open(&to), "SELECT count(*) FROM monitors"), 3);
        std::fs::remove_file(to).unwrap();
    }
}

#[tokio::test]
async fn what_counts_ids_may_stand_first_or_count_for_nothing_any_more() {
    for (again, rows) in [
        (
            "CREATE TABLE again (id INTEGER PRIMARY KEY AUTOINCREMENT);
             INSERT INTO again VALUES (41);",
            Some(41),
        ),
        ("", None),
    ] {
        let (folder, database) = database().await;
        let path = database.path().to_owned();
        database.close().await;
        open(&path)
            .execute_batch(&format!(
                "CREATE TABLE gone (id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE gone;
                 CREATE TABLE other (id INTEGER PRIMARY KEY); {again}"
            ))
            .unwrap();
        let recovered = recover(folder.path(), &[NO_SHELL]);
        assert_eq!(recovered.code, Some(0), "{}", recovered.err);
        let new = open(&path.with_added_extension("recovered"));
        let seq = "SELECT seq FROM sqlite_sequence WHERE name = 'again'";
        if let Some(rows) = rows {
            assert_eq!(number(&new, seq), rows);
        }
        assert_eq!(number(&new, "SELECT count(*) FROM other"), 0);
    }
}

const OF_ALL_KINDS: &str = "
    PRAGMA user_version = 7;
    CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, value ANY) STRICT;
    INSERT INTO counted (value) VALUES (1), (2.5), ('text'), (x'00ff'), (NULL);
    DELETE FROM counted WHERE id = 5;
    CREATE TABLE words (language TEXT, word TEXT, PRIMARY KEY (language, word)) WITHOUT ROWID;
    INSERT INTO words VALUES ('de', 'Boot'), ('en', 'boat');
    CREATE TABLE \"odd \"\" name\" (rowid TEXT, \"a b\" TEXT, twice TEXT AS (\"a b\" || \"a b\") STORED);
    INSERT INTO \"odd \"\" name\" VALUES ('r', 'x');
    CREATE VIRTUAL TABLE documents USING fts5 (body);
    INSERT INTO documents VALUES ('a house on a boat'), ('a house');
    CREATE INDEX counted_value ON counted (value);
    CREATE VIEW english AS SELECT word FROM words WHERE language = 'en';
    CREATE TRIGGER note AFTER INSERT ON counted BEGIN INSERT INTO words VALUES ('new', new.id); END;";

#[tokio::test]
async fn everything_that_a_schema_can_have_comes_along() {
    let (folder, database) = database().await;
    let path = database.path().to_owned();
    database.close().await;
    open(&path).execute_batch(OF_ALL_KINDS).unwrap();
    let recovered = recover(folder.path(), &[NO_SHELL]);
    assert_eq!(recovered.code, Some(0), "{}", recovered.err);
    assert!(
        !recovered.out.contains("not brought over"),
        "{}",
        recovered.out
    );
    let new = open(&path.with_added_extension("recovered"));
    assert_sound(&new);
    let old = open(&path);
    for sql in [
        "SELECT group_concat(type || name || sql, ';') FROM (SELECT * FROM sqlite_schema ORDER BY name)",
        "SELECT group_concat(id || typeof(value) || quote(value), ';') FROM counted",
        "SELECT group_concat(name || seq, ';') FROM sqlite_sequence",
        "SELECT group_concat(language || word, ';') FROM words",
        "SELECT rowid || \"a b\" || twice || _rowid_ FROM \"odd \"\" name\"",
        "SELECT body FROM documents WHERE documents MATCH 'boat'",
        "SELECT word FROM english",
        "SELECT user_version FROM pragma_user_version",
    ] {
        assert_eq!(value(&new, sql), value(&old, sql), "{sql}");
    }
}

/// The new file is larger than the old one: an index that is filled in no order has room left in each page.
const GROWS: &str = "
    CREATE TABLE words (word TEXT PRIMARY KEY);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO words SELECT hex(randomblob(100)) FROM n;
    CREATE TABLE last (id INTEGER PRIMARY KEY);
    VACUUM;";

#[tokio::test]
async fn a_disk_that_fills_up_meanwhile_ends_it_and_leaves_nothing() {
    let (folder, database) = database().await;
    let path = database.path().to_owned();
    database.close().await;
    open(&path).execute_batch(GROWS).unwrap();
    let bytes = path.metadata().unwrap().len();
    let Some(disk) = Tmpfs::mount(&format!("{}k", bytes / 1024 + 64)) else {
        return;
    };
    let to = disk.path().join("new");
    let arguments = ["recover", "--to", to.to_str().unwrap()];
    for variables in [&[DATABASE][..], &[DATABASE, NO_SHELL]] {
        let recovered = run(folder.path(), &arguments, variables);
        assert_eq!(recovered.code, Some(1), "{recovered:?}");
        assert!(
            recovered.err.contains(to.to_str().unwrap()),
            "{recovered:?}"
        );
        assert!(!recovered.err.contains("may be no room"), "{recovered:?}");
        assert!(names(disk.path()).is_empty(), "{recovered:?}");
    }
}

const WITH_ODD_ROWS: &str = "
    CREATE TABLE a (value INTEGER CHECK (value < 3));
    CREATE TABLE b (word TEXT);
    CREATE TABLE c (word TEXT PRIMARY KEY CHECK (word <> 'no')) WITHOUT ROWID;
    PRAGMA ignore_check_constraints = ON;
    INSERT INTO a VALUES (1), (2), (3), (4);
    INSERT INTO b VALUES (CAST(x'61ff' AS TEXT)), ('whole');
    INSERT INTO c VALUES ('yes'), ('no');";

#[tokio::test]
async fn a_row_that_a_rule_refuses_is_counted_and_any_text_comes_along() {
    let (folder, database) = database().await;
    let path = database.path().to_owned();
    database.close().await;
    open(&path).execute_batch(WITH_ODD_ROWS).unwrap();
    let recovered = recover(folder.path(), &[NO_SHELL]);
    assert_eq!(recovered.code, Some(0), "{}", recovered.err);
    let complaints = recovered
        .out
        .lines()
        .filter(|line| line.contains("not brought over"));
    assert_eq!(
        complaints.collect::<Vec<_>>(),
        [
            "not brought over: table a: rows that break one of its rules: 2",
            "not brought over: table c: rows that break one of its rules: 1",
        ]
    );
    let new = open(&path.with_added_extension("recovered"));
    let text = "SELECT group_concat(typeof(word) || hex(word)) FROM b";
    assert_eq!(value(&new, text), value(&open(&path), text));
    assert_eq!(number(&new, "SELECT count(*) FROM a"), 2);
}

fn value(conn: &Connection, sql: &str) -> rusqlite::types::Value {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}
