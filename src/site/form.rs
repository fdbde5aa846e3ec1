//! The form of a monitor: what people enter, and what it must be.

use std::ops::RangeInclusive;
use std::time::Duration;

use garde::Validate;
use houseboat::http::Errors;
use reqwest::Url;
use serde::Deserialize;

use crate::site::probe::Method;
use crate::site::probe::Target;

const NAME_CHARS_MAX: usize = 100;
const ADDRESS_CHARS_MAX: usize = 2000;
const BODY_TEXT_CHARS_MAX: usize = 1000;
const STATUS: RangeInclusive<u16> = 100..=599;
/// From half a minute to a day.
const INTERVAL_S: RangeInclusive<u64> = 30..=86_400;
const TIMEOUT_S: RangeInclusive<u64> = 1..=60;
const FAILURES_MAX: RangeInclusive<u32> = 1..=10;

/// The fields as they were entered; `default` has those of a new monitor.
///
/// The numbers are texts here: what is said of one that cannot be read is the same as of one that is out of range.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Validate)]
#[garde(allow_unvalidated)]
#[serde(default)]
pub(crate) struct MonitorForm {
    /// What the monitor is called.
    pub(crate) name: String,
    /// The address to check.
    pub(crate) address: String,
    /// The method to check it with.
    pub(crate) method: String,
    /// The status that counts as up.
    pub(crate) expected_status: String,
    /// The text that must be in the body, or nothing.
    pub(crate) body_text: String,
    /// Seconds between two checks.
    pub(crate) interval_s: String,
    /// Seconds that a check may take.
    pub(crate) timeout_s: String,
    /// How many failures in a row make an incident.
    pub(crate) failures_max: String,
}

impl Default for MonitorForm {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: String::new(),
            method: Method::Get.as_str().to_owned(),
            expected_status: "200".to_owned(),
            body_text: String::new(),
            interval_s: "60".to_owned(),
            timeout_s: "10".to_owned(),
            failures_max: "2".to_owned(),
        }
    }
}

/// A monitor's settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MonitorInput {
    /// What the monitor is called: 1 to 100 characters.
    pub(crate) name: String,
    /// What is checked, and how.
    pub(crate) target: Target,
    /// The time between two checks; longer than the target's timeout.
    pub(crate) interval: Duration,
    /// How many failures in a row make an incident: 1 to 10.
    pub(crate) failures_max: u32,
}

impl MonitorForm {
    /// Fills the form with a monitor's settings.
    pub(crate) fn from_input(input: &MonitorInput) -> Self {
        let target = &input.target;
        Self {
            name: input.name.clone(),
            address: target.address.clone(),
            method: target.method.as_str().to_owned(),
            expected_status: target.expected_status.to_string(),
            body_text: target.body_text.clone().unwrap_or_default(),
            interval_s: input.interval.as_secs().to_string(),
            timeout_s: target.timeout.as_secs().to_string(),
            failures_max: input.failures_max.to_string(),
        }
    }

    /// Turns what was entered into settings.
    ///
    /// # Errors
    ///
    /// Returns a message for every field that is not as it must be.
    pub(crate) fn check(&self) -> Result<MonitorInput, Errors> {
        let mut errors = Errors::default();
        let name = take(&mut errors, "name", name(&self.name));
        let address = take(&mut errors, "address", address(&self.address));
        let method = take(&mut errors, "method", method(&self.method));
        let expected_status = take(
            &mut errors,
            "expected_status",
            status(&self.expected_status),
        );
        let body_text = take(&mut errors, "body_text", body_text(&self.body_text, method));
        let interval = take(
            &mut errors,
            "interval_s",
            seconds(&self.interval_s, INTERVAL_S),
        );
        let timeout = take(&mut errors, "timeout_s", timeout(&self.timeout_s, interval));
        let failures_max = take(
            &mut errors,
            "failures_max",
            failures_max(&self.failures_max),
        );
        let input = || {
            let (method, address) = (method?, address?);
            let (expected_status, body_text) = (expected_status?, body_text?);
            let target = Target {
                method,
                address,
                expected_status,
                body_text,
                timeout: timeout?,
            };
            let (interval, failures_max) = (interval?, failures_max?);
            Some(MonitorInput {
                name: name?,
                target,
                interval,
                failures_max,
            })
        };
        input().ok_or(errors)
    }
}

fn take<T>(errors: &mut Errors, field: &str, result: Result<T, String>) -> Option<T> {
    result.map_err(|message| errors.add(field, message)).ok()
}

fn name(entered: &str) -> Result<String, String> {
    let name = entered.trim();
    if name.is_empty() {
        Err("Enter a name, such as “Shop”.".to_owned())
    } else if name.chars().any(char::is_control) {
        Err("Use letters, digits and signs only, on one line.".to_owned())
    } else {
        within(name, NAME_CHARS_MAX)
    }
}

fn within(text: &str, chars_max: usize) -> Result<String, String> {
    match text.chars().count() {
        count if count > chars_max => Err(format!(
            "Use at most {chars_max} characters; these are {count}."
        )),
        _ => Ok(text.to_owned()),
    }
}

fn address(entered: &str) -> Result<String, String> {
    let entered = within(entered.trim(), ADDRESS_CHARS_MAX)?;
    if entered.is_empty() {
        return Err("Enter an address, such as “https://example.org/”.".to_owned());
    }
    let url = Url::parse(&entered)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(url) = url else {
        return Err(
            "Enter a whole address with http:// or https:// and a host, \
                    such as “https://example.org/”."
                .to_owned(),
        );
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "Leave out the user and the password: everybody who sees this page would \
                    see them."
                .to_owned(),
        );
    }
    Ok(entered)
}

fn method(entered: &str) -> Result<Method, String> {
    Method::parse(entered.trim()).ok_or_else(|| {
        format!(
            "Choose one of {}.",
            Method::ALL.map(Method::as_str).join(", ")
        )
    })
}

fn status(entered: &str) -> Result<u16, String> {
    let status = entered
        .trim()
        .parse()
        .ok()
        .filter(|status| STATUS.contains(status));
    status.ok_or_else(|| "Enter an HTTP status from 100 to 599, such as 200.".to_owned())
}

fn body_text(entered: &str, method: Option<Method>) -> Result<Option<String>, String> {
    match within(entered.trim(), BODY_TEXT_CHARS_MAX)? {
        text if text.is_empty() => Ok(None),
        _ if method == Some(Method::Head) => Err(
            "Leave this empty, or choose another method: an answer to HEAD has no body.".to_owned(),
        ),
        text => Ok(Some(text)),
    }
}

fn seconds(entered: &str, range: RangeInclusive<u64>) -> Result<Duration, String> {
    match entered.trim().parse() {
        Ok(seconds) if range.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "Enter whole seconds from {} to {}.",
            range.start(),
            range.end()
        )),
    }
}

fn timeout(entered: &str, interval: Option<Duration>) -> Result<Duration, String> {
    let timeout = seconds(entered, TIMEOUT_S)?;
    match interval {
        Some(interval) if timeout >= interval => Err(format!(
            "Enter less than the interval of {} seconds.",
            interval.as_secs()
        )),
        _ => Ok(timeout),
    }
}

fn failures_max(entered: &str) -> Result<u32, String> {
    let failures = entered
        .trim()
        .parse()
        .ok()
        .filter(|count| FAILURES_MAX.contains(count));
    failures.ok_or_else(|| "Enter a number from 1 to 10.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> MonitorForm {
        MonitorForm {
            name: "Shop".to_owned(),
            address: "https://example.org/".to_owned(),
            ..MonitorForm::default()
        }
    }

    fn error(form: &MonitorForm, field: &str) -> String {
        let errors = form.check().unwrap_err();
        assert_eq!(errors.iter().count(), 1, "{errors:?}");
        errors.get(field).unwrap().to_owned()
    }

    #[test]
    fn a_new_form_lacks_only_name_and_address() {
        let errors = MonitorForm::default().check().unwrap_err();
        let fields: Vec<_> = errors.iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["name", "address"]);
    }

    #[test]
    fn a_form_filled_from_settings_gives_them_back() {
        let mut form = form();
        form.method = "POST".to_owned();
        form.body_text = "in stock".to_owned();
        let input = form.check().unwrap();
        assert_eq!(input.interval, Duration::from_mins(1));
        assert_eq!(MonitorForm::from_input(&input), form);
    }

    #[test]
    fn everything_is_trimmed() {
        let mut form = form();
        form.name = "  Shop ".to_owned();
        form.address = " https://example.org/\n".to_owned();
        form.interval_s = " 90 ".to_owned();
        form.body_text = "  ".to_owned();
        let input = form.check().unwrap();
        assert_eq!(
            (&*input.name, &*input.target.address),
            ("Shop", "https://example.org/")
        );
        assert_eq!(input.target.body_text, None);
    }

    #[test]
    fn a_name_is_short_and_on_one_line() {
        let named = |name: String| MonitorForm { name, ..form() };
        assert!(named("é".repeat(100)).check().is_ok());
        assert_eq!(
            error(&named("é".repeat(101)), "name"),
            "Use at most 100 characters; these are 101.",
        );
        assert!(error(&named("a\nb".to_owned()), "name").contains("one line"));
    }

    #[test]
    fn only_whole_http_addresses_without_secrets_pass() {
        let at = |address: &str| MonitorForm {
            address: address.to_owned(),
            ..form()
        };
        for right in [
            "http://localhost:8000/up",
            "https://[::1]/",
            "https://bücher.example/?a=b",
        ] {
            assert!(at(right).check().is_ok(), "{right}");
        }
        for wrong in [
            "",
            "example.org",
            "ftp://a/",
            "http://",
            "https:///",
            "http://a b/",
            "javascript:1",
        ] {
            error(&at(wrong), "address");
        }
        assert!(error(&at("https://me:secret@example.org/"), "address").contains("password"));
        assert!(error(&at("https://me@example.org/"), "address").contains("password"));
        assert!(error(&at(&format!("http://a/{}", "x".repeat(2000))), "address").contains("2000"));
    }

    #[test]
    fn numbers_stay_in_their_ranges() {
        for wrong in ["", "99", "600", "2e2", "-200", "ok"] {
            error(
                &MonitorForm {
                    expected_status: wrong.to_owned(),
                    ..form()
                },
                "expected_status",
            );
        }
        for wrong in ["29", "86401", "1.5", "99999999999999999999"] {
            error(
                &MonitorForm {
                    interval_s: wrong.to_owned(),
                    ..form()
                },
                "interval_s",
            );
        }
        for wrong in ["0", "61", "ten"] {
            error(
                &MonitorForm {
                    timeout_s: wrong.to_owned(),
                    ..form()
                },
                "timeout_s",
            );
        }
        for wrong in ["0", "11", "two"] {
            error(
                &MonitorForm {
                    failures_max: wrong.to_owned(),
                    ..form()
                },
                "failures_max",
            );
        }
    }

    #[test]
    fn the_timeout_is_less_than_the_interval() {
        let mut form = form();
        form.interval_s = "30".to_owned();
        form.timeout_s = "30".to_owned();
        assert_eq!(
            error(&form, "timeout_s"),
            "Enter less than the interval of 30 seconds."
        );
        form.timeout_s = "29".to_owned();
        assert!(form.check().is_ok());
    }

    #[test]
    fn a_method_is_one_of_the_list() {
        let form = MonitorForm {
            method: "BREW".to_owned(),
            ..form()
        };
        assert_eq!(
            error(&form, "method"),
            "Choose one of GET, HEAD, POST, PUT, OPTIONS."
        );
    }

    #[test]
    fn a_text_needs_a_method_with_a_body() {
        let mut form = form();
        form.body_text = "hello".to_owned();
        form.method = "HEAD".to_owned();
        assert!(error(&form, "body_text").contains("HEAD"));
        form.body_text = "x".repeat(1001);
        form.method = "GET".to_owned();
        assert!(error(&form, "body_text").contains("1000"));
    }
}
