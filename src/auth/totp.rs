//! The second factor: codes by time (RFC 6238), and codes for when the device is lost.
//!
//! The secret must be at hand to check a code, so it is in the database as it is: who has the database needs no code.

use std::fmt::Write;

use qrcode::Color;
use qrcode::EcLevel;
use qrcode::QrCode;
use totp_rs::Builder;
use totp_rs::Secret;
use totp_rs::Totp;

use crate::auth::key::Key;
use crate::digits::random;

/// So many codes are made for when the device is lost.
pub(super) const RECOVERY_CODES: usize = 10;

/// Letters and digits that nobody takes for one another; 32 of them, so that a byte falls on each as often.
const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";

const RECOVERY_CHARS: usize = 12;

/// The margin around the picture, in its squares, by the standard.
const MARGIN: usize = 4;

/// The bytes of a secret: 160 bits, as the standard advises.
const SECRET_BYTES: usize = 20;

pub(super) fn secret() -> Vec<u8> {
    random::<SECRET_BYTES>().to_vec()
}

/// The step whose code this is: that of the time, the one before or the one after.
pub(super) fn step_of(secret: &[u8], code: &str, now_ms: i64) -> Option<i64> {
    let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = u64::try_from(now_ms / 1_000).ok()?;
    let totp = Builder::new().with_secret(secret).build().ok()?;
    i64::try_from(totp.check(&digits, seconds)?).ok()
}

/// What an authenticator is told, as the picture has it.
pub(super) fn url(secret: &[u8], email: &str, site: &str) -> Option<String> {
    totp(secret, email, site)?.to_url().ok()
}

fn totp(secret: &[u8], email: &str, site: &str) -> Option<Totp> {
    let issuer = site.replace(':', " ");
    let builder = Builder::new().with_secret(secret).with_issuer(Some(issuer));
    builder
        .with_account_name(email.replace(':', " "))
        .build()
        .ok()
}

/// The secret for who types it, in groups of four.
pub(super) fn typed(secret: &[u8]) -> String {
    let text = Secret::from(secret).to_base32();
    let groups = text.as_bytes().chunks(4).map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

/// A secret as [`typed`] wrote it.
pub(super) fn read(typed: &str) -> Option<Vec<u8>> {
    let text: String = typed.chars().filter(|c| *c != ' ').collect();
    let secret = Secret::try_from_base32(text).ok()?.as_bytes().to_vec();
    (secret.len() == SECRET_BYTES).then_some(secret)
}

/// A picture of squares: its width and height, and the path of what is dark.
pub(super) fn picture(text: &str) -> Option<(usize, String)> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let width = code.width();
    let mut path = String::new();
    for (index, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            let (x, y) = (index % width + MARGIN, index / width + MARGIN);
            // A string takes whatever is written to it.
            let _ = write!(path, "M{x} {y}h1v1h-1z");
        }
    }
    Some((width + 2 * MARGIN, path))
}

/// New codes for when the device is lost, such as `abcd-efgh-jkmn`.
pub(super) fn recovery_codes() -> Vec<String> {
    let code = |_| {
        let letters = random::<RECOVERY_CHARS>().map(|byte| LETTERS[usize::from(byte % 32)]);
        let groups = letters.chunks(4).map(String::from_utf8_lossy);
        groups.collect::<Vec<_>>().join("-")
    };
    (0..RECOVERY_CODES).map(code).collect()
}

/// What is kept of such a code, however it is written; `None` for what cannot be one.
pub(super) fn recovery_key(code: &str) -> Option<Key> {
    if code.len() > 100 {
        return None;
    }
    let code = code.to_ascii_lowercase();
    let letters: Vec<u8> = code.bytes().filter(|byte| LETTERS.contains(byte)).collect();
    let rest = code.bytes().filter(|byte| !LETTERS.contains(byte));
    let is_one =
        letters.len() == RECOVERY_CHARS && rest.into_iter().all(|byte| b"- ".contains(&byte));
    is_one.then(|| Key::of(&letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, cut to six digits.
    const SECRET: &[u8] = b"12345678901234567890";

    #[test]
    fn the_codes_of_the_standard_are_known() {
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(step_of(SECRET, code, seconds * 1_000), Some(seconds / 30));
        }
        assert_eq!(step_of(SECRET, " 287 082", 59_999), Some(1));
    }

    #[test]
    fn a_code_is_good_for_a_step_before_and_after() {
        let at = |seconds: i64| step_of(SECRET, "287082", seconds * 1_000);
        let steps = [-1, 0, 29, 30, 59, 60, 89, 90].map(at);
        assert_eq!(
            steps,
            [
                None,
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                Some(1),
                None
            ]
        );
        for code in [
            "",
            "28708",
            "2870820",
            "28708a",
            "２８７０８２",
            "-87082",
            "+87082",
        ] {
            assert_eq!(step_of(SECRET, code, 59_000), None, "{code}");
        }
    }

    #[test]
    fn an_authenticator_is_told_site_and_address() {
        let url = url(SECRET, "ann@x.org", "A & B: status").unwrap();
        assert!(url.starts_with("otpauth://totp/"), "{url}");
        assert!(
            url.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
            "{url}"
        );
        assert!(!url.contains("& B"), "{url}");
        assert_eq!(typed(SECRET), "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
        let (size, path) = picture(&url).unwrap();
        // Three corners, and the margin free.
        assert!(size > 40 && path.starts_with("M4 4h1v1h-1z"), "{size}");
    }

    #[test]
    fn a_recovery_code_is_known_however_it_is_written() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), RECOVERY_CODES);
        let key = recovery_key(&codes[0]).unwrap();
        let other = [
            codes[0].replace('-', ""),
            codes[0].replace('-', " ").to_uppercase(),
            format!(" {} ", codes[0]),
        ];
        for text in other {
            assert_eq!(recovery_key(&text), Some(key), "{text}");
        }
        assert_ne!(recovery_key(&codes[1]), Some(key));
        for text in [
            "",
            "abcd-efgh-jkm",
            "abcd-efgh-jkmnp",
            "abcd_efgh_jkmn",
            "123456",
        ] {
            assert_eq!(recovery_key(text), None, "{text}");
        }
    }
}
