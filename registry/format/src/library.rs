//! The library: lm-eval's tasks that are built in, each a file in lm-eval's own form with `metadata` that says what a
//! reader of its scores needs. Where their data come from is the client's.
//!
//! **Invariant:** a task's YAML with the same data is the same text wherever the data came from: it names no source, so
//! that the digest of a suite is that of what is measured.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::suite::SuiteGroup;
use crate::task::{DataFormat, Member, Pool, RawGroup, RawTask, TaskError, TaskFile};

/// What `include_str!` takes in, by name.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../library/", $name, ".yaml")))),*]
    };
}

/// The tasks in the order in which they are listed.
const TASKS: &[(&str, &str)] = files![
    "hellaswag",
    "piqa",
    "winogrande",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
    "boolq",
    "copa",
    "sciq",
    "social_iqa",
    "commonsense_qa",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "triviaqa",
    "gsm8k",
    "lambada_openai",
    "wikitext",
    "perplexity",
];

const MMLU: &str = include_str!("../library/mmlu.yaml");
const MMLU_SUBJECT: &str = include_str!("../library/mmlu_subject.yaml");

/// Other names of tasks, which folders of data may have too.
const ALIASES: &[(&str, &str)] = &[("lambada", "lambada_openai")];

/// Folders of data that several tasks share.
const SHARED_FOLDERS: &[(&str, &str)] = &[("truthfulqa_mc1", "truthfulqa"), ("truthfulqa_mc2", "truthfulqa")];

/// Why the library's own files can be read.
const TESTED: &str = "every file of the library is read in a test";

/// A task of the library.
#[derive(Debug, Clone)]
pub struct LibraryTask {
    /// Understood; its data files are none that exist.
    pub file: TaskFile,
    /// The data set that lm-eval takes it from; nothing where the user brings the text.
    pub dataset: Option<Dataset>,
    /// What its metadata say.
    pub facts: Facts,
    raw: RawTask,
}

/// A data set of the Hugging Face Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// `OWNER/NAME`.
    pub id: String,
    /// Its configuration, where the task names one.
    pub config: Option<String>,
}

/// What a task's metadata say beside its version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    /// The domain that its scores belong to.
    pub domain: String,
    /// What its primary metric is by chance; nothing where no chance is to be beaten.
    pub chance: Option<f64>,
    /// The metric that the field quotes.
    pub primary_metric: String,
    /// Whether requests, targets and metrics were held against lm-eval's own on real data.
    pub verified: bool,
}

/// What a name of the library stands for.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its tasks, in lm-eval's order.
    pub tasks: Vec<LibraryTask>,
    /// The groups whose scores are brought together.
    pub groups: Vec<SuiteGroup>,
}

/// Documents of a task that lie in one file with those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The folder of the file.
    pub folder: &'static str,
    /// The field that tells the documents apart.
    pub field: &'static str,
    /// What it says in this task's documents.
    pub value: String,
}

/// The names that `fineline suite list` shows: tasks, then groups.
pub fn names() -> Vec<String> {
    let tasks = TASKS.iter().map(|(name, _)| (*name).to_owned());
    let groups = mmlu();
    let subgroups = groups.iter().map(|group| group.group.clone());
    tasks.chain(subgroups).collect()
}

/// The tasks that a name stands for.
pub fn find(name: &str) -> Option<Selection> {
    let name = ALIASES
        .iter()
        .find_map(|(alias, task)| (*alias == name).then_some(*task))
        .unwrap_or(name);
    if let Some((_, yaml)) = TASKS.iter().find(|(known, _)| *known == name) {
        return Some(Selection {
            tasks: vec![LibraryTask::new(included(yaml))],
            groups: Vec::new(),
        });
    }
    let groups = mmlu();
    if let Some(at) = groups.iter().position(|group| group.group == name) {
        let tasks = groups[at].tasks.iter().map(|task| subject(task)).collect();
        // The group of all stands behind those that it is made of.
        let groups = if at + 1 == groups.len() {
            groups
        } else {
            vec![groups[at].clone()]
        };
        return Some(Selection { tasks, groups });
    }
    let is_subject = groups.iter().any(|group| group.tasks.iter().any(|task| task == name));
    is_subject.then(|| Selection {
        tasks: vec![subject(name)],
        groups: Vec::new(),
    })
}

/// A file of the library over the one that it includes.
fn included(yaml: &str) -> RawTask {
    let mut raw = RawTask::parse(yaml).expect(TESTED);
    let includes = raw.take_includes().expect(TESTED);
    includes.iter().fold(raw, |raw, include| {
        let file = TASKS
            .iter()
            .find(|(name, _)| include.strip_suffix(".yaml") == Some(name));
        raw.over(included(file.expect(TESTED).1))
    })
}

/// mmlu's groups, those that it is made of first.
fn mmlu() -> Vec<SuiteGroup> {
    let read = |raw: RawTask| raw.into_group(&RawTask::default()).expect(TESTED);
    let group = |group: &RawGroup, tasks: Vec<String>| SuiteGroup {
        group: group.group.clone(),
        version: group.version.clone(),
        tasks,
        metrics: group.metrics.clone(),
    };
    let all = read(RawTask::parse(MMLU).expect(TESTED));
    let mut groups = Vec::new();
    for member in &all.members {
        if let Member::Group(_, own) = member {
            let its = read(own.clone());
            let tasks = its.members.iter().filter_map(|member| match member {
                Member::Named(task, _) => Some(task.clone()),
                Member::Group(..) => None,
            });
            groups.push(group(&its, tasks.collect()));
        }
    }
    let tasks = groups.iter().flat_map(|group| group.tasks.clone()).collect();
    groups.push(group(&all, tasks));
    groups
}

/// A subject of mmlu: what all have in common, and what its name says.
fn subject(task: &str) -> LibraryTask {
    let config = task.strip_prefix("mmlu_").unwrap_or(task);
    let about = config.replace('_', " ");
    let own = serde_json::json!({
        "task": task,
        "task_alias": config,
        "dataset_name": config,
        "description": format!("The following are multiple choice questions (with answers) about {about}.\n\n"),
    });
    // JSON is YAML.
    let own = RawTask::parse(&own.to_string()).expect(TESTED);
    LibraryTask::new(own.over(RawTask::parse(MMLU_SUBJECT).expect(TESTED)))
}

impl LibraryTask {
    fn new(raw: RawTask) -> Self {
        let fields = raw.to_json();
        let text = |field: &str| Some(fields.get(field)?.as_str()?.to_owned());
        let metadata = |field: &str| fields.get("metadata").and_then(|metadata| metadata.get(field));
        let dataset = text("dataset_path").map(|id| Dataset {
            id,
            config: text("dataset_name"),
        });
        let word = |field: &str| {
            metadata(field)
                .and_then(|value| value.as_str())
                .expect(TESTED)
                .to_owned()
        };
        let facts = Facts {
            domain: word("domain"),
            chance: metadata("chance").and_then(serde_json::Value::as_f64),
            primary_metric: word("primary_metric"),
            verified: metadata("verified").and_then(serde_json::Value::as_bool).expect(TESTED),
        };
        let splits = ["test_split", "validation_split", "training_split", "fewshot_split"];
        let anywhere = splits
            .into_iter()
            .filter_map(text)
            .map(|split| (split, "nowhere.jsonl".to_owned()));
        let yaml = raw.clone().with_data(DataFormat::Json, &anywhere.collect()).to_yaml();
        Self {
            file: TaskFile::parse(&yaml.expect(TESTED)).expect(TESTED),
            dataset,
            facts,
            raw,
        }
    }

    /// Its name.
    pub fn task(&self) -> &str {
        &self.file.task
    }

    /// The splits that it takes when so many shots are asked for: what is scored, and what shots are drawn from.
    pub fn splits(&self, num_fewshot: Option<u32>) -> Vec<String> {
        let mut splits = vec![self.file.scored_split.clone()];
        if self.file.shots(num_fewshot) > 0
            && let Some(Pool::Split(pool)) = &self.file.fewshot.pool
            && !splits.contains(pool)
        {
            splits.push(pool.clone());
        }
        splits
    }

    /// The folders in which its data may lie, by the task's own name and others.
    pub fn folders(&self) -> Vec<String> {
        let task = self.task();
        let mut folders = vec![task.to_owned()];
        folders.extend(
            ALIASES
                .iter()
                .filter(|(_, of)| *of == task)
                .map(|(alias, _)| (*alias).to_owned()),
        );
        folders.extend(
            SHARED_FOLDERS
                .iter()
                .filter(|(of, _)| *of == task)
                .map(|(_, folder)| (*folder).to_owned()),
        );
        folders.extend(self.part().map(|part| format!("{}/{}", part.folder, part.value)));
        folders
    }

    /// Where its documents may lie among those of others.
    pub fn part(&self) -> Option<Part> {
        let value = self.task().strip_prefix("mmlu_")?.to_owned();
        Some(Part {
            folder: "mmlu",
            field: "subject",
            value,
        })
    }

    /// Its YAML with data files in a container, by split: one file a split, named after task and split.
    ///
    /// # Errors
    /// [`TaskError`] when its fields can't be written, which no task of the library brings about.
    pub fn yaml(&self, format: DataFormat, splits: &[String]) -> Result<String, TaskError> {
        let ending = match format {
            DataFormat::Csv => "csv",
            DataFormat::Json | DataFormat::Parquet => "jsonl",
        };
        let file = |split: &String| (split.clone(), format!("{}/{split}.{ending}", self.task()));
        let files: BTreeMap<String, String> = splits.iter().map(file).collect();
        self.raw.clone().with_data(format, &files).to_yaml()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_and_says_what_is_needed() {
        let domains = ["Examination", "Knowledge", "Understanding", "Reasoning", "Language"];
        let mut n_tasks = 0;
        for name in names() {
            let Selection { tasks, groups } = find(&name).unwrap();
            assert!(
                tasks.len() == 1 || groups.iter().any(|group| group.group == name),
                "{name}"
            );
            for task in tasks {
                let Facts {
                    domain,
                    chance,
                    primary_metric,
                    ..
                } = &task.facts;
                assert!(domains.contains(&domain.as_str()), "{name}: {domain}");
                assert!(chance.is_none_or(|chance| (0.0..1.0).contains(&chance)), "{name}");
                let metrics = task.file.metrics.iter();
                assert!(
                    metrics
                        .map(|metric| metric.as_str())
                        .any(|metric| metric == primary_metric),
                    "{name}"
                );
                let splits = task.splits(Some(5));
                let yaml = task.yaml(DataFormat::Json, &splits).unwrap();
                let read = TaskFile::parse(&yaml).unwrap();
                assert_eq!(read.data_files.keys().collect::<Vec<_>>(), {
                    let mut sorted: Vec<_> = splits.iter().collect();
                    sorted.sort();
                    sorted
                });
                n_tasks += 1;
            }
        }
        assert_eq!(n_tasks, TASKS.len() + 2 * 57);
        assert!(find("hellaswog").is_none());
    }

    #[test]
    fn mmlu_is_lm_evals_groups_of_57_subjects() {
        let all = find("mmlu").unwrap();
        let sizes: Vec<_> = all
            .groups
            .iter()
            .map(|group| (group.group.as_str(), group.tasks.len()))
            .collect();
        assert_eq!(
            sizes,
            [
                ("mmlu_stem", 19),
                ("mmlu_other", 13),
                ("mmlu_social_sciences", 12),
                ("mmlu_humanities", 13),
                ("mmlu", 57)
            ]
        );
        assert_eq!(
            (
                find("mmlu_other").unwrap().tasks.len(),
                find("mmlu_other").unwrap().groups.len()
            ),
            (13, 1)
        );
        let task = &find("mmlu_us_foreign_policy").unwrap().tasks[0];
        assert!(task.file.description.ends_with(" about us foreign policy.\n\n"));
        assert_eq!(task.folders(), ["mmlu_us_foreign_policy", "mmlu/us_foreign_policy"]);
        assert_eq!(
            task.dataset.as_ref().unwrap().config.as_deref(),
            Some("us_foreign_policy")
        );
    }

    #[test]
    fn shots_bring_the_split_that_they_are_drawn_from() {
        let splits = |name: &str, shots| find(name).unwrap().tasks[0].splits(shots);
        assert_eq!(splits("hellaswag", None), ["validation"]);
        assert_eq!(splits("hellaswag", Some(10)), ["validation", "train"]);
        assert_eq!(splits("gsm8k", None), ["test", "train"]);
        assert_eq!(splits("gsm8k", Some(0)), ["test"]);
        assert_eq!(splits("mmlu_anatomy", Some(5)), ["test", "dev"]);
        // The file says 0 itself.
        assert_eq!(splits("truthfulqa_mc1", Some(5)), ["validation"]);
    }

    #[test]
    fn a_task_names_its_data_set_and_no_source() {
        let task = &find("lambada").unwrap().tasks[0];
        let yaml = task.yaml(DataFormat::Json, &["test".to_owned()]).unwrap();
        assert!(
            yaml.contains("dataset: EleutherAI/lambada_openai") && yaml.contains("lambada_openai/test.jsonl"),
            "{yaml}"
        );
        assert!(!yaml.contains("dataset_name"), "{yaml}");
        assert_eq!(task.folders(), ["lambada_openai", "lambada"]);
    }
}
