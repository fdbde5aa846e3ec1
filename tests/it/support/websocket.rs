//! A WebSocket by hand: what goes in comes out. Also a part of `examples/socket.rs`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use hyper_util::rt::TokioIo;
use ring::digest;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

/// Of RFC 6455: what is put behind the key of a visitor, so that no other server agrees by accident.
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CLOSE: u8 = 8;

/// Agrees to a WebSocket, and sends back each message.
pub(crate) async fn echo(mut request: Request) -> Response {
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let (Some("websocket"), Some(key)) = (header("upgrade"), header("sec-websocket-key")) else {
        return StatusCode::UPGRADE_REQUIRED.into_response();
    };
    let hash = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{MAGIC}").as_bytes(),
    );
    let accept = base64(hash.as_ref());
    let visitor = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(visitor) = visitor.await {
            // It ends with the connection, whoever ends that.
            let _ = messages(TokioIo::new(visitor)).await;
        }
    });
    let headers = [
        ("connection", "upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-accept", accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
}

/// Short messages, as a browser sends them: each masked, and none in parts.
async fn messages(mut stream: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 6];
        stream.read_exact(&mut head).await?;
        let [first, length, mask @ ..] = head;
        let mut message = vec![0; usize::from(length & 0x7f)];
        stream.read_exact(&mut message).await?;
        for (byte, mask) in message.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        let mut answer = vec![first, length & 0x7f];
        answer.extend(message);
        stream.write_all(&answer).await?;
        if first & 0x0f == CLOSE {
            return Ok(());
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0, |number: usize, n| {
            number << 8 | usize::from(three.get(n).copied().unwrap_or_default())
        });
        for n in 0..4 {
            let digit = DIGITS[number >> (18 - 6 * n) & 63];
            text.push(if n > three.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}
