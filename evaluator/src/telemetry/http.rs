//! `GET /metrics` and `GET /healthz` of a worker. No token is asked: what is told names nothing of any run, and the address is the
//! operator's choice.
//!
//! **Invariant:** a slow or silent client holds one of a few connections for a while, and never the work.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Metrics;

/// What Prometheus takes the text for.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Connections at once.
const MAX_CONNECTIONS: usize = 16;

/// How long a client may take to ask, and to ask again.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often metrics that nobody asks for are folded.
const FOLD_EVERY: Duration = Duration::from_secs(60);

/// Answers until it is dropped.
pub(crate) struct Listener {
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Listens, and answers from then on.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub(crate) async fn start(address: SocketAddr, metrics: Arc<Metrics>) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("can't listen on `{address}`, which --metrics names"))?;
        tracing::info!("metrics are at http://{}/metrics", listener.local_addr()?);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&metrics)));
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(FOLD_EVERY).await;
                metrics.fold();
            }
        });
        Ok(Self { _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of files, most likely: one may be free soon.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        connections.spawn(async move {
            serve(stream, metrics).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, metrics: Arc<Metrics>) {
    let answer = service_fn(move |request| answer(request, Arc::clone(&metrics)));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

async fn answer(request: Request<Incoming>, metrics: Arc<Metrics>) -> Result<Response<String>, Infallible> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, text) = match request.uri().path() {
        "/healthz" | "/metrics" if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".to_owned()),
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        // The kernel and the device are asked.
        "/metrics" => match tokio::task::spawn_blocking(move || metrics.render()).await {
            Ok(text) => (StatusCode::OK, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n".to_owned()),
        },
        _ => (StatusCode::NOT_FOUND, "there is /metrics and /healthz\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
