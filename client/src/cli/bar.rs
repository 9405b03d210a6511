//! The bar of a push or a pull: bytes, throughput, time left. Only for someone who watches.

use std::sync::{Mutex, PoisonError};

use fineline_client::{Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};

use super::printer::Printer;

const BYTES: &str = "{msg:10} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left";
const WAITING: &str = "{msg:10} {spinner} {elapsed}";

/// What moves as a push or a pull goes on: one bar for each phase, or nothing.
pub(crate) fn bars(printer: Printer) -> impl Fn(&Progress) + Send + Sync + 'static {
    let shown: Mutex<Option<(Phase, ProgressBar)>> = Mutex::new(None);
    move |progress| {
        if !printer.shows_bars() {
            return;
        }
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let same = shown.as_ref().is_some_and(|(phase, _)| *phase == progress.phase);
        if !same {
            if let Some((_, bar)) = shown.take() {
                bar.finish_and_clear();
            }
            *shown = Some((progress.phase, bar(progress)));
        }
        if let Some((_, bar)) = &*shown {
            bar.set_position(progress.done_bytes);
            if progress.total_bytes > 0 && progress.done_bytes == progress.total_bytes {
                bar.finish_and_clear();
            }
        }
    }
}

fn bar(progress: &Progress) -> ProgressBar {
    let (template, bar) = match progress.total_bytes {
        0 => (WAITING, ProgressBar::new_spinner()),
        total => (BYTES, ProgressBar::new(total)),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates stand above"));
    bar.set_message(word(progress.phase));
    bar
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Hashing => "hashing",
        Phase::Sending => "sending",
        Phase::Verifying => "verifying",
        Phase::Receiving => "receiving",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_a_bar_whose_template_is_valid() {
        for phase in [Phase::Hashing, Phase::Sending, Phase::Verifying, Phase::Receiving] {
            for total_bytes in [0, 10] {
                let bar = bar(&Progress {
                    phase,
                    done_bytes: 0,
                    total_bytes,
                });
                assert_eq!(bar.message(), word(phase));
                assert_eq!(bar.length().unwrap_or_default(), total_bytes);
            }
        }
    }
}
