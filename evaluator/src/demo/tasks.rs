//! The test as lm-eval would read it: a suite, a YAML and a JSONL a task.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::grammar::{Domain, Item};

/// The task of held-out text.
pub const TEXT_TASK: &str = "held_out_text";

/// Items whose texts make a document of [`TEXT_TASK`].
const ITEMS_A_DOCUMENT: usize = 5;

/// Task and metric of every score that a step gets, in the order of the table.
pub fn measured() -> Vec<(&'static str, &'static str)> {
    let domains = Domain::ALL.into_iter().map(|domain| (domain.task(), "acc"));
    domains.chain([(TEXT_TASK, "bits_per_byte")]).collect()
}

/// Writes suite, tasks and data into `dir`; gives the suite's path.
///
/// # Errors
/// When a file can't be written.
pub fn write(dir: &Path, items: &[Item]) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("folder `{}`", dir.display()))?;
    let mut files: Vec<(&str, String, Vec<Value>)> = Vec::new();
    for domain in Domain::ALL {
        let of_domain = items.iter().filter(|item| item.domain == domain);
        let document = |item: &Item| json!({"context": item.context, "choices": item.choices, "gold": item.gold});
        let yaml = task_yaml(
            domain.task(),
            "output_type: multiple_choice\ndoc_to_text: context\ndoc_to_choice: choices\ndoc_to_target: gold",
            "acc\n    aggregation: mean\n    higher_is_better: true",
        );
        files.push((domain.task(), yaml, of_domain.map(document).collect()));
    }
    // Items of all domains take turns, so that every document has some of each.
    let n_domains = Domain::ALL.len();
    let a_domain = items.len() / n_domains;
    let turns = (0..items.len()).map(|i| &items[i % n_domains * a_domain + i / n_domains]);
    let sentences: Vec<String> = turns.map(|item| format!("{} .", item.text())).collect();
    let documents = sentences
        .chunks(ITEMS_A_DOCUMENT)
        .map(|chunk| json!({"text": chunk.join(" ")}));
    let yaml = task_yaml(
        TEXT_TASK,
        "output_type: loglikelihood_rolling\ndoc_to_text: \"\"\ndoc_to_target: \"{{text}}\"",
        "bits_per_byte",
    );
    files.push((TEXT_TASK, yaml, documents.collect()));
    let mut suite = "suite: grammar\ntasks:\n".to_owned();
    for (task, yaml, documents) in files {
        write_file(&dir.join(format!("{task}.yaml")), &yaml)?;
        let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
        write_file(&dir.join(format!("{task}.jsonl")), &(lines.join("\n") + "\n"))?;
        suite.push_str(&format!("  - {task}.yaml\n"));
    }
    let path = dir.join("suite.yaml");
    write_file(&path, &suite)?;
    Ok(path)
}

fn task_yaml(task: &str, asks: &str, metric: &str) -> String {
    format!(
        "task: {task}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {task}.jsonl\ntest_split: test\n\
         {asks}\nmetric_list:\n  - metric: {metric}\nmetadata:\n  version: 1.0\n"
    )
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("file `{}`", path.display()))
}
