//! `fineline eval compare` as a user meets it: lm-eval's own logs, and small ones with one thing wrong each.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// The exit code, what `--json` printed, and what was said on stderr.
fn compare(a: &Path, b: &Path, more: &[&str]) -> (i32, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fineline"));
    command.args(["--json", "eval", "compare"]).arg(a).arg(b).args(more);
    let output = command.env_remove("FINELINE_URL").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let data = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), data, said)
}

fn sample(doc_id: u64, log_likelihoods: [f64; 2], acc: u8) -> Value {
    let request = |choice: &str| json!({"arg_0": format!("question {doc_id}"), "arg_1": format!(" {choice}")});
    json!({"doc_id": doc_id, "doc_hash": format!("h{doc_id}"), "filter": "none", "metrics": ["acc"], "acc": acc,
        "arguments": {"gen_args_0": request("a"), "gen_args_1": request("b")},
        "resps": [[[log_likelihoods[0], false]], [[log_likelihoods[1], false]]]})
}

/// A folder with the sample log of task `t`.
fn set(dir: &Path, name: &str, samples: &[Value]) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    let lines: String = samples.iter().map(|sample| format!("{sample}\n")).collect();
    std::fs::write(folder.join("samples_t_2026-01-01T00-00-00.0.jsonl"), lines).unwrap();
    folder
}

fn three() -> Vec<Value> {
    vec![
        sample(0, [-1.0, -2.0], 1),
        sample(1, [-2.0, -2.000_001], 1),
        sample(2, [-3.0, -1.0], 0),
    ]
}

#[test]
fn differences_are_measured_and_judged_by_the_tolerance() {
    let dir = tempfile::tempdir().unwrap();
    let a = set(dir.path(), "a", &three());
    let mut other = three();
    other[0] = sample(0, [-1.000_1, -2.000_1], 1);
    let b = set(dir.path(), "b", &other);
    let (code, told, said) = compare(&a, &b, &[]);
    assert_eq!((code, &told["is_same"]), (0, &json!(true)), "{told}{said}");
    let differences = &told["tasks"][0]["differences"];
    let close = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-9;
    assert!(close(&differences["mean"], -1e-4 / 3.0) && close(&differences["largest"], 1e-4));
    // 1.96 times 1e-4 / √3 / √3 around the mean.
    let half = 1.959_963_985e-4 / 3.0;
    assert!(
        close(&differences["interval_95"][0], -1e-4 / 3.0 - half),
        "{differences}"
    );
    assert!(close(&told["scores"][0]["a"], 2.0 / 3.0), "{told}");
    let (code, told, _) = compare(&a, &b, &["--tolerance", "1e-5"]);
    assert_eq!((code, &told["tasks"][0]["n_beyond"]), (1, &json!(2)));
}

#[test]
fn a_decision_may_differ_between_answers_that_are_too_close_to_tell() {
    let dir = tempfile::tempdir().unwrap();
    let a = set(dir.path(), "a", &three());
    let (mut near, mut far) = (three(), three());
    near[1] = sample(1, [-2.000_001, -2.0], 0);
    far[0]["acc"] = json!(0);
    let (code, told, said) = compare(&a, &set(dir.path(), "near", &near), &[]);
    let metric = &told["tasks"][0]["metrics"][0];
    assert_eq!(
        (code, &metric["n_excused"], &metric["n_unequal"]),
        (0, &json!(1), &json!(0)),
        "{told}{said}"
    );
    assert_eq!(metric["excused_docs"], json!(["1"]));
    let (code, told, _) = compare(&a, &set(dir.path(), "far", &far), &[]);
    let metric = &told["tasks"][0]["metrics"][0];
    assert_eq!(
        (code, &metric["n_unequal"], &metric["unequal_docs"]),
        (1, &json!(1), &json!(["0"]))
    );
}

#[test]
fn samples_that_only_one_has_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let a = set(dir.path(), "a", &three());
    let mut other = three();
    other[0]["doc_hash"] = json!("another");
    let b = set(dir.path(), "b", &other[..2]);
    let (code, told, _) = compare(&a, &b, &[]);
    let task = &told["tasks"][0];
    assert_eq!(code, 1);
    assert_eq!(
        [&task["n_compared"], &task["n_only_a"], &task["n_only_b"]],
        [1, 2, 1],
        "{task}"
    );
    assert!(
        told["breaches"][0]
            .as_str()
            .unwrap()
            .contains("2 samples are only in A")
    );
    assert_eq!(compare(&a, &b, &["--only-common"]).0, 0);
}

#[test]
fn other_prompts_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = three();
    other[2]["arguments"]["gen_args_0"]["arg_0"] = json!("question  2");
    let (a, b) = (set(dir.path(), "a", &three()), set(dir.path(), "b", &other));
    let (code, told, _) = compare(&a, &b, &[]);
    assert_eq!(
        (code, &told["tasks"][0]["n_different_prompts"]),
        (1, &json!(1)),
        "{told}"
    );
}

#[test]
fn what_can_not_be_compared_ends_with_2_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let a = set(dir.path(), "a", &three());
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = three()[0].to_string();
    let long = format!("{good}\n{}\n", "x".repeat(33 << 20));
    for (path, told) in [
        (dir.path().join("gone"), "gone`"),
        (write("x.txt", String::new()), "x.txt`"),
        (
            write("bad.jsonl", format!("{good}\n{{\"doc_id\"\n")),
            "bad.jsonl` line 2",
        ),
        (write("twice.jsonl", format!("{good}\n{good}\n")), "twice.jsonl` line 2"),
        (write("long.jsonl", long), "long.jsonl` line 2: it is longer"),
        (write("no_results.json", "{}".to_owned()), "no_results.json`"),
        (
            set(dir.path(), "other", &[sample(9, [-1.0, -2.0], 1)]).join("gone"),
            "gone`",
        ),
    ] {
        for (a, b) in [(&a, &path), (&path, &a)] {
            let (code, _, said) = compare(a, b, &[]);
            assert!(code == 2 && said.contains(told), "{code} {said}");
        }
    }
    let other = write("samples_u.jsonl", good);
    assert_eq!(compare(&a, &other, &[]).0, 2, "the tasks have nothing in common");
}

#[test]
fn two_results_files_are_compared_by_score() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, acc: f64| {
        let path = dir.path().join(name);
        let text = json!({"results": {"t": {"alias": "t", "acc,none": acc, "acc_stderr,none": "N/A"}}}).to_string();
        std::fs::write(&path, text).unwrap();
        path
    };
    let (a, b) = (write("results_a.json", 0.5), write("results_b.json", 0.51));
    assert_eq!(compare(&a, &a, &[]).0, 0);
    let (code, told, _) = compare(&a, &b, &[]);
    assert_eq!(code, 1);
    assert!(
        told["breaches"][0]
            .as_str()
            .unwrap()
            .contains("`acc` is 0.5 in A and 0.51 in B"),
        "{told}"
    );
}

/// lm-eval's own output for a model, if it is there.
fn reference(model: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data/lm_eval/reference")
        .join(model);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: client/eval_compare: there is no ../shared/data beside the clone");
    None
}

#[test]
fn lm_evals_own_output_is_the_same_as_itself() {
    for model in ["stories260K", "run-step-000512", "run-step-003000"] {
        let Some(folder) = reference(model) else { return };
        let (code, told, said) = compare(&folder, &folder, &[]);
        assert_eq!(code, 0, "{said}{}", told["breaches"]);
        let tasks = told["tasks"].as_array().unwrap();
        let n_logs = std::fs::read_dir(&folder).unwrap();
        let n_logs = n_logs.filter(|entry| entry.as_ref().unwrap().path().extension().unwrap() == "jsonl");
        // Gsm8k has two filters.
        assert_eq!(tasks.len(), n_logs.count() + 1);
        assert!(tasks.iter().all(|task| task["n_compared"].as_u64() > Some(0)));
    }
}

#[test]
fn one_changed_answer_of_lm_evals_is_found_and_so_are_missing_ones() {
    let Some(folder) = reference("run-step-003000") else {
        return;
    };
    let log = folder.join("samples_local_arc_easy.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let changed = dir.path().join("changed.jsonl");
    let write = |lines: &[Value]| {
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&changed, lines).unwrap();
    };
    write(&lines[..90]);
    let (code, told, _) = compare(&log, &changed, &[]);
    assert_eq!((code, &told["tasks"][0]["n_only_a"]), (1, &json!(10)));
    lines[7]["acc"] = json!(1.0 - lines[7]["acc"].as_f64().unwrap());
    write(&lines);
    let (code, told, _) = compare(&log, &changed, &[]);
    let breaches = told["breaches"].as_array().unwrap();
    assert_eq!((code, breaches.len()), (1, 2), "the decision and the score: {told}");
    assert!(
        breaches[0]
            .as_str()
            .unwrap()
            .contains("1 decisions are unequal by `acc`: document 7"),
        "{told}"
    );
}

#[test]
fn two_steps_of_a_run_are_not_the_same() {
    let (Some(a), Some(b)) = (reference("run-step-000512"), reference("run-step-003000")) else {
        return;
    };
    let (code, told, _) = compare(&a, &b, &[]);
    assert_eq!(code, 1);
    for task in told["tasks"].as_array().unwrap() {
        assert_eq!(task["n_different_prompts"], 0, "{task}");
    }
}
