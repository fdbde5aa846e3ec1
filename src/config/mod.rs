//! The settings of all floors and of the site: loaded, checked, printable.
//!
//! They come in layers, each over the one before: `config/default.toml`, which is embedded and
//! documents every setting; `config/<environment>.toml`; the names that platforms give (`PORT`,
//! `AWS_ACCESS_KEY_ID`);
//! and `HOUSEBOAT_SECTION__KEY`. Whatever is wrong is reported all at once, with key, value and
//! source; nothing falls back in silence. This is the only place that reads the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use figment::error::Kind;
use figment::value::Dict;
use figment::value::Value;

use crate::auth;
use crate::cache;
use crate::config::error::reason;
use crate::config::layers::DEFAULT;
use crate::config::layers::ENVIRONMENT;
use crate::config::layers::Layers;
use crate::config::print::Printed;
use crate::config::schema::SITE;
use crate::config::schema::Schema;
use crate::database;
use crate::http;
use crate::logs;
use crate::queue;
use crate::replication;
use crate::settings;
use crate::settings::NoSettings;
use crate::settings::Problems;
use crate::settings::Section;

mod error;
mod layers;
mod platform;
mod print;
mod schema;

pub use error::Error;
pub use error::Problem;

/// Every setting; it displays as TOML, with secrets redacted and the source of each value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config<S = NoSettings> {
    /// The name of the environment: `development`, `production` or one of the site's own.
    pub environment: String,
    /// `[server]`
    pub server: http::Settings,
    /// `[database]`
    pub database: database::Settings,
    /// `[cache]`
    pub cache: cache::Settings,
    /// `[queue]`
    pub queue: queue::Settings,
    /// `[replication]`
    pub replication: replication::Settings,
    /// `[snapshots]`
    pub snapshots: replication::SnapshotSettings,
    /// `[handover]`
    pub handover: http::HandoverSettings,
    /// `[auth]`
    pub auth: auth::Settings,
    /// `[log]`
    pub log: logs::Settings,
    /// `[site]`
    pub site: S,
    printed: Vec<Printed>,
}

impl<S: Section> Config<S> {
    /// Loads the settings from the folder `config` and the environment of the process.
    ///
    /// # Errors
    ///
    /// As [`Config::load_from`].
    pub fn load() -> Result<Self, Error> {
        #[expect(clippy::disallowed_methods, reason = "settings enter the program here")]
        let variables = std::env::vars_os().map(|(name, value)| {
            let text = |it: std::ffi::OsString| it.to_string_lossy().into_owned();
            (text(name), text(value))
        });
        Self::load_from(Path::new("config"), variables)
    }

    /// Loads the settings from the files in `folder` and from `variables`, and nothing else.
    ///
    /// # Errors
    ///
    /// With every setting that is unknown, of the wrong type or out of its limits, every secret
    /// that stands in a file, and every file that cannot be read: all of them at once.
    ///
    /// # Panics
    ///
    /// When [`Section::DEFAULTS`] of `S` is not TOML or does not fit `S`. That does not depend
    /// on files or variables, so a test of the site that loads its settings is sure to show it.
    pub fn load_from(
        folder: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        let schema = Schema::of::<S>();
        let mut layers = Layers::new(&schema);
        let environment = environment(&variables);
        refuse_default_file(&mut layers, folder);
        add_environment_file(&mut layers, folder, environment);
        layers.add_variables(&variables);
        let is_coolify = variables
            .get(platform::COOLIFY)
            .is_some_and(|uuid| !uuid.is_empty());
        Loader::new(&schema, layers).config(environment, is_coolify)
    }
}

impl<S> fmt::Display for Config<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print::text(&self.environment, &self.printed))
    }
}

/// Where nothing is said, only who debugs a program develops it: what is open in development, such as errors with
/// their causes and cookies without TLS, is not open by an oversight.
const DEFAULT_ENVIRONMENT: &str = if cfg!(debug_assertions) {
    "development"
} else {
    "production"
};

fn environment(variables: &BTreeMap<String, String>) -> &str {
    match variables.get(ENVIRONMENT).map(String::as_str) {
        None | Some("") => DEFAULT_ENVIRONMENT,
        Some(name) => name,
    }
}

fn add_environment_file(layers: &mut Layers<'_>, folder: &Path, environment: &str) {
    let subject = format!("environment = \"{}\"", environment.escape_debug());
    let is_simple = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if environment == "default" || !environment.chars().all(is_simple) {
        let reason = "must be a simple name, such as \"production\" or \"staging-2\"";
        return layers.report(Problem::new(subject, reason).with_origin(ENVIRONMENT));
    }
    let path = folder.join(format!("{environment}.toml"));
    if !path.exists() && !["development", "production"].contains(&environment) {
        let path = path.display();
        let reason = format!("must be \"development\" or \"production\", or {path} must exist");
        return layers.report(Problem::new(subject, reason).with_origin(ENVIRONMENT));
    }
    layers.add_file(&path);
}

// The defaults are compiled in; whoever writes such a file would wonder why it does nothing.
fn refuse_default_file(layers: &mut Layers<'_>, folder: &Path) {
    let path = folder.join("default.toml");
    let is_other = std::fs::read_to_string(&path).is_ok_and(|text| text != settings::DEFAULTS);
    if is_other {
        let reason = "is not read: put settings into development.toml or production.toml beside it";
        layers.report(Problem::new(path.display().to_string(), reason));
    }
}

/// Turns layers into sections, and goes on when one has a problem, to find the others.
struct Loader<'a> {
    schema: &'a Schema,
    layers: Layers<'a>,
    sections: BTreeMap<&'static str, Value>,
    refused: Vec<(&'static str, String)>,
}

impl<'a> Loader<'a> {
    fn new(schema: &'a Schema, layers: Layers<'a>) -> Self {
        Self {
            schema,
            layers,
            sections: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    fn config<S: Section>(
        mut self,
        environment: &str,
        is_coolify: bool,
    ) -> Result<Config<S>, Error> {
        let mut config: Config<S> = Config {
            environment: environment.to_owned(),
            server: self.section("server"),
            database: self.section("database"),
            cache: self.section("cache"),
            queue: self.section("queue"),
            replication: self.section("replication"),
            snapshots: self.section("snapshots"),
            handover: self.section("handover"),
            auth: self.section("auth"),
            log: self.section("log"),
            site: self.section(SITE),
            printed: Vec::new(),
        };
        self.check_across(&config);
        let origin = |section: &str, key: &str| self.layers.origin(section, key);
        config.printed = print::list(self.schema, &self.sections, origin);
        // Only now: what is printed is what was set.
        config.site.decide(environment);
        config.server.decide(environment);
        config.database.decide(environment);
        config.handover.decide(is_coolify);
        config.auth.decide(environment, &config.server.url);
        let problems = self.layers.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::new(problems))
        }
    }

    fn section<T: Section>(&mut self, section: &'static str) -> T {
        let mut values = self.layers.section(section);
        let settings = loop {
            match T::deserialize(&Value::from(values.clone())) {
                Ok(settings) => break settings,
                Err(error) => self.repair(section, &mut values, &error),
            }
        };
        self.check(section, &settings);
        settings
    }

    /// Reports the value that was refused and puts the default in its place.
    fn repair(&mut self, section: &'static str, values: &mut Dict, error: &figment::Error) {
        let Some(key) = error.path.first() else {
            panic!("the defaults of [{section}] do not fit: {}", error.kind);
        };
        let is_default = self.layers.origin(section, key) == DEFAULT;
        let default = match self.schema.default(section, key) {
            Some(default) if !is_default && !self.is_refused(section, key) => default.clone(),
            _ => panic!(
                "the default of {section}.{key} does not fit: {}",
                error.kind
            ),
        };
        let is_telling = matches!(error.kind, Kind::Message(_));
        let reason = if is_telling && self.schema.is_secret(section, key) {
            "is not valid".to_owned()
        } else {
            reason(&error.kind)
        };
        self.refuse(section, key, &reason);
        values.insert(key.clone(), default);
    }

    fn check<T: Section>(&mut self, section: &'static str, settings: &T) {
        let printed = Value::serialize(settings).unwrap_or_else(|error| {
            panic!("the section [{section}] cannot be written: {}", error.kind)
        });
        for (key, value) in printed.as_dict().into_iter().flatten() {
            let is_redacted = value.as_str() == Some(settings::REDACTED);
            let is_secret = self.schema.is_secret(section, key);
            assert!(
                is_secret || !is_redacted,
                "{section}.{key} is a `Secret` that `Section::SECRETS` does not name"
            );
        }
        self.sections.insert(section, printed);
        let mut problems = Problems::default();
        settings.check(&mut problems);
        for (key, reason) in problems.into_found() {
            if !self.is_refused(section, key) {
                self.refuse(section, key, &reason);
            }
        }
    }

    /// Checks what no section can know alone.
    fn check_across<S>(&mut self, config: &Config<S>) {
        let is_refused = |key| self.is_refused("server", key) || self.is_refused("queue", key);
        if config.queue.stop_ms >= config.server.stop_ms && !is_refused("stop_ms") {
            let limit = config.server.stop_ms;
            let reason = format!("must be less than server.stop_ms, which is {limit}");
            self.refuse("queue", "stop_ms", &reason);
        }
        if config.cache.path == config.database.path {
            self.refuse("cache", "path", "must not be the file of database.path");
        }
    }

    fn is_refused(&self, section: &str, key: &str) -> bool {
        self.refused.iter().any(|(s, k)| *s == section && k == key)
    }

    fn refuse(&mut self, section: &'static str, key: &str, reason: &str) {
        let value = match self.layers.section(section).get(key) {
            Some(_) if self.schema.is_secret(section, key) => settings::REDACTED.to_owned(),
            Some(value) => print::toml(value),
            None => "?".to_owned(),
        };
        let subject = format!("{section}.{key} = {value}");
        let origin = self.layers.origin(section, key);
        self.layers
            .report(Problem::new(subject, reason).with_origin(origin));
        self.refused.push((section, key.to_owned()));
    }
}
