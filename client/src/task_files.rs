//! The tasks that a suite names, from the files that a user keeps: includes are put into one file, groups and tags become
//! their tasks, so that what is uploaded stands for itself.
//!
//! A group's members are named, and lm-eval looks the names up among the files of its tasks' folder: here it is the folder
//! of the group's own file, with all folders in it. Data files are relative to the file in which a task's name stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fineline_format::suite::SuiteGroup;
use fineline_format::task::{DataFormat, Member, RawTask, TaskFile};

use crate::error::{Error, Result};

/// The most tasks that one entry of a suite may stand for.
const MAX_TASKS: usize = 1000;

/// The most files that one task may include, directly or not.
const MAX_INCLUDES: usize = 32;

/// How deep groups may be nested, and how many there may be, each as often as it stands.
const MAX_DEPTH: usize = 16;
const MAX_GROUPS: usize = 10_000;

/// The most files that a group's names are looked up in.
const MAX_INDEXED: usize = 20_000;

/// A task that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedTask {
    /// Understood, with its data files as they are on disk.
    pub(crate) file: TaskFile,
    /// Its YAML: the file's own text where nothing is put over it and its data are sent as they are.
    pub(crate) yaml: String,
    /// The file that it is from.
    pub(crate) path: PathBuf,
}

/// The tasks that a file stands for, itself or those of its group, and the groups whose scores are brought together.
///
/// # Errors
/// [`Error::Folder`] that names the file and what is wrong with it, [`Error::Io`] when one can't be read.
pub(crate) fn load_tasks(path: &Path) -> Result<(Vec<LoadedTask>, Vec<SuiteGroup>)> {
    let (raw, text) = load(path)?;
    if raw.group_name().is_none() {
        return Ok((vec![understood(path, &raw, text)?], Vec::new()));
    }
    let mut collection = Collection {
        index: Index::of(&folder_of(path))?,
        tasks: Vec::new(),
        groups: Vec::new(),
        n_groups_read: 0,
    };
    collection.group(path, raw, &RawTask::default(), 0)?;
    Ok((collection.tasks, collection.groups))
}

/// A file with what it includes, and its own text when that is all.
fn load(path: &Path) -> Result<(RawTask, Option<String>)> {
    let mut seen = BTreeSet::new();
    let text = read_text(path)?;
    let mut raw = RawTask::parse(&text).map_err(refused(path))?;
    let includes = raw.take_includes().map_err(refused(path))?;
    if includes.is_empty() {
        return Ok((raw, Some(text)));
    }
    seen.insert(canonical(path)?);
    let below = included(path, &includes, &mut seen)?;
    Ok((raw.over(below), None))
}

/// The files that `path` includes, each over the one before.
fn included(path: &Path, includes: &[String], seen: &mut BTreeSet<PathBuf>) -> Result<RawTask> {
    let mut merged = RawTask::default();
    for include in includes {
        let file = folder_of(path).join(include);
        if !seen.insert(canonical(&file)?) || seen.len() > MAX_INCLUDES {
            let file = file.display();
            return Err(Error::Folder(format!(
                "`{}` includes `{file}` twice, or more than {MAX_INCLUDES} files",
                path.display()
            )));
        }
        let mut raw = RawTask::parse(&read_text(&file)?).map_err(refused(&file))?;
        let its = raw.take_includes().map_err(refused(&file))?;
        let raw = raw.over(included(&file, &its, seen)?);
        merged = raw.over(merged);
    }
    Ok(merged)
}

fn understood(path: &Path, raw: &RawTask, text: Option<String>) -> Result<LoadedTask> {
    let mut yaml = match text {
        Some(text) => text,
        None => raw.to_yaml().map_err(refused(path))?,
    };
    let file = TaskFile::parse(&yaml).map_err(refused(path))?;
    if file.data_format == DataFormat::Parquet {
        yaml = raw.clone().with_json_data().to_yaml().map_err(refused(path))?;
    }
    Ok(LoadedTask {
        file,
        yaml,
        path: path.to_owned(),
    })
}

/// The tasks of a group as they are found.
struct Collection {
    index: Index,
    tasks: Vec<LoadedTask>,
    groups: Vec<SuiteGroup>,
    n_groups_read: usize,
}

impl Collection {
    /// Takes a group's tasks in; gives their names.
    fn group(&mut self, path: &Path, raw: RawTask, overrides: &RawTask, depth: usize) -> Result<Vec<String>> {
        let group = raw.into_group(overrides).map_err(refused(path))?;
        let name = &group.group;
        self.n_groups_read += 1;
        if depth > MAX_DEPTH || self.n_groups_read > MAX_GROUPS {
            return Err(Error::Folder(format!(
                "group `{name}` of `{}` holds itself, or there are more than {MAX_GROUPS} groups, or deeper than {MAX_DEPTH}",
                path.display()
            )));
        }
        let mut tasks: Vec<String> = Vec::new();
        for member in group.members {
            let its = match member {
                Member::Named(member, overrides) => self.named(path, name, &member, &overrides, depth)?,
                Member::Group(member, own) => match self.index.files.get(&member).cloned() {
                    Some(file) => {
                        let overrides = own.without_group_name().over(group.overrides.clone());
                        let (raw, _) = load(&file)?;
                        self.group(&file, raw, &overrides, depth + 1)?
                    }
                    None => {
                        let own = own.as_group(&format!("{name}::{member}"));
                        self.group(path, own, &group.overrides, depth + 1)?
                    }
                },
            };
            for task in its {
                if !tasks.contains(&task) {
                    tasks.push(task);
                }
            }
        }
        let group = SuiteGroup {
            group: group.group,
            version: group.version,
            tasks: tasks.clone(),
            metrics: group.metrics,
        };
        if !group.metrics.is_empty() && !self.groups.contains(&group) {
            self.groups.push(group);
        }
        Ok(tasks)
    }

    fn named(
        &mut self,
        path: &Path,
        group: &str,
        member: &str,
        overrides: &RawTask,
        depth: usize,
    ) -> Result<Vec<String>> {
        if let Some(file) = self.index.files.get(member).cloned() {
            let (raw, text) = load(&file)?;
            if raw.group_name().is_some() {
                return self.group(&file, raw, overrides, depth + 1);
            }
            return Ok(vec![self.task(&file, &raw, text, overrides)?]);
        }
        if let Some(files) = self.index.tags.get(member).cloned() {
            let mut tasks = Vec::new();
            for file in files.values() {
                let (raw, text) = load(file)?;
                tasks.push(self.task(file, &raw, text, overrides)?);
            }
            return Ok(tasks);
        }
        // A task whose fields all stand in the group's file.
        let named = overrides.clone().named(&format!("{group}::{member}"));
        let task = understood(path, &named, None);
        let task = task.map_err(|error| {
            Error::Folder(format!(
                "`{member}` of group `{group}` is no task, group or tag of a file in `{}`, and no whole task itself: {error}",
                folder_of(path).display()
            ))
        })?;
        Ok(vec![self.push(task)?])
    }

    fn task(&mut self, path: &Path, raw: &RawTask, text: Option<String>, overrides: &RawTask) -> Result<String> {
        let over = overrides.clone().over(raw.clone());
        let text = text.filter(|_| over == *raw);
        let task = understood(path, &over, text)?;
        self.push(task)
    }

    /// A task that several groups hold is one.
    fn push(&mut self, task: LoadedTask) -> Result<String> {
        let name = task.file.task.clone();
        match self.tasks.iter().find(|known| known.file.task == name) {
            Some(known) if known.yaml == task.yaml => return Ok(name),
            Some(_) => {
                return Err(Error::Folder(format!(
                    "task `{name}` of `{}` stands in several groups with other fields",
                    task.path.display()
                )));
            }
            None => self.tasks.push(task),
        }
        if self.tasks.len() > MAX_TASKS {
            return Err(Error::Folder(format!("a group has more than {MAX_TASKS} tasks")));
        }
        Ok(name)
    }
}

/// The names that the files of a folder have.
#[derive(Debug, Default)]
struct Index {
    /// Tasks and groups.
    files: BTreeMap<String, PathBuf>,
    /// The tasks of a tag, by name.
    tags: BTreeMap<String, BTreeMap<String, PathBuf>>,
}

impl Index {
    /// Reads the names in all `.yaml` files of a folder and those in it; a file that is no task is none.
    fn of(folder: &Path) -> Result<Self> {
        let mut index = Self::default();
        for path in yaml_files(folder)? {
            let raw = std::fs::read_to_string(&path)
                .ok()
                .and_then(|text| RawTask::parse(&text).ok());
            let Some(raw) = raw else {
                continue;
            };
            let is_group = raw.group_name().is_some();
            let Some(name) = raw.group_name().or(raw.name()).map(str::to_owned) else {
                continue;
            };
            if !is_group {
                for tag in raw.tags() {
                    index
                        .tags
                        .entry(tag)
                        .or_default()
                        .entry(name.clone())
                        .or_insert(path.clone());
                }
            }
            index.files.entry(name).or_insert(path);
        }
        Ok(index)
    }
}

/// The `.yaml` files in a folder, in the order of their paths.
fn yaml_files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let mut folders = vec![here.to_owned()];
    let mut n_seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::io("read", &folder))? {
            let entry = entry.map_err(Error::io("read", &folder))?;
            n_seen += 1;
            if n_seen > MAX_INDEXED {
                return Err(Error::Folder(format!(
                    "`{}` holds more than {MAX_INDEXED} files: put the group into a folder of its own",
                    here.display()
                )));
            }
            // A link is not followed: it may lead around.
            let kind = entry.file_type().map_err(Error::io("read", &folder))?;
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

fn canonical(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(Error::io("read", path))
}

pub(crate) fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

pub(crate) fn refused<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error {
    move |error| Error::Folder(format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "dataset_path: json\ndataset_kwargs: {data_files: {test: t.jsonl}}\ntest_split: test\n\
        output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: a\nmetadata: {version: 1}\n";

    fn given(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn names(tasks: &[LoadedTask]) -> Vec<&str> {
        tasks.iter().map(|task| task.file.task.as_str()).collect()
    }

    #[test]
    fn includes_are_put_into_one_file() {
        let dir = given(&[
            ("_base", BASE),
            (
                "sub/_middle",
                "include: ../_base\nnum_fewshot: 2\ndoc_to_text: middle\n",
            ),
            ("t.yaml", "include: sub/_middle\ntask: t\ndoc_to_text: own\n"),
            ("a.yaml", "include: b.yaml\ntask: a\n"),
            ("b.yaml", "include: a.yaml\ntask: b\n"),
            ("plain.yaml", &format!("# as it is\ntask: plain\n{BASE}")),
        ]);
        let (tasks, _) = load_tasks(&dir.path().join("t.yaml")).unwrap();
        let task = &tasks[0].file;
        assert_eq!((task.task.as_str(), task.num_fewshot), ("t", Some(2)));
        assert_eq!(task.doc_to_text, fineline_format::task::Source::Text("own".to_owned()));
        assert!(!tasks[0].yaml.contains("include"));
        assert!(
            load_tasks(&dir.path().join("plain.yaml")).unwrap().0[0]
                .yaml
                .starts_with("# as it is")
        );
        let error = load_tasks(&dir.path().join("a.yaml")).unwrap_err().to_string();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn a_group_becomes_its_tasks() {
        let task = |name: &str, rest: &str| format!("include: _base\ntask: {name}\n{rest}");
        let dir = given(&[
            ("_base", BASE),
            ("a.yaml", &task("a", "tag: both\n")),
            ("b.yaml", &task("b", "tag: [both, other]\n")),
            ("deep/_base", BASE),
            ("deep/c.yaml", &task("c", "")),
            ("deep/inner.yaml", "group: inner\ntask: [c]\n"),
            (
                "all.yaml",
                "group: all\ntask: [both, inner, {task: c, num_fewshot: 4}, {group: here, task: [a], \
                 aggregate_metric_list: [{metric: acc}]}]\nnum_fewshot: 4\naggregate_metric_list: [{metric: acc}]\n",
            ),
            ("unlike.yaml", "group: unlike\ntask: [c, {task: c, num_fewshot: 1}]\n"),
            ("self.yaml", "group: self\ntask: [self]\n"),
            ("none.yaml", "group: none\ntask: [nowhere]\n"),
            ("broken.yaml", "{"),
        ]);
        let load = |name: &str| load_tasks(&dir.path().join(name));
        let (tasks, groups) = load("deep/inner.yaml").unwrap();
        assert!(groups.is_empty());
        assert_eq!(names(&tasks), ["c"]);
        let error = load("unlike.yaml").unwrap_err().to_string();
        assert!(error.contains("`c`") && error.contains("several groups"), "{error}");
        let error = load("self.yaml").unwrap_err().to_string();
        assert!(error.contains("holds itself"), "{error}");
        let error = load("none.yaml").unwrap_err().to_string();
        assert!(error.contains("`nowhere` of group `none`"), "{error}");
        // The group's own fields are those of all its tasks, so that the same task twice is the same.
        let (all, groups) = load("all.yaml").unwrap();
        assert_eq!(names(&all), ["a", "b", "c"]);
        assert!(all.iter().all(|task| task.file.num_fewshot == Some(4)));
        let means = groups.iter().map(|group| (group.group.as_str(), group.tasks.len()));
        assert_eq!(means.collect::<Vec<_>>(), [("all::here", 1), ("all", 3)]);
        assert_eq!(all[2].path, dir.path().join("deep/c.yaml"));
    }
}
