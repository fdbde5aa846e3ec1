//! What was entered into a form, to be shown again.

use serde::Serialize;
use serde_json::Value;

/// The fields of a form as they were entered, but for passwords; or what they are to begin with.
///
/// ```
/// use houseboat::http::Input;
///
/// #[derive(serde::Serialize)]
/// struct Monitor { name: &'static str, days: Vec<u8>, paused: bool, note: Option<String> }
///
/// let input = Input::of(&Monitor { name: "Shop", days: vec![1, 5], paused: true, note: None });
/// assert_eq!(input.get("name"), "Shop");
/// assert_eq!(input.get("note"), "");
/// assert!(input.has("days", "5") && input.is_checked("paused"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input(Vec<(String, String)>);

impl Input {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// The fields of a struct, for the page on which it is edited: texts, numbers, `true` as a checked box, lists.
    ///
    /// Fields with fields of their own are left out, as is what is no struct.
    #[must_use]
    pub fn of(fields: &impl Serialize) -> Self {
        let mut pairs = Vec::new();
        if let Ok(Value::Object(fields)) = serde_json::to_value(fields) {
            for (name, value) in fields {
                match value {
                    Value::Array(values) => {
                        let texts = values.iter().filter_map(text);
                        pairs.extend(texts.map(|text| (name.clone(), text)));
                    }
                    value => pairs.extend(text(&value).map(|text| (name, text))),
                }
            }
        }
        Self(pairs)
    }

    /// What a field has; empty where it is missing, and the first where it came more than once.
    #[must_use]
    pub fn get(&self, field: &str) -> &str {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(name, _)| name == field);
        found.map_or("", |(_, value)| value)
    }

    /// All that a field has that came more than once.
    pub fn all<'a>(&'a self, field: &'a str) -> impl Iterator<Item = &'a str> {
        let of_field = self.0.iter().filter(move |(name, _)| name == field);
        of_field.map(|(_, value)| value.as_str())
    }

    /// Whether one of the boxes of a field, or its option, is chosen.
    #[must_use]
    pub fn has(&self, field: &str, value: &str) -> bool {
        self.all(field).any(|chosen| chosen == value)
    }

    /// Whether a single box is checked.
    #[must_use]
    pub fn is_checked(&self, field: &str) -> bool {
        super::value::flag(self.get(field)) == Some(true)
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("true".to_owned()),
        Value::Bool(false) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
