//! A task's or a group's YAML before it is understood: what includes others and is overridden by others.
//!
//! Reading files is the caller's: here stands what is put over what. The rules are lm-eval's: an included file comes first
//! and whole fields are replaced by those of the file that includes it; a group's fields that are none of a group are put
//! over its members' fields, and those that stand with a member over both.

use std::collections::BTreeMap;

use serde_yaml_ng::{Mapping, Value};

use super::fields::{DataFormat, Fields, json, strings};
use super::{TaskError, is_name};
use crate::error::shown;
use crate::suite::GroupMetric;
use crate::yaml;

/// The fields of a YAML file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RawTask {
    fields: Mapping,
}

/// A group of tasks and groups.
#[derive(Debug, Clone, PartialEq)]
pub struct RawGroup {
    /// Its name.
    pub group: String,
    /// What it holds, in order.
    pub members: Vec<Member>,
    /// What is put over the fields of all that it holds: its own fields, and over them those of the groups around it.
    pub overrides: RawTask,
    /// `aggregate_metric_list`: what is brought together of its tasks' scores.
    pub metrics: Vec<GroupMetric>,
    /// `metadata.version`, as written.
    pub version: String,
}

/// What a group holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Member {
    /// A task, a group or a tag by its name, with what is put over its fields. A name that nothing has is that of a task
    /// whose fields all stand here.
    Named(String, RawTask),
    /// A group by its name, with what is put over its members' fields, or one that is written out here.
    Group(String, RawTask),
}

/// Fields that a group has for itself.
const OF_GROUP: &[&str] = &["group", "group_alias", "task", "aggregate_metric_list", "metadata"];

/// The most members of a group.
const MAX_MEMBERS: usize = 1000;

impl RawTask {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TaskError`] when it is no YAML mapping.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        match yaml::parse(text) {
            Ok(Value::Mapping(fields)) => Ok(Self { fields }),
            Ok(_) => Err(refused("?", "the YAML is no mapping")),
            Err(error) => Err(refused("?", &format!("no YAML: {error}"))),
        }
    }

    /// Takes the paths of the files that it includes, in order.
    ///
    /// # Errors
    /// [`TaskError`] when `include` is neither a path nor a list of paths.
    pub fn take_includes(&mut self) -> Result<Vec<String>, TaskError> {
        match self.fields.remove("include") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => strings(&value).ok_or_else(|| {
                refused(
                    self.name().unwrap_or("?"),
                    "`include` must be a path or a list of paths",
                )
            }),
        }
    }

    /// Its fields over those of another.
    #[must_use]
    pub fn over(self, mut below: Self) -> Self {
        for (key, value) in self.fields {
            below.fields.insert(key, value);
        }
        below
    }

    /// The task's name.
    pub fn name(&self) -> Option<&str> {
        self.fields.get("task").and_then(Value::as_str)
    }

    /// The group's name, where it is a group.
    pub fn group_name(&self) -> Option<&str> {
        self.fields.get("group").and_then(Value::as_str)
    }

    /// The tags that a task has.
    pub fn tags(&self) -> Vec<String> {
        self.fields.get("tag").and_then(strings).unwrap_or_default()
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.fields.insert("task".into(), name.into());
        self
    }

    /// The same with its Parquet files turned into JSON lines.
    #[must_use]
    pub fn with_json_data(mut self) -> Self {
        self.fields.insert("dataset_path".into(), "json".into());
        if let Some(files) = self
            .fields
            .get_mut("dataset_kwargs")
            .and_then(|kwargs| kwargs.get_mut("data_files"))
        {
            rename(files);
        }
        self
    }

    /// The same with local data, a file a split, in place of the data set that it names. The data set goes into the
    /// metadata: it is what is measured, wherever its files come from.
    #[must_use]
    pub fn with_data(mut self, format: DataFormat, files: &BTreeMap<String, String>) -> Self {
        let path = match format {
            DataFormat::Csv => "csv",
            DataFormat::Json | DataFormat::Parquet => "json",
        };
        let dataset = self.fields.insert("dataset_path".into(), path.into());
        let config = self
            .fields
            .shift_remove("dataset_name")
            .filter(|config| !config.is_null());
        let named = [("dataset", dataset), ("dataset_config", config)];
        if let Some(Value::Mapping(metadata)) = self.fields.get_mut("metadata") {
            metadata.extend(named.into_iter().filter_map(|(key, value)| Some((key.into(), value?))));
        }
        let files = files
            .iter()
            .map(|(split, file)| (split.as_str().into(), file.as_str().into()));
        let kwargs = Mapping::from_iter([("data_files".into(), Mapping::from_iter(files).into())]);
        self.fields.insert("dataset_kwargs".into(), kwargs.into());
        self
    }

    /// The YAML of its fields.
    ///
    /// # Errors
    /// [`TaskError`] when they can't be written so that they read the same.
    pub fn to_yaml(&self) -> Result<String, TaskError> {
        let text = serde_yaml_ng::to_string(&self.fields).unwrap_or_default();
        match Self::parse(&text) {
            Ok(read) if read == *self => Ok(text),
            _ => Err(refused(
                self.name().unwrap_or("?"),
                "its fields can't be put into one file: write it as one file",
            )),
        }
    }

    /// Its fields as JSON, in their order: a function as `!function NAME`, what JSON has not as nothing.
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let said = |value: &Value| match value {
            Value::Tagged(tagged) => {
                let function = tagged.value.as_str().map(|name| format!("{} {name}", tagged.tag));
                function.map(serde_json::Value::String)
            }
            other => json(other),
        };
        let named = |(key, value): (&Value, &Value)| Some((key.as_str()?.to_owned(), said(value).unwrap_or_default()));
        self.fields.iter().filter_map(named).collect()
    }

    /// Reads it as a group, under `overrides` from the groups around it.
    ///
    /// # Errors
    /// [`TaskError`] that names the group and the member.
    pub fn into_group(mut self, overrides: &Self) -> Result<RawGroup, TaskError> {
        let Some(group) = self.group_name().filter(|name| is_name(name)).map(str::to_owned) else {
            return Err(refused("?", "`group` must be a name of 1 to 128 bytes"));
        };
        let refused = |what: &str| refused(&group, what);
        let members = match self.fields.remove("task") {
            Some(Value::Sequence(members)) if (1..=MAX_MEMBERS).contains(&members.len()) => members,
            _ => {
                return Err(refused(&format!(
                    "it is a group, whose `task` must be a list of 1 to {MAX_MEMBERS} members"
                )));
            }
        };
        let metrics = metrics(self.fields.remove("aggregate_metric_list")).map_err(|what| refused(&what))?;
        let version = match self.fields.get("metadata").and_then(|metadata| metadata.get("version")) {
            Some(Value::String(version)) => version.clone(),
            Some(Value::Number(version)) => version.to_string(),
            _ => String::new(),
        };
        for field in OF_GROUP {
            self.fields.remove(*field);
        }
        let overrides = overrides.clone().over(self);
        let member = |member: Value| match member {
            Value::String(name) => Ok(Member::Named(name, overrides.clone())),
            Value::Mapping(fields) => {
                let own = Self { fields };
                let group = own.group_name().map(str::to_owned);
                let task = own.name().map(str::to_owned);
                match (group, task) {
                    (Some(name), _) => Ok(Member::Group(name, own)),
                    (None, Some(name)) => Ok(Member::Named(name, own.over(overrides.clone()))),
                    (None, None) => Err(refused("one of its members has neither `task` nor `group`")),
                }
            }
            _ => Err(refused("one of its members is neither a name nor a mapping")),
        };
        let members = members.into_iter().map(member).collect::<Result<_, _>>()?;
        Ok(RawGroup {
            group,
            members,
            overrides,
            metrics,
            version,
        })
    }

    /// The same without a group's name: what is put over the fields of the members of a group that is named.
    #[must_use]
    pub fn without_group_name(mut self) -> Self {
        self.fields.remove("group");
        self
    }

    /// The same as a group of another name.
    #[must_use]
    pub fn as_group(mut self, name: &str) -> Self {
        self.fields.insert("group".into(), name.into());
        self
    }
}

/// Reads `aggregate_metric_list`: one mapping, or a list of them.
fn metrics(list: Option<Value>) -> Result<Vec<GroupMetric>, String> {
    let list = match list {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(list)) => list,
        Some(one) => vec![one],
    };
    let metric = |entry: Value| {
        let Value::Mapping(fields) = entry else {
            return Err("an entry of `aggregate_metric_list` is no mapping".to_owned());
        };
        let mut fields = Fields {
            fields,
            within: "aggregate_metric_list.",
            task: String::new(),
        };
        let metric = GroupMetric {
            metric: fields
                .text("metric")?
                .ok_or("an entry of `aggregate_metric_list` has no `metric`")?,
            filters: match fields.take("filter_list") {
                None => Vec::new(),
                Some(filters) => strings(&filters).ok_or("`aggregate_metric_list.filter_list` must be names")?,
            },
            weight_by_size: match fields.take("weight_by_size") {
                None => true,
                Some(value) => value
                    .as_bool()
                    .ok_or("`aggregate_metric_list.weight_by_size` must be true or false")?,
            },
        };
        fields.fixed("aggregation", &Value::from("mean"))?;
        match fields.fields.keys().next() {
            Some(key) => Err(format!(
                "`aggregate_metric_list.{}` is not understood",
                key.as_str().unwrap_or("?")
            )),
            None => Ok(metric),
        }
    };
    list.into_iter().map(metric).collect()
}

/// Gives every path in `data_files` the ending of JSON lines.
fn rename(files: &mut Value) {
    match files {
        Value::String(path) => {
            if let Some(stem) = path.strip_suffix(".parquet") {
                *path = format!("{stem}.jsonl");
            }
        }
        Value::Sequence(list) => list.iter_mut().for_each(rename),
        Value::Mapping(splits) => splits.values_mut().for_each(rename),
        _ => {}
    }
}

fn refused(task: &str, what: &str) -> TaskError {
    TaskError {
        task: shown(task),
        what: shown(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> RawTask {
        RawTask::parse(text).unwrap()
    }

    #[test]
    fn whole_fields_are_replaced_and_keep_their_place() {
        let mut own = raw("include: base\ntask: t\nmetadata: {version: 2}\n");
        assert_eq!(own.take_includes().unwrap(), ["base"]);
        let merged = own.over(raw("output_type: x\nmetadata: {version: 1, other: 1}\n"));
        assert_eq!(merged, raw("output_type: x\nmetadata: {version: 2}\ntask: t\n"));
        assert!(raw("include: {a: b}\n").take_includes().is_err());
    }

    #[test]
    fn what_is_flattened_reads_the_same() {
        let task = raw(
            "task: t\ndoc_to_text: !function utils.f\ndescription: \"a\\n\\n\"\nx: [1, 1.0, \"1\", ~, yes]\n\
            y: \"it's: {{a}}\\n \\\"b\\\"  \"\n",
        );
        let text = task.to_yaml().unwrap();
        assert!(text.contains("!function utils.f"), "{text}");
        assert_eq!(raw(&text), task);
    }

    #[test]
    fn fields_become_json_in_their_order() {
        let task = raw("task: t\ndoc_to_text: !function utils.f\nx: [1, 1.5, ~, yes]\nmetadata: {version: 1.0}\n");
        let text = serde_json::to_string(&task.to_json()).unwrap();
        let expected =
            r#"{"task":"t","doc_to_text":"!function utils.f","x":[1,1.5,null,"yes"],"metadata":{"version":1.0}}"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn parquet_becomes_json_by_name() {
        let task =
            raw("task: t\ndataset_path: parquet\ndataset_kwargs: {data_files: {test: [a.parquet], dev: b.parquet}}\n");
        let json = raw("task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: [a.jsonl], dev: b.jsonl}}\n");
        assert_eq!(task.with_json_data(), json);
    }

    #[test]
    fn a_group_puts_its_fields_over_its_members() {
        let group = raw(
            "group: g\ntask: [a, {task: b, num_fewshot: 3}, {group: h, task: [c]}]\nnum_fewshot: 5\nmetadata: {version: 1}\n",
        );
        let group = group.into_group(&raw("num_fewshot: 7\n")).unwrap();
        assert_eq!(group.overrides, raw("num_fewshot: 7\n"));
        assert_eq!(
            group.members,
            [
                Member::Named("a".to_owned(), raw("num_fewshot: 7\n")),
                Member::Named("b".to_owned(), raw("num_fewshot: 3\ntask: b\n")),
                Member::Group("h".to_owned(), raw("group: h\ntask: [c]\n")),
            ]
        );
        for bad in [
            "group: g\ntask: a\n",
            "group: g\ntask: []\n",
            "group: g\ntask: [1]\n",
            "group: g\ntask: [{a: b}]\n",
        ] {
            assert!(raw(bad).into_group(&RawTask::default()).is_err(), "{bad}");
        }
    }
}
