//! An HTTP server that answers as a test says, cuts its answers where it says, and keeps what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

/// A request, header names in lower case.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut_after: Option<usize>,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte and the byte behind the last one.
    pub(super) fn range(&self) -> (usize, usize) {
        let (first, last) = self.header("range").unwrap()["bytes=".len()..].split_once('-').unwrap();
        (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
    }
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    /// What was asked for of a file.
    pub(super) fn part(asked: &Asked, file: &[u8]) -> Self {
        let (begin, end) = asked.range();
        let range = format!("bytes {begin}-{}/{}", end - 1, file.len());
        Self::new(206, &file[begin..end]).with("content-range", range)
    }

    pub(super) fn redirect(location: impl Into<String>) -> Self {
        Self::new(302, "").with("location", location)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Ends the connection after so many bytes of the body.
    pub(super) fn cut_after(mut self, n_bytes: usize) -> Self {
        self.cut_after = Some(n_bytes);
        self
    }
}

impl Server {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (Arc::new(answer), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                tokio::spawn(async move { serve(stream, answer.as_ref(), &kept).await });
            }
        });
        Self { address, asked, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    /// What it was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request a connection; an error is a client that went away.
async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(&Asked) -> Answer + Send + Sync),
    kept: &Mutex<Vec<Asked>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(&mut stream).lines();
    let line = lines.next_line().await?.unwrap_or_default();
    let mut asked = Asked {
        target: line.split(' ').nth(1).unwrap_or_default().to_owned(),
        ..Asked::default()
    };
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    kept.lock().unwrap().push(asked.clone());
    let Answer {
        status,
        headers,
        body,
        cut_after,
    } = answer(&asked);
    let mut head = format!(
        "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    stream.write_all(&body[..cut_after.unwrap_or(body.len())]).await?;
    stream.shutdown().await
}
