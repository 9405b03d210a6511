//! A suite as a user names it, a file or a name of the library, read with all its tasks and data, uploaded and bound to runs.
//!
//! **Invariant:** what is uploaded is what was read and checked here; nothing is sent of a suite that is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fineline_api::suite::MAX_SUITE_BYTES;
use fineline_api::{Backfill, BackfillPlan, Binding, CreateBinding, RunPattern, StepOrder};
use fineline_format::library::{self, LibraryTask};
use fineline_format::suite::{BlobRef, EvalDtype, SuiteDefinition, SuiteFile, SuiteGroup, SuiteTask};
use fineline_format::task::DataFormat;
use fineline_format::{Digest, shown_within};

use crate::blocking::blocking;
use crate::data_source::{DataOrigin, DataSource, HubOptions, TaskData, fetch};
use crate::error::{Error, Result};
use crate::http::Client;
use crate::parquet_file::json_lines;
use crate::task_files::{LoadedTask, folder_of, load_tasks, read_text, refused};

/// What is said beside a suite's name; by default nothing but how the environment says that the Hub is reached.
#[derive(Debug, Clone)]
pub struct SuiteOptions {
    /// Where the data of the library's tasks come from, over what the suite file says; the Hub where neither says it.
    pub data: Option<DataSource>,
    /// Samples a task at most, over what the suite file says.
    pub limit: Option<u64>,
    /// Shots, over what the suite file says and the tasks' own.
    pub num_fewshot: Option<u32>,
    /// How the Hub is reached.
    pub hub: HubOptions,
}

impl Default for SuiteOptions {
    fn default() -> Self {
        Self {
            data: None,
            limit: None,
            num_fewshot: None,
            hub: HubOptions::from_env(),
        }
    }
}

/// A suite with the files that it names, ready to be applied.
#[derive(Debug)]
pub struct LoadedSuite {
    definition: SuiteDefinition,
    dtype: EvalDtype,
    blobs: Blobs,
    origins: Vec<DataOrigin>,
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

/// What was read of a suite before data are fetched.
struct Read {
    file: SuiteFile,
    /// Its tasks in order: the user's own, and `None` for the next of the library.
    listed: Vec<Option<SuiteTask>>,
    of_library: Vec<LibraryTask>,
    groups: Vec<SuiteGroup>,
    blobs: Blobs,
    /// What its paths are relative to.
    dir: PathBuf,
}

/// Reads the suite file at `path` with its tasks and their data, uploads it and binds it to the runs of `pattern`, as
/// `options` say; where there is no such file, a name of the library stands for itself.
///
/// # Errors
/// What [`LoadedSuite::load`] and every call may give.
pub async fn apply_suite(
    client: &Client,
    path: &Path,
    pattern: &RunPattern,
    options: impl Into<BindOptions>,
) -> Result<Binding> {
    let suite = LoadedSuite::load(path, &SuiteOptions::default()).await?;
    suite.apply(client, pattern, options).await
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
    let suite = LoadedSuite::load(path, &SuiteOptions::default()).await?;
    suite.plan(client, pattern, options).await
}

impl LoadedSuite {
    /// Reads a suite file, or what a name of the library stands for, with all tasks and data.
    ///
    /// # Errors
    /// [`Error::Folder`] that names the file, the task or the split and what is wrong with it, [`Error::Io`] when a file can't
    /// be read, [`Error::Data`] when a bucket or the Hub can't.
    pub async fn load(name: &Path, options: &SuiteOptions) -> Result<Self> {
        let path = name.to_owned();
        let Read {
            file,
            listed,
            of_library,
            groups,
            mut blobs,
            dir,
        } = blocking(move || read(&path)).await?;
        let num_fewshot = options.num_fewshot.or(file.num_fewshot);
        let source = source(options, &file, &dir).map_err(refused(name))?;
        let fetched = fetch(&source, &options.hub, of_library, num_fewshot).await?;
        let mut fetched = fetched.into_iter();
        let (mut tasks, mut origins) = (Vec::new(), Vec::new());
        for own in listed {
            let Some(task) = own else {
                let data = fetched
                    .next()
                    .expect("each of the library's tasks was fetched, in this order");
                let (task, origin) = kept(data, &mut blobs)?;
                tasks.push(task);
                origins.push(origin);
                continue;
            };
            tasks.push(task);
        }
        let definition = SuiteDefinition {
            suite: file.suite,
            tasks,
            groups,
            limit: options.limit.or(file.limit),
            num_fewshot,
        };
        definition.check().map_err(refused(name))?;
        Ok(Self {
            definition,
            dtype: file.dtype,
            blobs,
            origins,
        })
    }

    /// What is uploaded.
    pub fn definition(&self) -> &SuiteDefinition {
        &self.definition
    }

    /// A file of it.
    pub fn blob(&self, digest: Digest) -> Option<&Bytes> {
        self.blobs.by_digest.get(&digest)
    }

    /// Where the data of the library's tasks came from.
    pub fn origins(&self) -> &[DataOrigin] {
        &self.origins
    }

    /// Uploads it and binds it to the runs of `pattern`.
    ///
    /// # Errors
    /// What every call may give.
    pub async fn apply(
        self,
        client: &Client,
        pattern: &RunPattern,
        options: impl Into<BindOptions>,
    ) -> Result<Binding> {
        let binding = self.binding(pattern, options.into());
        let blobs = self.blobs.by_digest.into_iter().collect();
        client.create_suite(pattern, &self.definition, blobs).await?;
        client.create_binding(&binding).await
    }

    /// What [`LoadedSuite::apply`] would queue for the steps that are there already; nothing is uploaded or bound.
    ///
    /// # Errors
    /// What every call may give.
    pub async fn plan(
        &self,
        client: &Client,
        pattern: &RunPattern,
        options: impl Into<BindOptions>,
    ) -> Result<BackfillPlan> {
        client.plan_binding(&self.binding(pattern, options.into())).await
    }

    fn binding(&self, pattern: &RunPattern, options: BindOptions) -> CreateBinding {
        CreateBinding {
            pattern: pattern.clone(),
            suite: self.definition.digest(),
            dtype: self.dtype.to_string(),
            backfill: options.backfill,
            every: options.every,
            order: options.order,
        }
    }
}

fn read(name: &Path) -> Result<Read> {
    let (file, dir) = match name.to_str().filter(|text| is_a_name(text) && !name.is_file()) {
        Some(text) if library::find(text).is_some() => (SuiteFile::of_one(text), PathBuf::new()),
        Some(text) => {
            let text = shown_within(200, text);
            return Err(Error::Folder(format!("`{text}` is no suite file and {UNKNOWN}")));
        }
        None => (
            SuiteFile::parse(&read_text(name)?).map_err(refused(name))?,
            folder_of(name),
        ),
    };
    let mut blobs = Blobs::default();
    let (mut listed, mut of_library, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for task in &file.tasks {
        let path = dir.join(task);
        if is_a_name(task) && !path.is_file() {
            let Some(selection) = library::find(task) else {
                let (task, suite) = (shown_within(200, task), name.display());
                return Err(Error::Folder(format!(
                    "task `{task}` of `{suite}` is no file and {UNKNOWN}"
                )));
            };
            listed.extend(selection.tasks.iter().map(|_| None));
            of_library.extend(selection.tasks);
            groups.extend(selection.groups);
            continue;
        }
        let (loaded, its_groups) = load_tasks(&path)?;
        for task in loaded {
            listed.push(Some(load_data(task, &mut blobs)?));
        }
        groups.extend(its_groups);
    }
    Ok(Read {
        file,
        listed,
        of_library,
        groups,
        blobs,
        dir,
    })
}

const UNKNOWN: &str =
    "no task of the library: give the path of a YAML file, or one of the names that `fineline suite list` shows";

/// What is written as a name and not as a path.
fn is_a_name(text: &str) -> bool {
    !text.contains(['/', '\\', '.'])
}

/// Where data come from: a folder that a suite file names is relative to it.
fn source(options: &SuiteOptions, file: &SuiteFile, dir: &Path) -> Result<DataSource> {
    match (&options.data, &file.data) {
        (Some(source), _) => Ok(source.clone()),
        (None, Some(said)) => Ok(match said.parse()? {
            DataSource::Local(path) => DataSource::Local(dir.join(path)),
            source => source,
        }),
        (None, None) => Ok(DataSource::HUB),
    }
}

/// Takes the files of a task of the library in.
fn kept(data: TaskData, blobs: &mut Blobs) -> Result<(SuiteTask, DataOrigin)> {
    let name = Path::new(&data.task);
    let yaml = blobs.add(name, data.yaml.into())?;
    let mut splits = BTreeMap::new();
    for (split, bytes) in data.splits {
        splits.insert(split.clone(), vec![blobs.add(&name.join(split), bytes)?]);
    }
    let task = SuiteTask {
        task: data.task,
        yaml,
        data: splits,
    };
    Ok((task, data.origin))
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

    /// As a suite of files alone is loaded.
    fn load(path: &Path) -> Result<LoadedSuite> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(LoadedSuite::load(path, &SuiteOptions::default()))
    }

    #[test]
    fn a_suite_takes_its_tasks_and_their_data_along() {
        let (_dir, path) = given("suite: s\ntasks: [tasks/t.yaml]\nlimit: 3\ndtype: bfloat16\n", TASK);
        let loaded = load(&path).unwrap();
        assert_eq!((loaded.definition.limit, loaded.dtype), (Some(3), EvalDtype::Bfloat16));
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
        let (_dir, path) = given("suite: s\ntasks: [kopa]\n", TASK);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("`kopa`") && error.contains("suite list"), "{error}");
        let function = TASK.replace("doc_to_text: \"{{a}}\"", "doc_to_text: !function utils.f");
        let (_dir, path) = given("suite: s\ntasks: [tasks/t.yaml]\n", &function);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("t.yaml") && error.contains("utils.f"), "{error}");
    }
}
