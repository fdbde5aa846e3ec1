//! Whether the SQLite of every process that writes is fit for it, and memory-mapped reading safe.
//!
//! SQLite 3.7.0 to 3.51.2 has a race when a WAL is reset while another connection checkpoints
//! (fixed in 3.51.3, and on the branches in 3.50.7 and 3.44.6: <https://sqlite.org/wal.html#walresetbug>).
//! With `mmap_size` it corrupted real sites. Litestream is a second process on the same file and brings its own
//! SQLite: the first release with the fix is 0.5.17.

use std::io::ErrorKind;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use rusqlite::Connection;

/// What the guide's sites use, and what `auto` means where it is safe: 128 MiB.
const MMAP_BYTES: u64 = 134_217_728;

/// How long `litestream version` may take; it takes milliseconds.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// The first Litestream whose SQLite has the fix.
const LITESTREAM_MIN: (u32, u32, u32) = (0, 5, 17);

/// Decides `mmap_size` from the setting (`None` is `auto`) and from what this machine has; with a warning, where
/// something that writes is too old.
///
/// # Errors
///
/// A sentence for people when a size was asked for that is not safe here.
pub(super) fn mmap_bytes(asked: Option<u64>) -> Result<(u64, Option<String>), String> {
    decide(
        asked,
        danger(rusqlite::version_number(), litestream_version().as_deref()),
    )
}

/// Says so where SQLite was built so that all connections of a process share one lock.
///
/// # Errors
///
/// As any statement.
pub(super) fn shared_lock(connection: &Connection) -> rusqlite::Result<Option<&'static str>> {
    let sql = "SELECT sqlite_compileoption_used('ENABLE_MEMORY_MANAGEMENT')";
    let is_shared: bool = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(is_shared.then_some(
        "this SQLite was built with ENABLE_MEMORY_MANAGEMENT: all connections share one lock, and reads are slower; \
         give the site Houseboat's .cargo/config.toml, which sets LIBSQLITE3_FLAGS",
    ))
}

fn decide(asked: Option<u64>, danger: Option<String>) -> Result<(u64, Option<String>), String> {
    match (asked, danger) {
        (None, None) => Ok((MMAP_BYTES, None)),
        (Some(bytes), None) => Ok((bytes, None)),
        (None | Some(0), Some(danger)) => {
            Ok((0, Some(format!("memory-mapped reading is off: {danger}"))))
        }
        (Some(bytes), Some(danger)) => Err(format!(
            "database.mmap_bytes = {bytes} would risk the file: {danger}; set it to \"auto\" or 0"
        )),
    }
}

/// Says why memory-mapped reading is unsafe, if it is.
fn danger(sqlite: i32, litestream: Option<&str>) -> Option<String> {
    if !has_fix(sqlite) {
        return Some(format!(
            "SQLite {} has the WAL-reset race (fixed in 3.51.3)",
            rusqlite::version()
        ));
    }
    let litestream = litestream?;
    (!litestream_is_fit(litestream)).then(|| {
        format!("the litestream on the PATH is {litestream}, whose SQLite has the WAL-reset race (fixed in 0.5.17)")
    })
}

/// Whether a Litestream that says this of its version has a SQLite with the fix.
pub(crate) fn litestream_is_fit(version: &str) -> bool {
    parse_version(version).is_some_and(|version| version >= LITESTREAM_MIN)
}

/// Whether a SQLite, by its version number such as 3051003, has the fix.
fn has_fix(version: i32) -> bool {
    version >= 3_051_003
        || (3_050_007..3_051_000).contains(&version)
        || (3_044_006..3_045_000).contains(&version)
}

/// What `litestream version` prints, or `None` where there is no such program.
///
/// One that does not say, or not in time, counts as one of an unknown version, which is as good as old.
fn litestream_version() -> Option<String> {
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut command = Command::new("litestream");
        let command = command
            .arg("version")
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        // Nobody listens any more after the wait below.
        let _ = sender.send(command.output());
    });
    match answer.recv_timeout(VERSION_WAIT) {
        // The second is a folder on the PATH that this user may not look into.
        Ok(Err(error))
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) =>
        {
            None
        }
        Ok(Ok(output)) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Ok(Err(_)) | Err(_) => Some("of an unknown version".to_owned()),
    }
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
    let mut next = || {
        let part = parts.next()?;
        let digits = part
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(part.len());
        part.get(..digits)?.parse().ok()
    };
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[tokio::test]
    async fn the_sqlite_of_this_build_has_no_lock_that_all_share() {
        let database = Database::open_temporary(&[]).await.unwrap();
        let found = database.read(|conn| Ok(shared_lock(conn)?)).await.unwrap();
        assert_eq!(found, None);
    }

    #[test]
    fn the_fix_is_known_on_the_main_line_and_on_the_branches() {
        for (version, fixed) in [
            (3_051_003, true),
            (3_053_002, true),
            (3_051_002, false),
            (3_050_007, true),
            (3_050_006, false),
            (3_048_000, false),
            (3_044_006, true),
            (3_045_000, false),
        ] {
            assert_eq!(has_fix(version), fixed, "{version}");
        }
    }

    #[test]
    fn auto_is_off_and_a_number_is_refused_beside_an_old_litestream() {
        let danger = || danger(3_053_002, Some("v0.5.9"));
        for asked in [None, Some(0)] {
            let (bytes, warning) = decide(asked, danger()).unwrap();
            assert_eq!(bytes, 0);
            assert!(
                warning.is_some_and(|warning| warning.contains("v0.5.9")),
                "{asked:?}"
            );
        }
        let refusal = decide(Some(4096), danger()).unwrap_err();
        assert!(refusal.contains("mmap_bytes = 4096"), "{refusal}");
        assert!(refusal.contains("v0.5.9"), "{refusal}");
    }

    #[test]
    fn auto_is_the_guides_size_where_everything_has_the_fix() {
        for litestream in [None, Some("v0.5.17"), Some("0.6.0")] {
            let decided = decide(None, danger(3_053_002, litestream));
            assert_eq!(decided, Ok((MMAP_BYTES, None)));
        }
    }

    #[test]
    fn an_unreadable_litestream_version_counts_as_old() {
        assert!(danger(3_053_002, Some("(development build)")).is_some());
        assert!(danger(3_053_002, Some("")).is_some());
    }
}
