//! A task at work: documents to requests, answers to metrics, by lm-eval's rules.

mod metric;
mod sample;
mod template;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use fineline_api::TaskScore;
use fineline_format::task::{OutputType, Source, TaskFile};
use minijinja::Value as Jinja;
use serde_json::Value;

use crate::engine::{Answer, Description, Engine, Progress};
use metric::Outcome;
use template::Templates;

/// The version that stands in every score.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a suite says beside its tasks' own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Samples at most.
    pub limit: Option<u64>,
    /// Shots instead of the task's own.
    pub num_fewshot: Option<u32>,
}

/// A task whose requests are made.
#[derive(Debug)]
pub struct PreparedTask {
    file: TaskFile,
    n_shot: u32,
    samples: Vec<Sample>,
}

/// One document and what it asks.
#[derive(Debug)]
struct Sample {
    doc: Value,
    target: Target,
    /// (context, continuation); for rolling the text alone, as context.
    requests: Vec<(String, String)>,
    choices: Vec<String>,
}

/// The right answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Choice(usize),
    Text(String),
}

/// What came of a task.
#[derive(Debug)]
pub struct TaskResult {
    /// A row for each metric.
    pub scores: Vec<TaskScore>,
    /// A JSON object a line, with lm-eval's fields.
    pub samples_jsonl: Vec<u8>,
}

impl PreparedTask {
    /// Reads the task and makes its requests; `data` holds the files of each split.
    ///
    /// # Errors
    /// What the task's file or a document of it breaks, by name and number.
    pub fn new(yaml: &str, data: &BTreeMap<String, Vec<Vec<u8>>>, overrides: Overrides) -> Result<Self> {
        let file = TaskFile::parse(yaml)?;
        let n_shot = overrides.num_fewshot.unwrap_or(file.num_fewshot);
        let context = |what: String| format!("task `{}`: {what}", file.task);
        let docs = documents(data, &file.scored_split).with_context(|| context("its data".to_owned()))?;
        let templates = Templates::new(&file)?;
        let shots = if n_shot > 0 {
            let split = file.fewshot_split.as_deref();
            let split =
                split.with_context(|| context("shots are asked and there is no split to take them from".to_owned()))?;
            let mut docs = documents(data, split)?;
            // One more where the shots come from the scored split: the document itself is no shot of its own.
            docs.truncate(n_shot as usize + usize::from(split == file.scored_split));
            docs
        } else {
            Vec::new()
        };
        let mut samples = Vec::new();
        let limit = overrides.limit.map_or(usize::MAX, |limit| limit as usize);
        for (i, doc) in docs.into_iter().take(limit).enumerate() {
            let sample = sample(&file, &templates, &shots, n_shot, doc);
            samples.push(sample.with_context(|| context(format!("document {i}")))?);
        }
        ensure!(!samples.is_empty(), "task `{}` has no documents", file.task);
        Ok(Self { file, n_shot, samples })
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.file.task
    }

    /// Requests that an engine will be asked.
    pub fn n_requests(&self) -> u64 {
        self.samples.iter().map(|sample| sample.requests.len() as u64).sum()
    }

    /// What an engine will be asked: (context, continuation); for rolling the text alone, as context.
    pub fn requests(&self) -> impl Iterator<Item = &(String, String)> {
        self.samples.iter().flat_map(|sample| &sample.requests)
    }

    /// Asks the engine and works out the metrics.
    ///
    /// # Errors
    /// When the engine fails, `progress` ends the work, or the engine gives what is no finite number.
    pub fn run(&self, engine: &mut dyn Engine, progress: Progress<'_>) -> Result<TaskResult> {
        let requests: Vec<(String, String)> = self
            .samples
            .iter()
            .flat_map(|sample| sample.requests.iter().cloned())
            .collect();
        let answers = match self.file.output_type {
            OutputType::LoglikelihoodRolling => {
                let documents: Vec<String> = requests.into_iter().map(|(document, _)| document).collect();
                let sums = engine.loglikelihood_rolling(&documents, progress)?;
                sums.into_iter()
                    .map(|log_likelihood| Answer {
                        log_likelihood,
                        is_greedy: false,
                    })
                    .collect()
            }
            _ => engine.loglikelihood(&requests, progress)?,
        };
        if let Some(bad) = answers.iter().find(|answer| !answer.log_likelihood.is_finite()) {
            let value = bad.log_likelihood;
            bail!(
                "task `{}`: the model gives the log-likelihood {value}: its weights hold NaN or Inf",
                self.file.task
            );
        }
        let mut outcomes = Vec::with_capacity(self.samples.len());
        let mut samples_jsonl = Vec::new();
        let mut rest = answers.as_slice();
        for (doc_id, sample) in self.samples.iter().enumerate() {
            let (mine, after) = rest.split_at(sample.requests.len());
            rest = after;
            let outcome = Outcome::of(self.file.output_type, sample, mine);
            sample::write(&mut samples_jsonl, &self.file, doc_id, sample, mine, &outcome)?;
            outcomes.push(outcome);
        }
        let scores = self.file.metrics.iter().map(|&metric| {
            let (value, stderr) = metric::aggregate(metric, &outcomes);
            TaskScore {
                metric: metric.as_str().to_owned(),
                filter: "none".to_owned(),
                value,
                stderr: stderr.map(|(stderr, _)| stderr).filter(|stderr| stderr.is_finite()),
                stderr_method: stderr.map(|(_, method)| method.to_owned()),
                n: outcomes.len() as u64,
                n_shot: self.n_shot,
                higher_is_better: Some(metric.higher_is_better()),
                harness_version: VERSION.to_owned(),
                provenance: self.provenance(&engine.describe()),
            }
        });
        Ok(TaskResult {
            scores: scores.collect(),
            samples_jsonl,
        })
    }

    /// What it takes to repeat a score.
    fn provenance(&self, engine: &Description) -> BTreeMap<String, String> {
        let mut prompts = fineline_format::Hasher::new();
        for (context, continuation) in self.requests() {
            for text in [context, continuation] {
                prompts.update(&(text.len() as u64).to_le_bytes());
                prompts.update(text.as_bytes());
            }
        }
        let facts = [
            ("task_version", self.file.version.clone()),
            ("bos_policy", engine.bos_policy.clone()),
            ("max_length", engine.max_length.to_string()),
            ("n_parameters", engine.n_parameters.to_string()),
            ("prompts_digest", prompts.finish().to_string()),
            ("bootstrap_seed", metric::BOOTSTRAP_SEED.to_string()),
            ("fewshot_sampler", "first_n".to_owned()),
        ];
        facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
    }
}

/// The documents of a split: JSON objects, one a line.
fn documents(data: &BTreeMap<String, Vec<Vec<u8>>>, split: &str) -> Result<Vec<Value>> {
    let files = data
        .get(split)
        .with_context(|| format!("there is no data for the split `{split}`"))?;
    let mut docs = Vec::new();
    for file in files {
        let text = std::str::from_utf8(file).context("a data file is no UTF-8")?;
        for (i, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let doc: Value =
                serde_json::from_str(line).with_context(|| format!("line {} of split `{split}`", i + 1))?;
            ensure!(doc.is_object(), "line {} of split `{split}` is no object", i + 1);
            docs.push(doc);
        }
    }
    Ok(docs)
}

fn sample(file: &TaskFile, templates: &Templates, shots: &[Value], n_shot: u32, doc: Value) -> Result<Sample> {
    let target = |doc: &Value, choices: &[String]| target(file, templates, doc, choices);
    let choices = choices(file, templates, &doc)?;
    let mut context = templates.description(&doc)?;
    for shot in shots.iter().filter(|shot| **shot != doc).take(n_shot as usize) {
        let choices = self::choices(file, templates, shot)?;
        let answer = match target(shot, &choices)? {
            Target::Choice(i) => choices[i].clone(),
            Target::Text(text) => text,
        };
        let question = templates.text(shot)?;
        context.push_str(&format!(
            "{question}{}{answer}{}",
            file.target_delimiter, file.fewshot_delimiter
        ));
    }
    let target = target(&doc, &choices)?;
    let requests = match (file.output_type, &target) {
        (OutputType::MultipleChoice, Target::Choice(_)) => {
            let context = context + &templates.text(&doc)?;
            let request = |choice: &String| (context.clone(), format!("{}{choice}", file.target_delimiter));
            choices.iter().map(request).collect()
        }
        (OutputType::Loglikelihood, Target::Text(text)) => vec![(context + &templates.text(&doc)?, text.clone())],
        (OutputType::LoglikelihoodRolling, Target::Text(text)) => vec![(text.clone(), String::new())],
        (_, target) => bail!("its target {target:?} does not fit its output type"),
    };
    Ok(Sample {
        doc,
        target,
        requests,
        choices,
    })
}

fn choices(file: &TaskFile, templates: &Templates, doc: &Value) -> Result<Vec<String>> {
    match &file.doc_to_choice {
        None => Ok(Vec::new()),
        Some(Source::List(list)) => Ok(list.clone()),
        Some(Source::Int(_)) => bail!("`doc_to_choice` is a number"),
        Some(Source::Text(_)) => {
            let value = templates.choice(doc)?;
            let items = value
                .try_iter()
                .with_context(|| format!("`doc_to_choice` gives {value}, which is no list"))?;
            let items: Vec<String> = items.map(|item| template::render(&item)).collect();
            ensure!(!items.is_empty(), "`doc_to_choice` gives no choices");
            Ok(items)
        }
    }
}

/// The right answer: an index of the choices (a number, or the choice itself), or a text.
fn target(file: &TaskFile, templates: &Templates, doc: &Value, choices: &[String]) -> Result<Target> {
    let value = match &file.doc_to_target {
        Source::Int(index) => Jinja::from(*index),
        Source::List(_) => bail!("`doc_to_target` is a list: several targets are not supported"),
        Source::Text(_) => templates.target(doc)?,
    };
    let text = template::render(&value);
    if file.output_type != OutputType::MultipleChoice {
        return Ok(Target::Text(text));
    }
    // A number counts from 0; a text is an index when it is all digits, else one of the choices.
    let index = match value.as_str() {
        None => text.parse().ok(),
        Some(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(_) => choices.iter().position(|choice| *choice == text),
    };
    match index.filter(|&index: &usize| index < choices.len()) {
        Some(index) => Ok(Target::Choice(index)),
        None => bail!("target `{text}` is none of its {} choices", choices.len()),
    }
}
