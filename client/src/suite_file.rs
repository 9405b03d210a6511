//! A suite as a user keeps it on disk, read with all its tasks and data, uploaded and bound to runs.
//!
//! **Invariant:** what is uploaded is what was read and checked here; nothing is sent of a suite that is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fineline_api::suite::MAX_SUITE_BYTES;
use fineline_api::{Backfill, BackfillPlan, Binding, CreateBinding, RunPattern, StepOrder};
use fineline_format::Digest;
use fineline_format::suite::{BlobRef, SuiteDefinition, SuiteFile, SuiteTask};
use fineline_format::task::DataFormat;

use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::parquet_file::json_lines;
use crate::task_files::{LoadedTask, folder_of, load_tasks, read_text, refused};

/// A suite with the files that it names.
#[derive(Debug)]
struct Loaded {
    definition: SuiteDefinition,
    dtype: String,
    blobs: Blobs,
}

/// Files by digest; the same content is kept once.
#[derive(Debug, Default)]
struct Blobs {
    by_digest: BTreeMap<Digest, Bytes>,
    size_bytes: u64,
}

/// What a binding asks for beside its suite and runs. From a [`Backfill`] alone, or from `true` for all of one and `false` for
/// none, it is that and every step, as they come.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// Which of the steps that are there already are evaluated too.
    pub backfill: Backfill,
    /// Only steps that this divides.
    pub every: u64,
    /// Which step comes next.
    pub order: StepOrder,
}

impl<T: Into<Backfill>> From<T> for BindOptions {
    fn from(backfill: T) -> Self {
        Self {
            backfill: backfill.into(),
            every: 1,
            order: StepOrder::Arrival,
        }
    }
}

impl BindOptions {
    fn binding(self, pattern: &RunPattern, suite: Digest, dtype: String) -> CreateBinding {
        CreateBinding {
            pattern: pattern.clone(),
            suite,
            dtype,
            backfill: self.backfill,
            every: self.every,
            order: self.order,
        }
    }
}

/// Reads the suite file at `path` with its tasks and their data, uploads it and binds it to the runs of `pattern`, as
/// `options` say.
///
/// # Errors
/// [`Error::Folder`] that names the file and what is wrong with it, [`Error::Io`] when one can't be read, and what
/// every call may give.
pub async fn apply_suite(
    client: &Client,
    path: &Path,
    pattern: &RunPattern,
    options: impl Into<BindOptions>,
) -> Result<Binding> {
    let options = options.into();
    let file = path.to_owned();
    let loaded = blocking(move || load(&file)).await?;
    let blobs = loaded.blobs.by_digest.into_iter().collect();
    let suite = client.create_suite(pattern, &loaded.definition, blobs).await?;
    let binding = options.binding(pattern, suite.digest, loaded.dtype);
    client.create_binding(&binding).await
}

/// What [`apply_suite`] would queue for the steps that are there already; nothing is uploaded or bound.
///
/// # Errors
/// As [`apply_suite`].
pub async fn plan_suite(
    client: &Client,
    path: &Path,
    pattern: &RunPattern,
    options: impl Into<BindOptions>,
) -> Result<BackfillPlan> {
    let options = options.into();
    let file = path.to_owned();
    let loaded = blocking(move || load(&file)).await?;
    let binding = options.binding(pattern, loaded.definition.digest(), loaded.dtype);
    client.plan_binding(&binding).await
}

fn load(path: &Path) -> Result<Loaded> {
    let yaml = read_text(path)?;
    let file = SuiteFile::parse(&yaml).map_err(refused(path))?;
    let dir = folder_of(path);
    let mut blobs = Blobs::default();
    let (mut tasks, mut groups) = (Vec::new(), Vec::new());
    for task in &file.tasks {
        let (loaded, its_groups) = load_tasks(&task_path(&dir, task, path)?)?;
        for task in loaded {
            tasks.push(load_data(task, &mut blobs)?);
        }
        groups.extend(its_groups);
    }
    let definition = SuiteDefinition {
        suite: file.suite,
        tasks,
        groups,
        limit: file.limit,
        num_fewshot: file.num_fewshot,
    };
    definition.check().map_err(refused(path))?;
    Ok(Loaded {
        definition,
        dtype: file.dtype.to_string(),
        blobs,
    })
}

/// The data files of a task, relative to the file that it is from.
fn load_data(task: LoadedTask, blobs: &mut Blobs) -> Result<SuiteTask> {
    let LoadedTask { file, yaml, path } = task;
    let (dir, format) = (folder_of(&path), file.data_format);
    let yaml = blobs.add(&path, yaml.into())?;
    let mut data = BTreeMap::new();
    for (split, files) in &file.data_files {
        let blobs = files.iter().map(|file| {
            let path = dir.join(file);
            let bytes: Bytes = std::fs::read(&path).map_err(Error::io("read", &path))?.into();
            let bytes = match format {
                DataFormat::Parquet => json_lines(&path, bytes)?.into(),
                _ => bytes,
            };
            blobs.add(&path, bytes)
        });
        data.insert(split.clone(), blobs.collect::<Result<Vec<_>>>()?);
    }
    Ok(SuiteTask {
        task: file.task,
        yaml,
        data,
    })
}

/// Where a task of a suite is: paths are relative to the suite's file.
fn task_path(dir: &Path, task: &str, suite: &Path) -> Result<PathBuf> {
    let path = dir.join(task);
    let is_a_name = !task.contains(['/', '\\', '.']);
    if is_a_name && !path.is_file() {
        let suite = suite.display();
        return Err(Error::Folder(format!(
            "task `{task}` of `{suite}` is no file and no task is built in yet: give the path of its YAML file"
        )));
    }
    Ok(path)
}

impl Blobs {
    fn add(&mut self, path: &Path, bytes: Bytes) -> Result<BlobRef> {
        let size_bytes = bytes.len() as u64;
        let digest = Digest::of(&bytes);
        if self.by_digest.insert(digest, bytes).is_none() {
            self.size_bytes += size_bytes;
        }
        if self.size_bytes > MAX_SUITE_BYTES {
            let path = path.display();
            return Err(Error::Folder(format!(
                "with `{path}` the suite has more than {MAX_SUITE_BYTES} bytes: split it into several suites"
            )));
        }
        Ok(BlobRef { digest, size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "task: t\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: ../data/t.jsonl\n\
        output_type: loglikelihood\ntest_split: test\ndoc_to_text: \"{{a}}\"\ndoc_to_target: \"{{b}}\"\n";

    fn given(suite: &str, task: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("suite.yaml", suite),
            ("tasks/t.yaml", task),
            ("data/t.jsonl", "{\"a\":\"x\",\"b\":\"y\"}\n"),
        ] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let path = dir.path().join("suite.yaml");
        (dir, path)
    }

    #[test]
    fn a_suite_takes_its_tasks_and_their_data_along() {
        let (_dir, path) = given("suite: s\ntasks: [tasks/t.yaml]\nlimit: 3\ndtype: bfloat16\n", TASK);
        let loaded = load(&path).unwrap();
        assert_eq!((loaded.definition.limit, loaded.dtype.as_str()), (Some(3), "bfloat16"));
        assert_eq!(loaded.definition.tasks[0].task, "t");
        let named: Vec<_> = loaded.definition.blobs().map(|blob| blob.digest).collect();
        assert_eq!(named.len(), 2);
        assert!(named.iter().all(|digest| loaded.blobs.by_digest.contains_key(digest)));
    }

    #[test]
    fn parquet_is_sent_as_json_lines() {
        let task = TASK
            .replace("t.jsonl", "t.parquet")
            .replace("path: json", "path: parquet");
        let (dir, path) = given("suite: s\ntasks: [tasks/t.yaml]\n", &task);
        std::fs::write(dir.path().join("data/t.parquet"), crate::parquet_file::tests::file()).unwrap();
        let loaded = load(&path).unwrap();
        let task = &loaded.definition.tasks[0];
        let text = |blob: &BlobRef| String::from_utf8_lossy(&loaded.blobs.by_digest[&blob.digest]).into_owned();
        assert!(text(&task.yaml).contains("dataset_path: json"), "{}", text(&task.yaml));
        assert!(text(&task.yaml).contains("../data/t.jsonl"));
        assert!(text(&task.data["test"][0]).starts_with("{\"q\":\"a\""));
    }

    #[test]
    fn what_is_refused_is_named() {
        let (_dir, path) = given("suite: s\ntasks: [copa]\n", TASK);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("`copa`") && error.contains("path"), "{error}");
        let function = TASK.replace("doc_to_text: \"{{a}}\"", "doc_to_text: !function utils.f");
        let (_dir, path) = given("suite: s\ntasks: [tasks/t.yaml]\n", &function);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("t.yaml") && error.contains("utils.f"), "{error}");
    }
}
