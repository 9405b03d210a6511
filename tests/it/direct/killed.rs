//! The real programs, killed while bytes go by way of the bucket: the push at hand goes on, and what was staged goes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Garage, KILL_AT, ServerProcess, Start, checkpoint, garage, wait};
use tempfile::TempDir;

use super::Bucket;

const REGISTRY: &str = env!("CARGO_BIN_EXE_registry-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

/// Sessions live for 20 s and URLs work for 15, so that what is left is swept while the test waits.
const GRACE: &str = "30s";
const PATIENCE: Duration = Duration::from_secs(120);

struct Place {
    dir: TempDir,
    bucket: Bucket,
    variables: Vec<(String, String)>,
}

impl Place {
    fn new(garage: &Garage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(dir.path(), "step", 200_000, 1);
        Self {
            dir,
            bucket: garage.new_store(),
            variables: garage.variables(),
        }
    }

    fn start(&self, kill_at: Option<&str>, port: Option<u16>, grace: &str) -> ServerProcess {
        let how = Start {
            kill_at,
            port,
            arguments: &["--store", &self.bucket.url, "--grace", grace],
            environment: &self.variables,
        };
        ServerProcess::start(REGISTRY, &self.dir.path().join("data"), how).unwrap()
    }

    fn client(&self, server: &ServerProcess, arguments: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .stdout(Stdio::null());
        command
            .env("FINELINE_URL", &server.url)
            .env("FINELINE_TOKEN", server.token());
        command.env("FINELINE_CONFIG", self.dir.path().join("client.toml"));
        command
    }

    fn done(&self, server: &ServerProcess, arguments: &[&str]) {
        assert!(
            self.client(server, arguments).status().unwrap().success(),
            "{arguments:?}"
        );
    }

    /// The step is there, whole, and nothing of it is damaged.
    fn assert_sound(&self, server: &ServerProcess, after: &str) {
        self.done(server, &["push", "lab/run", "1", "step"]);
        self.done(server, &["pull", "lab/run@1", "pulled"]);
        super::assert_same(&self.dir.path().join("step"), &self.dir.path().join("pulled"));
        let mut scrub = Command::new(REGISTRY);
        scrub
            .args(["scrub", "--store", &self.bucket.url, "--data"])
            .arg(self.dir.path().join("data"));
        scrub.envs(harness::environment(&self.dir.path().join("data")));
        scrub.envs(self.variables.iter().cloned()).stdout(Stdio::null());
        assert!(scrub.status().unwrap().success(), "after {after}");
    }

    /// What was staged is gone, and what frames are left are those of the step.
    async fn assert_nothing_left(&self, after: &str) {
        let server = self.start(None, None, "1s");
        let begun = Instant::now();
        loop {
            let (staged, frames) = (self.bucket.keys("staging").await, self.bucket.keys("frames").await);
            // Header and tensor, config, tokenizer.
            if staged.is_empty() && frames.len() == 4 {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "after {after}: {staged:?} {frames:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        server.kill();
    }
}

#[tokio::test]
async fn a_server_killed_while_it_takes_staged_frames_loses_and_leaves_nothing() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    let points = [
        "staging.intended",
        "staging.read",
        "chunk.stored",
        "chunk.attached",
        "staging.taken",
    ];
    let mut places = Vec::new();
    for point in points {
        let place = Place::new(garage);
        let server = place.start(Some(point), None, GRACE);
        let port = server.port();
        place.done(&server, &["run", "create", "lab/run"]);
        let mut pusher = place
            .client(&server, &["push", "lab/run", "1", "step"])
            .spawn()
            .unwrap();
        server.wait_for_death();
        let server = place.start(None, Some(port), GRACE);
        wait(&mut pusher);
        place.assert_sound(&server, point);
        server.kill();
        places.push((point, place));
    }
    for (point, place) in places {
        place.assert_nothing_left(point).await;
    }
}

#[tokio::test]
async fn a_client_killed_behind_its_put_goes_on_and_the_sweep_survives_its_own_death() {
    let Some(garage) = garage("it/direct") else {
        return;
    };
    let place = Place::new(garage);
    let server = place.start(None, None, GRACE);
    place.done(&server, &["run", "create", "lab/run"]);
    let mut pusher = place.client(&server, &["push", "lab/run", "1", "step"]);
    let killed = pusher.env(KILL_AT, "push.staged").status().unwrap();
    assert!(!killed.success());
    assert_eq!(place.bucket.keys("staging").await.len(), 1, "put, and nobody was told");
    place.assert_sound(&server, "push.staged");
    server.kill();
    // It dies between the object and the row, and the next one ends it.
    place.start(Some("staging.deleted"), None, "1s").wait_for_death();
    place.assert_nothing_left("staging.deleted").await;
}
