//! A TCP proxy before the registry that writes down what is asked and answered, and loses an answer: the request arrives
//! whole, is acted on, and the connection is cut before the answer's first byte.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Which answer is lost.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The request's method.
    pub method: &'static str,
    /// How its path ends, without the query.
    pub path_end: &'static str,
    /// Which of those requests, counted from 1.
    pub nth: usize,
}

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The request's method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The answer's status; none when the answer was lost.
    pub status: Option<u16>,
}

impl Exchange {
    /// Whether the request is of that kind.
    pub fn is(&self, method: &str, path_end: &str) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        self.method == method && path.ends_with(path_end)
    }
}

/// What a proxy saw.
#[derive(Debug, Default)]
struct Log {
    exchanges: Vec<Exchange>,
    asked: Vec<Exchange>,
}

/// A proxy that ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub url: String,
    log: Arc<Mutex<Log>>,
    _carrying: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy before the server at `upstream` (`http://ADDRESS`).
    pub async fn start(upstream: &str, cut: Option<Cut>) -> Self {
        let upstream: SocketAddr = upstream
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok())
            .expect("a server's address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let log = Arc::new(Mutex::new(Log::default()));
        let mut carrying = JoinSet::new();
        let written = Arc::clone(&log);
        carrying.spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let log = Arc::clone(&written);
                connections.spawn(async move { drop(carry(client, upstream, cut, &log).await) });
            }
        });
        Self {
            url,
            log,
            _carrying: carrying,
        }
    }

    /// What was asked so far, in the order of the answers.
    pub fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.log).exchanges.clone()
    }

    /// Requests of that kind, answered or not.
    pub fn n_asked(&self, method: &str, path_end: &str) -> usize {
        let log = lock(&self.log);
        log.asked.iter().filter(|asked| asked.is(method, path_end)).count()
    }
}

async fn carry(mut client: TcpStream, upstream: SocketAddr, cut: Option<Cut>, log: &Mutex<Log>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    let (mut asked, mut answered) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut open: Option<Exchange> = None;
    loop {
        tokio::select! {
            n = client.read(&mut asked) => {
                let part = &asked[..n?];
                if part.is_empty() {
                    return Ok(());
                }
                if open.is_none() {
                    open = request(part);
                    lock(log).asked.extend(open.clone());
                }
                server.write_all(part).await?;
            }
            n = server.read(&mut answered) => {
                let part = &answered[..n?];
                if part.is_empty() {
                    return Ok(());
                }
                if let Some(exchange) = open.take()
                    && !is_kept(exchange, part, cut, &mut lock(log).exchanges)
                {
                    return Ok(());
                }
                client.write_all(part).await?;
            }
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The request whose head this is; none for more of a body.
fn request(part: &[u8]) -> Option<Exchange> {
    let line = part.split(|&byte| byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_suffix(" HTTP/1.1")?;
    let (method, path) = line.split_once(' ')?;
    Some(Exchange {
        method: method.to_owned(),
        path: path.to_owned(),
        status: None,
    })
}

/// Writes an exchange down; whether its answer goes on to the client.
fn is_kept(mut exchange: Exchange, answer: &[u8], cut: Option<Cut>, log: &mut Vec<Exchange>) -> bool {
    let lost = cut.is_some_and(|Cut { method, path_end, nth }| {
        let before = log.iter().filter(|exchange| exchange.is(method, path_end)).count();
        exchange.is(method, path_end) && before + 1 == nth
    });
    if !lost {
        // `HTTP/1.1 200 OK`
        exchange.status = answer
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    }
    log.push(exchange);
    !lost
}
