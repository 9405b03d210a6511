//! The bucket beside the registry: objects by path, whoever has the URL.

use std::collections::HashMap;

use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use fineline_api::{ChunkLocation, ChunkLocations, LocateChunks, StageFrames, StagingPlace, StagingPlaces};
use uuid::Uuid;

use super::Shared;

/// What the bucket was asked, and how it is to fail.
#[derive(Default)]
pub struct Bucket {
    /// Where clients are sent: `http://HOST`.
    pub url: String,
    /// What was put, by the staging place's id.
    pub staged: HashMap<String, Bytes>,
    /// Method and headers of each request, all as text.
    pub asked: Vec<String>,
    /// Sent instead of every frame.
    pub wrong_frame: Option<Bytes>,
    /// Requests that are answered with 503.
    pub n_unavailable: usize,
    /// Staged frames that are lost before the registry looks.
    pub loses: bool,
}

impl Bucket {
    /// What was staged there, once.
    pub fn take_staged(&mut self, id: &str) -> Option<Bytes> {
        self.staged.remove(id).filter(|_| !self.loses)
    }
}

/// The doors of the registry that send to the bucket, and the bucket's own.
pub(super) fn routes(run: &str) -> Router<Shared> {
    Router::new()
        .route(&format!("{run}/chunks/locations"), post(locate))
        .route(&format!("{run}/push-sessions/{{id}}/staging"), post(stage))
        .route("/bucket/{key}", put(put_object).get(get_object))
}

async fn locate(State(world): State<Shared>, Json(query): Json<LocateChunks>) -> Json<ChunkLocations> {
    let world = world.lock().unwrap();
    let located = query.digests.iter().filter_map(|digest| {
        let (bucket, frame) = (world.bucket.as_ref()?, world.chunks.get(digest)?);
        Some(ChunkLocation {
            digest: *digest,
            url: format!("{}/bucket/{digest}?X-Amz-Signature=hush", bucket.url),
            size_bytes: frame.len() as u64,
        })
    });
    Json(ChunkLocations {
        offered: world.bucket.is_some(),
        expires_in_s: 60,
        locations: located.collect(),
    })
}

async fn stage(State(world): State<Shared>, Json(wanted): Json<StageFrames>) -> Json<StagingPlaces> {
    let world = world.lock().unwrap();
    let place = |bucket: &Bucket| {
        let id = Uuid::now_v7();
        let url = format!("{}/bucket/{id}?X-Amz-Signature=hush", bucket.url);
        StagingPlace { id, url }
    };
    let bucket = world.bucket.as_ref();
    Json(StagingPlaces {
        offered: bucket.is_some(),
        expires_in_s: 60,
        places: bucket
            .into_iter()
            .flat_map(|bucket| (0..wanted.n).map(move |_| place(bucket)))
            .collect(),
    })
}

fn ask(bucket: &mut Bucket, request: &Request) -> Option<Response> {
    bucket
        .asked
        .push(format!("{} {:?}", request.method(), request.headers()));
    if bucket.n_unavailable > 0 {
        bucket.n_unavailable -= 1;
        return Some(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    (request.uri().query() != Some("X-Amz-Signature=hush")).then(|| StatusCode::FORBIDDEN.into_response())
}

async fn put_object(State(world): State<Shared>, Path(key): Path<String>, request: Request) -> Response {
    let refused = ask(world.lock().unwrap().bucket.as_mut().unwrap(), &request);
    if let Some(refused) = refused {
        return refused;
    }
    let bytes = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    world.lock().unwrap().bucket.as_mut().unwrap().staged.insert(key, bytes);
    StatusCode::OK.into_response()
}

async fn get_object(State(world): State<Shared>, Path(key): Path<String>, request: Request) -> Response {
    let mut world = world.lock().unwrap();
    let frame = world.chunks[&key.parse().unwrap()].clone();
    let bucket = world.bucket.as_mut().unwrap();
    if let Some(refused) = ask(bucket, &request) {
        return refused;
    }
    bucket.wrong_frame.clone().unwrap_or(frame).into_response()
}
