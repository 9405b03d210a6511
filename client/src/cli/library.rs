//! What `fineline suite list` shows: the library, read from the program itself.

use fineline_format::library::{self, Facts, Selection};
use serde::Serialize;

use super::table::{NONE, Table, or_none};

/// A name of the library.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    /// What `suite apply` and a suite file take.
    name: String,
    /// Tasks that it stands for.
    n_tasks: usize,
    #[serde(flatten)]
    facts: Facts,
    /// lm-eval's version of the task or the group; nothing where lm-eval gives none.
    version: Option<String>,
    output_type: &'static str,
    /// Shots that the task asks for itself.
    num_fewshot: u32,
    /// The split that is scored.
    split: String,
    /// The data set of the Hub; nothing where the user brings the text.
    dataset: Option<String>,
}

/// All names.
pub(crate) fn entries() -> Vec<Entry> {
    library::names().into_iter().filter_map(entry).collect()
}

fn entry(name: String) -> Option<Entry> {
    let Selection { tasks, groups } = library::find(&name)?;
    let first = tasks.first()?;
    let group = groups.iter().find(|group| group.group == name);
    let version = group.map_or(&first.file.version, |group| &group.version);
    Some(Entry {
        n_tasks: tasks.len(),
        facts: Facts {
            verified: tasks.iter().all(|task| task.facts.verified),
            ..first.facts.clone()
        },
        version: Some(version.clone()).filter(|version| !version.is_empty()),
        output_type: first.file.output_type.as_str(),
        num_fewshot: first.file.shots(None),
        split: first.file.scored_split.clone(),
        dataset: first.dataset.as_ref().map(|dataset| dataset.id.clone()),
        name,
    })
}

pub(crate) fn table(entries: &[Entry]) -> String {
    let titles = [
        "NAME", ">TASKS", "DOMAIN", ">CHANCE", ">VERSION", "METRIC", "TYPE", ">SHOTS", "SPLIT", "DATA", "PROOF",
    ];
    let mut table = Table::new(titles);
    for entry in entries {
        let Facts {
            domain,
            chance,
            primary_metric,
            verified,
        } = &entry.facts;
        table.row([
            entry.name.clone(),
            entry.n_tasks.to_string(),
            domain.clone(),
            or_none(*chance),
            or_none(entry.version.as_ref()),
            primary_metric.clone(),
            entry.output_type.to_owned(),
            entry.num_fewshot.to_string(),
            entry.split.clone(),
            entry.dataset.clone().unwrap_or_else(|| NONE.to_owned()),
            if *verified { "verified" } else { "unverified" }.to_owned(),
        ]);
    }
    table.render("the library is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_not_proved() {
        let text = table(&entries());
        let line = |name: &str| {
            let words = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            words.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("hellaswag"),
            "hellaswag 1 Reasoning 0.25 1.0 acc_norm multiple_choice 0 validation Rowan/hellaswag verified"
        );
        assert_eq!(
            line("mmlu"),
            "mmlu 57 Examination 0.25 2 acc multiple_choice 0 test cais/mmlu verified"
        );
        assert_eq!(
            line("perplexity"),
            "perplexity 1 Language - 1.0 bits_per_byte loglikelihood_rolling 0 test - verified"
        );
        assert!(line("triviaqa").ends_with("unverified"));
        assert_eq!(entries().len(), text.lines().count() - 1);
    }

    #[test]
    fn the_documents_show_the_same() {
        let documents = include_str!("../../../docs/SUITES.md");
        let shown: String = table(&entries()).lines().map(|line| format!("    {line}\n")).collect();
        assert!(documents.contains(&shown), "docs/SUITES.md is to show:\n{shown}");
    }
}
