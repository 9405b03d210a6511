//! What trainers write for their own restart is stored byte for byte, and said to be nothing that could be evaluated.

use std::path::{Path, PathBuf};
use std::process::Output;

use fineline_api::{Checkpoint, Reference};
use fineline_client::{EvaluationQuery, PullOptions, PushOptions, apply_suite, pull, push};
use harness::{TestServer, checkpoint, serve, suite};

/// A folder of files with a few bytes of their own each.
fn folder(server: &TestServer, name: &str, files: &[&str]) -> PathBuf {
    let dir = server.dir.path().join(name);
    add(&dir, files);
    dir
}

fn add(dir: &Path, files: &[&str]) {
    for file in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("the bytes of {file}").repeat(2000)).unwrap();
    }
}

async fn client(server: &TestServer, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_client-under-test"));
    command
        .args(arguments)
        .env("FINELINE_URL", &server.server.url)
        .env("FINELINE_TOKEN", &server.server.admin_token);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn step(server: &TestServer, step: u64) -> Checkpoint {
    let run = "lab/run".parse().unwrap();
    server.admin.get_checkpoint(&run, &Reference::Step(step)).await.unwrap()
}

#[tokio::test]
async fn a_trainers_own_form_is_stored_and_the_reason_is_said_everywhere() {
    let server = serve().await;
    let run = server.run("lab/run").await;
    let forms: [(&[&str], &str); 4] = [
        (
            &["__0_0.distcp", "__1_0.distcp", ".metadata"],
            "sharded as torch.distributed.checkpoint (`__0_0.distcp`)",
        ),
        (
            &[
                "global_step500/zero_pp_rank_0_mp_rank_00_optim_states.pt",
                "global_step500/mp_rank_00_model_states.pt",
            ],
            "sharded by DeepSpeed ZeRO",
        ),
        (&["pytorch_model.bin", "config.json"], "PyTorch's legacy form"),
        (&["optimizer.pt", "scheduler.pt", "rng_state_0.pth"], "no weights"),
    ];
    for (n, (files, reason)) in forms.into_iter().enumerate() {
        // Given such a folder
        let dir = folder(&server, &format!("form-{n}"), files);
        if dir.join("config.json").exists() {
            std::fs::write(dir.join("config.json"), "{}").unwrap();
        }
        let name = n.to_string();
        // When it is pushed
        let pushed = client(&server, &["push", "lab/run", &name, dir.to_str().unwrap()]).await;
        // Then the reason is said by the push, by `show`, by `ls` and by the API
        let not_evaluable = format!("not evaluable: {reason}");
        let not_evaluable = not_evaluable.replace(": PyTorch", ": `pytorch_model.bin` is in PyTorch");
        assert!(said(&pushed).contains(&not_evaluable), "{}", said(&pushed));
        let told = step(&server, n as u64).await;
        assert!(
            !told.evaluable && told.not_evaluable.unwrap().contains(reason),
            "{name}"
        );
        assert!(said(&client(&server, &["show", &format!("lab/run@{name}")]).await).contains(reason));
        // And all of it comes back.
        let to = server.dir.path().join(format!("pulled-{n}"));
        let step = Reference::Step(n as u64);
        pull(&server.admin, &run, &step, &to, &PullOptions::default(), |_| {})
            .await
            .unwrap();
        for file in files {
            assert!(
                std::fs::read(dir.join(file)).unwrap() == std::fs::read(to.join(file)).unwrap(),
                "{file}"
            );
        }
    }
    let listed = said(&client(&server, &["ls", "lab/run"]).await);
    assert_eq!(listed.matches("ready, not evaluable").count(), 4, "{listed}");
}

#[tokio::test]
async fn a_trainers_files_beside_real_weights_change_nothing() {
    // Given a model, and the same with what its trainer needs to go on
    let server = serve().await;
    let run = server.run("lab/run").await;
    let file = suite(server.dir.path());
    apply_suite(&server.admin, &file, &"lab/*".parse().unwrap(), false)
        .await
        .unwrap();
    let dir = checkpoint(server.dir.path(), "model", 9000, 1);
    push(&server.admin, &run, 1, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    add(
        &dir,
        &[
            "optimizer.pt",
            "optimizer.bin",
            "scheduler.pt",
            "training_args.bin",
            "rng_state_0.pth",
            "global_step2/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
            "global_step2/mp_rank_00_model_states.pt",
            "optim/__0_0.distcp",
        ],
    );
    // When that is pushed
    let pushed = push(&server.admin, &run, 2, &dir, &PushOptions::default(), |_| {})
        .await
        .unwrap();
    // Then it is the same model, evaluable, and not evaluated twice.
    assert_eq!(pushed.not_evaluable, None);
    let (plain, full) = (step(&server, 1).await, step(&server, 2).await);
    assert!(full.evaluable && full.n_files == plain.n_files + 8);
    assert_eq!(
        (full.weights_digest, full.model_digest),
        (plain.weights_digest, plain.model_digest)
    );
    let tensors = server.admin.list_tensors(&run, &Reference::Step(2)).await.unwrap();
    assert_eq!(
        tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(),
        ["w"]
    );
    let queued = server
        .admin
        .list_evaluations(&EvaluationQuery::default(), None, None)
        .await
        .unwrap();
    assert_eq!(queued.items.len(), 1);
}
