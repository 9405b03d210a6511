//! A task at work: documents to requests, answers to metrics, by lm-eval's rules.

mod builtin;
mod csv;
mod documents;
mod filter;
mod language;
mod metric;
mod outcome;
mod pattern;
mod prompt;
mod python_random;
mod sample;
mod sampler;
mod template;
mod wikitext;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use fineline_api::TaskScore;
use fineline_format::task::{Function, OutputType, Pool, Role, Sampler, Source, TaskFile};
use serde_json::Value;

use crate::engine::{Answer, Asked, Description, Engine, Generation, NotFinite, Progress, Unanswerable};
use filter::Pipeline;
use outcome::{Item, Matcher};
use prompt::Prompter;
use sample::Said;
use sampler::Shots;

/// The version that stands in every score.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whose rules the numbers follow; stands in every score's provenance.
const RULES: &str = "lm-eval 0.4.13";

/// The most bytes of all requests of a task, which are all in memory at once.
const MAX_REQUEST_BYTES: usize = 1 << 30;

/// The most choices of a document.
const MAX_CHOICES: usize = 1000;

/// What a suite says beside its tasks' own files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Samples at most.
    pub limit: Option<u64>,
    /// Shots instead of the task's own; a task whose own file says 0 stays without, as in lm-eval.
    pub num_fewshot: Option<u32>,
}

/// A task whose requests are made.
#[derive(Debug)]
pub struct PreparedTask {
    file: TaskFile,
    n_shot: u32,
    /// Documents of the scored split, of which a limit may leave some out.
    n_documents: usize,
    limit: Option<u64>,
    samples: Vec<Sample>,
    pipelines: Vec<Pipeline>,
    matcher: Matcher,
    /// The built-in preparations that it uses.
    preparations: Vec<String>,
}

/// One document and what it asks.
#[derive(Debug)]
struct Sample {
    doc: Value,
    /// The right answer as lm-eval logs it.
    logged_target: String,
    target: Target,
    /// (context, continuation); for rolling and for generation the text alone, as context.
    requests: Vec<(String, String)>,
    choices: Vec<String>,
}

/// The right answer; of several any is right, and of none none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Indices of choices.
    Choices(Vec<usize>),
    /// Texts.
    Texts(Vec<String>),
}

/// What came of a task.
#[derive(Debug)]
pub struct TaskResult {
    /// A row for each filter and metric.
    pub scores: Vec<TaskScore>,
    /// A JSON object a line, with lm-eval's fields.
    pub samples_jsonl: Vec<u8>,
}

/// What an engine said to all requests of a task.
enum AllSaid {
    Answers(Vec<Answer>),
    Texts(Vec<String>),
}

impl PreparedTask {
    /// What it asks of an engine.
    pub fn output_type(&self) -> OutputType {
        self.file.output_type
    }

    /// Reads the task and makes its requests; `data` holds the files of each split.
    ///
    /// # Errors
    /// What the task's file or a document of it breaks, by name and number.
    pub fn new(yaml: &str, data: &BTreeMap<String, Vec<Vec<u8>>>, overrides: Overrides) -> Result<Self> {
        let file = TaskFile::parse(yaml)?;
        let name = file.task.clone();
        Self::prepare(file, data, overrides).with_context(|| format!("task `{name}`"))
    }

    fn prepare(file: TaskFile, data: &BTreeMap<String, Vec<Vec<u8>>>, overrides: Overrides) -> Result<Self> {
        let n_shot = file.shots(overrides.num_fewshot);
        let pipelines = file.filters.iter().map(Pipeline::new).collect::<Result<_>>()?;
        let matcher = Matcher::new(&file.exact_match)?;
        let read = |split: &str, process_docs: Option<&Function>| {
            documents::read(data, file.data_format, split, process_docs).context("its data")
        };
        let docs = read(&file.scored_split, file.process_docs.as_ref())?;
        let first = docs.first().context("it has no documents")?;
        let n_documents = docs.len();
        let preparations = preparations(&file, first)?;
        let fewshot = &file.fewshot;
        let shots = match &fewshot.pool {
            _ if n_shot == 0 => None,
            None => bail!("shots are asked and there is no split to take them from"),
            Some(Pool::Split(split)) => Some(read(split, fewshot.process_docs.as_ref())?),
            Some(Pool::Samples(docs)) => Some(docs.clone()),
        };
        let shots = shots.map(|pool| Shots::new(fewshot.sampler, pool, fewshot.drops_document));
        let mut prompter = Prompter::new(&file, shots, n_shot as usize);
        let limit = overrides.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut samples = Vec::new();
        for (i, doc) in docs.into_iter().take(limit).enumerate() {
            samples.push(prompter.sample(doc).with_context(|| format!("document {i}"))?);
        }
        ensure!(!samples.is_empty(), "it has no documents");
        Ok(Self {
            file,
            n_shot,
            n_documents,
            limit: overrides.limit,
            samples,
            pipelines,
            matcher,
            preparations,
        })
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.file.task
    }

    /// Requests that an engine will be asked.
    pub fn n_requests(&self) -> u64 {
        self.samples.iter().map(|sample| sample.requests.len() as u64).sum()
    }

    /// What an engine will be asked: (context, continuation); for rolling and for generation the text alone, as context.
    pub fn requests(&self) -> impl Iterator<Item = &(String, String)> {
        self.samples.iter().flat_map(|sample| &sample.requests)
    }

    /// Asks the engine and works out the metrics.
    ///
    /// # Errors
    /// When the engine fails, `progress` ends the work, or the engine gives what is no finite number.
    pub fn run(&self, engine: &mut dyn Engine, progress: Progress<'_>) -> Result<TaskResult> {
        let name = &self.file.task;
        let said = self.ask(engine, progress).map_err(|error| self.named(error))?;
        let provenance = self.provenance(&engine.describe());
        let mut result = TaskResult {
            scores: Vec::new(),
            samples_jsonl: Vec::new(),
        };
        for pipeline in &self.pipelines {
            let mut of_metrics = vec![Vec::with_capacity(self.samples.len()); self.file.metrics.len()];
            let mut begin = 0;
            for (doc_id, sample) in self.samples.iter().enumerate() {
                let end = begin + sample.requests.len();
                let items = self.score(pipeline, doc_id, sample, &said, begin..end, &mut result.samples_jsonl);
                let items = items.with_context(|| format!("task `{name}`: document {doc_id}"))?;
                begin = end;
                for (of_metric, item) in of_metrics.iter_mut().zip(items) {
                    of_metric.push(item);
                }
            }
            for (&metric, items) in self.file.metrics.iter().zip(&of_metrics) {
                let (value, stderr) = metric::aggregate(metric, items);
                result.scores.push(TaskScore {
                    metric: metric.as_str().to_owned(),
                    filter: pipeline.name.clone(),
                    value,
                    stderr: stderr.map(|(stderr, _)| stderr).filter(|stderr| stderr.is_finite()),
                    stderr_method: stderr.map(|(_, method)| method.to_owned()),
                    n: items.len() as u64,
                    n_shot: self.n_shot,
                    higher_is_better: Some(metric.higher_is_better()),
                    harness_version: VERSION.to_owned(),
                    provenance: provenance.clone(),
                });
            }
        }
        Ok(result)
    }

    /// What an engine is asked in one call.
    pub(crate) fn asked(&self) -> Asked {
        if let Some(generating) = &self.file.generating {
            let generation = |(prompt, _): &(String, String)| Generation {
                prompt: prompt.clone(),
                until: generating.until.clone(),
                max_tokens: generating.max_tokens,
            };
            return Asked::Generations(self.requests().map(generation).collect());
        }
        match self.file.output_type {
            OutputType::LoglikelihoodRolling => {
                Asked::Documents(self.requests().map(|(document, _)| document.clone()).collect())
            }
            _ => Asked::Pairs(self.requests().cloned().collect()),
        }
    }

    fn ask(&self, engine: &mut dyn Engine, progress: Progress<'_>) -> Result<AllSaid> {
        let name = &self.file.task;
        let n = self.n_requests();
        let answers: Vec<Answer> = match self.asked() {
            Asked::Generations(generations) => {
                let texts = engine.generate_until(&generations, progress)?;
                let given = texts.len();
                ensure!(
                    given as u64 == n,
                    "task `{name}`: the engine gives {given} texts to {n} requests"
                );
                return Ok(AllSaid::Texts(texts));
            }
            Asked::Documents(documents) => {
                let answer = |log_likelihood| Answer {
                    log_likelihood,
                    is_greedy: false,
                };
                let sums = engine.loglikelihood_rolling(&documents, progress)?;
                sums.into_iter().map(answer).collect()
            }
            Asked::Pairs(pairs) => engine.loglikelihood(&pairs, progress)?,
        };
        let given = answers.len();
        ensure!(
            given as u64 == n,
            "task `{name}`: the engine gives {given} answers to {n} requests"
        );
        if let Some(request) = answers.iter().position(|answer| !answer.log_likelihood.is_finite()) {
            return Err(NotFinite { request }.into());
        }
        Ok(AllSaid::Answers(answers))
    }

    /// Names the document whose request an engine's error names.
    fn named(&self, error: anyhow::Error) -> anyhow::Error {
        let not_finite = error.downcast_ref().map(|&NotFinite { request }| request);
        let unanswerable = || error.downcast_ref().map(|at: &Unanswerable| at.request);
        let Some(request) = not_finite.or_else(unanswerable) else {
            return error;
        };
        let ends = self.samples.iter().scan(0, |end, sample| {
            *end += sample.requests.len();
            Some(*end)
        });
        let document = ends.take_while(|&end| end <= request).count();
        error.context(format!("task `{}`: document {document}", self.file.task))
    }

    /// The metrics of a sample under a filter; writes its line of the log.
    fn score(
        &self,
        pipeline: &Pipeline,
        doc_id: usize,
        sample: &Sample,
        said: &AllSaid,
        range: std::ops::Range<usize>,
        log: &mut Vec<u8>,
    ) -> Result<Vec<Item>> {
        let filtered;
        let (said, items) = match said {
            AllSaid::Answers(answers) => {
                let answers = &answers[range];
                (
                    Said::Answers(answers),
                    outcome::of_answers(&self.file, sample, answers)?,
                )
            }
            AllSaid::Texts(texts) => {
                let text = &texts[range.start];
                filtered = pipeline.apply(text, &sample.doc)?;
                (Said::Text(text, &filtered), vec![self.matcher.item(&filtered, sample)?])
            }
        };
        sample::write(log, &self.file, &pipeline.name, doc_id, sample, said, &items)?;
        Ok(items)
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
        let sampler = match self.file.fewshot.sampler {
            Sampler::Default => "default",
            Sampler::FirstN => "first_n",
        };
        let mut facts = vec![
            ("rules_version", RULES.to_owned()),
            ("task_version", self.file.version.clone()),
            ("n_documents", self.n_documents.to_string()),
            ("dtype", engine.dtype.to_string()),
            ("computed_in", engine.computed_in.to_string()),
            ("bos_policy", engine.bos_policy.clone()),
            ("max_length", engine.max_length.to_string()),
            ("n_parameters", engine.n_parameters.to_string()),
            ("prompts_digest", prompts.finish().to_string()),
            ("bootstrap_seed", metric::SEEDS_TOLD.to_owned()),
            ("fewshot_sampler", sampler.to_owned()),
        ];
        if self.n_shot > 0 && self.file.fewshot.sampler == Sampler::Default {
            facts.push(("fewshot_seed", sampler::SEED.to_string()));
        }
        facts.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        let has_none = |sample: &&Sample| matches!(&sample.target, Target::Choices(right) if right.is_empty());
        let n_without = self.samples.iter().filter(has_none).count();
        if n_without > 0 {
            facts.push(("n_without_right_choice", n_without.to_string()));
        }
        if !self.preparations.is_empty() {
            facts.push(("preparation", self.preparations.join(", ")));
        }
        if let Some(generating) = &self.file.generating {
            let kwargs = Value::Object(generating.kwargs.clone());
            facts.push(("generation_kwargs", kwargs.to_string()));
        }
        facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
    }
}

/// The names of the built-ins that a task's functions mean, by its first document.
fn preparations(file: &TaskFile, first: &Value) -> Result<Vec<String>> {
    let of_source = |source: Option<&Source>| match source {
        Some(Source::Function(function)) => Some(function.clone()),
        _ => None,
    };
    let functions = [
        (Role::Docs, "process_docs", file.process_docs.clone()),
        (Role::Text, "doc_to_text", of_source(Some(&file.doc_to_text))),
        (Role::Target, "doc_to_target", of_source(Some(&file.doc_to_target))),
        (Role::Choice, "doc_to_choice", of_source(file.doc_to_choice.as_ref())),
        (Role::Results, "process_results", file.process_results.clone()),
    ];
    let mut names = Vec::new();
    for (role, field, function) in functions {
        if let Some(function) = function {
            let builtin = builtin::resolve(&function, role, first).with_context(|| format!("`{field}`"))?;
            if role == Role::Results {
                let metric = file.metrics.iter().find(|metric| !builtin.metrics().contains(metric));
                ensure!(
                    metric.is_none(),
                    "`{}` gives no `{}`",
                    builtin.name(),
                    metric.map_or("", |metric| metric.as_str())
                );
            }
            names.push(builtin.name());
        }
    }
    Ok(names)
}
