//! A connection on which every byte is the test's own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;

/// Generous: what is waited for comes at once, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Raw {
    reads: Reads,
    writes: OwnedWriteHalf,
}

#[derive(Debug)]
struct Reads(BufReader<OwnedReadHalf>);

/// What came back.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        let (reads, writes) = stream.into_split();
        let reads = Reads(BufReader::new(reads));
        Self { reads, writes }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writes.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request without a body; `headers` are whole lines.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &[&str]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: site.test\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        self.send(head + "\r\n").await;
    }

    /// Asks, and reads the answer.
    pub(crate) async fn get(&mut self, path: &str) -> RawAnswer {
        self.ask("GET", path, &[]).await;
        self.answer().await
    }

    /// Asks, if the connection is still there.
    pub(crate) async fn try_get(&mut self, path: &str) -> Option<RawAnswer> {
        let head = format!("GET {path} HTTP/1.1\r\nhost: site.test\r\n\r\n");
        self.writes.write_all(head.as_bytes()).await.ok()?;
        let bytes = timeout(PATIENCE, self.reads.0.fill_buf()).await.unwrap();
        if bytes.ok()?.is_empty() {
            return None;
        }
        Some(self.answer().await)
    }

    /// Sends the same bytes again and again until there is an answer, and gives its status.
    pub(crate) async fn drip(&mut self, bytes: &str, pause: Duration) -> u16 {
        let Self { reads, writes } = self;
        let answer = reads.head();
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer.status,
                () = tokio::time::sleep(pause) => {
                    // It may have been closed for writing only.
                    let _ = writes.write_all(bytes.as_bytes()).await;
                }
            }
        }
    }

    /// Reads a status, headers and a body.
    pub(crate) async fn answer(&mut self) -> RawAnswer {
        timeout(PATIENCE, self.reads.answer()).await.unwrap()
    }

    /// Sends while it reads, as it must where more is sent than the network holds.
    pub(crate) async fn exchange(&mut self, bytes: &[u8]) -> RawAnswer {
        let both = async { tokio::join!(self.writes.write_all(bytes), self.reads.answer()) };
        let (sent, answer) = timeout(PATIENCE, both).await.unwrap();
        sent.unwrap();
        answer
    }

    /// Reads a status and headers, and leaves the body.
    pub(crate) async fn head(&mut self) -> RawAnswer {
        timeout(PATIENCE, self.reads.head()).await.unwrap()
    }

    /// Reads so many bytes.
    pub(crate) async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        timeout(PATIENCE, self.reads.exactly(length)).await.unwrap()
    }

    /// Reads all there is until the other side closes or breaks off.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.reads.0.read_to_end(&mut bytes)).await;
        // A reset is an end, too.
        let _ = read.unwrap();
        bytes
    }
}

impl Reads {
    async fn answer(&mut self) -> RawAnswer {
        let mut answer = self.head().await;
        answer.body = if answer.header("transfer-encoding") == "chunked" {
            self.chunks().await
        } else {
            let length = answer.header("content-length").parse().unwrap_or(0);
            self.exactly(length).await
        };
        answer
    }

    async fn head(&mut self) -> RawAnswer {
        let first = self.line().await;
        let status = first.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {first:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let body = Vec::new();
        RawAnswer {
            status,
            headers,
            body,
        }
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line().await, 16).unwrap();
            body.extend(self.exactly(length).await);
            self.line().await;
            if length == 0 {
                return body;
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }
}

impl RawAnswer {
    /// The value of a header; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
