//! How the `litestream` program is called: its settings, its environment, and nothing of ours that would mislead it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::database::litestream_is_fit;
use crate::database::notes_of_litestream;
use crate::database::real_path;
use crate::replication::Error;
use crate::replication::Result;
use crate::replication::Settings;

/// The settings of Litestream that are used where the operator has none of their own.
const CONFIG: &str = include_str!("../../config/litestream.yml");

/// How long `litestream version` may take; it takes milliseconds.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// The longest path of a socket, in bytes: the kernel takes 108, with a zero at the end.
const SOCKET_BYTES_MAX: usize = 100;

/// What a file of the operator's own must speak of, or two generations would be written to one place.
const NEEDED: [&str; 4] = [
    "HOUSEBOAT_LITESTREAM_DATABASE",
    "HOUSEBOAT_LITESTREAM_META",
    "HOUSEBOAT_LITESTREAM_FOLDER",
    "HOUSEBOAT_LITESTREAM_SOCKET",
];

/// What the environment of this process may hold and Litestream, or the AWS library in it, would take for its own.
///
/// `AWS_CA_BUNDLE` even keeps 0.5.17 from starting.
const MISLEADING: [&str; 40] = [
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULTS_MODE",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_RETRY_MODE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_S3_DISABLE_EXPRESS_SESSION_AUTH",
    "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS",
    "AWS_S3_USE_ARN_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "LITESTREAM_ACCESS_KEY_ID",
    "LITESTREAM_CONFIG",
    "LITESTREAM_S3_DEBUG",
    "LITESTREAM_S3_ENDPOINT",
    "LITESTREAM_SECRET_ACCESS_KEY",
];

/// The program with all that it is told, for one generation of one database.
#[derive(Clone)]
pub(super) struct Program {
    name: String,
    config: PathBuf,
    variables: Vec<(&'static str, String)>,
    secrets: [String; 2],
    /// The database, by its real and absolute name, which is the name that Litestream knows.
    pub(super) database: PathBuf,
    pub(super) socket: PathBuf,
    /// Where Litestream keeps its notes.
    pub(super) notes: PathBuf,
    /// The server's address, for people.
    pub(super) endpoint: String,
}

impl Program {
    /// Writes the built-in settings beside the database, unless they are there already.
    ///
    /// # Errors
    ///
    /// [`Error::Litestream`] when a path is one that Litestream cannot use, or a configuration of the operator's own
    /// lacks what it needs;
    /// [`Error::Io`] when it cannot be read or written.
    pub(super) fn new(settings: &Settings, database: &Path, generation: &str) -> Result<Self> {
        let database = real_path(database);
        let database = std::path::absolute(&database).unwrap_or(database);
        refuse_letters(&database)?;
        let config = match settings.litestream_config.as_str() {
            "" => built_in(&database)?,
            own => own_config(Path::new(own))?,
        };
        let socket = socket(&database);
        let notes = notes_of_litestream(&database);
        let region = match settings.region.as_str() {
            "" => "us-east-1",
            region => region,
        };
        let folder = folder(settings, generation);
        let hours = |hours: u32| format!("{hours}h");
        let sync = format!("{}ms", settings.sync_ms);
        let variables = [
            ("HOUSEBOAT_LITESTREAM_DATABASE", text(&database)?),
            ("HOUSEBOAT_LITESTREAM_META", text(&notes)?),
            ("HOUSEBOAT_LITESTREAM_FOLDER", &folder),
            ("HOUSEBOAT_LITESTREAM_SOCKET", text(&socket)?),
            ("HOUSEBOAT_LITESTREAM_BUCKET", &settings.bucket),
            ("HOUSEBOAT_LITESTREAM_ENDPOINT", &settings.endpoint),
            ("HOUSEBOAT_LITESTREAM_REGION", region),
            (
                "HOUSEBOAT_LITESTREAM_ACCESS_KEY_ID",
                settings.access_key_id.expose(),
            ),
            (
                "HOUSEBOAT_LITESTREAM_SECRET_ACCESS_KEY",
                settings.secret_access_key.expose(),
            ),
            ("HOUSEBOAT_LITESTREAM_SYNC_INTERVAL", &sync),
            (
                "HOUSEBOAT_LITESTREAM_SNAPSHOT_INTERVAL",
                &hours(settings.snapshot_hours),
            ),
            (
                "HOUSEBOAT_LITESTREAM_RETENTION",
                &hours(settings.keep_hours),
            ),
            ("HOUSEBOAT_LITESTREAM_METRICS", &settings.litestream_metrics),
        ];
        let variables = variables.map(|(name, value)| (name, escaped(value)));
        Ok(Self {
            name: settings.litestream.clone(),
            variables: variables.to_vec(),
            secrets: [&settings.access_key_id, &settings.secret_access_key]
                .map(|secret| secret.expose().to_owned()),
            endpoint: endpoint(settings),
            config,
            database,
            socket,
            notes,
        })
    }

    /// The program with a subcommand, its settings and its environment; killed when its handle is dropped.
    ///
    /// It is in a process group of its own: a Ctrl-C is for us, who stop it when the site has ended.
    pub(super) fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.name);
        command
            .arg(subcommand)
            .arg("-config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// What it printed, without our key, should it ever print that.
    pub(super) fn redacted(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
            line = line.replace(secret.as_str(), crate::settings::REDACTED);
        }
        line
    }

    /// Why the program could not be started.
    pub(super) fn not_started(&self, error: &std::io::Error) -> Error {
        not_started(&self.name, error)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Program");
        text.field("name", &self.name);
        text.field("database", &self.database);
        text.finish_non_exhaustive()
    }
}

/// Makes sure that the program is there, and that its SQLite is fit to write beside ours.
///
/// # Errors
///
/// [`Error::Litestream`] when it is missing, does not answer within 5 s, or is older than 0.5.17.
pub(super) async fn check(settings: &Settings) -> Result<()> {
    let name = &settings.litestream;
    let mut command = Command::new(name);
    command
        .arg("version")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for variable in MISLEADING {
        command.env_remove(variable);
    }
    let said = tokio::time::timeout(VERSION_WAIT, command.output()).await;
    let version = match said {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(Err(error)) => return Err(not_started(name, &error)),
        Err(_) => {
            return Err(Error::Litestream(format!(
                "{name} version does not answer within {VERSION_WAIT:?}"
            )));
        }
    };
    if litestream_is_fit(&version) {
        tracing::debug!(program = name, version, "litestream is fit");
        return Ok(());
    }
    Err(Error::Litestream(format!(
        "{name} is {version:?}, and must be 0.5.17 or later: an older one can damage the database"
    )))
}

/// The folder of a generation in the bucket.
pub(super) fn folder(settings: &Settings, generation: &str) -> String {
    format!("{}/generations/{generation}", settings.path)
}

fn not_started(name: &str, error: &std::io::Error) -> Error {
    Error::Litestream(format!(
        "cannot run {name} ({error}): install Litestream 0.5.17 or later, or set replication.litestream to its path"
    ))
}

fn endpoint(settings: &Settings) -> String {
    match settings.endpoint.as_str() {
        "" => "AWS".to_owned(),
        endpoint => endpoint.to_owned(),
    }
}

/// Writes the built-in settings; whoever reads them at this moment finds the old ones or the new ones.
fn built_in(database: &Path) -> Result<PathBuf> {
    let path = database.with_added_extension("litestream.yml");
    if std::fs::read(&path).is_ok_and(|there| there == CONFIG.as_bytes()) {
        return Ok(path);
    }
    let new = path.with_added_extension("new");
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&new, CONFIG))
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|error| {
            Error::Io(
                format!("cannot write Litestream's settings {}", path.display()),
                error,
            )
        })?;
    Ok(path)
}

fn own_config(path: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::Io(
            format!(
                "cannot read replication.litestream_config {}",
                path.display()
            ),
            error,
        )
    })?;
    let settings = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let settings: String = settings.collect();
    match NEEDED.iter().find(|name| !settings.contains(**name)) {
        None => Ok(path.to_owned()),
        Some(name) => Err(Error::Litestream(format!(
            "replication.litestream_config {} must use ${{{name}}}, as config/litestream.yml does: \
             without it two containers could write to one place",
            path.display()
        ))),
    }
}

/// A name that the kernel takes: beside the database if that is short enough, and else in the temporary folder.
fn socket(database: &Path) -> PathBuf {
    let beside = database.with_added_extension("litestream.sock");
    if beside.as_os_str().len() <= SOCKET_BYTES_MAX {
        return beside;
    }
    let mut hasher = DefaultHasher::new();
    database.as_os_str().as_bytes().hash(&mut hasher);
    let name = format!("houseboat-{:016x}.sock", hasher.finish());
    std::env::temp_dir().join(OsStr::new(&name))
}

/// Litestream makes a URI of the path as it is, and would hold its locks on another file than it copies.
fn refuse_letters(database: &Path) -> Result<()> {
    let text = text(database)?;
    match text.chars().find(|char| matches!(char, '#' | '%' | '?')) {
        None => Ok(()),
        Some(char) => Err(Error::Litestream(format!(
            "the path {text} has the letter {char}, with which Litestream would lose data: take another database.path"
        ))),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::Litestream(format!(
            "the path {} is not text (UTF-8), which its settings must be",
            path.display()
        ))
    })
}

/// What may stand in double quotes in YAML: Litestream puts the values into the text before it reads that.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '"' | '\\' => escaped.extend(['\\', char]),
            char if char.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\U{:08x}", u32::from(char));
            }
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(escaped("a/b c:$d#'e'"), "a/b c:$d#'e'");
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\U0000000a");
    }

    #[test]
    fn a_socket_is_beside_the_database_or_has_a_short_name() {
        let near = Path::new("/data/site.sqlite3");
        assert_eq!(
            socket(near),
            Path::new("/data/site.sqlite3.litestream.sock")
        );
        let far = Path::new("/").join("x".repeat(90)).join("site.sqlite3");
        assert!(socket(&far).as_os_str().len() < 108);
        assert_eq!(socket(&far), socket(&far));
        assert_ne!(socket(&far), socket(&far.with_extension("other")));
    }

    #[test]
    fn a_key_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            secret_access_key: "hidden".to_owned().into(),
            ..Settings::default()
        };
        let program = Program::new(&settings, &folder.path().join("db"), "g").unwrap();
        assert_eq!(
            program.redacted("the key hidden is bad"),
            "the key [redacted] is bad"
        );
        assert!(!format!("{program:?}").contains("hidden"));
    }

    #[test]
    fn a_file_of_ones_own_has_what_keeps_two_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.yml");
        let settings = Settings {
            litestream_config: path.display().to_string(),
            ..Settings::default()
        };
        let new = || Program::new(&settings, &folder.path().join("db"), "g");
        assert!(matches!(new(), Err(Error::Io(..))));
        std::fs::write(&path, CONFIG).unwrap();
        assert_eq!(new().unwrap().config, path);
        std::fs::write(
            &path,
            CONFIG.replace("path: \"${HOUSEBOAT_LITESTREAM_FOLDER}", "path: \"x"),
        )
        .unwrap();
        let error = new().unwrap_err().to_string();
        assert!(error.contains("${HOUSEBOAT_LITESTREAM_FOLDER}"), "{error}");
    }
}
