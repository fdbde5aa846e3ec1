//! What migrations promise.

use houseboat::database::Clock;
use houseboat::database::Database;
use houseboat::database::Depth;
use houseboat::database::Migrations;
use houseboat::database::Step;
use houseboat::database::Target;

use tempfile::TempDir;

use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
use crate::database::settings;
use crate::database::texts;

#[tokio::test]
async fn migrations_are_applied_once_and_listed() {
    let (_folder, database) = database().await;
    assert!(database.migrate(&[NOTES]).await.unwrap().is_empty());
    let steps = database.migrations(&[NOTES]).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert_eq!(
        (steps[0].set, steps[0].name.as_str()),
        ("notes", "V1__notes")
    );
    assert!(steps[0].applied_at.is_some());
}

const NOTES_SQL: &str =
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;";

const COLOURS_SQL: &str = "ALTER TABLE notes ADD COLUMN colour TEXT;";

/// `NOTES` and one more.
pub(crate) const MORE: Migrations = Migrations::new(
    "notes",
    &[("V1__notes", NOTES_SQL), ("V2__colours", COLOURS_SQL)],
);

#[tokio::test]
async fn a_pending_migration_is_listed_as_such() {
    let (_folder, database) = database().await;
    let steps = database.migrations(&[MORE]).await.unwrap();
    let applied: Vec<_> = steps.iter().map(|step| step.applied_at.is_some()).collect();
    assert_eq!(applied, [true, false]);
}

#[tokio::test]
async fn a_file_newer_than_the_program_is_refused() {
    let (_folder, database) = database().await;
    database.migrate(&[MORE]).await.unwrap();
    let error = database.migrate(&[NOTES]).await.unwrap_err().to_string();
    let status = database.migrations(&[NOTES]).await.unwrap_err();
    assert_eq!(status.to_string(), error);
    assert!(
        error.contains("newer than the program")
            && error.contains("the file has notes V2__colours, and this program ends at V1__notes"),
        "{error}"
    );
}

#[tokio::test]
async fn an_applied_migration_that_was_changed_is_refused() {
    let (_folder, database) = database().await;
    let changed = Migrations::new(
        "notes",
        &[("V1__notes", "CREATE TABLE notes (id INTEGER) STRICT;")],
    );
    let error = database.migrate(&[changed]).await.unwrap_err().to_string();
    let status = database.migrations(&[changed]).await.unwrap_err();
    assert_eq!(status.to_string(), error);
    assert!(
        error.contains("changed after it had been applied"),
        "{error}"
    );
}

#[tokio::test]
async fn the_database_of_another_site_is_recognised() {
    let (_folder, database) = database().await;
    let other = Migrations::new(
        "notes",
        &[("V1__guests", "CREATE TABLE guests (id INTEGER) STRICT;")],
    );
    for error in [
        database.migrate(&[other]).await.unwrap_err(),
        database.migrations(&[other]).await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("V1__notes where this program has V1__guests: is it another"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_file_as_it_was() {
    let (_folder, database) = database().await;
    insert(&database, "kept").await.unwrap();
    let broken = Migrations::new(
        "other",
        &[
            (
                "V1__good",
                "CREATE TABLE good (id INTEGER) STRICT; DELETE FROM notes;",
            ),
            (
                "V2__bad",
                "CREATE TABLE bad (id INTEGER) STRICT;\n\n-- A mistake;\nINSERT INTO\n  nowhere VALUES (1);",
            ),
        ],
    );
    let error = database
        .migrate(&[NOTES, broken])
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "cannot migrate: other V2__bad, line 4: no such table: nowhere; in `INSERT INTO nowhere VALUES (1)`"
    );
    assert_eq!(texts(&database).await, ["kept"]);
    let tables = database.read(|conn| {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('good', 'bad')";
        Ok(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(tables.await.unwrap(), 0);
}

#[tokio::test]
async fn a_migration_that_breaks_a_foreign_key_is_taken_back() {
    let (_folder, database) = database().await;
    let broken = Migrations::new(
        "other",
        &[(
            "V1__orphan",
            "CREATE TABLE tags (note INTEGER REFERENCES notes (id)) STRICT; INSERT INTO tags VALUES (7);",
        )],
    );
    let error = database
        .migrate(&[NOTES, broken])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("tags") && error.contains("notes"), "{error}");
}

/// A file with rows that refer to nothing, as `recover` may leave them; their numbers have gaps.
async fn with_broken_references() -> (TempDir, Database) {
    let (folder, database) = database().await;
    insert(&database, "one").await.unwrap();
    let path = database.path();
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let other = rusqlite::Connection::open(path).unwrap();
    let sql = "PRAGMA foreign_keys = OFF;
        CREATE TABLE tags (note INTEGER REFERENCES notes (id), name TEXT);
        INSERT INTO tags (rowid, note, name) VALUES (3, 7, 'a'), (5, 1, 'b'), (9, 8, 'c'), (11, 8, 'd');
        CREATE TABLE pairs (one INTEGER PRIMARY KEY REFERENCES notes (id)) WITHOUT ROWID;
        INSERT INTO pairs VALUES (7);";
    other.execute_batch(sql).unwrap();
    (folder, database)
}

#[tokio::test]
async fn references_that_were_broken_before_do_not_stop_a_migration() {
    let (_folder, database) = with_broken_references().await;
    // The rows get other numbers.
    let anew = Migrations::new(
        "other",
        &[(
            "V1__anew",
            "CREATE TABLE new (note INTEGER REFERENCES notes (id), name TEXT NOT NULL);
             INSERT INTO new SELECT note, name FROM tags;
             DROP TABLE tags;
             ALTER TABLE new RENAME TO tags;",
        )],
    );
    let steps = database.migrate(&[NOTES, anew]).await.unwrap();
    assert_eq!(steps.len(), 1);
    let report = database.check(Depth::Full).await.unwrap();
    assert_eq!(report.violations.len(), 4, "{report:?}");
}

#[tokio::test]
async fn a_reference_that_a_migration_breaks_is_told_from_those_of_before() {
    for sql in [
        // One is mended and another one broken: there are as many as before.
        "DELETE FROM tags WHERE note = 7; DELETE FROM notes WHERE id = 1;",
        // Once more to where others lead already.
        "INSERT INTO tags (note) VALUES (8);",
        "INSERT INTO pairs VALUES (8);",
    ] {
        let (_folder, database) = with_broken_references().await;
        let files: &'static [(&'static str, &'static str)] =
            Box::leak(Box::new([("V1__try", sql)]));
        let sets = [NOTES, Migrations::new("other", files)];
        let error = database.migrate(&sets).await.unwrap_err().to_string();
        assert!(
            error.contains("rows of notes that are not there"),
            "{sql}: {error}"
        );
        assert_eq!(texts(&database).await, ["one"]);
    }
}

/// Tries a set of one file after `NOTES`, and gives the error; nothing of it is in the file.
async fn refused(sql: &'static str) -> String {
    let (_folder, database) = database().await;
    insert(&database, "kept").await.unwrap();
    let files: &'static [(&'static str, &'static str)] = Box::leak(Box::new([("V1__try", sql)]));
    let sets = [NOTES, Migrations::new("other", files)];
    let error = database.migrate(&sets).await.unwrap_err().to_string();
    let tables = database.read(|conn| {
        let sql = "SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
        Ok(conn.query_row(sql, [], |row| row.get::<_, String>(0))?)
    });
    assert_eq!(tables.await.unwrap(), "notes,migrations_notes");
    assert_eq!(texts(&database).await, ["kept"]);
    error
}

#[tokio::test]
async fn a_statement_that_fails_while_it_runs_is_named_with_its_line() {
    let sql = "/* first */\nCREATE TABLE good (id INTEGER) STRICT;\n\
               CREATE TRIGGER t AFTER INSERT ON good BEGIN SELECT 1; DELETE FROM notes; END;\n\n\
               INSERT INTO notes (text) VALUES ('kept');\n";
    assert_eq!(
        refused(sql).await,
        "cannot migrate: other V1__try, line 5: UNIQUE constraint failed: notes.text; \
         in `INSERT INTO notes (text) VALUES ('kept')`"
    );
}

#[tokio::test]
async fn a_statement_that_is_no_sql_is_named_with_its_line() {
    assert_eq!(
        refused("DELETE FROM notes;\n\nSELCET 1;\nSELECT 2;").await,
        "cannot migrate: other V1__try, line 3: near \"SELCET\": syntax error; in `SELCET 1`"
    );
}

#[tokio::test]
async fn a_migration_cannot_end_the_transaction_that_it_is_in() {
    for end in ["COMMIT", "END", "ROLLBACK", "BEGIN"] {
        let sql = format!("CREATE TABLE half (id INTEGER) STRICT;\n{end};");
        let error = refused(String::leak(sql)).await;
        assert!(
            error.contains("other V1__try, line 2: not authorized")
                && error.contains("leave out BEGIN, COMMIT and ROLLBACK"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn every_row_of_a_select_is_stepped_through() {
    let (_folder, database) = database().await;
    let seeds = Migrations::new(
        "seeds",
        &[(
            "V1__seeds",
            "SELECT 1 UNION ALL SELECT 2;
             INSERT INTO notes (text) VALUES ('a'), ('b') RETURNING id;
             PRAGMA table_info(notes);
             -- nothing more",
        )],
    );
    let steps = database.migrate(&[NOTES, seeds]).await.unwrap();
    assert_eq!(steps.len(), 1);
    assert!(steps[0].time.is_some());
    assert_eq!(texts(&database).await, ["a", "b"]);
}

#[tokio::test]
async fn a_new_file_below_one_that_is_applied_is_refused() {
    let (_folder, database) = database().await;
    database.migrate(&[MORE]).await.unwrap();
    let late = Migrations::new(
        "notes",
        &[
            ("V0__early", "SELECT 1;"),
            ("V1__notes", NOTES_SQL),
            ("V2__colours", COLOURS_SQL),
        ],
    );
    for error in [
        database.migrate(&[late]).await.unwrap_err(),
        database.migrations(&[late]).await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("notes V0__early is not applied, though later ones are"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn two_files_of_one_number_are_refused() {
    let (_folder, database) = database().await;
    let twice = Migrations::new(
        "other",
        &[("V1__one", "SELECT 1;"), ("V1__other", "SELECT 1;")],
    );
    let error = database.migrate(&[twice]).await.unwrap_err().to_string();
    assert!(
        error.contains("V1__one and V1__other have the same number"),
        "{error}"
    );
}

fn to(text: &str) -> Target {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_target_stops_its_own_set_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&settings(folder.path()), Clock::system()).unwrap();
    let other = Migrations::new("other", &[("V1__a", "SELECT 1;"), ("V2__b", "SELECT 1;")]);
    let names = |steps: Vec<Step>| -> Vec<String> {
        let name = |step: Step| format!("{} {}", step.set, step.name);
        steps.into_iter().map(name).collect()
    };
    let first = database.migrate_to(&[MORE, other], &to("notes:V1")).await;
    assert_eq!(
        names(first.unwrap()),
        ["notes V1__notes", "other V1__a", "other V2__b"]
    );
    let again = database.migrate_to(&[MORE, other], &to("notes:1")).await;
    assert!(again.unwrap().is_empty());
    let rest = database.migrate(&[MORE, other]).await;
    assert_eq!(names(rest.unwrap()), ["notes V2__colours"]);
}

#[tokio::test]
async fn a_target_that_there_is_not_is_refused_with_those_that_there_are() {
    let (_folder, database) = database().await;
    for (target, part) in [
        ("nots:1", "there is no set nots: there are notes, other"),
        (
            "notes:V7",
            "notes has no version 7: it has V1__notes, V2__colours",
        ),
    ] {
        let other = Migrations::new("other", &[]);
        let refused = database.migrate_to(&[MORE, other], &to(target)).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let steps = database.migrations(&[MORE]).await.unwrap();
    assert!(steps[1].applied_at.is_none());
    for text in ["notes", "notes:", "notes:V", "V1", "notes:one"] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("such as site:V3"), "{error}");
    }
}

#[tokio::test]
async fn books_in_their_first_shape_are_read() {
    let (_folder, database) = database().await;
    let write = database.write(|tx| {
        Ok(tx.execute_batch(
            "ALTER TABLE migrations_notes RENAME TO newer;
             CREATE TABLE migrations_notes (
                 version int4 PRIMARY KEY,
                 name VARCHAR(255),
                 applied_on VARCHAR(255),
                 checksum VARCHAR(255)
             );
             INSERT INTO migrations_notes
             SELECT version, name, '2026-11-21T05:20:32.159517848Z', checksum FROM newer;
             DROP TABLE newer;",
        )?)
    });
    write.await.unwrap();
    assert_eq!(database.migrate(&[MORE]).await.unwrap().len(), 1);
    let steps = database.migrations(&[MORE]).await.unwrap();
    assert!(steps.iter().all(|step| step.applied_at.is_some()));
}
