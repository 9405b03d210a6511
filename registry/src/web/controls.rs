//! What can be chosen of a run's picture. Each choice is a link to the page that it makes, so that no script is needed, the
//! keyboard reaches all of them, and the address always holds the view.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::run::RunPage;
use super::view::{Across, Panels, Scale, View, toggle};
use super::visitor::Visitor;

/// A choice: its name, whether it is made, and where making it leads.
type Choice = (String, bool, String);

/// The names that a view chooses among.
type Names = fn(&mut View) -> &mut BTreeSet<String>;

pub(super) fn show(visitor: &Visitor, page: &RunPage) -> Markup {
    let tasks: BTreeSet<&str> = page.measured.iter().map(|(task, _)| task.as_str()).collect();
    let metrics: BTreeSet<&str> = page.measured.iter().map(|(_, metric)| metric.as_str()).collect();
    // A choice is made when making it changes nothing.
    let choice = |word: &str, change: fn(&mut View)| {
        let query = page.view.but(change);
        (
            word.to_owned(),
            query == page.view.query(),
            visitor.link(&page.link(&query)),
        )
    };
    let panels = [
        choice("task", |view| {
            view.panels = Panels::Task;
        }),
        choice("metric", |view| {
            view.panels = Panels::Metric;
        }),
    ];
    let across = [
        choice("steps", |view| {
            view.across = Across::Step;
        }),
        choice("tokens", |view| {
            view.across = Across::Tokens;
        }),
    ];
    let x_scale = [
        choice("linear", |view| {
            view.x_scale = Scale::Linear;
        }),
        choice("log", |view| {
            view.x_scale = Scale::Log;
        }),
    ];
    let y_scale = [
        choice("linear", |view| {
            view.y_scale = Scale::Linear;
        }),
        choice("log", |view| {
            view.y_scale = Scale::Log;
        }),
    ];
    let stderr = [
        choice("shown", |view| {
            view.stderr = true;
        }),
        choice("hidden", |view| {
            view.stderr = false;
        }),
    ];
    html! {
        nav.controls aria-label="View" {
            (choices("tasks", "chips", &among(visitor, page, &tasks, |view| &mut view.tasks)))
            @if metrics.len() > 1 {
                (choices("metrics", "chips", &among(visitor, page, &metrics, |view| &mut view.metrics)))
            }
            (choices("a panel for each", "segments", &panels))
            (choices("across", "segments", &across))
            (choices("x axis", "segments", &x_scale))
            (choices("y axis", "segments", &y_scale))
            (choices("standard errors", "segments", &stderr))
        }
    }
}

/// Any of these names, or all.
fn among(visitor: &Visitor, page: &RunPage, all: &BTreeSet<&str>, names: Names) -> Vec<Choice> {
    let link = |query: String| visitor.link(&page.link(&query));
    let mut view = page.view.clone();
    let chosen = names(&mut view);
    let everything = page.view.but(|view| names(view).clear());
    let everything = ("all".to_owned(), chosen.is_empty(), link(everything));
    let one = |name: &&str| {
        let query = page.view.but(|view| toggle(names(view), name));
        ((*name).to_owned(), chosen.contains(*name), link(query))
    };
    std::iter::once(everything).chain(all.iter().map(one)).collect()
}

fn choices(title: &str, class: &str, choices: &[Choice]) -> Markup {
    html! {
        div.choice {
            span { (title) }
            ul class=(class) aria-label=(title) {
                @for (word, is_made, link) in choices {
                    li { a href=(link) title=(word) aria-current=[is_made.then_some("true")] { (word) } }
                }
            }
        }
    }
}
