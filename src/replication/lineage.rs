//! The note beside a database: which generations of the replica it was copied to, or came from.

use std::io::ErrorKind;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::database::files;
use crate::database::real_path;
use crate::replication::Error;
use crate::replication::Record;
use crate::replication::Result;

/// How this program writes it; a note of another format is not touched.
const FORMAT: u32 = 1;

/// There is no secret in it, and who restores need not be who serves.
const MODE: u32 = 0o644;

/// So many generations are remembered: only the last ones can still be in a record.
const GENERATIONS_MAX: usize = 50;

/// Which generations a database file was copied to, or came from.
///
/// It is beside the file, and so it is lost with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The version of this layout.
    format: u32,
    /// The names, the youngest last; at most 50.
    generations: Vec<String>,
    /// The highest epoch that a holder had who wrote here.
    epoch: u64,
}

impl Lineage {
    /// Reads the note beside `database`; none where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be read, or is of a newer program.
    pub fn read(database: &Path) -> Result<Option<Self>> {
        let path = path(database);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(failed(&path))?,
        };
        let note: Self = serde_json::from_slice(&bytes).map_err(|error| unknown(&path, error))?;
        if note.format == FORMAT {
            return Ok(Some(note));
        }
        let reason = format!(
            "format {}, of which this program knows {FORMAT}",
            note.format
        );
        Err(unknown(&path, reason))
    }

    /// Adds a generation to the note beside `database`, which then survives a power cut.
    ///
    /// It comes before what it tells of: a generation is noted before the record names it, and before a file that was
    /// restored from it is in its place. The caller holds the lock on the database.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the note cannot be read or written.
    pub fn add(database: &Path, generation: &str, epoch: u64) -> Result<()> {
        let mut note = Self::read(database)?.unwrap_or(Self {
            format: FORMAT,
            generations: Vec::new(),
            epoch: 0,
        });
        note.generations.retain(|known| known != generation);
        note.generations.push(generation.to_owned());
        let surplus = note.generations.len().saturating_sub(GENERATIONS_MAX);
        note.generations.drain(..surplus);
        note.epoch = note.epoch.max(epoch);
        note.write(&path(database))
    }

    /// The highest epoch that a holder had who wrote here.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The generations, the youngest last.
    #[must_use]
    pub fn generations(&self) -> &[String] {
        &self.generations
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| unknown(path, error))?;
        text.push(b'\n');
        let written = std::fs::create_dir_all(files::folder(path))
            .and_then(|()| files::write_whole(path, &text, MODE));
        written.map_err(failed(path))
    }
}

/// Whether the database with this note has all that the record's generation had, or is further on.
///
/// A record without a generation fits every database: there is nothing that could be lost.
#[must_use]
pub fn fits(record: &Record, note: Option<&Lineage>) -> bool {
    match (&record.generation, note) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(generation), Some(note)) => note.generations.contains(generation),
    }
}

fn path(database: &Path) -> PathBuf {
    real_path(database).with_added_extension("lineage")
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Io(format!("the note {}", path.display()), error)
}

fn unknown(path: &Path, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    failed(path)(std::io::Error::new(ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(generation: Option<&str>) -> Record {
        Record {
            generation: generation.map(str::to_owned),
            ..Record::new()
        }
    }

    #[test]
    fn the_note_keeps_the_last_fifty_and_the_highest_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("data/site.sqlite3");
        assert_eq!(Lineage::read(&database).unwrap(), None);
        for number in (1..=60).chain([58]) {
            Lineage::add(&database, &format!("g{number}"), number).unwrap();
        }
        let note = Lineage::read(&database).unwrap().unwrap();
        assert_eq!(note.generations().len(), 50);
        assert_eq!(note.generations().first().unwrap(), "g11");
        assert_eq!(note.generations().last().unwrap(), "g58");
        assert_eq!(note.epoch(), 60);
    }

    #[test]
    fn a_record_fits_the_databases_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("site.sqlite3");
        for generation in ["one", "two"] {
            Lineage::add(&database, generation, 1).unwrap();
        }
        let note = Lineage::read(&database).unwrap();
        let note = note.as_ref();
        assert!(fits(&record(Some("two")), note));
        assert!(fits(&record(Some("one")), note));
        assert!(!fits(&record(Some("three")), note));
        assert!(!fits(&record(Some("one")), None));
        assert!(fits(&record(None), note));
        assert!(fits(&record(None), None));
    }

    #[test]
    fn a_note_that_cannot_be_read_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("site.sqlite3");
        for text in ["{", "{\"format\":2,\"generations\":[],\"epoch\":0}"] {
            std::fs::write(path(&database), text).unwrap();
            let error = Lineage::add(&database, "one", 1).unwrap_err();
            assert!(matches!(error, Error::Io(..)), "{error}");
            assert_eq!(std::fs::read_to_string(path(&database)).unwrap(), text);
        }
    }
}
