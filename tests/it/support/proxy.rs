//! A network that is not what it should be, between a program and an S3 server.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It makes conditions go, and the signature that tells of them.
    StripsConditions,
    /// It delivers the first PUT, and closes the connection in place of an answer.
    DropsFirstAnswer,
    /// It delivers every PUT and answers none.
    HoldsAnswers,
    /// It answers as ever, but for what is read of a replica: that never comes.
    HoldsReplica,
    /// It delivers what is written to a replica when it [relents](Proxy::relent), and not before.
    HoldsUploads,
    /// It delivers the first write of the record of a lease, and never answers it.
    HoldsFirstRecord,
}

/// A proxy that passes on one request for each connection; it ends with the test.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    puts: Arc<AtomicUsize>,
    relents: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What all connections have in common.
#[derive(Clone, Debug)]
struct Network {
    server: String,
    fault: Fault,
    puts: Arc<AtomicUsize>,
    records: Arc<AtomicUsize>,
    relents: watch::Receiver<bool>,
}

impl Proxy {
    pub(crate) async fn start(endpoint: &str, fault: Fault) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let puts = Arc::<AtomicUsize>::default();
        let relents = watch::Sender::new(false);
        let network = Network {
            server,
            fault,
            puts: Arc::clone(&puts),
            records: Arc::default(),
            relents: relents.subscribe(),
        };
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, network.clone()));
            }
        });
        Self {
            port,
            puts,
            relents,
            task,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it delivers what it held.
    pub(crate) fn relent(&self) {
        self.relents.send_replace(true);
    }

    /// How many PUTs have come.
    pub(crate) fn puts(&self) -> usize {
        self.puts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(client: TcpStream, mut network: Network) {
    let mut client = BufReader::new(client);
    let Some((head, body)) = request(&mut client, network.fault).await else {
        return;
    };
    let is_put = head.starts_with("PUT ");
    let is_of_replica = head.contains(".ltx");
    let is_read = head.starts_with("GET ");
    let number = is_put.then(|| network.puts.fetch_add(1, Ordering::Relaxed));
    let is_record = is_put && head.contains("lease.json");
    let record = is_record.then(|| network.records.fetch_add(1, Ordering::Relaxed));
    if network.fault == Fault::HoldsUploads && is_put && is_of_replica {
        // It fails when the test is over.
        let _ = network.relents.wait_for(|relents| *relents).await;
    }
    let mut upstream = TcpStream::connect(network.server).await.unwrap();
    upstream.write_all(head.as_bytes()).await.unwrap();
    upstream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await.unwrap();
    match network.fault {
        Fault::DropsFirstAnswer if number == Some(0) => return,
        Fault::HoldsAnswers if is_put => std::future::pending().await,
        Fault::HoldsReplica if is_read && is_of_replica => std::future::pending().await,
        Fault::HoldsFirstRecord if record == Some(0) => std::future::pending().await,
        _ => {}
    }
    // Who does not want the answer any more has gone.
    let _ = client.write_all(&answer).await;
}

/// Reads a request, and makes it the last of its connection.
async fn request(client: &mut BufReader<TcpStream>, fault: Fault) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        let name = name.to_ascii_lowercase();
        if name == "content-length" {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            head.push_str("connection: close\r\n\r\n");
            break;
        }
        let is_stripped = fault == Fault::StripsConditions
            && ["authorization", "if-match", "if-none-match"].contains(&name.as_str());
        if !is_stripped {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.ok()?;
    Some((head, body))
}
