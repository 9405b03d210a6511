//! From documents to requests: description, shots, question, and what is asked of them.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use fineline_format::task::{Fewshot, Metric, OutputType, TaskFile};
use serde_json::Value;

use super::sampler::Shots;
use super::template::{Given, Templates};
use super::{MAX_REQUEST_BYTES, Sample, Target};
use crate::python;

/// Makes the samples of a task, one after the other.
#[derive(Debug)]
pub(super) struct Prompter<'a> {
    file: &'a TaskFile,
    templates: Templates,
    shots: Option<Shots>,
    n_shot: usize,
    /// What a shot of the pool reads, by its index.
    written: HashMap<usize, String>,
    /// Whether the choices stand in the contexts, and whether there are several right answers: lm-eval asks the first
    /// document and holds all others to it.
    shape: Option<Shape>,
    left_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    choices_are_contexts: bool,
    has_many_targets: bool,
}

impl<'a> Prompter<'a> {
    pub(super) fn new(file: &'a TaskFile, shots: Option<Shots>, n_shot: usize) -> Self {
        Self {
            file,
            templates: Templates::new(file.doc_to_choice.is_some()),
            shots,
            n_shot,
            written: HashMap::new(),
            shape: None,
            left_bytes: MAX_REQUEST_BYTES,
        }
    }

    /// What a document asks; takes its bytes from what is left for the whole task, before they are there.
    pub(super) fn sample(&mut self, doc: Value) -> Result<Sample> {
        let file = self.file;
        let choices = match &file.doc_to_choice {
            Some(source) => self.templates.choices(source, &doc)?,
            None => Vec::new(),
        };
        let given_target = self.templates.target(&file.doc_to_target, &doc)?;
        let (logged_target, given_target) = (logged(&given_target), given_target.settled());
        let question = match file.output_type {
            OutputType::LoglikelihoodRolling => Given::Text(String::new()),
            _ => self.templates.text(&file.doc_to_text, &doc)?,
        };
        let shape = *self.shape.get_or_insert(Shape {
            choices_are_contexts: matches!(question, Given::Int(_)) && !choices.is_empty(),
            has_many_targets: matches!(given_target, Given::List(_)),
        });
        ensure!(
            shape.has_many_targets == matches!(given_target, Given::List(_)),
            "`doc_to_target` gives a list for some documents and one answer for others"
        );
        let context = self.before(&doc, shape)?;
        let mut sample = Sample {
            logged_target,
            target: Target::Texts(Vec::new()),
            requests: Vec::new(),
            choices,
            doc,
        };
        if file.output_type == OutputType::MultipleChoice && shape.choices_are_contexts {
            self.contexts(&mut sample, &context, &question, given_target)?;
            return Ok(sample);
        }
        let prefix = self.prefix(file.gen_prefix.as_deref(), &sample.doc)?;
        let question = question.text("doc_to_text")?;
        let between = if needs_space(&question, &prefix) {
            file.target_delimiter.as_str()
        } else {
            ""
        };
        let ask = format!("{question}{between}{prefix}");
        match file.output_type {
            OutputType::MultipleChoice => {
                sample.target = self.right_choices(&given_target, &sample.choices)?;
                let n = sample.choices.len();
                self.spend(n.saturating_mul(context.len() + ask.len()), &sample.choices)?;
                let context = context + &ask;
                let request = |choice: &String| (context.clone(), format!("{}{choice}", file.target_delimiter));
                sample.requests = sample.choices.iter().map(request).collect();
                self.without_context(&mut sample)?;
            }
            OutputType::Loglikelihood | OutputType::LoglikelihoodRolling => {
                ensure!(
                    !shape.has_many_targets,
                    "`doc_to_target` gives a list, where a text is needed"
                );
                let text = sample.logged_target.clone();
                self.spend(context.len() + ask.len() + text.len(), &[])?;
                sample.requests.push(match file.output_type {
                    OutputType::Loglikelihood => (context + &ask, text),
                    _ => (text, String::new()),
                });
            }
            OutputType::GenerateUntil => {
                sample.target = Target::Texts(match given_target {
                    Given::List(items) => items.iter().map(python::str).collect(),
                    Given::Int(index) if !sample.choices.is_empty() => {
                        let choice = usize::try_from(index).ok().and_then(|index| sample.choices.get(index));
                        vec![
                            choice
                                .with_context(|| format!("its target {index} is none of its choices"))?
                                .clone(),
                        ]
                    }
                    _ => vec![sample.logged_target.clone()],
                });
                self.spend(context.len() + ask.len() + sample.logged_target.len(), &[])?;
                sample.requests.push((context + &ask, String::new()));
            }
        }
        Ok(sample)
    }

    /// The right ones of the choices; exactly one where a metric compares classes.
    fn right_choices(&self, target: &Given, choices: &[String]) -> Result<Target> {
        let right = target_of_choices(target, choices)?;
        let of_classes = |metric: &&Metric| matches!(metric, Metric::F1 | Metric::Mcc);
        if let (Some(metric), Target::Choices(right)) = (self.file.metrics.iter().find(of_classes), &right) {
            let n = choices.len();
            ensure!(
                right.len() == 1,
                "metric `{metric}` needs one right choice a document: target `{}` names {} of its {n}",
                logged(target).chars().take(200).collect::<String>(),
                right.len()
            );
        }
        Ok(right)
    }

    /// The choices stand in the contexts and the continuation is the same ("partial evaluation").
    fn contexts(&mut self, sample: &mut Sample, context: &str, question: &Given, target: Given) -> Result<()> {
        ensure!(
            matches!(question, Given::Int(_)),
            "`doc_to_text` gives a text, where the first document's is the number of a choice"
        );
        ensure!(
            self.file.gen_prefix.is_none(),
            "`gen_prefix` is not supported where the choices are contexts"
        );
        sample.target = self.right_choices(question, &sample.choices)?;
        let continuation = format!("{}{}", self.file.target_delimiter, target.text("doc_to_target")?);
        let n = sample.choices.len();
        self.spend(n.saturating_mul(context.len() + continuation.len()), &sample.choices)?;
        let request = |choice: &String| (format!("{context}{choice}"), continuation.clone());
        sample.requests = sample.choices.iter().map(request).collect();
        self.without_context(sample)
    }

    /// What `acc_mutual_info` asks beside: every choice with nothing before it.
    fn without_context(&mut self, sample: &mut Sample) -> Result<()> {
        if self.file.process_results.is_none() && self.file.metrics.contains(&Metric::AccMutualInfo) {
            self.spend(0, &sample.choices)?;
            let request = |choice: &String| (String::new(), format!("{}{choice}", self.file.target_delimiter));
            let alone: Vec<_> = sample.choices.iter().map(request).collect();
            sample.requests.extend(alone);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize, choices: &[String]) -> Result<()> {
        let delimiters = self.file.target_delimiter.len() * choices.len();
        let bytes = bytes
            .saturating_add(choices.iter().map(String::len).sum())
            .saturating_add(delimiters);
        self.left_bytes = self.left_bytes.checked_sub(bytes).with_context(|| {
            format!(
                "its requests have more than {MAX_REQUEST_BYTES} bytes of text: set a `limit`, or ask for fewer shots"
            )
        })?;
        Ok(())
    }

    /// Description and shots.
    fn before(&mut self, doc: &Value, shape: Shape) -> Result<String> {
        let mut context = self
            .templates
            .field_or_template(&self.file.description, doc)
            .context("`description`")?;
        let Some(shots) = &mut self.shots else {
            return Ok(context);
        };
        for index in shots.draw(self.n_shot, doc)? {
            if !self.written.contains_key(&index) {
                let shot = written(&self.templates, &self.file.fewshot, shots.document(index), shape);
                self.written
                    .insert(index, shot.with_context(|| format!("shot {index}"))?);
            }
            context.push_str(&self.written[&index]);
            ensure!(
                context.len() <= self.left_bytes,
                "its shots have more than {MAX_REQUEST_BYTES} bytes of text: ask for fewer"
            );
        }
        Ok(context)
    }

    fn prefix(&self, prefix: Option<&str>, doc: &Value) -> Result<String> {
        let prefix = prefix.map(|prefix| self.templates.field_or_template(prefix, doc));
        Ok(prefix.transpose().context("`gen_prefix`")?.unwrap_or_default())
    }
}

/// A shot: question, answer, and what stands between and behind.
fn written(templates: &Templates, fewshot: &Fewshot, doc: &Value, shape: Shape) -> Result<String> {
    let choices = match &fewshot.doc_to_choice {
        Some(source) => templates.choices(source, doc)?,
        None => Vec::new(),
    };
    let choice = |index: i64| {
        let choice = usize::try_from(index).ok().and_then(|index| choices.get(index));
        choice
            .cloned()
            .with_context(|| format!("{index} is none of its {} choices", choices.len()))
    };
    let question = match templates.text(&fewshot.doc_to_text, doc)? {
        Given::Int(index) if shape.choices_are_contexts => choice(index)?,
        given => given.text("doc_to_text")?,
    };
    let answer = match templates.target(&fewshot.doc_to_target, doc)?.settled() {
        Given::Int(index) if !shape.choices_are_contexts && !choices.is_empty() => choice(index)?,
        Given::List(items) => python::str(items.first().context("`doc_to_target` gives an empty list")?),
        given => given.text("doc_to_target")?,
    };
    let prefix = fewshot.gen_prefix.as_deref();
    let prefix = prefix.map(|prefix| templates.field_or_template(prefix, doc));
    let prefix = prefix.transpose().context("`gen_prefix`")?.unwrap_or_default();
    let has_delimiter = match (answer.is_empty(), prefix.is_empty()) {
        (true, true) => return Ok(question),
        (false, true) => true,
        (_, false) => needs_space(&question, &prefix),
    };
    let between = if has_delimiter {
        fewshot.target_delimiter.as_str()
    } else {
        ""
    };
    if answer.is_empty() {
        return Ok(format!("{question}{between}{prefix}"));
    }
    let space = if needs_space(&prefix, &answer) { " " } else { "" };
    Ok(format!(
        "{question}{between}{prefix}{space}{answer}{}",
        fewshot.delimiter
    ))
}

/// Whether neither of two texts that are there has white space where they meet.
fn needs_space(before: &str, after: &str) -> bool {
    match (before.chars().next_back(), after.chars().next()) {
        (Some(last), Some(first)) => !python::is_space(last) && !python::is_space(first),
        _ => false,
    }
}

/// A target as lm-eval logs it: Python's `str`.
fn logged(target: &Given) -> String {
    match target {
        Given::Text(text) => text.clone(),
        Given::Int(index) => index.to_string(),
        Given::Truth(value) => python::str(&Value::Bool(*value)),
        Given::List(items) => python::repr(&Value::Array(items.clone())),
    }
}

/// The right ones of the choices: a number counts from 0, a text is one of them. What is none of them is left out, as lm-eval
/// has it: a document without a right choice counts as wrong. (A number below 0 is none either, also for `exact_match`, where
/// Python counts it from the end.)
fn target_of_choices(target: &Given, choices: &[String]) -> Result<Target> {
    let index = |value: &Given| match value {
        Given::Int(index) => usize::try_from(*index).ok().filter(|&index| index < choices.len()),
        Given::Text(text) => choices.iter().position(|choice| choice == text),
        Given::Truth(_) | Given::List(_) => None,
    };
    let Given::List(items) = target else {
        return Ok(Target::Choices(index(target).into_iter().collect()));
    };
    let mut right = Vec::new();
    for item in items {
        let value = Given::of(item.clone()).settled();
        ensure!(
            matches!(value, Given::Int(_)),
            "`doc_to_target` gives a list that holds {}, which is no index",
            logged(&value)
        );
        right.extend(index(&value));
    }
    Ok(Target::Choices(right))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::task::{Overrides, PreparedTask};

    #[test]
    fn what_is_none_of_the_choices_is_not_right() {
        let choices = ["a", "b"].map(str::to_owned);
        let right = |target: Value| match target_of_choices(&Given::of(target).settled(), &choices) {
            Ok(Target::Choices(right)) => right,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (right(json!(1)), right(json!("b")), right(json!(true))),
            (vec![1], vec![1], vec![1])
        );
        for none in [json!(2), json!(-1), json!("c"), json!(-100)] {
            assert_eq!(right(none), Vec::<usize>::new());
        }
        assert_eq!(right(json!([0, 7])), [0]);
        assert!(target_of_choices(&Given::List(vec![json!("a")]), &choices).is_err());
    }

    #[test]
    fn a_metric_of_classes_needs_one_right_choice() {
        let prepared = |metric: &str, target: Value| {
            let yaml = json!({
                "task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}},
                "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "q", "doc_to_target": "t",
                "doc_to_choice": ["a", "b"], "metric_list": [{"metric": metric}],
            });
            let document = json!({"q": "q", "t": target}).to_string().into_bytes();
            let data = BTreeMap::from([("test".to_owned(), vec![document])]);
            PreparedTask::new(&yaml.to_string(), &data, Overrides::default()).map_err(|error| format!("{error:#}"))
        };
        prepared("mcc", json!(1)).unwrap();
        prepared("acc", json!(-1)).unwrap();
        for metric in ["mcc", "f1"] {
            let error = prepared(metric, json!(-1)).unwrap_err();
            assert!(
                error.contains("needs one right choice") && error.contains("`-1`"),
                "{error}"
            );
        }
    }
}
