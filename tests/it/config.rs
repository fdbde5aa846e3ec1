//! Settings: where they come from, and what a mistake in them looks like.

use std::fs;
use std::path::Path;

use houseboat::config::Config;
use houseboat::database::NetworkFilesystem;
use houseboat::settings::Auto;
use houseboat::settings::NoSettings;
use houseboat::settings::Problems;
use houseboat::settings::Secret;
use houseboat::settings::Section;
use serde::Deserialize;
use serde::Serialize;
use tempfile::TempDir;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteSettings {
    name: String,
    tags: Vec<String>,
    keep_days: u32,
    webhook: Secret,
}

impl Section for SiteSettings {
    const DEFAULTS: &'static str = r#"
        # What the page is called.
        name = "Status"
        # Words for the footer.
        tags = ["a", "b"]
        # How long history is kept, in days; 1 to 365.
        keep_days = 90
        # Where alerts go.
        webhook = ""
    "#;
    const SECRETS: &'static [&'static str] = &["webhook"];

    fn check(&self, problems: &mut Problems) {
        problems.range("keep_days", self.keep_days, 1..=365);
        if !self.webhook.is_empty() && !self.webhook.expose().starts_with("https://") {
            problems.add("webhook", "must begin with https://");
        }
    }
}

/// A folder of files, as a site has it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    pub(crate) fn load(
        &self,
        variables: &[(&str, &str)],
    ) -> Result<Config<SiteSettings>, Vec<String>> {
        load_from(self.0.path(), variables)
    }

    /// The problems, with the names of files as seen from the folder.
    fn problems(&self, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let problems = self.load(variables).unwrap_err();
        let short = |line: String| line.replace(&folder, "");
        problems.into_iter().map(short).collect()
    }
}

fn load_from<S: Section>(
    folder: &Path,
    variables: &[(&str, &str)],
) -> Result<Config<S>, Vec<String>> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Config::load_from(folder, variables.iter().map(owned))
        .map_err(|error| error.to_string().lines().map(str::to_owned).collect())
}

fn load(variables: &[(&str, &str)]) -> Result<Config<SiteSettings>, Vec<String>> {
    Folder::new(&[]).load(variables)
}

pub(crate) fn problems(variables: &[(&str, &str)]) -> Vec<String> {
    Folder::new(&[]).problems(variables)
}

#[test]
fn nothing_needs_to_be_configured() {
    let config: Config<NoSettings> = load_from(Path::new("no such folder"), &[]).unwrap();
    assert_eq!(config.environment, "development");
    let decided = houseboat::http::Settings {
        is_development: true,
        ..houseboat::http::Settings::default()
    };
    assert_eq!(config.server, decided);
    let decided = houseboat::database::Settings {
        network_filesystem: NetworkFilesystem::Allow,
        ..houseboat::database::Settings::default()
    };
    assert_eq!(config.database, decided);
    assert_eq!(config.cache, houseboat::cache::Settings::default());
    assert_eq!(config.queue, houseboat::queue::Settings::default());
    assert_eq!(config.log, houseboat::logs::Settings::default());
    assert_eq!(config.server.port, 8000);
    assert_eq!(config.database.path, Path::new("data/site.sqlite3"));
    assert!((4..=16).contains(&config.database.reader_count()));
}

#[test]
fn each_layer_covers_the_one_before() {
    let folder = Folder::new(&[(
        "production.toml",
        "[server]\nhost = \"0.0.0.0\"\nport = 81\nstop_ms = 9000\n[site]\nkeep_days = 7",
    )]);
    let variables = [
        ("HOUSEBOAT_ENV", "production"),
        ("PORT", "82"),
        ("HOUSEBOAT_SITE__KEEP_DAYS", "8"),
    ];
    let config = folder.load(&variables).unwrap();
    assert_eq!(config.server.body_bytes_max, 1_048_576);
    assert_eq!(config.server.stop_ms, 9000);
    assert_eq!(config.server.port, 82);
    assert_eq!(config.site.keep_days, 8);
    let nearer = [&variables[..], &[("HOUSEBOAT_SERVER__PORT", "83")]].concat();
    assert_eq!(folder.load(&nearer).unwrap().server.port, 83);
}

#[test]
fn port_overrides_the_file() {
    let folder = Folder::new(&[("development.toml", "[server]\nport = 81")]);
    assert_eq!(folder.load(&[]).unwrap().server.port, 81);
    assert_eq!(folder.load(&[("PORT", "0")]).unwrap().server.port, 0);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let variables = [
        ("PORT", ""),
        ("HOUSEBOAT_ENV", ""),
        ("HOUSEBOAT_DATABASE__PATH", ""),
        ("HOUSEBOAT_SITE__WEBHOOK_FILE", ""),
        ("HOUSEBOAT_NO_SUCH_THING", ""),
    ];
    let config = load(&variables).unwrap();
    assert_eq!(config.server.port, 8000);
    assert_eq!(config.environment, "development");
    assert_eq!(config.database.path, Path::new("data/site.sqlite3"));
}

#[test]
fn auto_may_be_a_number() {
    let config = load(&[
        ("HOUSEBOAT_DATABASE__READERS", "3"),
        ("HOUSEBOAT_DATABASE__MMAP_BYTES", "auto"),
    ])
    .unwrap();
    assert_eq!(config.database.reader_count(), 3);
    assert_eq!(config.database.mmap_bytes, Auto::Auto);
    assert_eq!(
        problems(&[("HOUSEBOAT_DATABASE__READERS", "many")]),
        [
            "database.readers = \"many\" (from HOUSEBOAT_DATABASE__READERS) must be \"auto\" or a whole number"
        ]
    );
}

#[test]
fn a_string_that_looks_like_a_number_stays_a_string() {
    let config = load(&[("HOUSEBOAT_SITE__NAME", "0042")]).unwrap();
    assert_eq!(config.site.name, "0042");
    let secret = load(&[("HOUSEBOAT_SITE__WEBHOOK", "https://x/\"[1e5")]).unwrap();
    assert_eq!(secret.site.webhook.expose(), "https://x/\"[1e5");
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_problem() {
    // What `Config::load` makes of such bytes.
    assert_eq!(
        problems(&[("HOUSEBOAT_SITE__NAME", "caf\u{fffd}")]),
        ["site.name (from HOUSEBOAT_SITE__NAME) must be UTF-8"]
    );
}

#[test]
fn a_list_comes_from_a_variable_too() {
    let config = load(&[("HOUSEBOAT_SITE__TAGS", "[x, \"y z\"]")]).unwrap();
    assert_eq!(config.site.tags, ["x", "y z"]);
}

#[test]
fn every_problem_is_reported_at_once() {
    let folder = Folder::new(&[(
        "production.toml",
        "mode = 1\n[server]\nprot = 80\nhost = 7\n[databse]\npath = \"x\"\n\
         [database]\nsynchronous = \"off\"\nreaders = 0\n[log]\nlevel = \"inof\"",
    )]);
    let problems = folder.problems(&[
        ("HOUSEBOAT_ENV", "production"),
        ("PORT", "70000"),
        ("HOUSEBOAT_QUEUE__WORKERS", "many"),
        ("HOUSEBOAT_QUEUE__POLL_MS", "1.5"),
        ("HOUSEBOAT_CACHE__BYTES_MAX", "1000"),
        ("HOUSEBOAT_DATABASE__MIGRATE_AT_START", "yes"),
        ("HOUSEBOAT_SITE__KEEP_DAYS", "0"),
    ]);
    let expected = [
        "[databse] (from production.toml) is not a section; did you mean [database]?",
        "[mode] (from production.toml) is not a section",
        "server.host = 7 (from production.toml) must be a string, such as \"127.0.0.1\"",
        "server.prot (from production.toml) is not a setting; did you mean server.port?",
        "server.port = 70000 (from PORT) must be a whole number from 0 to 65535",
        "database.migrate_at_start = \"yes\" (from HOUSEBOAT_DATABASE__MIGRATE_AT_START) must be true or false",
        "database.synchronous = \"off\" (from production.toml) must be \"normal\" or \"full\"",
        "database.readers = 0 (from production.toml) must be from 1 to 64",
        "cache.bytes_max = 1000 (from HOUSEBOAT_CACHE__BYTES_MAX) must be from 1048576 to 1099511627776",
        "cache.value_bytes_max = 1048576 (from default) must be at most an eighth of cache.bytes_max, which makes 125",
        "queue.poll_ms = 1.5 (from HOUSEBOAT_QUEUE__POLL_MS) must be a whole number, 0 or more",
        "queue.workers = \"many\" (from HOUSEBOAT_QUEUE__WORKERS) must be a whole number, 0 or more",
        "log.level = \"inof\" (from production.toml) must be error, warn, info, debug, trace or off, or name a module with its level, such as inof=debug",
        "site.keep_days = 0 (from HOUSEBOAT_SITE__KEEP_DAYS) must be from 1 to 365",
    ];
    assert_eq!(problems, expected, "{problems:#?}");
}

#[test]
fn an_unknown_variable_is_named() {
    assert_eq!(
        problems(&[
            ("HOUSEBOAT_DATABASE__BUSY_TIMEOUT", "x"),
            ("HOUSEBOAT_SERVER_PORT", "1"),
            ("HOUSEBOAT_SITE__WEBHOK", "https://hunter2"),
            ("UNRELATED", "1"),
        ]),
        [
            "HOUSEBOAT_DATABASE__BUSY_TIMEOUT (from the environment) is not a setting; did you mean HOUSEBOAT_DATABASE__BUSY_TIMEOUT_MS?",
            "HOUSEBOAT_SERVER_PORT (from the environment) is not a setting; did you mean HOUSEBOAT_SERVER__PORT?",
            "HOUSEBOAT_SITE__WEBHOK (from the environment) is not a setting; did you mean HOUSEBOAT_SITE__WEBHOOK?",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_line() {
    let folder = Folder::new(&[("development.toml", "[server]\n\nport = = 1\n")]);
    let problems = folder.problems(&[("PORT", "x")]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("development.toml:3 is not TOML: "));
    assert!(problems[1].starts_with("server.port = \"x\" (from PORT) must be"));
}

#[test]
fn an_environment_without_a_file_is_a_problem_unless_it_is_well_known() {
    load(&[("HOUSEBOAT_ENV", "production")]).unwrap();
    assert_eq!(
        problems(&[("HOUSEBOAT_ENV", "stagign")]),
        [
            "environment = \"stagign\" (from HOUSEBOAT_ENV) must be \"development\" or \"production\", or stagign.toml must exist"
        ]
    );
    let folder = Folder::new(&[("staging.toml", "[server]\nport = 9")]);
    let staging = folder.load(&[("HOUSEBOAT_ENV", "staging")]).unwrap();
    assert_eq!(
        (staging.environment.as_str(), staging.server.port),
        ("staging", 9)
    );
    for name in ["../staging", "default", "Staging"] {
        let problems = folder.problems(&[("HOUSEBOAT_ENV", name)]);
        assert!(
            problems[0].contains("must be a simple name"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_secret_is_never_printed() {
    let config = load(&[("HOUSEBOAT_SITE__WEBHOOK", "https://hunter2")]).unwrap();
    assert_eq!(config.site.webhook.expose(), "https://hunter2");
    assert!(!format!("{config:?}").contains("hunter2"));
    let printed = config.to_string();
    assert!(!printed.contains("hunter2"));
    assert!(printed.contains("webhook = \"[redacted]\"  # HOUSEBOAT_SITE__WEBHOOK"));
    assert_eq!(
        problems(&[("HOUSEBOAT_SITE__WEBHOOK", "hunter2")]),
        ["site.webhook = [redacted] (from HOUSEBOAT_SITE__WEBHOOK) must begin with https://"]
    );
}

#[test]
fn a_secret_in_a_file_is_refused() {
    let folder = Folder::new(&[("development.toml", "[site]\nwebhook = \"https://hunter2\"")]);
    assert_eq!(
        folder.problems(&[]),
        [
            "site.webhook (from development.toml) is a secret, which belongs in HOUSEBOAT_SITE__WEBHOOK or HOUSEBOAT_SITE__WEBHOOK_FILE"
        ]
    );
}

#[test]
fn a_secret_may_be_in_a_file_that_a_variable_names() {
    let folder = Folder::new(&[("secret", "https://hunter2\n")]);
    let path = folder.0.path().join("secret").display().to_string();
    let file = ("HOUSEBOAT_SITE__WEBHOOK_FILE", path.as_str());
    let config = folder.load(&[file]).unwrap();
    assert_eq!(config.site.webhook.expose(), "https://hunter2");
    assert_eq!(
        folder.problems(&[file, ("HOUSEBOAT_SITE__WEBHOOK", "https://x")]),
        [
            "site.webhook (from HOUSEBOAT_SITE__WEBHOOK_FILE) is set twice: by HOUSEBOAT_SITE__WEBHOOK as well"
        ]
    );
    let missing = folder.problems(&[("HOUSEBOAT_SITE__WEBHOOK_FILE", "no such file")]);
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].contains("cannot be read from no such file"),
        "{missing:?}"
    );
    // Only a secret may come from a file.
    let other = folder.problems(&[("HOUSEBOAT_SITE__NAME_FILE", path.as_str())]);
    assert!(other[0].contains("is not a setting"), "{other:?}");
}

#[derive(Debug, Serialize, Deserialize)]
struct Careless {
    token: Secret,
}

impl Section for Careless {
    const DEFAULTS: &'static str = "token = \"\"";
}

#[test]
#[should_panic(expected = "site.token is a `Secret` that `Section::SECRETS` does not name")]
fn a_secret_that_the_site_forgot_to_name_stops_the_program() {
    let _ = load_from::<Careless>(Path::new("none"), &[("HOUSEBOAT_SITE__TOKEN", "hunter2")]);
}

#[derive(Debug, Serialize, Deserialize)]
struct Incomplete {
    name: String,
}

impl Section for Incomplete {}

#[test]
#[should_panic(expected = "the defaults of [site] do not fit: missing field `name`")]
fn a_site_setting_without_a_default_stops_the_program() {
    let _ = load_from::<Incomplete>(Path::new("none"), &[]);
}

#[test]
fn jobs_must_stop_before_the_server_does() {
    assert_eq!(
        problems(&[("HOUSEBOAT_SERVER__STOP_MS", "8000")]),
        ["queue.stop_ms = 8000 (from default) must be less than server.stop_ms, which is 8000"]
    );
    load(&[("HOUSEBOAT_SERVER__STOP_MS", "8001")]).unwrap();
}

#[test]
fn cache_and_database_are_two_files() {
    assert_eq!(
        problems(&[("HOUSEBOAT_CACHE__PATH", "data/site.sqlite3")]),
        [
            "cache.path = \"data/site.sqlite3\" (from HOUSEBOAT_CACHE__PATH) must not be the file of database.path"
        ]
    );
    let memory = problems(&[("HOUSEBOAT_DATABASE__PATH", ":memory:")]);
    assert!(
        memory[0].contains("must be the path of a file"),
        "{memory:?}"
    );
}

#[test]
fn a_host_is_an_address_or_a_name() {
    for host in ["::1", "0.0.0.0", "localhost", "status.example"] {
        load(&[("HOUSEBOAT_SERVER__HOST", host)]).unwrap();
    }
    for host in ["http://localhost", "localhost:80", "local host"] {
        assert_eq!(
            problems(&[("HOUSEBOAT_SERVER__HOST", host)]).len(),
            1,
            "{host}"
        );
    }
}

#[test]
fn the_printed_settings_say_where_each_value_comes_from() {
    let folder = Folder::new(&[("development.toml", "[log]\nlevel = \"warn\"")]);
    let config = folder.load(&[("PORT", "81")]).unwrap();
    let printed = config.to_string();
    let expected_start = "\
# environment: development

[server]
host = \"127.0.0.1\"  # default
port = 81  # PORT
url = \"\"  # default
request_timeout_ms = 30000  # default
";
    assert!(printed.starts_with(expected_start), "{printed}");
    let file = folder.0.path().join("development.toml");
    let level = format!("\n[log]\nlevel = \"warn\"  # {}\n", file.display());
    assert!(printed.contains(&level), "{printed}");
    let site = "\
[site]
name = \"Status\"  # default
tags = [\"a\", \"b\"]  # default
keep_days = 90  # default
webhook = \"\"  # default
";
    assert!(printed.ends_with(site), "{printed}");
}

#[test]
fn the_printed_settings_can_be_loaded_again() {
    let first = load(&[("HOUSEBOAT_DATABASE__SYNCHRONOUS", "full")]).unwrap();
    // A secret does not belong in a file, not even an empty one.
    let secrets = ["webhook", "access_key_id", "secret_access_key"];
    let printed: Vec<String> = first
        .to_string()
        .lines()
        .filter(|line| !secrets.iter().any(|key| line.starts_with(key)))
        .map(str::to_owned)
        .collect();
    let printed = printed.join("\n");
    let again = Folder::new(&[("development.toml", &printed)])
        .load(&[])
        .unwrap();
    assert_eq!(again.database, first.database);
    assert_eq!(again.server, first.server);
}

#[test]
fn every_setting_is_printed() {
    let config: Config<NoSettings> = load_from(Path::new("none"), &[]).unwrap();
    let is_setting = |line: &&str| line.contains('=') && !line.starts_with('#');
    let documented = include_str!("../../config/default.toml");
    let keys = |text: &str| -> Vec<String> {
        let key = |line: &str| line.split('=').next().unwrap().trim().to_owned();
        text.lines().filter(is_setting).map(key).collect()
    };
    assert_eq!(keys(&config.to_string()), keys(documented));
}
