//! What a status says to people.

use axum::http::StatusCode;

/// A title and a sentence for a status: what happened, and what to do.
pub(super) fn words(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        400 => ("Bad request", "The request could not be understood."),
        403 => (
            "Forbidden",
            "This request is not allowed. If you sent a form, open its page again and send it from there.",
        ),
        404 => (
            "Not found",
            "There is nothing at this address. It may have been moved or deleted.",
        ),
        405 => (
            "Method not allowed",
            "This address does not answer this kind of request.",
        ),
        408 => (
            "Too slow",
            "The request took too long to arrive. Please try again.",
        ),
        410 => ("Gone", "What was at this address is no longer there."),
        413 => (
            "Too large",
            "What was sent is larger than this site accepts.",
        ),
        414 => (
            "Address too long",
            "The address is longer than this site accepts.",
        ),
        415 => (
            "Unsupported media type",
            "What was sent is not in a form that this address understands.",
        ),
        421 => (
            "Not this site",
            "This site does not answer for the name that was asked for.",
        ),
        422 => ("Not accepted", "What was sent is incomplete or not valid."),
        428 => (
            "Not accepted",
            "This form lacks something. Open its page again and send it from there.",
        ),
        429 => ("Too many requests", "Please wait a moment and try again."),
        431 => (
            "Too large",
            "The headers of the request are larger than this site accepts. Deleting this site's cookies may help.",
        ),
        500 => (
            "Something went wrong",
            "The site made a mistake, and it is in its log. Trying again may help.",
        ),
        503 => (
            "Busy",
            "The site cannot answer just now. Please try again in a moment.",
        ),
        507 => (
            "No room",
            "The site cannot store anything just now. Please try again later.",
        ),
        _ if status.is_server_error() => (
            "Something went wrong",
            "The site could not answer. Please try again later.",
        ),
        _ => ("Request refused", "The request could not be answered."),
    }
}
