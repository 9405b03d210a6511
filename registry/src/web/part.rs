//! What several pages are built from: numbers as people read them, times, digests, states, and boxes.

use chrono::{DateTime, Utc};
use fineline_api::{CheckpointState, EvaluationState};
use fineline_format::Digest;
use maud::{Markup, html};

/// A count with its thousands apart.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in three digits and a letter for its size: `6.14M`, `0.25`, `1.2e-5`.
pub(super) fn brief(value: f64) -> String {
    let size = value.abs();
    let scaled = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(unit, _)| size >= *unit);
    let text = match scaled {
        _ if size >= 1e15 => return format!("{value:.0e}"),
        Some((unit, letter)) => return format!("{}{letter}", plain(&format!("{:.2}", value / unit))),
        None if size >= 0.001 || size == 0.0 => format!("{value:.3}"),
        None => return format!("{value:.1e}"),
    };
    plain(&text)
}

/// Decimals without the zeros at their end.
fn plain(decimals: &str) -> String {
    let text = decimals.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Three places for what is near one, and no more digits than somebody compares for the rest.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => brief(value),
        size if size >= 1000.0 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", count(size.round() as u64))
        }
        size if size >= 0.001 || size == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// Bytes in the largest unit that leaves a whole one.
pub(super) fn bytes(n: u64) -> String {
    let units = [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.into_iter().find(|(unit, _)| n as f64 >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", n as f64 / unit),
        None => format!("{n} B"),
    }
}

/// A moment, to the minute.
pub(super) fn time(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(at.to_rfc3339()) { (at.format("%Y-%m-%d %H:%M")) } }
}

/// A digest: shown short where there is no room, copied whole.
pub(super) fn digest(digest: &Digest) -> Markup {
    let text = digest.to_string();
    html! { code.digest title=(text) { (text) } }
}

/// A name that may be long, broken where its words end.
pub(super) fn name(text: &str) -> Markup {
    html! { @for part in text.split_inclusive(['_', '-', '/', '.']) { (part) wbr; } }
}

/// Prose in which what stands in backticks is code.
pub(super) fn prose(text: &str) -> Markup {
    html! { @for (i, part) in text.split('`').enumerate() { @if i % 2 == 0 { (part) } @else { code { (part) } } } }
}

/// How long something took.
pub(super) fn took(from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    match (to - from).num_seconds().max(0) {
        s if s < 60 => format!("{s} s"),
        s if s < 3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

/// A state in a word and a colour.
pub(super) fn badge(kind: &str, text: &str) -> Markup {
    html! { span class=(format!("badge {kind}")) { (text) } }
}

/// Where a revision stands.
pub(super) fn checkpoint_state(state: CheckpointState) -> Markup {
    let kind = match state {
        CheckpointState::Ready => "good",
        CheckpointState::Failed => "bad",
        CheckpointState::Receiving | CheckpointState::Verifying => "busy",
        CheckpointState::Deleted => "quiet",
    };
    badge(kind, state.as_str())
}

/// What an evaluation's state is called for people, and its colour.
pub(super) fn evaluation_word(state: EvaluationState) -> (&'static str, &'static str) {
    match state {
        EvaluationState::Queued => ("wait", "waiting"),
        EvaluationState::Leased => ("busy", "running"),
        EvaluationState::Done => ("good", "done"),
        EvaluationState::Failed => ("bad", "failed"),
        EvaluationState::Parked => ("bad", "parked"),
        EvaluationState::Cancelled => ("quiet", "cancelled"),
    }
}

/// Where an evaluation stands.
pub(super) fn evaluation_state(state: EvaluationState) -> Markup {
    let (kind, word) = evaluation_word(state);
    badge(kind, word)
}

/// A number with its name, as they stand in a row at the head of a page.
pub(super) fn tile(name: &str, value: &Markup) -> Markup {
    html! { div.tile { dt { (name) } dd { (value) } } }
}

/// A table that scrolls inside its own box, which the keyboard reaches too.
pub(super) fn wide(label: &str, table: &Markup) -> Markup {
    html! { div.wide role="group" aria-label=(label) tabindex="0" { (table) } }
}

/// A command to be copied.
pub(super) fn command(text: &str) -> Markup {
    html! { pre.command tabindex="0" { code { (text) } } }
}

/// What a page says in place of a list without items.
pub(super) fn empty(title: &str, what_to_do: &Markup) -> Markup {
    html! { div.empty { p { strong { (title) } } (what_to_do) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_whatever_their_size() {
        let shown = [0.0, 0.25, 1.9988, -46127.2, 12461272.2, 0.0000123].map(number);
        assert_eq!(shown, ["0.000", "0.250", "1.999", "-46,127", "12.46M", "1.2e-5"]);
        let shown = [0.0, 0.25, 512.0, -1500.0, 6144000.0, 1.2e13, 0.0000123, 3e15].map(brief);
        assert_eq!(shown, ["0", "0.25", "512", "-1.5k", "6.14M", "12T", "1.2e-5", "3e15"]);
        assert_eq!([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 3_803_712].map(bytes), ["0 B", "999 B", "3.8 MB"]);
    }
}
