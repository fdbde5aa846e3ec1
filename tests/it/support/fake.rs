//! A container that breaks off where the test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

/// What a [`Fake`] does with a visitor's request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Hangs up once it has the head.
    HangUp,
    /// Sends this, and hangs up.
    Send(&'static str),
    /// Sends this, and is silent.
    Stay(&'static str),
}

/// A listener that knows to open when it is knocked at, and little more.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, act, Arc::clone(&count)));
            }
        });
        Self { address, asked }
    }

    /// How many requests have come that were no knock.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(stream: TcpStream, act: Act, asked: Arc<AtomicUsize>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        if head.contains("houseboat-control: knock") {
            let opened = b"HTTP/1.1 204 No Content\r\n\r\n";
            stream.write_all(opened).await.unwrap();
            continue;
        }
        asked.fetch_add(1, Ordering::SeqCst);
        match act {
            Act::HangUp => return,
            Act::Send(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            Act::Stay(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                // Until the other side has had enough.
                let mut rest = Vec::new();
                _ = stream.read_to_end(&mut rest).await;
                return;
            }
        }
    }
}
