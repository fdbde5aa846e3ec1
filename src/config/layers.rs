//! Where settings come from: the defaults, a file and the environment, one over the other.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use figment::Figment;
use figment::Metadata;
use figment::Profile;
use figment::Provider;
use figment::providers::Format;
use figment::providers::Toml;
use figment::value::Dict;
use figment::value::Map;
use figment::value::Value;

use crate::config::error::Problem;
use crate::config::platform;
use crate::config::platform::Setting;
use crate::config::print;
use crate::config::schema::Schema;
use crate::config::schema::nearest;

/// What every variable of ours begins with.
const PREFIX: &str = "HOUSEBOAT_";

/// The variable that chooses the environment; it is not a setting.
pub(super) const ENVIRONMENT: &str = "HOUSEBOAT_ENV";

/// The origin of a value that nobody set.
pub(super) const DEFAULT: &str = "default";

/// All layers so far, and what was wrong with them.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    schema: &'a Schema,
    figment: Figment,
    problems: Vec<Problem>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(schema: &'a Schema) -> Self {
        let defaults = Layer {
            origin: DEFAULT.to_owned(),
            values: schema.defaults().clone(),
        };
        Self {
            schema,
            figment: Figment::from(defaults),
            problems: Vec::new(),
        }
    }

    /// Puts the file over what is there.
    pub(super) fn add_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                return self.report(Problem::new(origin, format!("cannot be read: {error}")));
            }
        };
        match Toml::from_str::<Dict>(&text) {
            Ok(sections) => self.add_sections(&origin, sections),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let before = text.bytes().take(start);
                let line = 1 + before.filter(|byte| *byte == b'\n').count();
                let reason = format!("is not TOML: {}", error.message().replace('\n', ", "));
                self.report(Problem::new(format!("{origin}:{line}"), reason));
            }
        }
    }

    fn add_sections(&mut self, origin: &str, sections: Dict) {
        for (section, values) in sections {
            if !self.schema.has_section(&section) {
                let hint = nearest(&section, self.schema.sections().map(str::to_owned))
                    .map_or(String::new(), |name| format!("; did you mean [{name}]?"));
                let reason = format!("is not a section{hint}");
                self.report(Problem::new(format!("[{section}]"), reason).with_origin(origin));
            } else if let Value::Dict(_, values) = values {
                for (key, value) in values {
                    self.add_from_file(origin, &section, &key, value);
                }
            } else {
                let subject = format!("{section} = {}", print::toml(&values));
                let reason = format!("must be a section: [{section}]");
                self.report(Problem::new(subject, reason).with_origin(origin));
            }
        }
    }

    fn add_from_file(&mut self, origin: &str, section: &str, key: &str, value: Value) {
        let name = format!("{section}.{key}");
        let expected = self.schema.default_string(section, key);
        if self.schema.is_secret(section, key) {
            let variable = variable(section, key);
            let reason = format!("is a secret, which belongs in {variable} or {variable}_FILE");
            self.report(Problem::new(name, reason).with_origin(origin));
        } else if self.schema.default(section, key).is_none() {
            let candidates = self.schema.keys().map(|(s, k)| format!("{s}.{k}"));
            let reason = format!("is not a setting{}", did_you_mean(&name, candidates));
            self.report(Problem::new(name, reason).with_origin(origin));
        } else if let (Some(default), None) = (expected, value.as_str()) {
            let subject = format!("{name} = {}", print::toml(&value));
            let reason = format!("must be a string, such as \"{default}\"");
            self.report(Problem::new(subject, reason).with_origin(origin));
        } else {
            self.add(origin, section, key, value);
        }
    }

    /// Puts the variables over what is there; those that are empty or not ours are left alone.
    pub(super) fn add_variables(&mut self, variables: &BTreeMap<String, String>) {
        self.add_platform(variables);
        for (name, value) in variables {
            if !name.starts_with(PREFIX) || name == ENVIRONMENT || value.is_empty() {
                continue;
            }
            let schema = self.schema;
            let is_it = |setting: &(&str, &str)| variable(setting.0, setting.1) == *name;
            if let Some((section, key)) = schema.keys().find(is_it) {
                self.add_variable(name, section, key, value);
            } else if let Some((section, key, path)) = self.in_table(name) {
                let value = text_value(value);
                let nest = |value, part: &String| Value::from(Dict::from([(part.clone(), value)]));
                let value = path.iter().rev().fold(value, nest);
                self.add(name, section, key, value);
            } else if let Some((section, key)) = self.secret_of_file(name) {
                let twin = variable(section, key);
                let twin = set(variables, &twin).and(Some(twin.as_str()));
                self.add_secret_file(name, (section, key), value, twin);
            } else {
                let candidates = schema.keys().map(|(s, k)| variable(s, k));
                let reason = format!("is not a setting{}", did_you_mean(name, candidates));
                self.report(Problem::new(name, reason).with_origin("the environment"));
            }
        }
    }

    /// Puts the names that platforms give over what is there; what has a name of ours is left to that.
    fn add_platform(&mut self, variables: &BTreeMap<String, String>) {
        let is_ours = |setting: &Setting| {
            let name = variable(setting.section, setting.key);
            set(variables, &name)
                .or_else(|| set(variables, &format!("{name}_FILE")))
                .is_some()
        };
        let file = self.section(platform::BUCKET.section);
        let in_file = file.get(platform::BUCKET.key).and_then(Value::as_str);
        let has_bucket = in_file.is_some_and(|bucket| !bucket.is_empty())
            || is_ours(&platform::BUCKET)
            || platform::BUCKET
                .names
                .iter()
                .any(|name| set(variables, name).is_some());
        for setting in platform::SETTINGS {
            let is_moot = setting.section == platform::BUCKET.section && !has_bucket;
            if !is_moot && !is_ours(&setting) {
                self.add_first(&setting, variables);
            }
        }
    }

    /// Adds the first of the names that is set.
    fn add_first(&mut self, setting: &Setting, variables: &BTreeMap<String, String>) {
        let Setting {
            section,
            key,
            names,
        } = *setting;
        for name in names {
            let value = set(variables, name).and_then(|value| platform::read(name, key, value));
            if self.schema.is_secret(section, key) {
                let file = format!("{name}_FILE");
                if let Some(path) = set(variables, &file) {
                    let twin = value.is_some().then_some(*name);
                    return self.add_secret_file(&file, (section, key), path, twin);
                }
            }
            if let Some(value) = value {
                return self.add_variable(name, section, key, &value);
            }
        }
    }

    fn add_variable(&mut self, name: &str, section: &str, key: &str, text: &str) {
        // What stands for the bytes of a variable that are not UTF-8.
        if text.contains(char::REPLACEMENT_CHARACTER) {
            let subject = format!("{section}.{key}");
            return self.report(Problem::new(subject, "must be UTF-8").with_origin(name));
        }
        let is_string = self.schema.default_string(section, key).is_some();
        let value = if is_string || self.schema.is_secret(section, key) {
            Value::from(text)
        } else {
            text_value(text)
        };
        self.add(name, section, key, value);
    }

    /// The setting that is a table, and the path to what is in it, in small letters: `mail`, `workers`.
    fn in_table(&self, name: &str) -> Option<(&'a str, &'a str, Vec<String>)> {
        let is_table = |(s, k): &(&str, &str)| {
            let default = self.schema.default(s, k);
            default.is_some_and(|it| it.as_dict().is_some()) && !self.schema.is_secret(s, k)
        };
        self.schema.keys().filter(is_table).find_map(|(s, k)| {
            let path = name.strip_prefix(&variable(s, k))?.strip_prefix("__")?;
            let path: Vec<_> = path.split("__").map(str::to_ascii_lowercase).collect();
            let is_whole = path.iter().all(|part| !part.is_empty());
            is_whole.then_some((s, k, path))
        })
    }

    fn secret_of_file(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let secret = name.strip_suffix("_FILE")?;
        self.schema
            .keys()
            .find(|(s, k)| self.schema.is_secret(s, k) && variable(s, k) == secret)
    }

    /// Adds what is in the file at `path`, unless `twin` sets the same.
    fn add_secret_file(
        &mut self,
        name: &str,
        setting: (&str, &str),
        path: &str,
        twin: Option<&str>,
    ) {
        let (section, key) = setting;
        let subject = format!("{section}.{key}");
        if let Some(twin) = twin {
            let reason = format!("is set twice: by {twin} as well");
            return self.report(Problem::new(subject, reason).with_origin(name));
        }
        match fs::read_to_string(path) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                self.add(name, section, key, Value::from(text));
            }
            Err(error) => {
                let reason = format!("cannot be read from {path}: {error}");
                self.report(Problem::new(subject, reason).with_origin(name));
            }
        }
    }

    fn add(&mut self, origin: &str, section: &str, key: &str, value: Value) {
        let values = Dict::from([(key.to_owned(), value)]);
        let layer = Layer {
            origin: origin.to_owned(),
            values: Dict::from([(section.to_owned(), Value::from(values))]),
        };
        self.figment = std::mem::take(&mut self.figment).merge(layer);
    }

    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Returns the values of a section, one layer over the other.
    pub(super) fn section(&self, section: &str) -> Dict {
        match self.figment.find_value(section) {
            Ok(Value::Dict(_, values)) => values,
            _ => Dict::new(),
        }
    }

    /// Returns the file or the variable that a value came from; of a table, all of them.
    pub(super) fn origin(&self, section: &str, key: &str) -> String {
        let mut origins = Vec::new();
        if let Ok(value) = self.figment.find_value(&format!("{section}.{key}")) {
            self.add_origins(&value, &mut origins);
        }
        if origins.is_empty() {
            return DEFAULT.to_owned();
        }
        origins.join(" and ")
    }

    fn add_origins<'b>(&'b self, value: &Value, origins: &mut Vec<&'b str>) {
        if let Value::Dict(_, values) = value {
            return values
                .values()
                .for_each(|value| self.add_origins(value, origins));
        }
        let metadata = self.figment.get_metadata(value.tag());
        let origin = metadata.map_or(DEFAULT, |metadata| &metadata.name);
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}

/// Returns the value of a variable; an empty one counts as unset.
fn set<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    let value = variables.get(name).map(String::as_str);
    value.filter(|value| !value.is_empty())
}

/// What a variable says of a setting that is not a string: a number, a list, a table, a word.
fn text_value(text: &str) -> Value {
    text.parse().unwrap_or_else(|never| match never {})
}

/// Returns the variable that sets a setting.
fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{section}__{key}").to_ascii_uppercase()
}

fn did_you_mean(word: &str, candidates: impl Iterator<Item = String>) -> String {
    nearest(word, candidates).map_or(String::new(), |name| format!("; did you mean {name}?"))
}

/// Values with one origin.
struct Layer {
    origin: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
