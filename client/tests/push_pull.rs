//! Pushing and pulling through HTTP against a registry that can be told to fail.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(unreachable_pub, reason = "a module that several test binaries could take")]
mod fake;

#[path = "push_pull/convert.rs"]
mod convert;
#[path = "../../registry/format/tests/it/craft.rs"]
mod craft;
#[path = "push_pull/direct.rs"]
mod direct;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fake::Registry;
use fineline_api::RunName;
use fineline_client::{Error, Phase, PullOptions, PushOptions, PushOutcome, pull, push};

fn run() -> RunName {
    "lab/a".parse().unwrap()
}

/// Bytes that do not compress and do not repeat.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..n).map(|_| next()).collect()
}

/// A safetensors file of `n` tensors of 1 MiB.
fn safetensors(n: usize, seed: u64) -> Vec<u8> {
    let size = 1 << 20;
    let entry = |i: usize| {
        let (begin, end) = (i * size, (i + 1) * size);
        format!(
            "\"t{i}\":{{\"dtype\":\"BF16\",\"shape\":[{}],\"data_offsets\":[{begin},{end}]}}",
            size / 2
        )
    };
    let header = format!("{{{}}}", (0..n).map(entry).collect::<Vec<_>>().join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(noise(n * size, seed));
    bytes
}

fn step_folder(n_tensors: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), safetensors(n_tensors, 7)).unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    fs::write(dir.path().join("empty.txt"), "").unwrap();
    fs::create_dir(dir.path().join("extra")).unwrap();
    fs::write(dir.path().join("extra/notes.bin"), noise(6 << 20, 9)).unwrap();
    fs::write(
        dir.path().join("trainer_state.json"),
        r#"{"step":7,"tokens_seen":4096,"train_loss":2.5}"#,
    )
    .unwrap();
    dir
}

fn files_under(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files_under(&entry.path()));
        } else {
            found.push((entry.path(), fs::read(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

fn assert_same(a: &Path, b: &Path) {
    let relative = |dir: &Path| {
        let files = files_under(dir).into_iter();
        files
            .map(|(path, bytes)| (path.strip_prefix(dir).unwrap().to_owned(), bytes))
            .collect::<Vec<_>>()
    };
    assert!(relative(a) == relative(b), "{} and {} differ", a.display(), b.display());
}

async fn push_quietly(registry: &Registry, step: u64, dir: &Path, options: &PushOptions) -> Result<PushOutcome, Error> {
    push(&registry.client(), &run(), step, dir, options, |_| {}).await
}

async fn pull_quietly(registry: &Registry, dir: &Path) -> Result<fineline_client::PullOutcome, Error> {
    pull(
        &registry.client(),
        &run(),
        &"7".parse().unwrap(),
        dir,
        &PullOptions::default(),
        |_| {},
    )
    .await
}

/// Files of a folder: name and content.
type Files<'a> = Vec<(&'a str, &'a [u8])>;

#[tokio::test]
async fn a_step_comes_back_byte_for_byte_and_the_trainer_gives_tokens_and_loss() {
    let (registry, dir, to) = (Registry::start().await, step_folder(20), tempfile::tempdir().unwrap());
    let phases = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&phases);
    let progress = move |progress: &fineline_client::Progress| {
        let mut seen = seen.lock().unwrap();
        seen.retain(|last: &fineline_client::Progress| {
            last.phase != progress.phase || last.done_bytes > progress.done_bytes
        });
        seen.push(*progress);
    };
    let pushed = push(
        &registry.client(),
        &run(),
        7,
        dir.path(),
        &PushOptions::default(),
        progress,
    )
    .await
    .unwrap();
    assert!(
        !pushed.unchanged && pushed.held_bytes == 0 && pushed.warnings.len() == 1,
        "{pushed:?}"
    );
    let asked = registry.world().asked.clone().unwrap();
    assert_eq!((asked.tokens, asked.loss), (Some(4096), Some(2.5)));
    // One pass: what is hashed is sent as it goes.
    let seen = phases.lock().unwrap().clone();
    assert!(seen.iter().all(|seen| seen.phase != Phase::Hashing), "{seen:?}");
    let sent = seen.iter().filter(|seen| seen.phase == Phase::Sending);
    let most = sent.max_by_key(|seen| seen.done_bytes).unwrap();
    assert_eq!(
        (most.done_bytes, most.total_bytes),
        (pushed.size_bytes, pushed.size_bytes)
    );
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    assert_same(dir.path(), to.path());
    assert_eq!(
        (pulled.digest, pulled.n_files, pulled.kept_bytes),
        (pushed.digest, 5, 0)
    );
    // Again, nothing moves either way.
    let again = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    assert!(again.unchanged && again.sent_chunks == 0 && again.digest == pushed.digest);
    let again = pull_quietly(&registry, to.path()).await.unwrap();
    assert_eq!((again.received_bytes, again.kept_bytes), (0, pushed.size_bytes));
}

#[tokio::test]
async fn a_push_that_was_interrupted_sends_only_the_rest() {
    let (registry, dir) = (Registry::start().await, step_folder(20));
    registry.world().puts_left = Some(9);
    let error = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::StoreFull(_)), "{error:?}");
    assert!(registry.world().steps.is_empty() && registry.world().n_aborted == 1);
    registry.world().puts_left = None;
    let outcome = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    let world = registry.world();
    assert_eq!(world.n_puts, world.chunks.len(), "no chunk was sent twice");
    assert_eq!(outcome.sent_chunks as usize, world.n_puts - 9);
    assert!(outcome.held_bytes > 0);
}

#[tokio::test]
async fn other_bytes_at_a_held_step_are_refused_before_a_byte_moves_unless_replaced() {
    let (registry, dir) = (Registry::start().await, step_folder(1));
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    fs::write(dir.path().join("config.json"), "{ }").unwrap();
    let n_puts = registry.world().n_puts;
    let error = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::StepExists(_)) && error.hint().unwrap().contains("--replace"),
        "{error:?}"
    );
    assert_eq!(registry.world().n_puts, n_puts);
    let options = PushOptions {
        replace: true,
        ..PushOptions::default()
    };
    let outcome = push_quietly(&registry, 7, dir.path(), &options).await.unwrap();
    assert_eq!(outcome.sent_chunks, 1, "only what changed is sent");
}

#[tokio::test]
async fn what_is_wrong_with_a_folder_is_told_before_any_call() {
    let registry = Registry::start().await;
    let whole = safetensors(2, 1);
    let index = br#"{"weight_map":{"t0":"model-00001-of-00002.safetensors","x":"model-00002-of-00002.safetensors"}}"#;
    let cases: [(&str, Files<'_>); 4] = [
        ("no files", vec![]),
        (
            "model.safetensors",
            vec![("model.safetensors", &whole[..whole.len() - 1])],
        ),
        (
            "00002-of-00002",
            vec![
                ("model.safetensors.index.json", index),
                ("model-00001-of-00002.safetensors", &whole),
            ],
        ),
        ("case", vec![("README.md", b"a"), ("readme.md", b"b")]),
    ];
    for (expected, files) in cases {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            fs::write(dir.path().join(path), bytes).unwrap();
        }
        let error = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Folder(_) | Error::Format(_)), "{error:?}");
        assert!(
            error.to_string().contains(expected) && error.is_users_to_mend(),
            "{expected}: {error}"
        );
    }
    assert!(registry.world().asked.is_none(), "nothing was asked of the registry");
}

#[tokio::test]
async fn a_file_that_changes_between_the_two_passes_of_a_replacing_push_is_told() {
    let (registry, dir) = (Registry::start().await, step_folder(4));
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    let before = registry.world().steps[&7].0;
    let model = dir.path().join("model.safetensors");
    fs::write(&model, safetensors(4, 9)).unwrap();
    let changed = model.clone();
    let progress = move |progress: &fineline_client::Progress| {
        if progress.phase == Phase::Sending && progress.done_bytes == 0 {
            // The same size, and the time put back: only the content tells.
            let modified = fs::metadata(&changed).unwrap().modified().unwrap();
            fs::write(&changed, safetensors(4, 8)).unwrap();
            fs::File::options()
                .write(true)
                .open(&changed)
                .unwrap()
                .set_modified(modified)
                .unwrap();
        }
    };
    let error = push(
        &registry.client(),
        &run(),
        7,
        dir.path(),
        &PushOptions {
            replace: true,
            ..PushOptions::default()
        },
        progress,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(&error, Error::Changed(path) if path.ends_with("model.safetensors")),
        "{error:?}"
    );
    assert_eq!(registry.world().steps[&7].0, before);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_told() {
    let (registry, dir) = (Registry::start().await, step_folder(20));
    let model = dir.path().join("model.safetensors");
    let progress = move |progress: &fineline_client::Progress| {
        if progress.phase == Phase::Sending && progress.done_bytes == 0 {
            fs::File::options()
                .append(true)
                .open(&model)
                .and_then(|file| file.set_len(1 << 20))
                .unwrap();
        }
    };
    let options = PushOptions::default();
    let error = push(&registry.client(), &run(), 7, dir.path(), &options, progress)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Changed(path) if path.ends_with("model.safetensors")),
        "{error:?}"
    );
    assert!(registry.world().steps.is_empty());
}

#[tokio::test]
async fn a_pull_takes_up_what_was_interrupted_and_refuses_wrong_bytes() {
    let (registry, dir, to) = (Registry::start().await, step_folder(20), tempfile::tempdir().unwrap());
    let pushed = push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    // Given a pull that got half of the weights
    let model = fs::read(dir.path().join("model.safetensors")).unwrap();
    fs::write(
        to.path().join("model.safetensors.fineline-partial"),
        &model[..model.len() / 2],
    )
    .unwrap();
    // When the registry sends wrong bytes, then nothing gets a name
    registry.world().wrong_chunk = Some(fineline_format::frame::encode_raw(b"wrong").into());
    let error = pull_quietly(&registry, to.path()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(!to.path().join("model.safetensors").exists());
    // And when it sends the right ones, only the rest is received.
    registry.world().wrong_chunk = None;
    let pulled = pull_quietly(&registry, to.path()).await.unwrap();
    assert_same(dir.path(), to.path());
    let half = model.len() as u64 / 2;
    assert!(pulled.kept_bytes > half - (2 << 20), "{pulled:?}");
    assert!(
        pulled.received_bytes < pushed.size_bytes - half + (2 << 20),
        "{pulled:?}"
    );
}

#[tokio::test]
async fn a_chunk_that_comes_as_other_bytes_is_asked_for_again_verified_and_only_that_one() {
    let (registry, dir, to) = (Registry::start().await, step_folder(20), tempfile::tempdir().unwrap());
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    // Given a chunk of which every frame but a verified one decodes well, to other bytes of the same size
    let victim = {
        let world = registry.world();
        let model = world.steps[&7].1.iter().find(|file| file.path == "model.safetensors");
        model.unwrap().chunks[3].digest
    };
    registry.world().swapped = Some((victim, fineline_format::frame::encode_raw(&noise(1 << 20, 99)).into()));

    pull_quietly(&registry, to.path()).await.unwrap();

    assert_same(dir.path(), to.path());
    assert_eq!(registry.world().verified, [victim]);
}

#[tokio::test]
async fn a_registry_that_is_away_for_a_moment_costs_no_push() {
    let (registry, dir) = (Registry::start().await, step_folder(1));
    registry.world().n_unavailable = 4;
    push_quietly(&registry, 7, dir.path(), &PushOptions::default())
        .await
        .unwrap();
    assert_eq!(registry.world().n_unavailable, 0);
}
