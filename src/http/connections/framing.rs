//! Where one request of an HTTP/1.1 connection ends and the next begins.

use std::mem;

/// A line that is longer than this, and came in pieces, is refused; hyper's own limit on headers comes first.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Longer numbers are no lengths of anything.
const LENGTH_DIGITS_MAX: usize = 18;
const CHUNK_DIGITS_MAX: usize = 15;

/// Follows the bytes that a client sends, and refuses every shape that another server may read differently.
///
/// hyper takes what a server may take: a length beside `Transfer-Encoding`, lines that end with a bare LF, no `Host`.
/// Where a proxy in front reads such a request in the other way, what one of them takes for a body is another request
/// to the other. Also whether a connection waits, sends a head, or sends a body is known from here.
#[derive(Debug, Default)]
pub(super) struct Framing {
    next: Next,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    head: Head,
    /// Whether a head has ended: what begins with HTTP/2's words is HTTP/2 before it only.
    is_used: bool,
    /// Whether a request may name no host, as one of another container does.
    needs_no_host: bool,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    RequestLine,
    Header,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// HTTP/2, or what an upgrade may lead to.
    Else,
}

/// What is known of the head that is being read.
#[derive(Debug, Default)]
struct Head {
    is_old: bool,
    is_upgrade: bool,
    hosts: u32,
    length: Option<u64>,
    is_chunked: bool,
}

/// What a client is sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Nothing: the last request has ended.
    Nothing,
    Head,
    Body,
    /// What has no requests one after another: HTTP/2 and upgraded connections.
    Else,
}

/// A shape that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

impl Framing {
    pub(super) fn new(needs_host: bool) -> Self {
        Self {
            needs_no_host: !needs_host,
            ..Self::default()
        }
    }

    pub(super) fn sending(&self) -> Sending {
        match self.next {
            Next::RequestLine if self.begun.is_empty() => Sending::Nothing,
            Next::RequestLine | Next::Header => Sending::Head,
            Next::Else => Sending::Else,
            _ => Sending::Body,
        }
    }

    /// Follows `bytes`; if there is something wrong, gives the place of the byte with which that is certain.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.next {
                Next::Else => rest.len(),
                Next::Body(left) => {
                    let taken = taken(rest, left);
                    let left = left - taken as u64;
                    self.next = if left == 0 {
                        Next::RequestLine
                    } else {
                        Next::Body(left)
                    };
                    taken
                }
                Next::Chunk(left) => {
                    let taken = taken(rest, left);
                    let left = left - taken as u64;
                    self.next = if left == 0 {
                        Next::ChunkEnd
                    } else {
                        Next::Chunk(left)
                    };
                    taken
                }
                _ => {
                    let (taken, line) = self.line(rest);
                    line.map_err(|Refused| at + taken - 1)?;
                    taken
                }
            };
        }
        Ok(())
    }

    /// Takes a line, or what there is of it.
    fn line(&mut self, bytes: &[u8]) -> (usize, Result<(), Refused>) {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.begun.extend_from_slice(bytes);
            let fits = self.begun.len() <= LINE_BYTES_MAX;
            return (bytes.len(), fits.then_some(()).ok_or(Refused));
        };
        let result = if self.begun.is_empty() {
            self.whole_line(&bytes[..end])
        } else {
            let mut line = mem::take(&mut self.begun);
            line.extend_from_slice(&bytes[..end]);
            self.whole_line(&line)
        };
        (end + 1, result)
    }

    fn whole_line(&mut self, line: &[u8]) -> Result<(), Refused> {
        let line = line.strip_suffix(b"\r").ok_or(Refused)?;
        self.next = match self.next {
            Next::RequestLine => self.request_line(line)?,
            Next::Header if line.is_empty() => self.end_of_head()?,
            Next::Header => {
                self.head.header(line)?;
                Next::Header
            }
            Next::ChunkSize => match chunk_size(line)? {
                0 => Next::Trailer,
                size => Next::Chunk(size),
            },
            Next::ChunkEnd if line.is_empty() => Next::ChunkSize,
            Next::Trailer if line.is_empty() => Next::RequestLine,
            Next::Trailer => Next::Trailer,
            _ => return Err(Refused),
        };
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<Next, Refused> {
        // Empty lines before a request are allowed.
        if line.is_empty() {
            return Ok(Next::RequestLine);
        }
        if !self.is_used && line == b"PRI * HTTP/2.0" {
            return Ok(Next::Else);
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let has_more = parts.next().is_some();
        let is_token = method.is_some_and(is_token);
        let has_target = target.is_some_and(|target| target.iter().all(u8::is_ascii_graphic));
        let is_known = matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"));
        if has_more || !is_token || !has_target || !is_known {
            return Err(Refused);
        }
        self.head = Head {
            is_old: version == Some(b"HTTP/1.0"),
            is_upgrade: method == Some(b"CONNECT"),
            ..Head::default()
        };
        Ok(Next::Header)
    }

    fn end_of_head(&mut self) -> Result<Next, Refused> {
        self.is_used = true;
        let head = &self.head;
        let has_host = head.hosts == 1 || head.is_old || self.needs_no_host;
        if !has_host || head.is_chunked && (head.length.is_some() || head.is_old) {
            return Err(Refused);
        }
        Ok(match head.length {
            // Whoever answers without an upgrade closes the connection.
            _ if head.is_upgrade => Next::Else,
            _ if head.is_chunked => Next::ChunkSize,
            None | Some(0) => Next::RequestLine,
            Some(length) => Next::Body(length),
        })
    }
}

impl Head {
    fn header(&mut self, line: &[u8]) -> Result<(), Refused> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Refused)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_control = |byte: &u8| *byte < b' ' && *byte != b'\t' || *byte == 0x7f;
        if !is_token(name) || value.iter().any(is_control) {
            return Err(Refused);
        }
        let value = value.trim_ascii();
        // By its length first: nearly all headers are others.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                (self.hosts == 1).then_some(()).ok_or(Refused)
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.is_upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(value, 10, LENGTH_DIGITS_MAX)?;
                let is_second = self.length.replace(length).is_some();
                (!is_second).then_some(()).ok_or(Refused)
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let is_second = mem::replace(&mut self.is_chunked, true);
                let is_known = value.eq_ignore_ascii_case(b"chunked");
                (is_known && !is_second).then_some(()).ok_or(Refused)
            }
            _ => Ok(()),
        }
    }
}

/// Whether it may be the name of a method or a header: RFC 9110, 5.6.2.
fn is_token(text: &[u8]) -> bool {
    let is_of_token = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
    };
    !text.is_empty() && text.iter().all(is_of_token)
}

fn chunk_size(line: &[u8]) -> Result<u64, Refused> {
    let end = line.iter().position(|byte| *byte == b';');
    let digits = &line[..end.unwrap_or(line.len())];
    number(digits.trim_ascii_end(), 16, CHUNK_DIGITS_MAX)
}

/// Reads digits and nothing else: neither a sign nor a space between.
fn number(digits: &[u8], radix: u32, digits_max: usize) -> Result<u64, Refused> {
    let is_number = |byte: &u8| char::from(*byte).is_digit(radix);
    if digits.len() > digits_max || !digits.iter().all(is_number) {
        return Err(Refused);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Refused)?;
    u64::from_str_radix(text, radix).map_err(|_| Refused)
}

/// How many of `bytes` belong to what has `left` bytes to come.
fn taken(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Sending, usize> {
        let mut framing = Framing::default();
        framing.follow(text.as_bytes())?;
        Ok(framing.sending())
    }

    /// As if each byte came alone.
    fn bytewise(text: &str) -> Result<Sending, usize> {
        let mut framing = Framing::default();
        for (at, byte) in text.bytes().enumerate() {
            framing.follow(&[byte]).map_err(|_| at)?;
        }
        Ok(framing.sending())
    }

    #[test]
    fn where_a_request_ends() {
        let cases = [
            ("", Sending::Nothing),
            ("G", Sending::Head),
            ("GET / HTTP/1.1\r\nhost: a\r\n", Sending::Head),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Sending::Nothing),
            ("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", Sending::Nothing),
            ("GET / HTTP/1.0\r\n\r\n", Sending::Nothing),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
                Sending::Body,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                Sending::Nothing,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcG",
                Sending::Head,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n",
                Sending::Body,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\na: b\r\n\r\n",
                Sending::Nothing,
            ),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n", Sending::Else),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n\n\n",
                Sending::Else,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(whole(text), Ok(expected), "{text:?}");
            assert_eq!(bytewise(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let post = "POST / HTTP/1.1\r\nhost: a\r\n";
        let cases = [
            "GET / HTTP/1.1\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\n".to_owned(),
            "\n".to_owned(),
            "GET / HTTP/1.1\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\r\nHOST: a\r\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n".to_owned(),
            "GET / HTTP/1.1\r\nhost: a\r\n\r\nPRI * HTTP/2.0\r\n".to_owned(),
            format!("{post}content-length: 1\r\ncontent-length: 1\r\n"),
            format!("{post}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
            format!("{post}transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"),
            format!("{post}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            format!("{post}transfer-encoding: gzip, chunked\r\n"),
            format!("{post}transfer-encoding: xchunked\r\n"),
            format!("{post}content-length: +1\r\n"),
            format!("{post}content-length: 1, 1\r\n"),
            format!("{post}content-length: 0x1\r\n"),
            format!("{post}content-length:\r\n"),
            format!("{post}content-length: 99999999999999999999\r\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\n1\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\n0x1\r\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\n+1\r\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\n\r\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\nab\r\n"),
            format!("{post}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            "GET / x HTTP/1.1\r\n".to_owned(),
            "GET  / HTTP/1.1\r\n".to_owned(),
            "GET /\r\n".to_owned(),
            "GET / HTTP/1.2\r\n".to_owned(),
            "G@T / HTTP/1.1\r\n".to_owned(),
            format!("{post}content-length : 1\r\n"),
            format!("{post}: x\r\n"),
            format!("{post}x: a\rb\r\n"),
            format!("{post}x: a\0b\r\n"),
        ];
        for text in cases {
            assert_eq!(whole(&text), Err(text.len() - 1), "{text:?}");
            assert_eq!(bytewise(&text), Err(text.len() - 1), "{text:?}");
        }
    }
}
