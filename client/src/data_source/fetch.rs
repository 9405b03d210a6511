//! The data of several tasks, fetched from one source.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fineline_api::suite::MAX_SUITE_BYTES;
use fineline_format::library::{LibraryTask, Part};
use fineline_format::task::DataFormat;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::Mutex;

#[cfg(feature = "s3")]
use super::bucket::Bucket;
use super::hub::{Hub, HubOptions, Snapshot};
use super::layout::Found;
use super::{DataOrigin, DataSource, convert, folder, layout};
use crate::blocking::blocking;
use crate::error::{Error, Result};

/// Tasks whose data are on their way at once.
const N_AT_ONCE: usize = 4;

/// A task with its data.
#[derive(Debug)]
pub(crate) struct TaskData {
    pub(crate) task: String,
    pub(crate) yaml: String,
    /// A file for each split.
    pub(crate) splits: BTreeMap<String, Bytes>,
    pub(crate) origin: DataOrigin,
}

/// The documents of one file by the task whose they are.
type Parts = Arc<HashMap<String, Bytes>>;

/// A source at work.
struct Opened {
    place: Place,
    shown: String,
    /// Bytes fetched, which have the same bound as a suite.
    n_bytes: AtomicU64,
    /// What is asked for by many tasks and is the same for all: files that hold the documents of all subjects.
    parts: Mutex<HashMap<Vec<String>, Parts>>,
}

enum Place {
    Folder(PathBuf),
    /// For the task that takes any text.
    File(PathBuf),
    #[cfg(feature = "s3")]
    Bucket(Bucket),
    Hub(Box<OfHub>),
}

/// The Hub, and what was learned of it.
struct OfHub {
    hub: Hub,
    /// The one of all tasks, where it is said.
    dataset: Option<String>,
    revision: Option<String>,
    snapshots: Mutex<HashMap<String, Arc<Snapshot>>>,
}

/// Fetches what `tasks` take when so many shots are asked for, in their order.
///
/// # Errors
/// [`Error::Folder`] that names task, split and what was looked for, or the file that is wrong; [`Error::Data`] that names
/// the URL.
pub(crate) async fn fetch(
    source: &DataSource,
    hub: &HubOptions,
    tasks: Vec<LibraryTask>,
    num_fewshot: Option<u32>,
) -> Result<Vec<TaskData>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let opened = Opened {
        place: open(source, hub)?,
        shown: source.to_string(),
        n_bytes: AtomicU64::new(0),
        parts: Mutex::default(),
    };
    let opened = &opened;
    let work: Vec<_> = tasks
        .into_iter()
        .map(|task| Box::pin(async move { opened.task(&task, num_fewshot).await }))
        .collect();
    futures::stream::iter(work).buffered(N_AT_ONCE).try_collect().await
}

fn open(source: &DataSource, options: &HubOptions) -> Result<Place> {
    Ok(match source {
        DataSource::Local(path) if path.is_file() => Place::File(path.clone()),
        DataSource::Local(path) => Place::Folder(path.clone()),
        #[cfg(feature = "s3")]
        DataSource::Bucket { bucket, prefix } => Place::Bucket(Bucket::open(bucket, prefix)?),
        #[cfg(not(feature = "s3"))]
        DataSource::Bucket { .. } => {
            return Err(Error::Configuration(format!(
                "`{source}` can't be read: this program was built without S3"
            )));
        }
        DataSource::Hub { dataset, revision } => Place::Hub(Box::new(OfHub {
            hub: Hub::new(options)?,
            dataset: dataset.clone(),
            revision: revision.clone(),
            snapshots: Mutex::default(),
        })),
    })
}

impl Opened {
    async fn task(&self, task: &LibraryTask, num_fewshot: Option<u32>) -> Result<TaskData> {
        let name = task.task();
        let wanted = task.splits(num_fewshot);
        let snapshot = self.snapshot(task).await?;
        let listing = self.listing(task, snapshot.as_deref()).await?;
        let mut splits = BTreeMap::new();
        let mut origin = DataOrigin {
            task: name.to_owned(),
            source: snapshot
                .as_ref()
                .map_or_else(|| self.shown.clone(), |at| format!("hf://datasets/{}", at.dataset)),
            revision: snapshot.as_ref().map(|at| at.commit.clone()),
            files: Vec::new(),
        };
        let mut format = None;
        for split in &wanted {
            let Found { paths, part } = self.find(task, split, &listing, snapshot.as_deref())?;
            let (its, bytes) = match part {
                None => self.split(&paths, snapshot.as_deref()).await?,
                Some(part) => (DataFormat::Json, self.part(task, split, &paths, &part).await?),
            };
            if format.is_some_and(|format| format != its) {
                let message = format!(
                    "task `{name}` has CSV for one split and something else for another: give one kind for all"
                );
                return Err(Error::Folder(message));
            }
            format = Some(its);
            origin.files.extend(paths);
            splits.insert(split.clone(), bytes);
        }
        let yaml = task.yaml(format.unwrap_or(DataFormat::Json), &wanted);
        Ok(TaskData {
            task: name.to_owned(),
            yaml: yaml.map_err(|error| Error::Folder(error.to_string()))?,
            splits,
            origin,
        })
    }

    /// The task's data set at one commit, where the source is the Hub.
    async fn snapshot(&self, task: &LibraryTask) -> Result<Option<Arc<Snapshot>>> {
        let Place::Hub(of_hub) = &self.place else {
            return Ok(None);
        };
        let own = task.dataset.as_ref().map(|own| &own.id);
        let id = of_hub.dataset.as_ref().or(own).ok_or_else(|| {
            Error::Folder(format!(
                "task `{}` scores a text of your own: give it with `--data FILE`",
                task.task()
            ))
        })?;
        // Held while it is asked for: the tasks of one data set ask once.
        let mut snapshots = of_hub.snapshots.lock().await;
        if let Some(known) = snapshots.get(id) {
            return Ok(Some(Arc::clone(known)));
        }
        let snapshot = Arc::new(of_hub.hub.snapshot(id, of_hub.revision.as_deref()).await?);
        snapshots.insert(id.clone(), Arc::clone(&snapshot));
        Ok(Some(snapshot))
    }

    async fn listing(&self, task: &LibraryTask, snapshot: Option<&Snapshot>) -> Result<BTreeSet<String>> {
        match &self.place {
            Place::Folder(folder) => folder::list(folder, layout::roots(task)).await,
            Place::File(_) => Ok(BTreeSet::new()),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.list(layout::roots(task)).await,
            Place::Hub(_) => Ok(snapshot.map(|snapshot| snapshot.paths.clone()).unwrap_or_default()),
        }
    }

    fn find(
        &self,
        task: &LibraryTask,
        split: &str,
        listing: &BTreeSet<String>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Found> {
        let found = match (&self.place, snapshot) {
            (Place::File(file), _) if task.dataset.is_some() => {
                let (file, task) = (file.display(), task.task());
                Err(format!(
                    "`{file}` is a file, which only `perplexity` takes: give a folder for task `{task}`"
                ))
            }
            (Place::File(_), _) => Ok(Found {
                paths: vec![self.shown.clone()],
                part: None,
            }),
            (_, Some(_)) => layout::find_in_dataset(task, split, listing),
            (_, None) => layout::find(task, split, listing),
        };
        let place = match snapshot {
            Some(at) => format!("hf://datasets/{}@{}", at.dataset, at.commit),
            None => self.shown.clone(),
        };
        found.map_err(|what| Error::Folder(format!("{what} (in `{place}`)")))
    }

    /// A split that is the task's alone.
    async fn split(&self, paths: &[String], snapshot: Option<&Snapshot>) -> Result<(DataFormat, Bytes)> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            files.push((self.shown_path(path), self.read(path, snapshot).await?));
        }
        blocking(move || convert::converted(files)).await
    }

    /// A task's documents of files that hold others' too.
    async fn part(&self, task: &LibraryTask, split: &str, paths: &[String], part: &Part) -> Result<Bytes> {
        let mut known = self.parts.lock().await;
        let parts = match known.get(paths) {
            Some(parts) => Arc::clone(parts),
            None => {
                let (_, bytes) = self.split(paths, None).await?;
                let (name, field) = (self.shown_path(&paths.join(", ")), part.field);
                let parts = blocking(move || convert::by_field(&name, &bytes, field)).await?;
                let parts: Parts = Arc::new(parts.into_iter().map(|(value, lines)| (value, lines.into())).collect());
                known.insert(paths.to_vec(), Arc::clone(&parts));
                parts
            }
        };
        parts.get(&part.value).cloned().ok_or_else(|| {
            Error::Folder(format!(
                "task `{}` has no documents for its split `{split}`: in `{}` none has `{}` in the field `{}`",
                task.task(),
                self.shown_path(&paths.join(", ")),
                part.value,
                part.field
            ))
        })
    }

    async fn read(&self, path: &str, snapshot: Option<&Snapshot>) -> Result<Bytes> {
        let left = MAX_SUITE_BYTES.saturating_sub(self.n_bytes.load(Ordering::Relaxed));
        let bytes = match (&self.place, snapshot) {
            (Place::Folder(folder), _) => folder::read(folder.join(path), left).await?,
            (Place::File(file), _) => folder::read(file.clone(), left).await?,
            #[cfg(feature = "s3")]
            (Place::Bucket(bucket), _) => bucket.read(path, left).await?,
            (Place::Hub(of_hub), Some(snapshot)) => of_hub.hub.read(snapshot, path, left).await?,
            (Place::Hub(_), None) => unreachable!("what is of the Hub is of a data set"),
        };
        let before = self.n_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if before + bytes.len() as u64 > MAX_SUITE_BYTES {
            return Err(Error::Folder(too_large(&self.shown_path(path))));
        }
        Ok(bytes)
    }

    /// A file by the name under which its user knows it.
    fn shown_path(&self, path: &str) -> String {
        match &self.place {
            Place::Folder(folder) => folder.join(path).display().to_string(),
            #[cfg(feature = "s3")]
            Place::Bucket(bucket) => bucket.url(path),
            Place::File(_) | Place::Hub(_) => path.to_owned(),
        }
    }
}

pub(super) fn too_large(what: &str) -> String {
    format!("with `{what}` the data have more than {MAX_SUITE_BYTES} bytes, the most of a suite: split it into several")
}
