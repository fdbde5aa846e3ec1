//! What the provider's answers mean: decided here, once, and nothing of them is shown as it came.

use std::error::Error as _;

use futures_util::StreamExt as _;
use object_store::client::HttpError;
use object_store::client::HttpErrorKind;
use object_store::client::HttpResponse;

use crate::replication::Error;

/// An error's text is a few hundred bytes.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// What the provider answers that is no success.
#[derive(Debug, thiserror::Error)]
#[error("it answers {status} {code}")]
pub(super) struct Answer {
    pub(super) status: u16,
    /// S3's word for it, such as `NoSuchBucket`; empty where there is none.
    pub(super) code: String,
}

impl Answer {
    /// What is behind an error of the store, if the provider has answered.
    pub(super) fn of(error: &object_store::Error) -> Option<&Self> {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(answer) = error.downcast_ref() {
                return Some(answer);
            }
            cause = error.source();
        }
        None
    }

    /// Reads an answer; the rest of its text may hold what is secret, or anything.
    pub(super) async fn read(response: HttpResponse) -> Self {
        let status = response.status().as_u16();
        let mut body = response.into_body().bytes_stream();
        let mut text = Vec::new();
        while let Some(Ok(bytes)) = body.next().await {
            text.extend_from_slice(&bytes);
            if text.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        Self {
            status,
            code: code(&String::from_utf8_lossy(&text)).to_owned(),
        }
    }

    /// Whether it may be otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.status, 408 | 429 | 500 | 502..=599)
    }
}

/// The word in `<Code>…</Code>`, if it is one.
fn code(text: &str) -> &str {
    let after = text.split_once("<Code>").map_or("", |(_, after)| after);
    let code = after.split_once("</Code>").map_or("", |(code, _)| code);
    let is_word = code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric());
    if is_word { code } else { "" }
}

/// Whether there is no such object, in a bucket that is there. The status alone may be any server's.
pub(super) fn is_missing(error: &object_store::Error) -> bool {
    Answer::of(error).is_some_and(|answer| answer.status == 404 && answer.code == "NoSuchKey")
}

/// What an error means, in words that hold nothing secret.
pub(super) fn meaning(error: &object_store::Error, host: &str, bucket: &str, name: &str) -> Error {
    let Some(answer) = Answer::of(error) else {
        let text = format!("{host}: {}", cause(error));
        return if transport(error).is_some() {
            Error::Unreachable(text)
        } else {
            Error::Refused(text)
        };
    };
    if answer.is_passing() {
        return Error::Unreachable(format!("{host}: {answer}"));
    }
    let Answer { status, code } = answer;
    Error::Refused(match (*status, code.as_str()) {
        (_, "NoSuchBucket") => format!("the bucket {bucket} is not there"),
        (_, "InvalidAccessKeyId" | "NotSignedUp") => {
            "it does not know the access_key_id: is it of this provider?".to_owned()
        }
        (_, "SignatureDoesNotMatch") => {
            "the secret_access_key is not the one of this access_key_id".to_owned()
        }
        (_, "RequestTimeTooSkewed") => "this machine's clock is wrong".to_owned(),
        (301 | 307 | 308, _) | (_, "AuthorizationHeaderMalformed") => {
            format!("the bucket {bucket} is elsewhere: endpoint and region must be its own")
        }
        (401 | 403, _) => format!(
            "the key is not accepted for {name} in {bucket} ({status} {code}): it must be allowed to read, write, \
             list and delete"
        ),
        _ => format!("{name} in {bucket}: {answer}"),
    })
}

/// The innermost cause of an error, without the addresses and texts around it.
pub(super) fn cause(error: &object_store::Error) -> String {
    match transport(error) {
        Some(error) if error.kind() == HttpErrorKind::Timeout => "no answer in time".to_owned(),
        Some(error) => innermost(error),
        None => "an answer that is not S3's".to_owned(),
    }
}

/// What was wrong on the way, if it was that.
fn transport(error: &object_store::Error) -> Option<&HttpError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

fn innermost(error: &HttpError) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_word_of_an_answer_is_taken() {
        for (text, expected) in [
            (
                "<Error><Code>NoSuchBucket</Code><Message>x</Message></Error>",
                "NoSuchBucket",
            ),
            ("<Error><Code>the key AKIA17</Code></Error>", ""),
            ("<Code>open", ""),
            ("<html>502</html>", ""),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn a_server_that_cannot_now_is_asked_again() {
        let is_passing = |status| {
            Answer {
                status,
                code: String::new(),
            }
            .is_passing()
        };
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(is_passing(status), "{status}");
        }
        for status in [301, 400, 403, 404, 409, 412, 501] {
            assert!(!is_passing(status), "{status}");
        }
    }
}
