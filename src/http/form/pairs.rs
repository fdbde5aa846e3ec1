//! Fields as they come: names and values, decoded strictly and within limits.

use axum::http::StatusCode;

use crate::http::Error;
use crate::http::Result;

/// Names and values in the order in which they came.
pub(in crate::http) type Pairs = Vec<(String, String)>;

/// A page of five hundred rows with two fields each is large already; more is none that a person fills in.
pub(in crate::http) const FIELDS_MAX: usize = 1_000;

/// Bytes of a field's name.
const NAME_BYTES_MAX: usize = 200;

/// Why a field cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Escape,
    Utf8,
    Nul,
}

/// Reads `application/x-www-form-urlencoded`, as a body or as the query of an address.
///
/// # Errors
///
/// 400 for a `%` that is no escape, what is not UTF-8, and a NUL; 413 for too many fields or too long a name.
pub(in crate::http) fn urlencoded(bytes: &[u8]) -> Result<Pairs> {
    let mut pairs = Pairs::new();
    for pair in bytes.split(|byte| *byte == b'&') {
        if pair.is_empty() {
            continue;
        }
        let end = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(end.unwrap_or(pair.len()));
        let value = value.get(1..).unwrap_or_default();
        let number = pairs.len() + 1;
        let decode = |bytes| decode(bytes).map_err(|flaw| refused(flaw, number));
        add(&mut pairs, decode(name)?, decode(value)?)?;
    }
    Ok(pairs)
}

/// Adds a field, within the limits.
pub(in crate::http) fn add(pairs: &mut Pairs, name: String, value: String) -> Result<()> {
    let too_large = |text| Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    if pairs.len() >= FIELDS_MAX {
        return too_large(format!("A form has at most {FIELDS_MAX} fields."));
    }
    check_name(&name)?;
    pairs.push((name, value));
    Ok(())
}

/// Refuses a name that is too long (413).
pub(in crate::http) fn check_name(name: &str) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        let text = format!("The name of a field has at most {NAME_BYTES_MAX} bytes.");
        return Err(Error::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(())
}

/// What came as it is, for the field of this number.
///
/// # Errors
///
/// 400 for what is not UTF-8, and for a NUL.
pub(in crate::http) fn plain(bytes: Vec<u8>, number: usize) -> Result<String> {
    utf8(bytes).map_err(|flaw| refused(flaw, number))
}

fn decode(bytes: &[u8]) -> Result<String, Flaw> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                let [high, low, after @ ..] = after else {
                    return Err(Flaw::Escape);
                };
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let byte = digit(high).zip(digit(low)).ok_or(Flaw::Escape)?;
                decoded.push(u8::try_from(byte.0 * 16 + byte.1).map_err(|_| Flaw::Escape)?);
                rest = after;
            }
            byte => decoded.push(*byte),
        }
    }
    utf8(decoded)
}

fn utf8(bytes: Vec<u8>) -> Result<String, Flaw> {
    let text = String::from_utf8(bytes).map_err(|_| Flaw::Utf8)?;
    if text.contains('\0') {
        return Err(Flaw::Nul);
    }
    Ok(text)
}

fn refused(flaw: Flaw, number: usize) -> Error {
    let what = match flaw {
        Flaw::Escape => "a % without the two hexadecimal digits that belong to it",
        Flaw::Utf8 => "bytes that are not UTF-8",
        Flaw::Nul => "a NUL character",
    };
    let text = format!("What was sent cannot be read: field {number} has {what}.");
    Error::new(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_as_browsers_encode_them() {
        let read = |text: &str| urlencoded(text.as_bytes()).unwrap();
        let pairs = |pairs: &[(&str, &str)]| -> Pairs {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        assert_eq!(
            read("a=1&b=%C3%A9+x&a=2&c&&=d&e=f=g"),
            pairs(&[
                ("a", "1"),
                ("b", "é x"),
                ("a", "2"),
                ("c", ""),
                ("", "d"),
                ("e", "f=g")
            ])
        );
        assert_eq!(read(""), pairs(&[]));
        assert_eq!(read("%61%3D=%26%2b"), pairs(&[("a=", "&+")]));
    }

    #[test]
    fn what_nobody_can_read_is_refused() {
        for (text, what) in [
            ("a=1&b=%", "field 2 has a %"),
            ("a=%4", "field 1 has a %"),
            ("a=%4x", "field 1 has a %"),
            ("%+1=a", "field 1 has a %"),
            ("a=%FF", "not UTF-8"),
            ("a=%ED%A0%80", "not UTF-8"),
            ("a=b%00", "a NUL"),
            ("%00=b", "a NUL"),
        ] {
            let error = urlencoded(text.as_bytes()).unwrap_err();
            assert!(error.detail().contains(what), "{text}: {}", error.detail());
        }
    }

    #[test]
    fn fields_are_few_and_their_names_short() {
        assert_eq!(
            urlencoded("a=&".repeat(1_000).as_bytes()).unwrap().len(),
            1_000
        );
        assert!(urlencoded("a=&".repeat(1_001).as_bytes()).is_err());
        assert!(urlencoded("a".repeat(200).as_bytes()).is_ok());
        assert!(urlencoded("a".repeat(201).as_bytes()).is_err());
    }
}
