//! What a file is, by what is in it.

/// So many bytes at its beginning say what a file is.
pub(super) const HEAD_BYTES: usize = 8 << 10;

/// Looks at a file while it comes.
#[derive(Debug, Default)]
pub(super) struct Content {
    head: Vec<u8>,
    is_settled: bool,
    /// The type by the first bytes; `None` for what has no such mark, which may be text.
    media: Option<&'static str>,
    /// The bytes of a character that goes on in the next piece.
    broken: Vec<u8>,
    is_no_text: bool,
}

impl Content {
    /// Looks at a piece; whether the file may still be of one of these types.
    pub(super) fn look(&mut self, bytes: &[u8], types: &[&'static str]) -> bool {
        if !self.is_settled {
            let missing = HEAD_BYTES - self.head.len();
            self.head
                .extend_from_slice(&bytes[..missing.min(bytes.len())]);
            if self.head.len() == HEAD_BYTES {
                self.settle();
            }
        }
        self.read_as_text(bytes);
        !self.is_settled || self.of(types).is_some()
    }

    /// The type, one of these, once all of the file has been seen.
    pub(super) fn end(&mut self, types: &[&'static str]) -> Option<&'static str> {
        self.settle();
        self.is_no_text |= !self.broken.is_empty();
        self.of(types)
    }

    fn settle(&mut self) {
        if !self.is_settled {
            self.is_settled = true;
            self.media = infer::get(&self.head).map(|found| found.mime_type());
            self.head = Vec::new();
        }
    }

    fn of(&self, types: &[&'static str]) -> Option<&'static str> {
        let mut types = types.iter().copied();
        match self.media {
            Some(media) => types.find(|allowed| *allowed == media),
            None if self.is_no_text => None,
            // What has a mark of its own was found by that.
            None => types.find(|allowed| allowed.starts_with("text/") && !has_mark(allowed)),
        }
    }

    /// Whether it is UTF-8 without control characters, a piece at a time.
    fn read_as_text(&mut self, bytes: &[u8]) {
        const BROKEN_MAX: usize = 4;
        if self.is_no_text {
            return;
        }
        let mut rest = bytes;
        while !self.broken.is_empty() {
            let Some((first, after)) = rest.split_first() else {
                return;
            };
            self.broken.push(*first);
            rest = after;
            match std::str::from_utf8(&self.broken) {
                Ok(_) => self.broken.clear(),
                Err(error) if error.error_len().is_some() || self.broken.len() > BROKEN_MAX => {
                    self.is_no_text = true;
                    return;
                }
                Err(_) => {}
            }
        }
        let is_control = |byte: &u8| *byte < b' ' && !b"\t\n\r\x0c".contains(byte) || *byte == 0x7f;
        self.is_no_text = rest.iter().any(is_control);
        if let Err(error) = std::str::from_utf8(rest) {
            self.is_no_text |= error.error_len().is_some();
            self.broken = rest[error.valid_up_to()..].to_vec();
        }
    }
}

fn has_mark(media: &str) -> bool {
    matches!(media, "text/html" | "text/xml" | "text/x-shellscript")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: &[&str] = &["image/png", "text/csv"];
    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    /// The type of a file that comes in pieces of this size.
    fn found(bytes: &[u8], size: usize) -> Option<&'static str> {
        let mut content = Content::default();
        let is_possible = bytes.chunks(size).all(|piece| content.look(piece, TYPES));
        content.end(TYPES).filter(|_| is_possible)
    }

    #[test]
    fn a_type_is_found_in_the_content() {
        let long = [PNG, &vec![7; 20_000]].concat();
        let text = "naïve, 日本, 🚢\r\n".repeat(2_000);
        for size in [1, 2, 3, 5, 4_096, 100_000] {
            assert_eq!(found(PNG, size), Some("image/png"), "{size}");
            assert_eq!(found(&long, size), Some("image/png"), "{size}");
            assert_eq!(found(text.as_bytes(), size), Some("text/csv"), "{size}");
            assert_eq!(found(b"", size), Some("text/csv"));
            for wrong in [
                b"GIF89a......".as_slice(),
                b"<!DOCTYPE HTML><title>a</title>",
                b"<html><body>",
                b"#!/bin/sh\n",
                b"a\0b",
                b"a\x1b[31m",
                b"caf\xe9",
                b"\xf0\x9f\x9a",
                b"\x7fELF\x02",
                b"MZ\x90\0",
                b"%PDF-1.7\n",
            ] {
                assert_eq!(found(wrong, size), None, "{wrong:?} by {size}");
            }
            let late = [text.as_bytes(), b"\xff"].concat();
            assert_eq!(found(&late, size), None, "{size}");
        }
    }
}
