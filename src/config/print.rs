//! Settings as text.

use std::collections::BTreeMap;
use std::fmt::Write;

use figment::value::Value;

use crate::config::schema::Schema;

/// What there is to print about one setting.
#[derive(Clone, Debug)]
pub(super) struct Printed {
    section: String,
    key: String,
    value: String,
    origin: String,
}

/// Lists the settings of `sections` in the order in which they are documented.
pub(super) fn list(
    schema: &Schema,
    sections: &BTreeMap<&str, Value>,
    origin: impl Fn(&str, &str) -> String,
) -> Vec<Printed> {
    let printed = |(section, key): (&str, &str)| {
        let value = sections.get(section)?.find_ref(key)?;
        Some(Printed {
            section: section.to_owned(),
            key: key.to_owned(),
            value: toml(value),
            origin: origin(section, key),
        })
    };
    schema.keys().filter_map(printed).collect()
}

/// Writes the settings as a TOML file whose comments say where each value came from.
pub(super) fn text(environment: &str, settings: &[Printed]) -> String {
    let mut text = format!("# environment: {environment}\n");
    let mut section = "";
    for setting in settings {
        if setting.section != section {
            section = &setting.section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let Printed {
            key, value, origin, ..
        } = setting;
        let _ = writeln!(text, "{key} = {value}  # {origin}");
    }
    text
}

/// Writes a value as TOML has it, on one line.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::String(_, string) => quoted(string),
        Value::Char(_, char) => quoted(&char.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(..) => number(value),
        Value::Empty(..) => quoted(""),
        Value::Array(_, values) => {
            let values: Vec<String> = values.iter().map(toml).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Dict(_, values) => {
            let pair = |(key, value): (&String, &Value)| format!("{key} = {}", toml(value));
            let values: Vec<String> = values.iter().map(pair).collect();
            format!("{{ {} }}", values.join(", "))
        }
    }
}

// A JSON string is a TOML string: the same quotes, the same escapes.
fn quoted(string: &str) -> String {
    serde_json::to_string(string).expect("a string is always JSON")
}

fn number(value: &Value) -> String {
    let whole = value.to_i128().map(|it| it.to_string());
    let big = || value.to_u128().map(|it| it.to_string());
    let real = || value.to_f64().map(|it| it.to_string());
    whole.or_else(big).or_else(real).unwrap_or_default()
}
