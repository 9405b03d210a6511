//! A Hub as it answers: revisions, lists of files in pages, files that are redirected to another host.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The commit of every branch.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

const FIELDS: [&str; 6] = [
    "question",
    "distractor1",
    "distractor2",
    "distractor3",
    "correct_answer",
    "support",
];

/// A request's URL and its token.
type Asked = (String, Option<String>);

#[derive(Default)]
struct World {
    /// By `OWNER/NAME/PATH`.
    files: BTreeMap<String, Bytes>,
    asked: Vec<Asked>,
    elsewhere: Vec<Asked>,
    n_to_fail: usize,
    /// The host that has the files.
    files_url: String,
}

type Shared = Arc<Mutex<World>>;

pub(crate) struct Hub {
    pub(crate) url: String,
    world: Shared,
}

impl Hub {
    pub(crate) async fn serve() -> Self {
        let world = Shared::default();
        let files = Router::new().fallback(elsewhere).with_state(Arc::clone(&world));
        world.lock().unwrap().files_url = serve(files).await;
        let hub = Router::new().fallback(answer).with_state(Arc::clone(&world));
        Self {
            url: serve(hub).await,
            world,
        }
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.world.lock().unwrap().files.insert(path.to_owned(), bytes.into());
    }

    /// The next requests are answered with 503.
    pub(crate) fn fail_next(&self, n: usize) {
        self.world.lock().unwrap().n_to_fail = n;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.world.lock().unwrap().asked.clone()
    }

    pub(crate) fn elsewhere(&self) -> Vec<Asked> {
        self.world.lock().unwrap().elsewhere.clone()
    }
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn asked(uri: &Uri, headers: &HeaderMap) -> Asked {
    let token = headers
        .get(header::AUTHORIZATION)
        .map(|token| token.to_str().unwrap().to_owned());
    (uri.to_string(), token)
}

async fn answer(State(world): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let mut world = world.lock().unwrap();
    world.asked.push(asked(&uri, &headers));
    if world.n_to_fail > 0 {
        world.n_to_fail -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["api", "datasets", "private", ..] => StatusCode::UNAUTHORIZED.into_response(),
        ["api", "datasets", "endless", ..] => {
            let part = || Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20]));
            Body::from_stream(futures::stream::repeat_with(part)).into_response()
        }
        ["api", "datasets", owner, name, "revision", "refs%2Fconvert%2Fparquet"]
            if world
                .files
                .keys()
                .any(|path| path.starts_with(&format!("{owner}/{name}/"))) =>
        {
            format!("{{\"sha\":\"{COMMIT}\",\"id\":\"{owner}/{name}\"}}").into_response()
        }
        ["api", "datasets", owner, name, "tree", COMMIT] => tree(&world, owner, name, uri.query().unwrap_or_default()),
        ["datasets", owner, name, "resolve", COMMIT, ..] => {
            let path = parts[5..].join("/");
            Redirect::temporary(&format!("{}/files/{owner}/{name}/{path}", world.files_url)).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A page has one file, and folders that are none.
fn tree(world: &World, owner: &str, name: &str, query: &str) -> Response {
    let at: usize = query.split_once("cursor=").map_or(0, |(_, at)| at.parse().unwrap());
    let prefix = format!("{owner}/{name}/");
    let paths: Vec<&str> = world
        .files
        .keys()
        .filter_map(|path| path.strip_prefix(&prefix))
        .collect();
    let body = format!(
        "[{{\"type\":\"directory\",\"path\":\"default\"}},{{\"type\":\"file\",\"path\":\"{}\",\"size\":1}}]",
        paths[at]
    );
    let mut response = body.into_response();
    if at + 1 < paths.len() {
        let next = format!(
            "</api/datasets/{owner}/{name}/tree/{COMMIT}?recursive=true&cursor={}>; rel=\"next\"",
            at + 1
        );
        response.headers_mut().insert(header::LINK, next.parse().unwrap());
    }
    response
}

async fn elsewhere(State(world): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let mut world = world.lock().unwrap();
    world.elsewhere.push(asked(&uri, &headers));
    match world.files.get(uri.path().trim_start_matches("/files/")) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Documents of sciq as JSON lines, without white space.
pub(crate) fn lines(which: Range<usize>) -> String {
    let document = |i: usize| {
        let fields = FIELDS.map(|field| format!("\"{field}\":\"{field} {i}\""));
        format!("{{{}}}\n", fields.join(","))
    };
    which.map(document).collect()
}

/// The same as Parquet.
pub(crate) fn parquet(which: Range<usize>) -> Vec<u8> {
    let columns = FIELDS
        .map(|field| format!("optional binary {field} (STRING);"))
        .join(" ");
    let schema = Arc::new(parse_message_type(&format!("message m {{ {columns} }}")).unwrap());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
    let mut rows = writer.next_row_group().unwrap();
    for field in FIELDS {
        let values: Vec<ByteArray> = which
            .clone()
            .map(|i| ByteArray::from(format!("{field} {i}").as_str()))
            .collect();
        let mut column = rows.next_column().unwrap().unwrap();
        let levels = vec![1; values.len()];
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
    }
    rows.close().unwrap();
    writer.close().unwrap();
    bytes
}
