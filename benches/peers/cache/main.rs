//! One run of a peer of the cache: `peer-cache redis|moka FOLDER WORDS…` prints what `benches/cache.rs` asks for.

mod load;

use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use redis::AsyncConnectionConfig;
use redis::Client;
use redis::IntoConnectionInfo;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;

use load::IsFound;
use load::Load;
use load::Store;

/// A Redis of its own, which writes nothing to the disk.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(folder: &Path, bytes_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory", &bytes_max.to_string()])
            .args(["--maxmemory-policy", "allkeys-lru"])
            .arg("--dir")
            .arg(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (Debian: redis-server)");
        Self { process, port }
    }

    async fn connect(&self) -> MultiplexedConnection {
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = format!("redis://127.0.0.1:{}/", self.port)
            .into_connection_info()
            .expect("it is an address")
            .set_tcp_settings(tcp);
        let client = Client::open(info).expect("it is an address");
        for _ in 0..200 {
            // A buffer for as many as ask at once: with the 50 that are usual some of 64 wait.
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(256);
            match client.get_multiplexed_async_connection_with_config(&config).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        panic!("redis-server does not answer");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone)]
struct Redis {
    connection: MultiplexedConnection,
    has_ttl: bool,
}

impl Store for Redis {
    async fn get(&self, key: &str) -> Option<String> {
        let value = self.connection.clone().get(key).await;
        value.expect("the server is there")
    }

    async fn share(&self, key: &str) -> IsFound {
        let value: Option<Vec<u8>> = self.connection.clone().get(key).await.expect("the server is there");
        value.is_some()
    }

    async fn put(&self, key: &str, value: &str) {
        let mut connection = self.connection.clone();
        let put: redis::RedisResult<()> = if self.has_ttl {
            connection.set_ex(key, value, load::TTL.as_secs()).await
        } else {
            connection.set(key, value).await
        };
        put.expect("the server is there");
    }

    async fn fetch(&self, key: &str) -> Option<String> {
        self.get(key).await
    }

    async fn increment(&self, key: &str) {
        let sum: redis::RedisResult<i64> = self.connection.clone().incr(key, 1).await;
        std::hint::black_box(sum.expect("it is a number"));
    }

    /// The usual one: a counter for a time, in one round trip.
    async fn allow(&self, key: &str) {
        let counted: redis::RedisResult<(i64, i64)> = redis::pipe()
            .incr(key, 1)
            .cmd("EXPIRE")
            .arg(key)
            .arg(60)
            .arg("NX")
            .query_async(&mut self.connection.clone())
            .await;
        std::hint::black_box(counted.expect("it is a number").0 > 1_000_000_000);
    }

    async fn pace(&self) {}

    async fn settle(&self) {}
}

#[derive(Clone)]
struct Moka(moka::sync::Cache<String, Arc<String>>);

impl Moka {
    fn new(bytes_max: u64) -> Self {
        let weigh = |key: &String, value: &Arc<String>| {
            u32::try_from(key.len() + value.len()).unwrap_or(u32::MAX)
        };
        let builder = moka::sync::Cache::builder().max_capacity(bytes_max);
        Self(builder.weigher(weigh).build())
    }
}

impl Store for Moka {
    async fn get(&self, key: &str) -> Option<String> {
        self.0.get(key).map(|value| String::clone(&value))
    }

    async fn share(&self, key: &str) -> IsFound {
        std::hint::black_box(self.0.get(key)).is_some()
    }

    async fn put(&self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), Arc::new(value.to_owned()));
    }

    async fn fetch(&self, key: &str) -> Option<String> {
        let value = self.0.get_with_by_ref(key, || panic!("it is there"));
        Some(String::clone(&value))
    }

    async fn increment(&self, _: &str) {
        unimplemented!("it is measured beside Redis");
    }

    async fn allow(&self, _: &str) {
        unimplemented!("it is measured beside Redis");
    }

    async fn pace(&self) {}

    async fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [who, folder, words @ ..] = &arguments[..] else {
        panic!("peer-cache redis|moka FOLDER WORDS…");
    };
    let load = Load::parse(words);
    if who == "moka" {
        let moka = Moka::new(load.memory_bytes_max);
        load.fill(&moka).await;
        moka.settle().await;
        load.run(&moka, || load::rss("self")).await.print();
        return;
    }
    let server = Server::start(Path::new(folder), load.bytes_max);
    let redis = Redis {
        connection: server.connect().await,
        has_ttl: load.has_ttl,
    };
    load.fill(&redis).await;
    let process = server.process.id().to_string();
    load.run(&redis, || load::rss(&process)).await.print();
}
