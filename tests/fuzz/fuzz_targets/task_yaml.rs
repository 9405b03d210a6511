//! A task that is taken is whole and small, a refusal is short, and the same text gives the same again; so for the file
//! of a suite.

#![no_main]

use fineline_format::suite::SuiteFile;
use fineline_format::task::{Source, TaskFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match TaskFile::parse(text) {
        Ok(task) => {
            assert!(task.data_files.contains_key(&task.scored_split) && !task.metrics.is_empty());
            assert!(
                size(&task) <= 1 << 20,
                "a task of {} bytes came of {}",
                size(&task),
                text.len()
            );
            assert_eq!(TaskFile::parse(text).as_ref(), Ok(&task));
        }
        Err(error) => is_short(&error.to_string()),
    }
    if let Err(error) = SuiteFile::parse(text) {
        is_short(&error.to_string());
    }
});

/// Bytes of the texts of a task.
fn size(task: &TaskFile) -> usize {
    let source = |source: &Source| match source {
        Source::Text(text) => text.len(),
        Source::Int(_) => 8,
        Source::List(list) => list.iter().map(String::len).sum(),
        Source::Function(function) => function.module.len() + function.name.len(),
    };
    let files = task.data_files.iter();
    let files: usize = files
        .map(|(split, files)| split.len() + files.iter().map(String::len).sum::<usize>())
        .sum();
    files
        + source(&task.doc_to_text)
        + source(&task.doc_to_target)
        + task.doc_to_choice.as_ref().map_or(0, source)
        + task.description.len()
}

fn is_short(message: &str) {
    assert!(
        message.len() < 4000 && !message.contains(char::is_control),
        "{message:?}"
    );
}
