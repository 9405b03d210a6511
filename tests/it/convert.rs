//! PyTorch's files pulled as safetensors: the values, the weights digest, what stays as it is, and what is refused.

#[path = "../../registry/format/tests/it/craft.rs"]
#[expect(dead_code, reason = "it makes lies too, which no registry would take")]
mod craft;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use fineline_api::{Checkpoint, Reference, RunName};
use fineline_client::{Error, PullOptions, PullOutcome, PushOptions, WeightsForm, pull, push};
use fineline_format::weights::{read_tensor, read_tensors};
use fineline_format::{Container, Dtype};
use harness::{KILL_AT, TestServer, serve};

/// What a test is told of a tensor, and its values.
type Values = BTreeMap<String, (Dtype, Vec<u64>, Vec<u8>)>;

#[expect(clippy::print_stdout, reason = "a test says why it skips")]
fn shared_data() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if data.join("run_bin").is_dir() {
        return Some(data);
    }
    println!("skipped: it/convert: there is no ../shared/data beside the clone");
    None
}

async fn push_step(server: &TestServer, run: &RunName, step: u64, dir: &Path) -> Checkpoint {
    push(&server.admin, run, step, dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    server.admin.get_checkpoint(run, &Reference::Step(step)).await.unwrap()
}

async fn pull_as_safetensors(server: &TestServer, run: &RunName, step: u64, to: &Path) -> Result<PullOutcome, Error> {
    let options = PullOptions {
        weights: WeightsForm::Safetensors,
        ..PullOptions::default()
    };
    pull(&server.admin, run, &Reference::Step(step), to, &options, |_| {}).await
}

async fn fineline(server: &TestServer, arguments: &[&str], kill_at: Option<&str>) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command
        .args(arguments)
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token)
        .envs(kill_at.map(|point| (KILL_AT, point)));
    command.output().await.unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The tensors of all files of a folder whose names end so.
fn values(dir: &Path, end: &str) -> Values {
    let mut values = Values::new();
    for name in names(dir).into_iter().filter(|name| name.ends_with(end)) {
        let file = std::fs::read(dir.join(&name)).unwrap();
        for tensor in read_tensors(&file, Container::of(&file, &name).unwrap(), &name).unwrap() {
            let raw = read_tensor(&file, &tensor).unwrap();
            let twice = values.insert(tensor.name, (tensor.dtype, tensor.shape, raw));
            assert!(twice.is_none());
        }
    }
    values
}

/// Bytes that do not compress and do not repeat.
fn noise(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..n).map(|_| next()).collect()
}

/// A view: its name, its storage's class, key and elements, its first element, shape and strides.
type View<'a> = (&'a str, &'a str, &'a str, i64, i64, &'a [i64], &'a [i64]);

/// A PyTorch file of views of storages.
fn torch_file(views: &[View<'_>], storages: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tensors = Vec::new();
    for (name, class, key, n, first, shape, strides) in views {
        let args = craft::tensor_args(class, key, *n, *first, shape, strides);
        let call = [craft::global("torch._utils _rebuild_tensor_v2"), craft::tuple(&args)];
        tensors.push((*name, [&call.concat()[..], b"R"].concat()));
    }
    let mut zip = craft::Zip::default();
    zip.entry("m/data.pkl", &craft::state_dict(&tensors));
    for (key, storage) in storages {
        zip.entry(&format!("m/data/{key}"), storage);
    }
    zip.finish()
}

/// A step of one PyTorch file with all that a state dict may hold.
fn step_folder(parent: &Path, seed: u32) -> PathBuf {
    let dir = parent.join(format!("step-{seed}"));
    std::fs::create_dir_all(&dir).unwrap();
    let file = torch_file(
        &[
            ("embed", "FloatStorage", "0", 420_000, 0, &[700, 600], &[600, 1]),
            ("head", "FloatStorage", "0", 420_000, 0, &[700, 600], &[600, 1]),
            ("turned", "FloatStorage", "0", 420_000, 0, &[600, 700], &[1, 600]),
            (
                "fused.k",
                "BFloat16Storage",
                "1",
                9_000_000,
                1000,
                &[3000, 1000],
                &[3000, 1],
            ),
            ("half", "HalfStorage", "2", 50_000, 0, &[50_000], &[1]),
            ("norm", "BFloat16Storage", "3", 6, 2, &[4], &[1]),
            ("corner", "BFloat16Storage", "3", 6, 0, &[2, 2], &[1, 3]),
            ("positions", "LongStorage", "4", 3, 0, &[1, 3], &[3, 1]),
            ("mask", "BoolStorage", "5", 4, 0, &[2, 2], &[2, 1]),
            ("scalar", "FloatStorage", "6", 1, 0, &[], &[]),
            ("none", "FloatStorage", "7", 0, 0, &[0, 8], &[8, 1]),
        ],
        &[
            ("0", noise(1_680_000, seed)),
            ("1", noise(18_000_000, seed + 1)),
            ("2", noise(100_000, seed + 2)),
            ("3", noise(12, seed + 3)),
            ("4", noise(24, seed + 4)),
            ("5", vec![0, 1, 1, 0]),
            ("6", noise(4, seed + 5)),
            ("7", Vec::new()),
        ],
    );
    std::fs::write(dir.join("pytorch_model.bin"), file).unwrap();
    std::fs::write(dir.join("config.json"), r#"{"architectures":["LlamaForCausalLM"]}"#).unwrap();
    std::fs::write(dir.join("training_args.bin"), noise(3000, seed + 6)).unwrap();
    dir
}

#[tokio::test]
async fn a_real_step_in_shards_comes_as_the_safetensors_of_its_run() {
    let Some(data) = shared_data() else { return };
    // Given a real step in both forms
    let server = serve().await;
    let run = server.run("lab/run").await;
    let (stored, expected) = (data.join("run_bin/step-000512"), data.join("run/step-000512"));
    let as_bin = push_step(&server, &run, 1, &stored).await;
    let as_safetensors = push_step(&server, &run, 2, &expected).await;
    assert_eq!(as_bin.weights_digest, as_safetensors.weights_digest);
    // When the one is pulled as the other
    let to = server.dir.path().join("pulled");
    let arguments = ["pull", "lab/run@1", to.to_str().unwrap(), "--as", "safetensors"];
    let pulled = fineline(&server, &arguments, None).await;
    // Then it says so,
    let said = String::from_utf8(pulled.stdout).unwrap();
    assert!(said.contains("4 of them made for the weights as safetensors"), "{said}");
    // the tensors are those of the run, in as many files, by an index,
    assert!(values(&to, ".safetensors") == values(&expected, ".safetensors"));
    let index = std::fs::read(to.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let total: usize = values(&expected, ".safetensors")
        .values()
        .map(|(_, _, raw)| raw.len())
        .sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["weight_map"]["lm_head.weight"], {
        let bin: serde_json::Value =
            serde_json::from_slice(&std::fs::read(stored.join("pytorch_model.bin.index.json")).unwrap()).unwrap();
        let shard = bin["weight_map"]["lm_head.weight"].as_str().unwrap().to_owned();
        shard
            .replace("pytorch_model-", "model-")
            .replace(".bin", ".safetensors")
    });
    // all else is as it was stored, and nothing more is there,
    let kept: Vec<_> = names(&stored)
        .into_iter()
        .filter(|name| !name.contains(".bin"))
        .collect();
    for name in &kept {
        assert!(
            std::fs::read(stored.join(name)).unwrap() == std::fs::read(to.join(name)).unwrap(),
            "{name}"
        );
    }
    assert_eq!(names(&to).len(), kept.len() + 4, "{:?}", names(&to));
    // and a push of it has the same weights.
    let again = push_step(&server, &run, 3, &to).await;
    assert_eq!(again.weights_digest, as_bin.weights_digest);
    assert_eq!(again.failure, None);
}

#[tokio::test]
async fn views_ties_and_buffers_are_written_by_value_and_what_is_there_is_not_fetched_again() {
    // Given a step with each of them
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = step_folder(server.dir.path(), 1);
    let stored = push_step(&server, &run, 1, &dir).await;
    let to = server.dir.path().join("pulled");
    // When it is pulled as safetensors
    let pulled = pull_as_safetensors(&server, &run, 1, &to).await.unwrap();
    // Then every tensor has its values, and a push has the same weights.
    assert_eq!(names(&to), ["config.json", "model.safetensors", "training_args.bin"]);
    let expected = values(&dir, "model.bin");
    assert_eq!(expected.len(), 11);
    assert!(values(&to, ".safetensors") == expected);
    assert_eq!((pulled.n_files, pulled.n_converted_files, pulled.kept_bytes), (3, 1, 0));
    assert_eq!(
        push_step(&server, &run, 2, &to).await.weights_digest,
        stored.weights_digest
    );
    // And a second pull finds all of it there,
    let again = pull_as_safetensors(&server, &run, 1, &to).await.unwrap();
    assert_eq!((again.received_bytes, again.kept_bytes), (0, pulled.size_bytes));
    // one of which the weights are another file's is refused, or mended where that is asked for,
    let model = to.join("model.safetensors");
    let right = std::fs::read(&model).unwrap();
    let mut wrong = right.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(&model, &wrong).unwrap();
    let refused = pull_as_safetensors(&server, &run, 1, &to).await;
    assert!(matches!(refused, Err(Error::Folder(_))), "{refused:?}");
    let options = PullOptions {
        overwrite: true,
        weights: WeightsForm::Safetensors,
    };
    pull(&server.admin, &run, &Reference::Step(1), &to, &options, |_| {})
        .await
        .unwrap();
    assert!(std::fs::read(&model).unwrap() == right);
    // and of safetensors a pull as safetensors is a pull.
    let same = server.dir.path().join("same");
    let as_it_is = pull_as_safetensors(&server, &run, 2, &same).await.unwrap();
    assert!(std::fs::read(same.join("model.safetensors")).unwrap() == right && as_it_is.n_converted_files == 0);
}

#[tokio::test]
async fn a_pull_killed_anywhere_leaves_no_weights_under_their_name_and_the_same_command_ends_it() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = step_folder(server.dir.path(), 1);
    push_step(&server, &run, 1, &dir).await;
    for (n, point) in [
        "pull.chunk_written",
        "pull.chunk_written:3",
        "pull.whole",
        "pull.whole:3",
    ]
    .into_iter()
    .enumerate()
    {
        // Given a pull that was killed
        let to = server.dir.path().join(format!("pulled-{n}"));
        let arguments = ["pull", "lab/run@1", to.to_str().unwrap(), "--as", "safetensors"];
        let killed = fineline(&server, &arguments, Some(point)).await;
        assert_eq!(killed.status.signal(), Some(9), "{point}");
        assert!(!to.join("model.safetensors").exists(), "{point}");
        // When it is run again
        let pulled = pull_as_safetensors(&server, &run, 1, &to).await.unwrap();
        // Then it is whole, and what was whole of it was kept.
        assert!(values(&to, ".safetensors") == values(&dir, "model.bin"), "{point}");
        assert_eq!(names(&to).len(), 3, "{:?}", names(&to));
        assert!(pulled.kept_bytes > 0 || n == 0, "{point}");
    }
}

#[tokio::test]
async fn a_damaged_chunk_ends_a_pull_without_a_file_and_the_next_push_mends_it() {
    // Given a step of which the largest frame was overwritten in the store
    let server = serve().await;
    let run = server.run("lab/run").await;
    let dir = step_folder(server.dir.path(), 1);
    let pushed = push_step(&server, &run, 1, &dir).await;
    let folders = std::fs::read_dir(server.dir.path().join("store/frames")).unwrap();
    let frames = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let largest = frames
        .map(|frame| frame.unwrap())
        .max_by_key(|frame| frame.metadata().unwrap().len())
        .unwrap();
    let mut frame = std::fs::read(largest.path()).unwrap();
    frame[1_000_000] ^= 1;
    std::fs::write(largest.path(), frame).unwrap();
    // When it is pulled as safetensors, then nothing gets a name,
    let to = server.dir.path().join("pulled");
    let error = pull_as_safetensors(&server, &run, 1, &to).await.unwrap_err();
    assert!(matches!(error, Error::Server(_)), "{error:?}");
    assert_eq!(names(&to), ["model.safetensors.fineline-partial"]);
    // and once the same push sent it again, all is well.
    push_step(&server, &run, 1, &dir).await;
    pull_as_safetensors(&server, &run, 1, &to).await.unwrap();
    assert!(values(&to, ".safetensors") == values(&dir, "model.bin"));
    assert_eq!(
        push_step(&server, &run, 2, &to).await.weights_digest,
        pushed.weights_digest
    );
}

#[tokio::test]
async fn the_legacy_form_is_kept_and_named_and_not_converted() {
    // Given a file in the form from before PyTorch's zip, alone and as one of two shards
    let server = serve().await;
    let run = server.run("lab/run").await;
    let legacy = [b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", &noise(3000, 1)[..]].concat();
    let (one, two) = (server.dir.path().join("one"), server.dir.path().join("two"));
    for dir in [&one, &two] {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("config.json"), "{}").unwrap();
    }
    std::fs::write(one.join("pytorch_model.bin"), &legacy).unwrap();
    let views: [View<'_>; 1] = [("w", "FloatStorage", "0", 6, 0, &[6], &[1])];
    let shard = |n: u8| format!("pytorch_model-0000{n}-of-00002.bin");
    std::fs::write(two.join(shard(1)), torch_file(&views, &[("0", noise(24, 1))])).unwrap();
    std::fs::write(two.join(shard(2)), &legacy).unwrap();
    let index = serde_json::json!({ "weight_map": { "w": shard(1), "x": shard(2) } });
    std::fs::write(two.join("pytorch_model.bin.index.json"), index.to_string()).unwrap();
    for (step, dir, file) in [(1, &one, "pytorch_model.bin".to_owned()), (2, &two, shard(2))] {
        // When it is pushed
        let checkpoint = push_step(&server, &run, step, dir).await;
        // Then it is stored, and the checkpoint says which file it is and what to do,
        let said = [checkpoint.not_evaluable.unwrap(), checkpoint.warnings.concat()].concat();
        assert!(
            said.contains(&format!("`{file}` is in PyTorch's legacy form")),
            "{said}"
        );
        assert!(said.contains("PyTorch 1.6 or later"), "{said}");
        // it is pulled as it is,
        let to = server.dir.path().join(format!("pulled-{step}"));
        let reference = Reference::Step(step);
        pull(&server.admin, &run, &reference, &to, &PullOptions::default(), |_| {})
            .await
            .unwrap();
        assert!(std::fs::read(to.join(&file)).unwrap() == legacy);
        // and not as safetensors.
        let nowhere = server.dir.path().join(format!("nowhere-{step}"));
        let target = format!("lab/run@{step}");
        let arguments = ["pull", &target, nowhere.to_str().unwrap(), "--as", "safetensors"];
        let refused = fineline(&server, &arguments, None).await;
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&format!("`{file}`")) && said.contains("PyTorch 1.6 or later"),
            "{said}"
        );
        assert!(said.contains("without `--as`") && !nowhere.exists(), "{said}");
    }
}
