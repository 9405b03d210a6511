//! What a run's page shows, as the query of its address: whoever has the link sees the same.
//!
//! **Invariant:** a query is read whole or refused by the name of what is wrong in it, and [`View::query`] writes what
//! [`View::read`] read.

use std::collections::BTreeSet;

use fineline_api::path::segment;

use crate::error::{ApiError, ApiResult};

/// What the axis across counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Across {
    Step,
    Tokens,
}

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Log,
}

/// What has a panel of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panels {
    /// Each task and metric.
    Task,
    /// Each metric, with a curve for each task.
    Metric,
}

/// What a run's page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    /// The tasks; all when empty.
    pub(super) tasks: BTreeSet<String>,
    /// The metrics; all when empty.
    pub(super) metrics: BTreeSet<String>,
    /// The first step.
    pub(super) from: Option<u64>,
    /// The last step.
    pub(super) to: Option<u64>,
    pub(super) panels: Panels,
    pub(super) across: Across,
    pub(super) x_scale: Scale,
    pub(super) y_scale: Scale,
    /// Whether standard errors are drawn.
    pub(super) stderr: bool,
    /// Whether the page loads itself again while work is under way.
    pub(super) refresh: bool,
}

impl Default for View {
    fn default() -> Self {
        Self {
            tasks: BTreeSet::new(),
            metrics: BTreeSet::new(),
            from: None,
            to: None,
            panels: Panels::Task,
            across: Across::Step,
            x_scale: Scale::Linear,
            y_scale: Scale::Linear,
            stderr: true,
            refresh: true,
        }
    }
}

/// The longest name of a task or metric that a query may hold, in bytes: scores have none that is longer.
const MAX_NAME_BYTES: usize = 256;

impl View {
    /// Reads the parts of a query.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown, given twice, or has a value that it does not take.
    pub(super) fn read(parts: &[(String, String)]) -> ApiResult<Self> {
        let mut view = Self::default();
        let mut given = BTreeSet::new();
        for (name, value) in parts {
            let repeats = ["task", "metric"].contains(&name.as_str());
            if !given.insert(name) && !repeats {
                return Err(ApiError::invalid(format!("parameter `{name}` is given twice")).hint("leave one out"));
            }
            view.set(name, value)?;
        }
        Ok(view)
    }

    fn set(&mut self, name: &str, value: &str) -> ApiResult<()> {
        let scale = [("linear", Scale::Linear), ("log", Scale::Log)];
        match name {
            "task" => drop(self.tasks.insert(short(name, value)?)),
            "metric" => drop(self.metrics.insert(short(name, value)?)),
            "from" => self.from = Some(step(name, value)?),
            "to" => self.to = Some(step(name, value)?),
            "panels" => self.panels = one_of(name, value, &[("task", Panels::Task), ("metric", Panels::Metric)])?,
            "x" => self.across = one_of(name, value, &[("step", Across::Step), ("tokens", Across::Tokens)])?,
            "x_scale" => self.x_scale = one_of(name, value, &scale)?,
            "y_scale" => self.y_scale = one_of(name, value, &scale)?,
            "stderr" => self.stderr = one_of(name, value, &[("on", true), ("off", false)])?,
            "refresh" => self.refresh = one_of(name, value, &[("on", true), ("off", false)])?,
            _ => {
                let message = format!("unknown parameter `{name}` in the address");
                return Err(ApiError::invalid(message).hint(
                    "the page of a run takes `task`, `metric`, `from`, `to`, `panels`, `x`, `x_scale`, `y_scale`, `stderr` and `refresh`",
                ));
            }
        }
        Ok(())
    }

    /// The query that shows this; empty for what is shown without one.
    pub(super) fn query(&self) -> String {
        let usual = Self::default();
        let mut parts: Vec<(&str, String)> = Vec::new();
        parts.extend(self.tasks.iter().map(|task| ("task", segment(task))));
        parts.extend(self.metrics.iter().map(|metric| ("metric", segment(metric))));
        parts.extend(self.from.map(|step| ("from", step.to_string())));
        parts.extend(self.to.map(|step| ("to", step.to_string())));
        let unusual = [
            ("panels", "metric", self.panels != usual.panels),
            ("x", "tokens", self.across != usual.across),
            ("x_scale", "log", self.x_scale != usual.x_scale),
            ("y_scale", "log", self.y_scale != usual.y_scale),
            ("stderr", "off", !self.stderr),
            ("refresh", "off", !self.refresh),
        ];
        let unusual = unusual.into_iter().filter(|(_, _, is)| *is);
        parts.extend(unusual.map(|(name, value, _)| (name, value.to_owned())));
        let parts: Vec<String> = parts.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if parts.is_empty() {
            String::new()
        } else {
            format!("?{}", parts.join("&"))
        }
    }

    /// The query of this view with something changed.
    pub(super) fn but(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut other = self.clone();
        change(&mut other);
        other.query()
    }

    /// Whether scores of that task and metric are shown.
    pub(super) fn shows(&self, task: &str, metric: &str) -> bool {
        let has = |wanted: &BTreeSet<String>, name| wanted.is_empty() || wanted.contains(name);
        has(&self.tasks, task) && has(&self.metrics, metric)
    }
}

/// Puts a name in or takes it out.
pub(super) fn toggle(names: &mut BTreeSet<String>, name: &str) {
    if !names.remove(name) {
        names.insert(name.to_owned());
    }
}

fn short(name: &str, value: &str) -> ApiResult<String> {
    if value.is_empty() || value.len() > MAX_NAME_BYTES {
        let message = format!("parameter `{name}` takes 1 to {MAX_NAME_BYTES} bytes");
        return Err(ApiError::invalid(message));
    }
    Ok(value.to_owned())
}

fn step(name: &str, value: &str) -> ApiResult<u64> {
    let step = value.parse().ok().filter(|step| i64::try_from(*step).is_ok());
    step.ok_or_else(|| {
        ApiError::invalid(format!(
            "parameter `{name}` is `{value}`, and takes a step: a whole number"
        ))
    })
}

fn one_of<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> ApiResult<T> {
    let found = words.iter().find(|(word, _)| *word == value);
    found.map(|(_, meant)| *meant).ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let message = format!("parameter `{name}` is `{value}`, and takes {}", words.join(" or "));
        ApiError::invalid(message)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(query: &str) -> Vec<(String, String)> {
        let uri: axum::http::Uri = format!("/{query}").parse().unwrap();
        axum::extract::Query::try_from_uri(&uri).unwrap().0
    }

    fn any_view() -> impl Strategy<Value = View> {
        let names = || proptest::collection::btree_set("[a-z &=?#%+ü]{1,9}", 0..3);
        let step = || proptest::option::of(0..=i64::MAX as u64);
        (names(), names(), step(), step(), any::<[bool; 6]>()).prop_map(|(tasks, metrics, from, to, flags)| {
            let scale = |log| if log { Scale::Log } else { Scale::Linear };
            View {
                tasks,
                metrics,
                from,
                to,
                panels: if flags[0] { Panels::Metric } else { Panels::Task },
                across: if flags[1] { Across::Tokens } else { Across::Step },
                x_scale: scale(flags[2]),
                y_scale: scale(flags[3]),
                stderr: flags[4],
                refresh: flags[5],
            }
        })
    }

    proptest! {
        #[test]
        fn a_link_holds_the_view(view in any_view()) {
            prop_assert_eq!(View::read(&parts(&view.query())).unwrap(), view);
        }
    }

    #[test]
    fn what_is_wrong_in_a_query_is_named() {
        for (query, named) in [
            ("?tasks=a", "unknown parameter `tasks`"),
            ("?x=time", "`time`, and takes `step` or `tokens`"),
            ("?from=-1", "`from` is `-1`"),
            ("?to=99999999999999999999", "`to` is"),
            ("?x=step&x=step", "`x` is given twice"),
            ("?task=", "`task` takes 1 to 256 bytes"),
        ] {
            let error = View::read(&parts(query)).unwrap_err();
            assert!(error.to_string().contains(named), "{query}: {error}");
        }
        assert_eq!(View::default().query(), "");
    }
}
