//! What the places of a source become: which step each is, which of its files come in, and whether it is whole. Decided from
//! names, sizes and digests alone: no file is read here.
//!
//! **Invariant:** a place whose step is not sure, or is another place's too, brings nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use fineline_api::StepMapping;
use fineline_format::step_name::{self, InferredStep, RoundedTokens, StepName, StepTemplate};
use fineline_format::weights::form_path;
use fineline_format::{Digest, FileEntry, Hasher, Manifest, check_path, evaluable};

use super::{Object, Place, SourceError};

/// How places become steps.
#[derive(Debug, Clone)]
pub(crate) struct Rules<'a> {
    pub(crate) mapping: &'a StepMapping,
    /// The run's tokens per step, where the mapping has none.
    pub(crate) run_tokens_per_step: Option<u64>,
    /// The file that says that a checkpoint is whole.
    pub(crate) marker: Option<&'a str>,
    /// Whether optimizer states come in.
    pub(crate) keep_optimizer: bool,
}

/// What is known of a place that has not changed since it came in.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) version: String,
    /// [`Planned::weights`] of it.
    pub(crate) weights: Option<Digest>,
}

/// What a place becomes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Planned {
    /// Its name, of which the step is read.
    pub(crate) name: String,
    /// Where in the source.
    pub(crate) place: String,
    pub(crate) version: String,
    pub(crate) step: Option<u64>,
    /// Whether the step was worked out from rounded tokens, and what it was before it was moved to a multiple.
    pub(crate) inferred: Option<InferredStep>,
    pub(crate) tokens: Option<u64>,
    /// What comes in, by path; nothing for a place that has not changed since.
    pub(crate) files: Vec<Object>,
    /// Over the digests of its weights' files, where the place tells them.
    pub(crate) weights: Option<Digest>,
    /// What the place calls the file that says that it is whole, where that is asked for and there.
    pub(crate) marker: Option<String>,
    pub(crate) verdict: Verdict,
    pub(crate) warnings: Vec<String>,
}

/// Whether a place can come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is whole as far as can be told.
    Whole,
    /// It came in as it is.
    Unchanged,
    /// Something is missing that may still come.
    Waiting(String),
    /// What it is can't be told, for now or until somebody changes it.
    Unlisted(SourceError),
    /// It can't come in.
    Failed(String),
    /// It is no step of this run.
    Ignored(String),
}

impl Planned {
    /// Over the paths, sizes and versions of what comes in: the same as long as nothing of it changes.
    pub(crate) fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::new();
        for file in &self.files {
            let line = format!("{}\0{}\0{}\n", file.path, file.size_bytes, file.version);
            hasher.update(line.as_bytes());
        }
        hasher.finish()
    }

    /// Bytes of what comes in.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size_bytes).sum()
    }
}

/// Decides what each place becomes, by step, those without one last. `known` has the places that came in, by where they are.
pub(crate) fn plan(places: Vec<Place>, known: &HashMap<String, Known>, rules: &Rules<'_>) -> Vec<Planned> {
    let template: Option<StepTemplate> = rules.mapping.template.as_deref().and_then(|text| text.parse().ok());
    let mut planned: Vec<Planned> = places
        .into_iter()
        .filter(|place| is_selected(&place.name, &rules.mapping.select))
        .map(|place| plan_one(place, known, rules, template.as_ref()))
        .collect();
    keep_runs_apart(&mut planned, template.as_ref());
    refuse_shared_steps(&mut planned);
    tell_equal_weights(&mut planned);
    planned.sort_by(|a, b| (a.step.is_none(), a.step, &a.place).cmp(&(b.step.is_none(), b.step, &b.place)));
    planned
}

/// Which of all names become steps: the files of the others need not be listed.
pub(crate) fn wanted(names: &[&str], rules: &Rules<'_>) -> Vec<bool> {
    let place = |name: &&str| Place {
        name: (*name).to_owned(),
        at: (*name).to_owned(),
        version: String::new(),
        objects: None,
        problem: None,
    };
    let planned = plan(names.iter().map(place).collect(), &HashMap::new(), rules);
    let steps = planned.into_iter().filter(|one| one.step.is_some());
    let wanted: HashSet<String> = steps.map(|one| one.name).collect();
    names.iter().map(|name| wanted.contains(*name)).collect()
}

fn is_selected(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether a pattern, of which `*` is any text, is the whole of a name.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn said_by(name: &str, template: Option<&StepTemplate>) -> Option<StepName> {
    match template {
        Some(template) => template.read(name),
        None => step_name::read_step_name(name),
    }
}

fn plan_one(
    place: Place,
    known: &HashMap<String, Known>,
    rules: &Rules<'_>,
    template: Option<&StepTemplate>,
) -> Planned {
    let mut planned = Planned {
        step: None,
        inferred: None,
        tokens: None,
        files: Vec::new(),
        weights: known.get(&place.at).and_then(|known| known.weights),
        marker: None,
        verdict: Verdict::Whole,
        warnings: Vec::new(),
        name: place.name,
        place: place.at,
        version: place.version,
    };
    let said = said_by(&planned.name, template);
    match find_step(&planned.name, said, rules) {
        Ok((step, inferred)) => (planned.step, planned.inferred) = (Some(step), inferred),
        Err(why) => planned.verdict = Verdict::Ignored(why),
    }
    planned.tokens = find_tokens(&planned, said.and_then(|said| said.tokens), rules);
    // It may be another the next time: a server that is busy, a repository that comes.
    if let Some(problem) = place.problem {
        if planned.step.is_some() {
            planned.verdict = Verdict::Unlisted(problem);
        }
        return planned;
    }
    let Some(objects) = place.objects else {
        if planned.step.is_some() {
            planned.verdict = match known.contains_key(&planned.place) {
                true => Verdict::Unchanged,
                false => Verdict::Waiting("its files were not listed".to_owned()),
            };
        }
        return planned;
    };
    let marker = |marker: &str| objects.iter().find(|object| object.path == marker);
    planned.marker = rules.marker.and_then(marker).map(|object| object.version.clone());
    let subfolder = rules.mapping.subfolder.as_deref();
    planned.files = coming_in(objects, subfolder, &planned.name, rules);
    if planned.step.is_none() {
        return planned;
    }
    planned.verdict = wholeness(&planned.files);
    if let (Verdict::Whole, Some(marker), None) = (&planned.verdict, rules.marker, &planned.marker) {
        planned.verdict = Verdict::Waiting(format!("the marker file `{marker}` is not there"));
    }
    planned.weights = weights(&planned.files);
    planned
}

/// The step of a place, by what is said first: the mapping, the name, the tokens of the name.
fn find_step(name: &str, said: Option<StepName>, rules: &Rules<'_>) -> Result<(u64, Option<InferredStep>), String> {
    if let Some(step) = rules.mapping.steps.get(name) {
        return Ok((*step, None));
    }
    if let Some(step) = said.and_then(|said| said.step) {
        return Ok((step, None));
    }
    let Some(tokens) = said.and_then(|said| said.tokens) else {
        return Err("nothing says its step: name it with `steps`, or give a template".to_owned());
    };
    let Some(tokens_per_step) = tokens_per_step(rules) else {
        return Err("its name says tokens and no step: give the tokens of one step".to_owned());
    };
    let since_0 = RoundedTokens {
        tokens: tokens
            .tokens
            .saturating_sub(rules.mapping.tokens_at_step_0.unwrap_or(0)),
        ..tokens
    };
    let inferred = step_name::infer_step(since_0, tokens_per_step, rules.mapping.step_multiple)?;
    Ok((inferred.step, Some(inferred)))
}

fn tokens_per_step(rules: &Rules<'_>) -> Option<u64> {
    rules.mapping.tokens_per_step.or(rules.run_tokens_per_step)
}

fn find_tokens(planned: &Planned, said: Option<RoundedTokens>, rules: &Rules<'_>) -> Option<u64> {
    if let Some(tokens) = rules.mapping.tokens.get(&planned.name) {
        return Some(*tokens);
    }
    if let Some(exact) = said.filter(|tokens| tokens.half_unit == 0) {
        return Some(exact.tokens);
    }
    let by_step = planned.step.zip(tokens_per_step(rules));
    let at_step_0 = rules.mapping.tokens_at_step_0.unwrap_or(0);
    by_step
        .and_then(|(step, tokens)| step.checked_mul(tokens)?.checked_add(at_step_0))
        .or(said.map(|tokens| tokens.tokens))
}

/// The files that come in, by path.
fn coming_in(objects: Vec<Object>, subfolder: Option<&str>, name: &str, rules: &Rules<'_>) -> Vec<Object> {
    let folder = subfolder.map(|folder| format!("{}/", folder.replace("{name}", name).trim_matches('/')));
    let inside = |mut object: Object| match &folder {
        None => Some(object),
        Some(folder) => {
            object.path = object.path.strip_prefix(folder.as_str())?.to_owned();
            Some(object)
        }
    };
    let wanted = |object: &Object| {
        let is_hidden = object.path.split('/').any(|part| part.starts_with('.'));
        let is_optimizer = !rules.keep_optimizer && evaluable::is_optimizer_file(&object.path);
        !is_hidden && !is_optimizer && rules.marker != Some(object.path.as_str())
    };
    let mut files: Vec<Object> = objects.into_iter().filter_map(inside).filter(wanted).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Whether the files are a whole checkpoint, as far as their names and sizes tell. What an index names is compared once it
/// is read.
fn wholeness(files: &[Object]) -> Verdict {
    if let Some(error) = files.iter().find_map(|file| check_path(&file.path).err()) {
        return Verdict::Failed(error.to_string());
    }
    let nothing = Digest::of(b"");
    let entries = files.iter().map(|file| FileEntry {
        path: file.path.clone(),
        size_bytes: file.size_bytes,
        digest: nothing,
    });
    let manifest = match Manifest::new(entries.collect()) {
        Ok(manifest) => manifest,
        Err(_) if files.is_empty() => return Verdict::Waiting("it has no files".to_owned()),
        Err(error) => return Verdict::Failed(error.to_string()),
    };
    if let Some(missing) = missing_shard(files) {
        return Verdict::Waiting(missing);
    }
    if form_path(&manifest).is_none() {
        let why = evaluable::obstacle(&manifest, false, false).unwrap_or_default();
        return Verdict::Waiting(why);
    }
    if let Some(empty) = files.iter().find(|file| file.size_bytes == 0 && is_weights(&file.path)) {
        return Verdict::Waiting(format!("`{}` is empty", empty.path));
    }
    Verdict::Whole
}

fn is_weights(path: &str) -> bool {
    [".safetensors", ".bin", ".pt", ".pth"]
        .iter()
        .any(|end| path.ends_with(end))
}

/// A set of shards: what stands before their number, how many they are, what stands behind.
type ShardSet<'a> = (&'a str, u64, &'a str);

/// `model-00002-of-00003.safetensors` as its set and number.
fn shard(path: &str) -> Option<(ShardSet<'_>, u64)> {
    let (stem, end) = path.rsplit_once('.')?;
    let (before, n) = stem.rsplit_once("-of-")?;
    let (before, at) = before.rsplit_once('-')?;
    Some(((before, n.parse().ok()?, end), at.parse().ok()?))
}

fn missing_shard(files: &[Object]) -> Option<String> {
    let mut sets: BTreeMap<ShardSet<'_>, Vec<u64>> = BTreeMap::new();
    for (set, at) in files.iter().filter_map(|file| shard(&file.path)) {
        sets.entry(set).or_default().push(at);
    }
    // Counted and not walked through: a name may say any number.
    let (set, numbers) = sets.iter().find(|((_, n, _), numbers)| (numbers.len() as u64) < *n)?;
    let missing = (1..=set.1).find(|at| !numbers.contains(at))?;
    let (before, n, end) = set;
    let n_there = numbers.len();
    Some(format!(
        "{n_there} of {n} shards are there: shard {missing} of `{before}-…-of-{n:05}.{end}` is missing"
    ))
}

/// Over the digests of the files with weights: whether two places hold the same is known before a byte is read.
fn weights(files: &[Object]) -> Option<Digest> {
    let digests: Option<Vec<_>> = files
        .iter()
        .filter(|file| is_weights(&file.path))
        .map(|file| file.sha256.map(|digest| (digest, file.size_bytes)))
        .collect();
    let mut digests = digests.filter(|digests| !digests.is_empty())?;
    digests.sort_unstable();
    let mut hasher = Hasher::new();
    digests.iter().for_each(|(digest, _)| hasher.update(digest.as_bytes()));
    Some(hasher.finish())
}

/// Names that say stages or ingredients are several runs: the first is taken, the others are told.
fn keep_runs_apart(planned: &mut [Planned], template: Option<&StepTemplate>) {
    let run = |planned: &Planned| {
        let said = said_by(&planned.name, template)?;
        planned.step.map(|_| (said.stage, said.ingredient))
    };
    let Some(first) = planned.iter().filter_map(run).min() else {
        return;
    };
    for other in planned.iter_mut() {
        if run(other).is_some_and(|run| run != first) {
            let why = "its stage or ingredient is another run than the first: select it into a run of its own";
            other.verdict = Verdict::Ignored(why.to_owned());
            other.step = None;
        }
    }
}

fn refuse_shared_steps(planned: &mut [Planned]) {
    let mut by_step: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, one) in planned.iter().enumerate() {
        if let Some(step) = one.step {
            by_step.entry(step).or_default().push(at);
        }
    }
    for (step, shared) in by_step.into_iter().filter(|(_, shared)| shared.len() > 1) {
        for &at in &shared {
            // What came in stays what it is; what came later is refused.
            if matches!(planned[at].verdict, Verdict::Unchanged | Verdict::Unlisted(_)) {
                continue;
            }
            let other = shared.iter().find(|&&other| other != at).copied().unwrap_or(at);
            let other = planned[other].place.clone();
            planned[at].verdict = Verdict::Failed(format!(
                "step {step} is `{other}` too: select one of them, or name its step"
            ));
        }
    }
}

fn tell_equal_weights(planned: &mut [Planned]) {
    let mut by_weights: HashMap<Digest, Vec<usize>> = HashMap::new();
    for (at, one) in planned.iter().enumerate() {
        if let (Some(weights), Some(_)) = (one.weights, one.step) {
            by_weights.entry(weights).or_default().push(at);
        }
    }
    for equal in by_weights.into_values().filter(|equal| equal.len() > 1) {
        for &at in &equal {
            let others: Vec<_> = equal
                .iter()
                .filter(|&&other| other != at)
                .map(|&other| format!("`{}`", planned[other].name))
                .take(5)
                .collect();
            let others = others.join(", ");
            planned[at].warnings.push(format!(
                "the weights are those of {others}: was the right file published?"
            ));
        }
    }
}
