//! The possession rule at every door: what belongs to a run that a token may not read answers exactly as what does not
//! exist. A door is an operation whose path or body takes a digest, a reference or an id; one that is missing here
//! fails the test.

mod doors;

use std::collections::BTreeSet;

use chrono::{SecondsFormat, Utc};
use fineline_api::{CheckpointFile, ChunkRef, CreatePushSession, Reference, RunName, Scope};
use fineline_client::{EvaluationQuery, PushOptions, apply_suite, push};
use fineline_format::suite::{BlobRef, SuiteDefinition, SuiteTask};
use fineline_format::{Digest, FileEntry, Manifest, frame};
use harness::{TASK, TestServer, checkpoint, documents_about, serve, suite_about};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use doors::{Ask, NO_DOORS, doors, operations_that_name};

/// What one run holds, or what no run does.
struct Things {
    run: String,
    checkpoint: Digest,
    file: CheckpointFile,
    chunk_bytes: Vec<u8>,
    suite: Digest,
    blob: Digest,
    /// What the documents of another suite are about; the same subject makes the same suite.
    subject: String,
    evaluation: Uuid,
    binding: Uuid,
    session: Uuid,
}

impl Things {
    /// Nothing of it was ever stored; the sizes are those of `like`.
    fn unknown(like: &Self) -> Self {
        let digest = |text: &str| Digest::of(format!("{text} for {}", like.subject).as_bytes());
        let chunk_bytes: Vec<u8> = like.chunk_bytes.iter().map(|byte| byte ^ 0x55).collect();
        let chunk = ChunkRef {
            digest: Digest::of(&chunk_bytes),
            size_bytes: chunk_bytes.len() as u64,
        };
        Self {
            run: like.run.replace("secret", "absent"),
            checkpoint: digest("no checkpoint"),
            file: CheckpointFile {
                digest: digest("no file"),
                chunks: vec![chunk],
                ..like.file.clone()
            },
            chunk_bytes,
            suite: digest("no suite"),
            blob: digest("no blob"),
            subject: like.subject.replace("secret", "public"),
            evaluation: Uuid::now_v7(),
            binding: Uuid::now_v7(),
            session: Uuid::now_v7(),
        }
    }

    fn chunk(&self) -> Digest {
        self.file.chunks[0].digest
    }

    /// The manifest of the one file.
    fn manifest(&self) -> Digest {
        let entry = FileEntry {
            path: self.file.path.clone(),
            size_bytes: self.file.size_bytes,
            digest: self.file.digest,
        };
        Manifest::new(vec![entry]).unwrap().digest()
    }

    /// Everything by which these things could be named in an answer.
    fn names(&self) -> Vec<String> {
        let upload = definition_about(&self.subject).digest();
        let digests = [
            self.checkpoint,
            self.file.digest,
            self.chunk(),
            self.suite,
            self.blob,
            upload,
        ];
        let ids = [self.evaluation, self.binding, self.session];
        digests
            .iter()
            .map(Digest::to_hex)
            .chain(ids.iter().map(Uuid::to_string))
            .chain([self.manifest().to_hex(), self.run.clone()])
            .collect()
    }
}

/// A run with a step, a bound suite of its own and an evaluation, all of which are nobody else's; and a session.
async fn private(server: &TestServer, name: &str, seed: u32) -> Things {
    let run = server.run(name).await;
    let pattern = name.parse().unwrap();
    let dir = server.dir.path().join(format!("suite-{seed}"));
    std::fs::create_dir(&dir).unwrap();
    let path = suite_about(&dir, &format!("bound {seed}"));
    let binding = apply_suite(&server.admin, &path, &pattern, false).await.unwrap();
    let subject = format!("secret {seed}");
    let files = [TASK.to_owned(), documents_about(&subject)];
    let blobs = files.map(|text| (Digest::of(text.as_bytes()), text.into())).into();
    server
        .admin
        .create_suite(&pattern, &definition_about(&subject), blobs)
        .await
        .unwrap();
    let dir = checkpoint(server.dir.path(), &format!("step-{seed}"), 40_000, seed);
    let pushed = push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let files = server.admin.list_files(&run, &Reference::Step(1), true).await.unwrap();
    let file = files.into_iter().find(|file| file.path == "model.safetensors").unwrap();
    let chunk = file.chunks.last().unwrap();
    let frame = server.admin.get_chunk(&run, chunk.digest, false).await.unwrap();
    let file = CheckpointFile {
        chunks: vec![*chunk],
        size_bytes: chunk.size_bytes,
        ..file
    };
    let definition = server.admin.get_suite(binding.suite_digest).await.unwrap();
    let query = EvaluationQuery {
        run: Some(run.clone()),
        ..EvaluationQuery::default()
    };
    let evaluations = server.admin.list_evaluations(&query, None, None).await.unwrap();
    Things {
        run: name.to_owned(),
        checkpoint: pushed.digest,
        chunk_bytes: frame::decode(&frame).unwrap(),
        file,
        suite: binding.suite_digest,
        blob: definition.tasks[0].yaml.digest,
        subject,
        evaluation: evaluations.items[0].id,
        binding: binding.id,
        session: open_session(server, &run, 9).await,
    }
}

async fn open_session(server: &TestServer, run: &RunName, step: u64) -> Uuid {
    let new = CreatePushSession {
        step,
        ..CreatePushSession::default()
    };
    server.admin.create_push_session(run, &new).await.unwrap().id
}

/// The definition of a suite of one task about a subject.
fn definition_about(subject: &str) -> SuiteDefinition {
    let blob = |text: &str| BlobRef {
        digest: Digest::of(text.as_bytes()),
        size_bytes: text.len() as u64,
    };
    let task = SuiteTask {
        task: "tiny".to_owned(),
        yaml: blob(TASK),
        data: [("test".to_owned(), vec![blob(&documents_about(subject))])].into(),
    };
    SuiteDefinition {
        suite: "s".to_owned(),
        tasks: vec![task],
        groups: Vec::new(),
        limit: None,
        num_fewshot: None,
    }
}

/// The upload of a suite for the caller's own run.
fn form(subject: &str) -> reqwest::multipart::Form {
    let documents = documents_about(subject);
    reqwest::multipart::Form::new()
        .text("pattern", "lab/open")
        .text("definition", serde_json::to_string(&definition_about(subject)).unwrap())
        .text(Digest::of(TASK.as_bytes()).to_string(), TASK)
        .text(Digest::of(documents.as_bytes()).to_string(), documents)
}

/// An answer without what differs between any two.
#[derive(Debug, PartialEq)]
struct Answer(StatusCode, Vec<(String, String)>, String);

async fn answer(request: RequestBuilder, things: &Things, session: Uuid) -> Answer {
    let asked_at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), headers(response.headers()));
    let mut body = String::from_utf8_lossy(&response.bytes().await.unwrap()).into_owned();
    for name in things.names().into_iter().chain([session.to_string()]) {
        body = body.replace(&name, "NAME");
    }
    let Ok(mut json) = serde_json::from_str::<Value>(&body) else {
        return Answer(status, headers, body);
    };
    hide(&mut json, &asked_at);
    Answer(status, headers, json.to_string())
}

/// Headers but those of the moment, and the length of a body in which names differ.
fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let kept = headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()));
    kept.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect()
}

/// Fresh ids are alike, and so are times since the request; an older time is not.
fn hide(value: &mut Value, asked_at: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let is_new = field.as_str().is_some_and(|time| time >= asked_at);
                match name.as_str() {
                    "request_id" | "id" => *field = "ID".into(),
                    "created_at" if is_new => *field = "NOW".into(),
                    _ => hide(field, asked_at),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, asked_at)),
        _ => {}
    }
}

#[tokio::test]
async fn what_one_may_not_read_answers_as_what_does_not_exist_at_every_door() {
    let server = serve().await;
    let open = server.run("lab/open").await;
    let privates = [
        private(&server, "other/secret", 1).await,
        private(&server, "lab/secret", 2).await,
    ];
    let http = reqwest::Client::new();
    let mut doors_seen = BTreeSet::new();
    for secret in &privates {
        let unknown = Things::unknown(secret);
        for scope in [Scope::Read, Scope::Write, Scope::Evaluate] {
            let token = server.token(&[scope], "lab/open").await;
            let names: Vec<_> = doors(secret).into_keys().collect();
            for door in names {
                let mut answers = Vec::new();
                for things in [secret, &unknown] {
                    let session = open_session(&server, &open, 5).await;
                    let url = |path: &str| {
                        let path = path.replace("SESSION", &session.to_string());
                        format!("{}/api/v1{path}", server.server.url)
                    };
                    if door == "commit_push_session" {
                        // What is committed is a file that names the chunk; who may not write is refused here already.
                        let files = format!("/runs/lab/open/push-sessions/{session}/files");
                        let named = http.post(url(&files)).json(&things.file).bearer_auth(&token);
                        let named = named.send().await.unwrap().status();
                        assert_eq!(named.is_success(), scope == Scope::Write, "{named}");
                    }
                    let request = match doors(things).remove(door).unwrap() {
                        Ask::Empty(method, path) => http.request(method, url(&path)),
                        Ask::Json(method, path, body) => http.request(method, url(&path)).json(&body),
                        Ask::Bytes(method, path, body) => http.request(method, url(&path)).body(body),
                        Ask::Suite(subject) => http.post(url("/suites")).multipart(form(&subject)),
                    };
                    let request = request.bearer_auth(&token).header("fineline-lease", "x");
                    answers.push(answer(request, things, session).await);
                }
                assert_eq!(answers[0], answers[1], "`{door}` with the scope {scope}");
                doors_seen.insert(door.to_owned());
            }
        }
    }
    let mut expected = operations_that_name();
    // Its form is no JSON that the document describes.
    expected.insert("create_suite".to_owned());
    NO_DOORS
        .iter()
        .for_each(|name| assert!(expected.remove(*name), "{name}"));
    assert_eq!(
        doors_seen, expected,
        "every operation that names something is a door of this test"
    );
}

#[tokio::test]
async fn another_namespaces_private_model_is_sent_and_evaluated_like_an_unknown_one() {
    // Given a private step, its suite, and a stranger whose run has the same suite
    let server = serve().await;
    let secret = server.run("other/secret").await;
    let open = server.run("lab/open").await;
    let suite = suite_about(server.dir.path(), "both");
    for run in ["other/secret", "lab/open"] {
        apply_suite(&server.admin, &suite, &run.parse().unwrap(), false)
            .await
            .unwrap();
    }
    let dir = checkpoint(server.dir.path(), "a", 40_000, 1);
    let pushed = push(&server.admin, &secret, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    let files = server
        .admin
        .list_files(&secret, &Reference::Step(1), true)
        .await
        .unwrap();
    let stranger = server.client(&[Scope::Write], "lab/*").await;
    // When it is published by naming alone
    let session = open_session(&server, &open, 1).await;
    for file in &files {
        stranger.add_push_session_file(&open, session, file).await.unwrap();
    }
    let refused = stranger
        .commit_push_session(&open, session, pushed.digest)
        .await
        .unwrap_err()
        .to_string();
    // Then its chunks are said to be missing
    assert!(refused.contains("was not sent"), "{refused}");
    // And when the bytes are pushed, all of them are sent, and an evaluation of its own is queued.
    let sent = push(&stranger, &open, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    assert_eq!((sent.held_bytes, sent.digest), (0, pushed.digest));
    assert_eq!(sent.sent_bytes, pushed.sent_bytes);
    let queued = stranger
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap()
        .items;
    assert_eq!(
        queued.iter().map(|evaluation| &evaluation.run).collect::<Vec<_>>(),
        [&open]
    );
}
