//! What `garde` finds wrong, said in sentences.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;

use garde::Validate;
use garde::i18n::I18n;
use garde::i18n::InvalidCreditCard;
use garde::i18n::InvalidEmail;
use garde::i18n::InvalidPhoneNumber;
use garde::i18n::InvalidUrl;
use garde::i18n::IpKind;
use garde::i18n::with_i18n;

use crate::http::form::Errors;
use crate::http::form::value::is_sentence;

type Text = Cow<'static, str>;

/// What is wrong with the fields of a value, by the first part of its path.
pub(super) fn wrong<T: Validate>(
    value: &T,
    context: &T::Context,
    lists: &BTreeSet<String>,
) -> Errors {
    let mut errors = Errors::default();
    for (path, text) in broken(value, context) {
        let field = path.split(['.', '[']).next().unwrap_or_default().to_owned();
        let is_whole = path.len() == field.len();
        let text = if is_whole && lists.contains(&field) {
            text.replace("characters", "of the list")
                .replace("Fill in this field", "Choose one at least")
        } else {
            text
        };
        errors.add(field, text);
    }
    errors
}

/// Each rule that is broken: where, and a sentence.
pub(super) fn broken<T: Validate>(value: &T, context: &T::Context) -> Vec<(String, String)> {
    let Err(report) = with_i18n(Sentences, || value.validate_with(context)) else {
        return Vec::new();
    };
    let broken = report.into_inner().into_iter();
    broken
        .map(|(path, error)| (path.to_string(), sentence(error.message())))
        .collect()
}

/// A text of the site's own, as a sentence if it is not one yet.
fn sentence(text: &str) -> String {
    if is_sentence(text) {
        return text.to_owned();
    }
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    let text = first.unwrap_or_default() + chars.as_str();
    if text.ends_with(['.', '!', '?']) {
        text
    } else {
        text + "."
    }
}

/// What to do, for each rule.
struct Sentences;

impl I18n for Sentences {
    fn length_lower_than(&self, min: usize) -> Text {
        match min {
            0 | 1 => "Fill in this field.".into(),
            min => format!("Enter at least {min} characters.").into(),
        }
    }

    fn length_greater_than(&self, max: usize) -> Text {
        format!("Enter at most {max} characters.").into()
    }

    fn range_lower_than(&self, min: &dyn Display) -> Text {
        format!("Enter {min} or more.").into()
    }

    fn range_greater_than(&self, max: &dyn Display) -> Text {
        format!("Enter {max} or less.").into()
    }

    fn credit_card_invalid(&self, _: InvalidCreditCard) -> Text {
        "Enter the number of a card.".into()
    }

    fn pattern_no_match(&self, _: &dyn Display) -> Text {
        "Enter it in the form that is asked for.".into()
    }

    fn contains_missing(&self, pattern: &dyn Display) -> Text {
        format!("It must have “{pattern}” in it.").into()
    }

    fn url_invalid(&self, _: InvalidUrl) -> Text {
        "Enter a whole address, such as “https://example.org/”.".into()
    }

    fn prefix_missing(&self, pattern: &dyn Display) -> Text {
        format!("It must begin with “{pattern}”.").into()
    }

    fn suffix_missing(&self, pattern: &dyn Display) -> Text {
        format!("It must end with “{pattern}”.").into()
    }

    fn phone_number_invalid(&self, _: InvalidPhoneNumber) -> Text {
        "Enter a telephone number, with + and the country first.".into()
    }

    fn ip_invalid(&self, kind: IpKind) -> Text {
        match kind {
            IpKind::Any => "Enter an IP address.",
            IpKind::V4 => "Enter an IPv4 address, such as 192.0.2.1.",
            IpKind::V6 => "Enter an IPv6 address, such as 2001:db8::1.",
        }
        .into()
    }

    fn matches_field_mismatch(&self, _: &dyn Display) -> Text {
        "The two entries differ.".into()
    }

    fn email_invalid(&self, _: InvalidEmail) -> Text {
        "Enter an e-mail address, such as “ann@example.org”.".into()
    }

    fn ascii_invalid(&self) -> Text {
        "Use letters without accents, digits and signs only.".into()
    }

    fn alphanumeric_invalid(&self) -> Text {
        "Use letters and digits only.".into()
    }

    fn required_not_set(&self) -> Text {
        "Fill in this field.".into()
    }
}
