//! The real program, killed in the middle of a move, a backup and a restore: the same command goes on, nothing is lost, and at
//! no moment do two places take writes.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{KILL_AT, ServerProcess, Start, checkpoint, environment, postgres_of};
use serde_json::Value;
use tempfile::TempDir;

const REGISTRY: &str = env!("CARGO_BIN_EXE_registry-under-test");
const CLIENT: &str = env!("CARGO_BIN_EXE_client-under-test");

/// A registry in a folder with one step, and room for others beside it.
struct Place {
    dir: TempDir,
    step: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let step = checkpoint(dir.path(), "step", 40_000, 1);
        let place = Self { dir, step };
        let server = ServerProcess::start(REGISTRY, &place.data(), Start::default()).unwrap();
        place.fineline(&server, &["run", "create", "lab/run"]);
        place.fineline(&server, &["push", "lab/run", "1", place.step.to_str().unwrap()]);
        server.kill();
        place
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn other(&self) -> PathBuf {
        let other = self.dir.path().join("other");
        std::fs::create_dir_all(&other).unwrap();
        other
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    fn client(&self, server: &ServerProcess, arguments: &[&str]) -> Command {
        let mut command = Command::new(CLIENT);
        command.args(arguments).env("FINELINE_URL", &server.url);
        command.env("FINELINE_TOKEN", server.token());
        command.env("FINELINE_CONFIG", self.dir.path().join("client.toml"));
        command
    }

    fn fineline(&self, server: &ServerProcess, arguments: &[&str]) -> String {
        text(&self.client(server, arguments).output().unwrap())
    }

    /// A command of the registry on a data folder.
    fn registry(&self, verb: &str, data: &Path) -> Command {
        let mut command = Command::new(REGISTRY);
        command.arg(verb).arg("--data").arg(data).envs(environment(data));
        command
    }

    /// `move` to the other folder: its database is of the engine that the tests run on.
    fn moving(&self) -> Command {
        let (other, store) = (self.other(), self.other().join("store"));
        let sqlite = format!("sqlite://{}", other.join("fineline.db").display());
        let mut command = self.registry("move", &self.data());
        if let Some(url) = postgres_of(&self.data()) {
            command.args(["--from-database", &url]);
        }
        command.args(["--json", "--database", &postgres_of(&other).unwrap_or(sqlite)]);
        command.arg("--store").arg(store);
        command
    }

    /// The step comes back from a server on that folder, and every byte there is sound.
    fn assert_whole(&self, data: &Path, after: &str) {
        let report = self.registry("scrub", data).arg("--json").output().unwrap();
        let scrub: Value = serde_json::from_slice(&report.stdout).unwrap();
        assert!(report.status.success(), "after {after}: {scrub:#}");
        assert_eq!(scrub["n_checkpoints"], 1, "after {after}");
        let server = ServerProcess::start(REGISTRY, data, Start::default()).unwrap();
        let to = self.dir.path().join("pulled");
        self.fineline(&server, &["pull", "lab/run@1", to.to_str().unwrap()]);
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let same = std::fs::read(to.join(file)).unwrap() == std::fs::read(self.step.join(file)).unwrap();
            assert!(same, "after {after}: {file}");
        }
        std::fs::remove_dir_all(to).unwrap();
    }

    /// No server starts on the folder that was left; what it says.
    fn assert_departed(&self, after: &str) -> String {
        let output = self
            .registry("serve", &self.data())
            .args(["--listen", "127.0.0.1:0"])
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "after {after}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn text(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_killed(command: &mut Command, point: &str) {
    let status = command.env(KILL_AT, point).output().unwrap().status;
    assert_eq!(status.signal(), Some(9), "{point}: {status}");
}

#[test]
fn a_move_killed_anywhere_goes_on_when_the_command_is_repeated() {
    for (point, has_departed) in [
        ("keep.frame_copied", false),
        ("keep.frame_copied:3", false),
        ("move.copied", false),
        ("move.departed", true),
        ("move.before_arrival", true),
        ("move.arrived", true),
        ("move.ended", true),
        ("move.opened", true),
    ] {
        let place = Place::new();
        assert_killed(&mut place.moving(), point);
        if has_departed {
            assert!(place.assert_departed(point).contains("hint: give"), "{point}");
        } else {
            // The old place is whole and served; its hold is gone before the next command needs one.
            place.assert_whole(&place.data(), point);
            wait_for_the_hold(&place);
        }

        let moved: Value = serde_json::from_str(&text(&place.moving().output().unwrap())).unwrap();

        for table in moved["tables"].as_array().unwrap() {
            assert_eq!(table["n_rows_from"], table["n_rows_to"], "{point}: {table}");
        }
        assert!(place.assert_departed(point).contains("moved to database"), "{point}");
        std::fs::copy(place.data().join("admin.token"), place.other().join("admin.token")).unwrap();
        place.assert_whole(&place.other(), point);
        // And once more changes nothing.
        text(&place.moving().output().unwrap());
        place.assert_whole(&place.other(), point);
    }
}

/// A hold whose process is gone runs out within a minute: the test takes it away, as time would.
fn wait_for_the_hold(place: &Place) {
    let sql = "DELETE FROM hold";
    let ended = match postgres_of(&place.data()) {
        Some(url) => Command::new("psql").args(["--quiet", "-c", sql, &url]).status(),
        None => Command::new("python3")
            .args([
                "-c",
                "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()",
            ])
            .args([&place.data().join("fineline.db").into_os_string(), &sql.into()])
            .status(),
    };
    assert!(ended.unwrap().success());
}

#[test]
fn a_running_server_takes_no_write_from_the_moment_that_the_registry_departs() {
    let place = Place::new();
    let server = ServerProcess::start(REGISTRY, &place.data(), Start::default()).unwrap();
    text(&place.moving().output().unwrap());
    let refused = place.client(&server, &["run", "create", "lab/late"]).output().unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("was moved"), "{told}");
}

#[test]
fn a_move_that_departed_is_taken_back() {
    let place = Place::new();
    assert_killed(&mut place.moving(), "move.departed");
    let mut abort = place.registry("move", &place.data());
    if let Some(url) = postgres_of(&place.data()) {
        abort.args(["--from-database", &url]);
    }
    text(&abort.arg("--abort").output().unwrap());
    place.assert_whole(&place.data(), "--abort");
}

#[test]
fn at_no_moment_do_both_places_take_writes() {
    // Given a move that was killed when all had arrived and the old place did not know it yet
    let place = Place::new();
    assert_killed(&mut place.moving(), "move.arrived");
    std::fs::copy(place.data().join("admin.token"), place.other().join("admin.token")).unwrap();
    let is_closed = || match ServerProcess::start(REGISTRY, &place.other(), Start::default()) {
        Ok(_served) => false,
        Err(status) => {
            let log = place.other().join("server.log");
            let said = std::fs::read_to_string(&log).unwrap();
            std::fs::remove_file(log).unwrap();
            status.code() == Some(1) && said.contains("on its way")
        }
    };
    assert!(is_closed());
    // When it is taken back, which can be done at the old place alone,
    let abort = |data: &Path| {
        let mut abort = place.registry("move", data);
        if let Some(url) = postgres_of(data) {
            abort.args(["--from-database", &url]);
        }
        abort.arg("--abort").output().unwrap()
    };
    assert_eq!(abort(&place.other()).status.code(), Some(1));
    text(&abort(&place.data()));
    // then that is served again and the other is not.
    place.assert_whole(&place.data(), "--abort");
    assert!(is_closed());
}

#[test]
fn a_backup_killed_anywhere_is_none_and_the_next_one_is_whole() {
    for point in [
        "backup.snapshot",
        "keep.frame_copied:2",
        "backup.frames",
        "backup.before_head",
    ] {
        let place = Place::new();
        let backup = || {
            let mut command = place.registry("backup", &place.data());
            command.arg("--to").arg(place.place());
            command
        };
        assert_killed(&mut backup(), point);
        wait_for_the_hold(&place);
        let listed = text(&backup().args(["--list", "--json"]).output().unwrap());
        assert_eq!(listed.trim(), "[]", "{point}");

        text(&backup().output().unwrap());

        let restore = || {
            let mut command = place.registry("restore", &place.other());
            command.arg("--from").arg(place.place());
            command
        };
        for cut in ["keep.frame_copied:2", "restore.frames", "restore.before_commit"] {
            assert_killed(&mut restore(), cut);
        }
        text(&restore().output().unwrap());
        std::fs::copy(place.data().join("admin.token"), place.other().join("admin.token")).unwrap();
        place.assert_whole(&place.other(), point);
    }
}

#[test]
fn a_backup_killed_while_it_takes_older_ones_away_leaves_what_the_newest_needs() {
    let place = Place::new();
    let backup = || {
        let mut command = place.registry("backup", &place.data());
        command.arg("--to").arg(place.place());
        command
    };
    text(&backup().output().unwrap());
    assert_killed(backup().args(["--keep-last", "1"]), "backup.pruning");
    assert_eq!(text(&backup().arg("--list").output().unwrap()).lines().count(), 1);
    let mut restore = place.registry("restore", &place.other());
    text(&restore.arg("--from").arg(place.place()).output().unwrap());
    std::fs::copy(place.data().join("admin.token"), place.other().join("admin.token")).unwrap();
    place.assert_whole(&place.other(), "backup.pruning");
}
