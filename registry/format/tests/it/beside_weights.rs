//! What real checkpoints say besides their weights: names of folders, a trainer's state, results files.

use std::path::{Path, PathBuf};

use fineline_format::shipped_scores::{self, ShippedScores};
use fineline_format::step_name::read_step_name;
use fineline_format::trainer_state;

fn data(part: &str) -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if data.join(part).is_dir() {
        return Some(data.join(part));
    }
    println!("skipped: format/beside_weights: there is no ../shared/data beside the clone");
    None
}

/// The files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn read(called: &str, path: &Path) -> ShippedScores {
    let json = std::fs::read(path).unwrap();
    shipped_scores::read(called, &json)
        .unwrap()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_scores_of_pythias_runs_are_read() {
    let Some(dir) = data("pythia-evals") else { return };
    let results: Vec<PathBuf> = files(&dir)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    assert_eq!(results.len(), 504);
    for path in results {
        let read = read("eval_all.json", &path);
        let shots = if path.iter().any(|part| part == "five-shot") {
            5
        } else {
            0
        };
        assert!(
            read.harness_version.is_none() && read.scores.len() > 100,
            "{}",
            path.display()
        );
        assert!(
            read.scores
                .iter()
                .all(|score| (score.n_shot, score.limit) == (shots, None)),
            "{}",
            path.display()
        );
        assert!(
            read.scores
                .iter()
                .any(|score| score.task == "arc_easy" && score.metric == "acc_norm" && score.stderr.is_some())
        );
        // `70m-deduped_step1000.json`: the size is no step, and no tokens.
        let step = read_step_name(name(&path)).unwrap();
        let expected = name(&path).rsplit_once("step").unwrap().1.trim_end_matches(".json");
        assert_eq!(
            (step.step, step.tokens),
            (expected.parse().ok(), None),
            "{}",
            path.display()
        );
    }
}

#[test]
fn lm_evals_own_results_are_read() {
    let Some(dir) = data("lm_eval/reference") else { return };
    let results = files(&dir).into_iter().filter(|path| name(path).starts_with("results"));
    let mut n = 0;
    for path in results {
        n += 1;
        let read = read(name(&path), &path);
        assert_eq!(read.harness_version.as_deref(), Some("0.4.13"));
        for score in &read.scores {
            // All documents of these are fewer than the limit, of the second where it is 200.
            let is_whole = score.task == "local_copa" || score.task == "local_val_rolling" && score.n == 162;
            assert!(score.n > 0 && score.higher_is_better.is_some(), "{score:?}");
            assert_eq!(score.limit, (!is_whole).then_some(score.n), "{score:?}");
            assert_eq!(score.dtype.as_deref(), Some("float32"));
            assert_eq!(score.stderr.is_none(), score.task == "local_val_rolling", "{score:?}");
        }
        if name(&path) == "results_gsm8k.json" {
            let told: Vec<_> = read
                .scores
                .iter()
                .map(|score| (score.filter.as_str(), score.n_shot))
                .collect();
            assert_eq!(told, [("flexible-extract", 5), ("strict-match", 5)]);
        }
    }
    assert_eq!(n, 9);
}

#[test]
fn a_real_runs_folders_and_states_say_the_same_step() {
    let Some(dir) = data("run") else { return };
    let states = files(&dir).into_iter().filter(|path| name(path) == trainer_state::PATH);
    let mut n = 0;
    for path in states {
        n += 1;
        let state = trainer_state::parse(&std::fs::read(&path).unwrap()).unwrap();
        let folder = format!("{}/", path.parent().unwrap().display());
        assert_eq!(read_step_name(&folder).unwrap().step, state.step, "{folder}");
        assert_eq!(state.tokens, state.step.map(|step| step * 2048), "{folder}");
    }
    assert_eq!(n, 21);
}
