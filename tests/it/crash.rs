//! The real programs, killed at each fail point: what is left is sound, no step was ready early, the repeated command
//! finishes, and what was half-done is brought back.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::{KILL_AT, ServerProcess, Start, checkpoint, environment, wait};
use serde_json::Value;
use tempfile::TempDir;

const REGISTRY: &str = env!("CARGO_BIN_EXE_registry-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

/// A data folder, and beside it the checkpoints to push.
struct Place {
    dir: TempDir,
    steps: [PathBuf; 2],
}

impl Place {
    /// With step 1 pushed.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let steps = [1, 2].map(|seed| checkpoint(dir.path(), &format!("step-{seed}"), 40_000, seed));
        for (step, at) in (0..2).flat_map(|step| (0..3).map(move |at| (step, at))) {
            let own = format!("note {at} of step {step}");
            std::fs::write(steps[step].join(format!("note-{at}.txt")), own).unwrap();
        }
        let place = Self { dir, steps };
        let server = place.start(Start::default());
        place.fineline(&server, &["run", "create", "lab/run"]);
        place.push(&server, 1);
        server.kill();
        place
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self, how: Start<'_>) -> ServerProcess {
        ServerProcess::start(REGISTRY, &self.data(), how).unwrap()
    }

    fn command(&self, server: &ServerProcess, arguments: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command.args(arguments).env("FINELINE_URL", &server.url);
        command.env("FINELINE_TOKEN", server.token());
        command.env("FINELINE_CONFIG", self.dir.path().join("client.toml"));
        command
    }

    /// A command that ends well; what it printed.
    fn fineline(&self, server: &ServerProcess, arguments: &[&str]) -> String {
        let output = self.command(server, arguments).output().unwrap();
        text(&output)
    }

    fn push_command(&self, server: &ServerProcess, step: usize) -> Command {
        let dir = self.steps[step - 1].to_str().unwrap();
        self.command(server, &["push", "lab/run", &step.to_string(), dir])
    }

    fn push(&self, server: &ServerProcess, step: usize) {
        text(&self.push_command(server, step).output().unwrap());
    }

    /// Pulls a step and compares it with what was pushed.
    fn assert_identical(&self, server: &ServerProcess, step: usize) {
        let to = self.dir.path().join("pulled");
        self.fineline(server, &["pull", &format!("lab/run@{step}"), to.to_str().unwrap()]);
        let files = |dir: &Path| {
            let mut files: Vec<_> = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            files
                .into_iter()
                .map(|path| std::fs::read(path).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(files(&to), files(&self.steps[step - 1]));
        std::fs::remove_dir_all(to).unwrap();
    }

    /// What `scrub` says of every byte, which is nothing but counts.
    fn assert_sound(&self, after: &str) -> Value {
        let mut scrub = Command::new(REGISTRY);
        scrub
            .args(["scrub", "--json", "--data"])
            .arg(self.data())
            .envs(environment(&self.data()));
        let output = scrub.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "after {after}: {report:#}");
        report
    }

    fn n_objects(&self) -> usize {
        let folders = std::fs::read_dir(self.data().join("store/frames"))
            .into_iter()
            .flatten();
        folders
            .map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count())
            .sum()
    }

    /// Waits until nothing is in the store but what something needs, with a server that collects every second.
    fn assert_nothing_left(&self, after: &str) {
        let arguments = ["--grace", "1s"];
        let server = self.start(Start {
            arguments: &arguments,
            ..Start::default()
        });
        let begun = Instant::now();
        loop {
            let report: Value = serde_json::from_str(&self.fineline(&server, &["storage", "gc", "--json"])).unwrap();
            let live = report["live"]["n"].as_u64().unwrap() as usize;
            if live == self.n_objects() && report["waiting"]["n"] == 0 && report["condemned"]["n"] == 0 {
                break;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "after {after}: {report} and {} objects",
                self.n_objects()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        server.kill();
        let n_chunks = self.assert_sound(after)["n_chunks"].as_u64().unwrap() as usize;
        assert_eq!(n_chunks, self.n_objects(), "after {after}");
    }
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_server_killed_anywhere_in_a_push_loses_nothing() {
    for point in [
        "chunk.intended",
        "chunk.intended:3",
        "chunk.stored",
        "chunk.attached",
        "commit.before_commit",
        "verify.reading_back",
        "ready.published",
        "ready.before_commit",
    ] {
        let place = Place::new();
        let server = place.start(Start {
            kill_at: Some(point),
            ..Start::default()
        });
        let port = server.port();
        let mut pusher = place.push_command(&server, 2).stdout(Stdio::null()).spawn().unwrap();
        server.wait_for_death();
        let report = place.assert_sound(point);
        assert_eq!(report["n_checkpoints"], 1, "step 2 was ready before {point}");

        // The push at hand goes on with the server that comes back; the same command again is another word for it.
        let server = place.start(Start {
            port: Some(port),
            ..Start::default()
        });
        wait(&mut pusher);
        place.push(&server, 2);

        place.assert_identical(&server, 1);
        place.assert_identical(&server, 2);
        server.kill();
        assert_eq!(place.assert_sound(point)["n_checkpoints"], 2);
        place.assert_nothing_left(point);
    }
}

#[test]
fn a_server_killed_anywhere_in_a_deletion_or_a_collection_loses_nothing() {
    for point in [
        "delete.before_commit",
        "collect.released",
        "collect.condemned",
        "collect.deleting",
        "collect.object_deleted",
        "collect.object_deleted:2",
    ] {
        let place = Place::new();
        let server = place.start(Start::default());
        place.push(&server, 2);
        if point == "delete.before_commit" {
            server.kill();
            let server = place.start(Start {
                kill_at: Some(point),
                ..Start::default()
            });
            let mut deleting = place.command(&server, &["delete", "lab/run@1"]).spawn().unwrap();
            server.wait_for_death();
            deleting.kill().unwrap();
            wait(&mut deleting);
            assert_eq!(
                place.assert_sound(point)["n_checkpoints"],
                2,
                "nothing of it is half done"
            );
            let server = place.start(Start::default());
            place.fineline(&server, &["delete", "lab/run@1"]);
            server.kill();
        } else {
            place.fineline(&server, &["delete", "lab/run@1"]);
            server.kill();
            // It collects by itself a second later.
            let arguments = ["--grace", "1s"];
            place
                .start(Start {
                    kill_at: Some(point),
                    arguments: &arguments,
                    ..Start::default()
                })
                .wait_for_death();
        }
        assert_eq!(place.assert_sound(point)["n_checkpoints"], 1);
        place.assert_nothing_left(point);
        let server = place.start(Start::default());
        place.assert_identical(&server, 2);
        // Config, tokenizer, header and tensor, and three notes.
        assert_eq!(place.assert_sound(point)["n_chunks"], 7, "after {point}");
    }
}

#[test]
fn a_run_whose_deletion_was_cut_is_there_whole() {
    let place = Place::new();
    let server = place.start(Start {
        kill_at: Some("delete.run"),
        ..Start::default()
    });
    let mut deleting = place.command(&server, &["run", "delete", "lab/run"]).spawn().unwrap();
    server.wait_for_death();
    deleting.kill().unwrap();
    wait(&mut deleting);

    let server = place.start(Start::default());
    place.assert_identical(&server, 1);
    place.fineline(&server, &["run", "delete", "lab/run"]);
    server.kill();
    place.assert_nothing_left("delete.run");
    assert_eq!(place.n_objects(), 0);
}

#[test]
fn a_server_killed_inside_a_migration_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    let how = Start {
        kill_at: Some("migrate.before_commit"),
        ..Start::default()
    };
    let killed = ServerProcess::start(REGISTRY, dir.path(), how).unwrap_err();
    assert_eq!(killed.signal(), Some(9));

    ServerProcess::start(REGISTRY, dir.path(), Start::default()).unwrap();
}

#[test]
fn a_client_killed_anywhere_goes_on_when_the_command_is_repeated() {
    for point in [
        "push.checked",
        "push.opened",
        "push.chunk_sent",
        "push.chunk_sent:2",
        "push.file_added",
        "push.sent",
        "push.committed",
    ] {
        let place = Place::new();
        let server = place.start(Start::default());
        let killed = place
            .push_command(&server, 2)
            .env(KILL_AT, point)
            .output()
            .unwrap()
            .status;
        assert_eq!(killed.signal(), Some(9), "{point}");
        let listed: Value = serde_json::from_str(&place.fineline(&server, &["ls", "lab/run", "--json"])).unwrap();
        let n_ready = listed.as_array().unwrap().len();
        assert!(n_ready == 1 || point == "push.committed", "{point}: {listed}");

        place.push(&server, 2);

        place.assert_identical(&server, 2);
        server.kill();
        assert_eq!(place.assert_sound(point)["n_checkpoints"], 2);
    }
}

#[test]
fn a_pull_killed_anywhere_leaves_no_file_under_its_name_that_is_not_whole() {
    for point in [
        "pull.chunk_written",
        "pull.chunk_written:3",
        "pull.whole",
        "pull.whole:2",
    ] {
        let place = Place::new();
        let server = place.start(Start::default());
        let to = place.dir.path().join("pulled");
        let mut pull = place.command(&server, &["pull", "lab/run@1", to.to_str().unwrap()]);
        let killed = pull.env(KILL_AT, point).output().unwrap().status;
        assert_eq!(killed.signal(), Some(9), "{point}");
        for entry in std::fs::read_dir(&to).unwrap() {
            let path = entry.unwrap().path();
            let pushed = place.steps[0].join(path.file_name().unwrap());
            let is_partial = path
                .extension()
                .is_some_and(|extension| extension == "fineline-partial");
            assert!(
                is_partial || std::fs::read(&path).unwrap() == std::fs::read(pushed).unwrap(),
                "{point}: {}",
                path.display()
            );
        }

        place.assert_identical(&server, 1);
    }
}
