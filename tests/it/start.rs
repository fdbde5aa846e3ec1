//! What is refused at the start, in the words that an operator reads, and what is left behind: nothing.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;

use crate::cli::litestream;
use crate::support::command::Printed;
use crate::support::command::run;
use crate::support::mounts;
use crate::support::waiting::slow;

const DATABASE: &str = "HOUSEBOAT_DATABASE__PATH";

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Everything below `folder`, in order.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(tree(&path));
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

/// Starts the site, and migrates, with the database at `path`: both are refused with `part`, and nothing is made.
fn refused(folder: &Path, path: &str, part: &str) {
    let before = tree(folder);
    for arguments in [&["serve"][..], &["migrate"]] {
        let printed = run(folder, arguments, &[(DATABASE, path)]);
        assert_eq!(printed.code, Some(1), "{printed:?}");
        let sentence = format!("cannot open {path}: {part}");
        assert!(printed.err.contains(&sentence), "{sentence}: {printed:?}");
        assert_eq!(printed.err.lines().count(), 1, "{printed:?}");
        assert_eq!(tree(folder), before, "{arguments:?} left something behind");
    }
}

#[test]
fn a_path_that_is_a_directory() {
    let folder = folder();
    fs::create_dir(folder.path().join("site.sqlite3")).unwrap();
    refused(
        folder.path(),
        "site.sqlite3",
        "it is a directory, and should be a file",
    );
}

#[test]
fn a_path_below_a_file() {
    let folder = folder();
    fs::write(folder.path().join("data"), "a file").unwrap();
    refused(
        folder.path(),
        "data/site.sqlite3",
        "cannot make the directory for it: ",
    );
}

#[test]
fn a_path_that_is_a_device() {
    refused(
        folder().path(),
        "/dev/null",
        "it is neither a file nor a link to one",
    );
}

#[test]
fn a_wal_that_is_a_directory() {
    let folder = folder();
    for name in ["site.sqlite3-wal", "site.sqlite3-shm"] {
        let beside = folder.path().join(name);
        fs::create_dir(&beside).unwrap();
        refused(
            folder.path(),
            "site.sqlite3",
            &format!("site.sqlite3{} is a directory", &name[12..]),
        );
        fs::remove_dir(beside).unwrap();
    }
}

#[test]
fn a_file_that_is_no_database() {
    let folder = folder();
    for text in ["short", &"this is a text and no database. ".repeat(200)] {
        let file = folder.path().join("notes.txt");
        fs::write(&file, text).unwrap();
        refused(
            folder.path(),
            "notes.txt",
            "this file is not a SQLite database; if it was one, its beginning is damaged: `restore`",
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn an_empty_file_and_a_missing_directory_are_a_new_database() {
    let folder = folder();
    fs::write(folder.path().join("empty.sqlite3"), "").unwrap();
    for path in ["empty.sqlite3", "a/b/c/site.sqlite3"] {
        let migrated = run(folder.path(), &["migrate"], &[(DATABASE, path)]);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let checked = run(folder.path(), &["check"], &[(DATABASE, path)]);
        assert_eq!(checked.out, format!("{path}: ok\n"));
    }
}

/// Runs the program where `data/` below `folder` is mounted read-only, which holds for root as well.
fn run_read_only(folder: &Path, arguments: &[&str]) -> Printed {
    let script = "mount --bind data data && mount -o remount,bind,ro data";
    mounts::run(folder, script, arguments, &[])
}

#[test]
fn a_directory_that_cannot_be_written() {
    if !mounts::are_possible("a_directory_that_cannot_be_written") {
        return;
    }
    let folder = folder();
    fs::create_dir(folder.path().join("data")).unwrap();
    let before = tree(folder.path());
    for arguments in [&["serve"][..], &["migrate"]] {
        let printed = run_read_only(folder.path(), arguments);
        assert_eq!(printed.code, Some(1), "{printed:?}");
        for part in [
            "cannot open data/site.sqlite3: this user cannot make files in the directory",
            "/data (the file system is read-only)",
        ] {
            assert!(printed.err.contains(part), "{part}: {printed:?}");
        }
        assert_eq!(tree(folder.path()), before);
    }
}

#[test]
fn a_file_that_is_read_only() {
    if !mounts::are_possible("a_file_that_is_read_only") {
        return;
    }
    let folder = folder();
    assert_eq!(run(folder.path(), &["migrate"], &[]).code, Some(0));
    let before = tree(folder.path());
    let script = "cd data && mount --bind site.sqlite3 site.sqlite3 \
                  && mount -o remount,bind,ro site.sqlite3 && cd ..";
    for arguments in [&["serve"][..], &["migrate"]] {
        let printed = mounts::run(folder.path(), script, arguments, &[]);
        assert_eq!(printed.code, Some(1), "{printed:?}");
        let sentence = "cannot open data/site.sqlite3: \
                        this user cannot read and write the file (the file system is read-only)";
        assert!(printed.err.contains(sentence), "{printed:?}");
        assert_eq!(tree(folder.path()), before);
    }
}

/// Runs the program where `data/` below `folder` is a real FUSE file system.
fn run_on_fuse(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Printed {
    fs::create_dir_all(folder.join("behind")).unwrap();
    fs::create_dir_all(folder.join("data")).unwrap();
    // It goes to the background once it is mounted, and ends with the namespace.
    let script = "bindfs --no-allow-other behind data";
    mounts::run(folder, script, arguments, variables)
}

#[test]
fn fuse_is_refused_in_production_and_warned_of_in_development() {
    if !slow("fuse_is_refused_in_production_and_warned_of_in_development") {
        return;
    }
    let bindfs = std::process::Command::new("bindfs")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    assert!(
        bindfs.is_ok_and(|status| status.success()),
        "bindfs is not installed"
    );
    let folder = folder();
    let production = ("HOUSEBOAT_ENV", "production");
    let setting = "HOUSEBOAT_DATABASE__NETWORK_FILESYSTEM";
    for variables in [&[production][..], &[(setting, "refuse")]] {
        let refused = run_on_fuse(folder.path(), &["migrate"], variables);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        for part in [
            "cannot open data/site.sqlite3: the folder ",
            "/data is on FUSE",
            "set database.network_filesystem to \"allow\"",
        ] {
            assert!(refused.err.contains(part), "{part}: {refused:?}");
        }
        assert_eq!(tree(&folder.path().join("behind")).len(), 0);
    }
    for variables in [&[][..], &[production, (setting, "allow")]] {
        let allowed = run_on_fuse(folder.path(), &["migrate"], variables);
        assert_eq!(allowed.code, Some(0), "{allowed:?}");
        assert!(allowed.err.contains("/data is on FUSE"), "{allowed:?}");
    }
    let checked = run_on_fuse(folder.path(), &["check"], &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(
        checked
            .out
            .starts_with("data/site.sqlite3: ok\n  warning: the folder "),
        "{checked:?}"
    );
}

#[test]
fn check_says_what_the_guards_found() {
    let folder = folder();
    run(folder.path(), &["migrate"], &[]);
    let check = |version: &str| {
        let programs = litestream(version);
        let path = format!("{}:/usr/bin:/bin", programs.path().display());
        run(folder.path(), &["check"], &[("PATH", &path)])
    };
    let old = check("v0.5.9");
    assert_eq!(old.code, Some(0), "{old:?}");
    assert!(
        old.out.contains(
            "\n  warning: memory-mapped reading is off: the litestream on the PATH is v0.5.9"
        ),
        "{old:?}"
    );
    assert!(old.err.contains("WARN"), "{old:?}");
    let new = check("v0.5.17");
    assert_eq!(new.out, "data/site.sqlite3: ok\n");
}
