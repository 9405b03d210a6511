//! A Hub of one repository, `lab/run`, whose branches are the folders of a folder, and which refuses or holds back what a test
//! says. A real one can't be made to do that to one file.

use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use fineline_api::SourceLocation;
use fineline_format::Digest;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What happens to requests for what ends so.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// They are answered with this status.
    Refused(u16),
    /// They wait until the Hub is told to go on.
    Held,
}

/// A Hub that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    faults: Mutex<Vec<(String, Fault)>>,
    asked: Mutex<Vec<String>>,
    go_on: Notify,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// Serves the folders below `root`.
    pub(super) async fn start(root: &FilePath) -> Self {
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            faults: Mutex::default(),
            asked: Mutex::default(),
            go_on: Notify::new(),
        });
        let router = Router::new()
            .route("/api/models/lab/run/refs", get(refs))
            .route("/api/models/lab/run/tree/{commit}", get(tree))
            .route("/lab/run/resolve/{commit}/{*path}", get(resolve))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, task }
    }

    pub(super) fn location(&self) -> SourceLocation {
        SourceLocation::Hub {
            endpoint: Some(self.url.clone()),
            repositories: vec!["lab/run".to_owned()],
            checkpoints: None,
        }
    }

    /// From now on, `fault` happens to files `BRANCH/PATH`.
    pub(super) fn fail(&self, file: &str, fault: Fault) {
        lock(&self.shared.faults).push((file.to_owned(), fault));
    }

    /// Nothing happens to any file any more.
    pub(super) fn heal(&self) {
        lock(&self.shared.faults).clear();
        self.shared.go_on.notify_waiters();
    }

    /// How often a file `BRANCH/PATH` was asked for.
    pub(super) fn n_asked(&self, file: &str) -> usize {
        lock(&self.shared.asked).iter().filter(|asked| *asked == file).count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn branches(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    fn files(&self, branch: &str) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.root.join(branch)).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn commit(&self, branch: &str) -> String {
        let mut all = branch.to_owned();
        for (name, bytes) in self.files(branch) {
            all.push_str(&format!("{name} {}", Digest::of(&bytes).to_hex()));
        }
        Digest::of(all.as_bytes()).to_hex()[..40].to_owned()
    }

    fn branch_of(&self, commit: &str) -> Option<String> {
        self.branches().into_iter().find(|branch| self.commit(branch) == commit)
    }
}

fn json(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn refs(State(shared): State<Arc<Shared>>) -> Response {
    let branch = |name: &String| serde_json::json!({"name": name, "targetCommit": shared.commit(name)});
    let branches: Vec<_> = shared.branches().iter().map(branch).collect();
    json(&serde_json::json!({ "branches": branches, "tags": [], "converts": [] }))
}

async fn tree(State(shared): State<Arc<Shared>>, Path(commit): Path<String>) -> Response {
    let Some(branch) = shared.branch_of(&commit) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let files = shared.files(&branch);
    let file = |(path, bytes): &(String, Vec<u8>)| serde_json::json!({"type": "file", "oid": Digest::of(bytes).to_hex(), "size": bytes.len(), "path": path});
    json(&files.iter().map(file).collect())
}

async fn resolve(
    State(shared): State<Arc<Shared>>,
    Path((commit, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(branch) = shared.branch_of(&commit) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let file = format!("{branch}/{path}");
    lock(&shared.asked).push(file.clone());
    loop {
        let gone_on = shared.go_on.notified();
        let fault = lock(&shared.faults).iter().find(|(name, _)| *name == file).cloned();
        match fault {
            Some((_, Fault::Refused(status))) => return StatusCode::from_u16(status).unwrap().into_response(),
            Some((_, Fault::Held)) => gone_on.await,
            None => break,
        }
    }
    let (_, bytes) = shared
        .files(&branch)
        .into_iter()
        .find(|(name, _)| *name == path)
        .unwrap();
    let range = headers[header::RANGE].to_str().unwrap().trim_start_matches("bytes=");
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let told = format!("bytes {first}-{last}/{}", bytes.len());
    let part = bytes[first..=last].to_vec();
    (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, told)], part).into_response()
}
