//! A registry in memory that knows one run and just enough of the protocol to push and pull; it can be told to fail.
//!
//! The real one is tested in the workspace's own tests; this one does what that never would.

mod bucket;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use fineline_api::{
    Checkpoint, CheckpointFile, CheckpointState, CommitPushSession, CreatePushSession, ErrorBody, ErrorCode,
    ErrorDetail, MissingChunks, MissingChunksQuery, PushSession, PushSessionState, Tensor,
};
use fineline_client::Client;
use fineline_format::{Digest, FileEntry, Manifest, frame};
use uuid::Uuid;

/// What the registry holds and how it is to fail.
#[derive(Default)]
pub struct World {
    /// Frames by the digest of their content.
    pub chunks: HashMap<Digest, Bytes>,
    /// What the last session asked for.
    pub asked: Option<CreatePushSession>,
    /// Files added to the open session.
    pub files: BTreeMap<String, CheckpointFile>,
    /// Checkpoints by step.
    pub steps: BTreeMap<u64, (Digest, Vec<CheckpointFile>)>,
    /// Chunks that were put, over all sessions.
    pub n_puts: usize,
    /// Puts that are still taken; then they are refused for good.
    pub puts_left: Option<usize>,
    /// Calls that are first answered with 503.
    pub n_unavailable: usize,
    /// Sent instead of every chunk.
    pub wrong_chunk: Option<Bytes>,
    /// What is sent instead of one chunk, unless it is asked for verified.
    pub swapped: Option<(Digest, Bytes)>,
    /// Chunks that were asked for verified.
    pub verified: Vec<Digest>,
    /// The tensors of every checkpoint, and its weights digest; none when absent.
    pub weights: Option<(Digest, Vec<Tensor>)>,
    /// Sessions that were taken back.
    pub n_aborted: usize,
    /// The bucket to which clients are sent, and what it was asked; none when absent.
    pub bucket: Option<Bucket>,
}

pub use bucket::Bucket;

type Shared = Arc<Mutex<World>>;

/// A running registry.
pub struct Registry {
    pub url: String,
    world: Shared,
}

impl Registry {
    pub async fn start() -> Self {
        let world = Shared::default();
        let run = "/api/v1/runs/lab/a";
        let app = Router::new()
            .route(&format!("{run}/push-sessions"), post(open))
            .route(&format!("{run}/push-sessions/{{id}}"), get(session).delete(abort))
            .route(&format!("{run}/push-sessions/{{id}}/files"), post(add_file))
            .route(&format!("{run}/push-sessions/{{id}}/commit"), post(commit))
            .route(&format!("{run}/chunks/missing"), post(missing))
            .route(&format!("{run}/chunks/{{digest}}"), put(put_chunk).get(get_chunk))
            .merge(bucket::routes(run))
            .route(&format!("{run}/checkpoints/{{reference}}"), get(checkpoint))
            .route(&format!("{run}/checkpoints/{{reference}}/files"), get(files))
            .route(&format!("{run}/checkpoints/{{reference}}/tensors"), get(tensors))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&world), unavailable))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, world }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url, Some("fl_test")).unwrap()
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

pub fn refuse(status: StatusCode, code: ErrorCode, message: &str) -> Response {
    let (message, request_id) = (message.to_owned(), "r-1".to_owned());
    let error = ErrorDetail {
        code,
        message,
        request_id,
        details: None,
    };
    (status, Json(ErrorBody { error })).into_response()
}

async fn unavailable(
    State(world): State<Shared>,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    {
        let mut world = world.lock().unwrap();
        if world.n_unavailable > 0 {
            world.n_unavailable -= 1;
            return refuse(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Unavailable, "come again");
        }
    }
    next.run(request).await
}

fn row(state: PushSessionState, unchanged: bool, step: u64) -> Json<PushSession> {
    Json(PushSession {
        session_name: None,
        id: Uuid::nil(),
        run: "lab/a".parse().unwrap(),
        step,
        state,
        unchanged,
        digest: None,
        n_files: 0,
        n_received_chunks: 0,
        received_bytes: 0,
        failure: None,
        warnings: vec!["the server's warning".to_owned()],
        not_evaluable: None,
        created_at: chrono::Utc::now(),
    })
}

async fn open(State(world): State<Shared>, Json(asked): Json<CreatePushSession>) -> Response {
    let mut world = world.lock().unwrap();
    let (step, held) = (asked.step, world.steps.get(&asked.step).map(|(digest, _)| *digest));
    let (named, replace) = (asked.manifest_digest, asked.replace);
    world.files.clear();
    world.asked = Some(asked);
    match held {
        Some(held) if Some(held) == named => row(PushSessionState::Committed, true, step).into_response(),
        Some(_) if !replace => refuse(StatusCode::CONFLICT, ErrorCode::StepExists, "step holds other bytes"),
        _ => row(PushSessionState::Open, false, step).into_response(),
    }
}

async fn session(State(world): State<Shared>) -> Json<PushSession> {
    let world = world.lock().unwrap();
    row(PushSessionState::Committed, false, world.asked.as_ref().unwrap().step)
}

async fn abort(State(world): State<Shared>) -> StatusCode {
    world.lock().unwrap().n_aborted += 1;
    StatusCode::NO_CONTENT
}

async fn add_file(State(world): State<Shared>, Json(file): Json<CheckpointFile>) -> StatusCode {
    world.lock().unwrap().files.insert(file.path.clone(), file);
    StatusCode::NO_CONTENT
}

async fn commit(State(world): State<Shared>, Json(commit): Json<CommitPushSession>) -> Response {
    let mut world = world.lock().unwrap();
    let files: Vec<_> = world.files.values().cloned().collect();
    // What the real registry proves too: each file is its chunks, and the files are the manifest.
    for file in &files {
        let raw = file
            .chunks
            .iter()
            .flat_map(|chunk| frame::decode(&world.chunks[&chunk.digest]).unwrap());
        let raw: Vec<u8> = raw.collect();
        assert_eq!(
            (Digest::of(&raw), raw.len() as u64),
            (file.digest, file.size_bytes),
            "{}",
            file.path
        );
    }
    let entries = files.iter().map(|file| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: file.digest,
    });
    let digest = Manifest::new(entries.collect()).unwrap().digest();
    assert_eq!(digest, commit.manifest_digest);
    let step = world.asked.as_ref().unwrap().step;
    world.steps.insert(step, (digest, files));
    row(PushSessionState::Verifying, false, step).into_response()
}

async fn missing(State(world): State<Shared>, Json(query): Json<MissingChunksQuery>) -> Json<MissingChunks> {
    let world = world.lock().unwrap();
    let missing = query
        .digests
        .into_iter()
        .filter(|digest| !world.chunks.contains_key(digest))
        .collect();
    Json(MissingChunks { missing })
}

async fn put_chunk(
    State(world): State<Shared>,
    Path(digest): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    body: Bytes,
) -> Response {
    let digest: Digest = digest.parse().unwrap();
    let mut world = world.lock().unwrap();
    let frame = match query.get("staged") {
        None => body,
        Some(id) => match world.bucket.as_mut().unwrap().take_staged(id) {
            Some(frame) => frame,
            None => {
                return refuse(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    ErrorCode::Unprocessable,
                    "nothing there",
                );
            }
        },
    };
    if world.puts_left == Some(0) {
        return refuse(
            StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::StoreFull,
            "the store is full",
        );
    }
    world.puts_left = world.puts_left.map(|left| left - 1);
    if Digest::of(&frame::decode(&frame).unwrap()) != digest {
        return refuse(
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::DigestMismatch,
            "other bytes",
        );
    }
    world.n_puts += 1;
    world.chunks.insert(digest, frame);
    StatusCode::NO_CONTENT.into_response()
}

async fn get_chunk(
    State(world): State<Shared>,
    Path(digest): Path<String>,
    Query(query): Query<HashMap<String, bool>>,
) -> Bytes {
    let mut world = world.lock().unwrap();
    let digest = digest.parse().unwrap();
    let frame = world.chunks[&digest].clone();
    if let Some(wrong) = &world.wrong_chunk {
        return wrong.clone();
    }
    if query.get("verify") == Some(&true) {
        world.verified.push(digest);
        return frame;
    }
    match &world.swapped {
        Some((swapped, other)) if *swapped == digest => other.clone(),
        _ => frame,
    }
}

async fn checkpoint(State(world): State<Shared>, Path(reference): Path<String>) -> Response {
    let step: u64 = reference.trim_start_matches("step-").parse().unwrap();
    let world = world.lock().unwrap();
    let weights_digest = world.weights.as_ref().map(|(digest, _)| *digest);
    let Some((digest, files)) = world.steps.get(&step).cloned() else {
        return refuse(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such checkpoint");
    };
    Json(Checkpoint {
        not_evaluable: None,
        run: "lab/a".parse().unwrap(),
        step,
        label: None,
        state: CheckpointState::Ready,
        current: true,
        replaced: Vec::new(),
        same_model_steps: Vec::new(),
        evaluable: true,
        digest: Some(digest),
        weights_digest,
        model_digest: None,
        architecture: None,
        tokens: None,
        loss: None,
        metadata: BTreeMap::new(),
        tags: Vec::new(),
        n_files: files.len() as u64,
        size_bytes: files.iter().map(|file| file.size_bytes).sum(),
        warnings: Vec::new(),
        failure: None,
        evaluations: Default::default(),
        created_at: chrono::Utc::now(),
        ready_at: None,
    })
    .into_response()
}

async fn files(State(world): State<Shared>, Path(reference): Path<String>) -> Json<Vec<CheckpointFile>> {
    let digest: Digest = reference.parse().expect("files are asked for by digest");
    let world = world.lock().unwrap();
    Json(
        world
            .steps
            .values()
            .find(|(held, _)| *held == digest)
            .unwrap()
            .1
            .clone(),
    )
}

async fn tensors(State(world): State<Shared>) -> Json<Vec<Tensor>> {
    let (_, tensors) = world.lock().unwrap().weights.clone().expect("they are asked for");
    Json(tensors)
}
