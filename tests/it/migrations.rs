//! What migrations promise.

use houseboat::database::Migrations;

use crate::database::NOTES;
use crate::database::database;
use crate::database::insert;
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

const MORE: Migrations = Migrations::new(
    "notes",
    &[
        (
            "V1__notes",
            "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;",
        ),
        ("V2__colours", "ALTER TABLE notes ADD COLUMN colour TEXT;"),
    ],
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
        error.contains("newer than the program") && error.contains("V2__colours"),
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
                "CREATE TABLE bad (id INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
            ),
        ],
    );
    let error = database
        .migrate(&[NOTES, broken])
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nowhere"), "{error}");
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
