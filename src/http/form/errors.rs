//! What is wrong with the fields of a form.

use crate::http::FieldError;

/// What is wrong with the fields of a form: sentences for people, each with its field, in the order of the fields.
///
/// ```
/// use houseboat::http::Errors;
///
/// let mut errors = Errors::default();
/// errors.add("name", "There is one of this name already.");
/// assert_eq!(errors.get("name"), Some("There is one of this name already."));
/// assert_eq!(errors.get("address"), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(Vec<(String, String)>);

impl Errors {
    /// Adds what is wrong with a field; the name is empty for what is wrong with the form as a whole.
    pub fn add(&mut self, field: impl Into<String>, text: impl Into<String>) {
        self.0.push((field.into(), text.into()));
    }

    /// What is wrong with a field, the first if there is more.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.iter()
            .find(|(name, _)| *name == field)
            .map(|(_, text)| text)
    }

    /// All that is wrong, each with its field.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(field, text)| (&**field, &**text))
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many things are wrong.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Puts them in the order of these fields; others come last, as they were.
    pub(super) fn sort(&mut self, order: &[&str]) {
        let place = |field: &str| order.iter().position(|name| *name == field);
        self.0
            .sort_by_key(|(field, _)| place(field).unwrap_or(order.len()));
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn into_list(self) -> Vec<FieldError> {
        let list = self.0.into_iter();
        list.map(|(field, detail)| FieldError { field, detail })
            .collect()
    }
}
