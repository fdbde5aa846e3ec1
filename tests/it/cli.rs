//! The commands, as an operator types them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::client::client;
use crate::support::command::Printed;
use crate::support::command::STEPS;
use crate::support::command::all_applied;
use crate::support::command::run;
use crate::support::process::TestProcess;
use crate::support::site::Monitor;
use crate::support::waiting::wait_for;

const SOON: Duration = Duration::from_secs(15);

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn help_names_every_command() {
    let help = run(folder().path(), &["--help"], &[]);
    assert_eq!(help.code, Some(0));
    for command in [
        "serve", "migrate", "config", "check", "backup", "recover", "restore", "jobs", "work",
        "health",
    ] {
        assert!(
            help.out.contains(&format!("\n  {command} ")),
            "{}",
            help.out
        );
    }
}

#[test]
fn the_version_is_the_sites_and_names_the_frameworks() {
    let version = run(folder().path(), &["--version"], &[]);
    assert_eq!(version.out, "houseboat 0.1.0 (Houseboat 0.1.0)\n");
}

#[test]
fn a_default_file_that_would_do_nothing_is_refused() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::write(
        folder.path().join("config/default.toml"),
        "[server]\nport = 81\n",
    )
    .unwrap();
    let refused = run(folder.path(), &["config"], &[]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.err.contains("config/default.toml is not read"),
        "{}",
        refused.err
    );
}

#[test]
fn jobs_of_a_database_without_tables_says_what_to_do() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/site.sqlite3"), "").unwrap();
    let jobs = run(folder.path(), &["jobs"], &[]);
    assert_eq!(jobs.code, Some(1));
    assert!(
        jobs.err.contains(&format!(
            "{} migrations are pending: run `migrate` first",
            STEPS.len()
        )),
        "{}",
        jobs.err
    );
}

#[test]
fn a_command_that_does_not_exist_is_refused_with_2() {
    let folder = folder();
    let refused = run(folder.path(), &["chekc"], &[]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("check"), "{}", refused.err);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn wrong_settings_are_all_named_and_nothing_is_made() {
    let folder = folder();
    let variables = [
        ("PORT", "eighty"),
        ("HOUSEBOAT_SERVER__PORT", ""),
        ("HOUSEBOAT_QUEUE__WORKERS", "5000"),
        ("HOUSEBOAT_SITE__KEEP_DAYS", "0"),
        ("HOUSEBOAT_SITE__WEBHOOK_URL", "gopher://hunter2"),
        ("HOUSEBOAT_DATABASE__PTAH", "x"),
    ];
    let refused = run(folder.path(), &[], &variables);
    assert_eq!(refused.code, Some(2));
    for part in [
        "PORT",
        "eighty",
        "5000",
        "keep_days",
        "webhook_url",
        "did you mean",
    ] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert!(!refused.err.contains("hunter2"), "{}", refused.err);
    assert_eq!(refused.err.lines().count(), 5, "{}", refused.err);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn config_prints_every_setting_with_its_source_and_no_secret() {
    let secret = "http://example.com/hooks/hunter2";
    let variables = [
        ("PORT", "8123"),
        ("HOUSEBOAT_SERVER__PORT", ""),
        ("HOUSEBOAT_SITE__WEBHOOK_URL", secret),
    ];
    let printed = run(folder().path(), &["config"], &variables);
    assert_eq!(printed.code, Some(0), "{}", printed.err);
    for line in [
        "port = 8123  # PORT",
        "stop_ms = 10000  # default",
        "[redacted]",
        "keep_days = 90",
    ] {
        assert!(printed.out.contains(line), "{line}: {}", printed.out);
    }
    assert!(!printed.out.contains("hunter2"));
}

#[test]
fn migrate_lists_applies_and_has_then_nothing_to_do() {
    let folder = folder();
    let migrate = |arguments: &[&str]| run(folder.path(), arguments, &[]);
    let before = migrate(&["migrate", "--status"]);
    assert_eq!((before.code, names(folder.path()).len()), (Some(0), 0));
    assert!(before.out.contains("no database yet"), "{}", before.out);
    let applied = migrate(&["migrate"]);
    assert_eq!(applied.out, all_applied());
    assert_eq!(migrate(&["migrate"]).out, "nothing to migrate\n");
    let status = migrate(&["migrate", "--status"]);
    assert_eq!(
        status.out.matches(": applied 20").count(),
        STEPS.len(),
        "{}",
        status.out
    );
}

#[test]
fn a_site_that_may_not_migrate_refuses_to_start_on_an_old_schema() {
    let folder = folder();
    let refused = run(
        folder.path(),
        &[],
        &[("HOUSEBOAT_DATABASE__MIGRATE_AT_START", "false")],
    );
    assert_eq!(refused.code, Some(1));
    assert!(
        refused
            .err
            .contains(&format!("{} migrations are pending", STEPS.len())),
        "{}",
        refused.err
    );
}

#[test]
fn check_says_that_sound_files_are_sound_and_makes_none() {
    let folder = folder();
    let nothing = run(folder.path(), &["check"], &[]);
    assert_eq!(nothing.code, Some(1));
    assert!(
        nothing
            .err
            .contains("there is no database at data/site.sqlite3"),
        "{}",
        nothing.err
    );
    assert!(names(folder.path()).is_empty());
    run(folder.path(), &["migrate"], &[]);
    let sound = run(folder.path(), &["check"], &[]);
    assert_eq!(
        (sound.code, sound.out.as_str()),
        (Some(0), "data/site.sqlite3: ok\n")
    );
}

#[test]
fn check_finds_damage_in_either_file() {
    let folder = folder();
    run(folder.path(), &["migrate"], &[]);
    let database = folder.path().join("data/site.sqlite3");
    let sound = std::fs::read(&database).unwrap();
    let mut damaged = sound.clone();
    // The second page is the first of a table.
    damaged[4_096..8_192].fill(0x5a);
    std::fs::write(&database, damaged).unwrap();
    let checked = run(folder.path(), &["check"], &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.err.contains("damage"), "{checked:?}");
    std::fs::write(&database, sound).unwrap();

    let cache = folder.path().join("data/cache.sqlite3");
    std::fs::write(&cache, "no database ".repeat(1_000)).unwrap();
    let checked = run(folder.path(), &["check"], &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains("site.sqlite3: ok"), "{checked:?}");
    assert!(
        checked.out.contains("cache.sqlite3: cannot be read"),
        "{checked:?}"
    );
    assert!(
        std::fs::read_to_string(&cache)
            .unwrap()
            .starts_with("no database"),
        "left as it is"
    );
}

#[test]
fn check_tells_rows_that_break_a_rule_from_damage() {
    let folder = folder();
    run(folder.path(), &["migrate"], &[]);
    #[expect(clippy::disallowed_methods, reason = "as another program would")]
    let other = Connection::open(folder.path().join("data/site.sqlite3")).unwrap();
    let sql = "CREATE TABLE remarks (monitor INTEGER REFERENCES monitors (id));
        PRAGMA foreign_keys = OFF; INSERT INTO remarks VALUES (7)";
    other.execute_batch(sql).unwrap();
    drop(other);
    let checked = run(folder.path(), &["check", "--full"], &[]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.out.contains("row 1 of remarks"), "{checked:?}");
    assert!(checked.err.contains("no damage, but rows"), "{checked:?}");
}

#[test]
fn jobs_counts_by_state() {
    let folder = folder();
    run(folder.path(), &["migrate"], &[]);
    let jobs = run(folder.path(), &["jobs"], &[]);
    assert_eq!(jobs.code, Some(0));
    let lines: Vec<_> = jobs
        .out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(lines[0], ["available", "0"]);
    assert_eq!(lines.len(), 7, "{}", jobs.out);
}

#[tokio::test]
async fn commands_work_beside_a_running_site() {
    let site = TestProcess::start().await;
    Monitor::new("one", &site.url("/up")).create(&site).await;
    let completed = async || {
        let jobs = run(site.folder(), &["jobs"], &[]);
        assert_eq!(jobs.code, Some(0), "{jobs:?}");
        let line = jobs
            .out
            .lines()
            .find(|line| line.starts_with("completed"))?;
        (!line.ends_with(" 0")).then_some(())
    };
    wait_for("completed job", SOON, completed).await;
    assert_eq!(run(site.folder(), &["check"], &[]).code, Some(0));
    assert_eq!(
        run(site.folder(), &["migrate", "--status"], &[]).code,
        Some(0)
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_database_is_refused() {
    let site = TestProcess::start().await;
    let second = run(site.folder(), &[], &[]);
    assert_eq!(second.code, Some(1));
    assert!(
        second
            .err
            .contains("another process serves data/site.sqlite3"),
        "{}",
        second.err
    );
}

/// A folder with a program `litestream` that says it is of this version.
pub(crate) fn litestream(version: &str) -> TempDir {
    let folder = folder();
    let program = folder.path().join("litestream");
    std::fs::write(&program, format!("#!/bin/sh\necho {version}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Migrates with `litestream` of this version on the PATH and `mmap_bytes` as given.
fn migrate_beside(version: &str, mmap_bytes: &str) -> Printed {
    let programs = litestream(version);
    let path = format!("{}:/usr/bin:/bin", programs.path().display());
    let variables = [
        ("PATH", path.as_str()),
        ("HOUSEBOAT_DATABASE__MMAP_BYTES", mmap_bytes),
    ];
    run(folder().path(), &["migrate"], &variables)
}

#[test]
fn memory_mapping_is_off_beside_an_old_litestream_and_refused_if_asked_for() {
    let auto = migrate_beside("v0.5.9", "auto");
    assert_eq!(auto.code, Some(0), "{auto:?}");
    assert!(
        auto.err.contains("memory-mapped reading is off") && auto.err.contains("v0.5.9"),
        "{auto:?}"
    );
    let asked = migrate_beside("v0.5.9", "1000000");
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(
        asked
            .err
            .contains("database.mmap_bytes = 1000000 would risk the file"),
        "{asked:?}"
    );
    for mmap_bytes in ["auto", "1000000", "0"] {
        let new = migrate_beside("v0.5.17", mmap_bytes);
        assert_eq!(
            (new.code, new.err.contains("WARN")),
            (Some(0), false),
            "{new:?}"
        );
    }
}

#[tokio::test]
async fn lines_are_json_in_production() {
    let site = TestProcess::builder()
        .variable("HOUSEBOAT_ENV", "production")
        .start()
        .await;
    client().get(site.url("/nowhere")).send().await.unwrap();
    let answered = async || {
        site.log()
            .lines()
            .find(|line| line.contains("\"answered\""))
            .map(str::to_owned)
    };
    let line = wait_for("line of the request", SOON, answered).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["status"], 404);
    assert_eq!(line["spans"][0]["path"], "/nowhere");
    assert_eq!(line["spans"][0]["request.id"].as_str().unwrap().len(), 16);
}
