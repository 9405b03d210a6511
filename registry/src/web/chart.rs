//! Panels drawn as SVG on the server.
//!
//! The drawing names the page's own CSS variables as its colours, so one picture serves light and dark, and holds no style
//! or script that the page's policy would refuse. What a user named stands in the page around it and never in the drawing.

use std::sync::Arc;

use kuva::backend::svg::SvgBackend;
use kuva::plot::scatter::ScatterPlot;
use kuva::plot::{LinePlot, LineStyle};
use kuva::render::layout::{Layout, TickFormat};
use kuva::render::plots::Plot;
use kuva::render::render::render_multiple;
use kuva::render::theme::Theme;
use maud::{Markup, PreEscaped, html};

use super::curve::{Curve, Panel, Point};
use super::part::{brief, count, name, number};
use super::view::{Across, Panels, Scale, View};

/// A drawing's width and height in its own units; the page gives it the width that there is.
type Size = (f64, f64);

/// One of several panels beside each other, or the only one on a narrow screen.
const SMALL: Size = (400.0, 220.0);

/// For many curves on each other, where there is room.
const LARGE: Size = (640.0, 320.0);

/// Colours in the style sheet; further curves have the same ones with another stroke.
const COLORS: usize = 8;

/// Points of a curve that are marked and say their numbers; more of them would be a smear and a heavy page.
const MAX_MARKS: usize = 250;

/// A point where the picture has it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Mark {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
    of: Point,
}

/// Curves as they are drawn, and what could not be.
#[derive(Debug, PartialEq)]
struct Drawn {
    curves: Vec<Vec<Mark>>,
    /// From where to where a logarithmic axis across goes: the drawing would take whole powers of ten.
    x_range: Option<(f64, f64)>,
    notes: Vec<String>,
}

/// A panel with its title, its curves, their names, and what could not be drawn.
pub(super) fn figure(id: &str, panel: &Panel, view: &View) -> Markup {
    let drawn = place(&panel.curves, view);
    let has_names = panel.curves.iter().any(|curve| !curve.label.is_empty());
    html! {
        figure.panel id=(id) {
            figcaption {
                span.title { (name(&panel.title)) }
                @if !panel.subtitle.is_empty() { " " span.metric { (name(&panel.subtitle)) } }
                @if let ([curve], false) = (panel.curves.as_slice(), has_names) { (last(curve)) }
            }
            @if drawn.curves.iter().all(Vec::is_empty) {
                p.blank { "No point can be drawn in this view." }
            } @else {
                @match view.panels {
                    Panels::Task => (picture("chart", SMALL, panel, &drawn, view)),
                    Panels::Metric => {
                        (picture("chart small", SMALL, panel, &drawn, view))
                        (picture("chart large", LARGE, panel, &drawn, view))
                    }
                }
            }
            @if has_names {
                ul.legend {
                    @for (i, curve) in panel.curves.iter().enumerate() {
                        li { span class=(format!("key c{} d{}", i % COLORS, i / COLORS % 4)) {} " " (curve.label) " " (last(curve)) }
                    }
                }
            }
            @for note in &drawn.notes { p.aside { (note) } }
        }
    }
}

fn picture(class: &str, size: Size, panel: &Panel, drawn: &Drawn, view: &View) -> Markup {
    let (width, height) = size;
    html! {
        svg class=(class) viewBox=(format!("0 0 {width} {height}")) role="img" aria-label=(description(panel, view)) {
            (PreEscaped(svg(size, drawn, view)))
        }
    }
}

/// The newest value, beside the title or the curve's name.
fn last(curve: &Curve) -> Markup {
    html! {
        @if let Some(point) = curve.points.last() {
            span.last { (number(point.value)) @if let Some(stderr) = point.stderr { small { " ± " (number(stderr)) } } }
        }
    }
}

/// The picture in words; its numbers are in the table.
fn description(panel: &Panel, view: &View) -> String {
    let points = panel.curves.iter().flat_map(|curve| &curve.points);
    let steps = points.clone().map(|point| point.step);
    let (first, last) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
    let across = match view.across {
        Across::Step => "step",
        Across::Tokens => "tokens",
    };
    let n = panel.curves.len();
    let curves = if n == 1 {
        "one curve".to_owned()
    } else {
        format!("{n} curves")
    };
    let what = format!("{} {}", panel.title, panel.subtitle);
    format!(
        "{} by {across}: {curves} from step {first} to {last}, numbers in the table below",
        what.trim()
    )
}

/// Where the points of all curves stand. On a logarithmic axis across, 0 stands half of the way before the first step
/// behind it; on a logarithmic axis up, what is not above 0 has no place, and what an error reaches below ends at the bottom.
fn place(curves: &[Curve], view: &View) -> Drawn {
    let across = |point: &Point| match view.across {
        Across::Step => Some(point.step as f64),
        Across::Tokens => point.tokens.map(|tokens| tokens as f64),
    };
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let least = |values: &mut dyn Iterator<Item = f64>| values.filter(|value| *value > 0.0).reduce(f64::min);
    let first = least(&mut all().filter_map(across));
    let bottom = least(&mut all().map(|point| point.value));
    let (log_x, log_y) = (view.x_scale == Scale::Log, view.y_scale == Scale::Log);
    let has_zero = log_x && all().filter_map(across).any(|x| x <= 0.0);
    let (mut no_tokens, mut not_positive) = (0, 0);
    let mut mark = |point: &Point| {
        let Some(mut x) = across(point) else {
            no_tokens += 1;
            return None;
        };
        if log_y && point.value <= 0.0 {
            not_positive += 1;
            return None;
        }
        if log_x && x <= 0.0 {
            x = first.unwrap_or(1.0) / 2.0;
        }
        let stderr = point.stderr.filter(|_| view.stderr).unwrap_or(0.0);
        let low = point.value - stderr;
        let reaches_below = log_y && low <= 0.0;
        Some(Mark {
            x,
            y: point.value,
            low: if reaches_below {
                bottom.unwrap_or(point.value).min(point.value)
            } else {
                low
            },
            high: point.value + stderr,
            of: *point,
        })
    };
    let curves = curves
        .iter()
        .map(|curve| curve.points.iter().filter_map(&mut mark).collect())
        .collect();
    let mut notes = Vec::new();
    if no_tokens > 0 {
        notes.push(format!("{} not drawn: their steps say no tokens.", points(no_tokens)));
    }
    if not_positive > 0 {
        notes.push(format!(
            "{} not drawn: a logarithmic axis begins above 0.",
            points(not_positive)
        ));
    }
    Drawn {
        curves,
        x_range: first.filter(|_| log_x).map(|first| {
            let most = all().filter_map(across).fold(first, f64::max);
            (if has_zero { first / 2.0 } else { first }, most.max(first * 2.0))
        }),
        notes,
    }
}

fn points(n: usize) -> String {
    if n == 1 {
        "1 point is".to_owned()
    } else {
        format!("{n} points are")
    }
}

fn svg(size: Size, drawn: &Drawn, view: &View) -> String {
    let mut plots = Vec::new();
    for (i, marks) in drawn.curves.iter().enumerate() {
        if !marks.is_empty() {
            plots.push(Plot::Line(line(i, marks)));
        }
    }
    for (i, marks) in drawn.curves.iter().enumerate() {
        if !marks.is_empty() && marks.len() <= MAX_MARKS {
            plots.push(Plot::Scatter(dots(i, marks)));
        }
    }
    let layout = layout(size, &plots, drawn, view);
    let mut scene = render_multiple(plots, layout);
    // It would add a style element, which the page's policy refuses; the style sheet has the rule.
    scene.has_tooltips = false;
    scene.background_color = None;
    SvgBackend::new().render_scene(&scene)
}

fn color(i: usize) -> String {
    format!("var(--curve-{})", i % COLORS)
}

fn line(i: usize, marks: &[Mark]) -> LinePlot {
    let line = LinePlot::new()
        .with_data(marks.iter().map(|mark| (mark.x, mark.y)))
        .with_color(color(i))
        .with_stroke_width(1.75)
        .with_line_style(match i / COLORS % 4 {
            0 => LineStyle::Solid,
            1 => LineStyle::Dashed,
            2 => LineStyle::Dotted,
            _ => LineStyle::DashDot,
        });
    if marks.iter().all(|mark| mark.low >= mark.y && mark.high <= mark.y) {
        return line;
    }
    if marks.len() == 1 {
        let arms = marks.iter().map(|mark| (mark.y - mark.low, mark.high - mark.y));
        return line.with_y_err_asymmetric(arms);
    }
    line.with_band(marks.iter().map(|mark| mark.low), marks.iter().map(|mark| mark.high))
}

/// The points, each with its numbers for who rests on it.
fn dots(i: usize, marks: &[Mark]) -> ScatterPlot {
    let said = |mark: &Mark| {
        let tokens = mark
            .of
            .tokens
            .map_or_else(String::new, |tokens| format!(" · {} tokens", brief(tokens as f64)));
        let stderr = mark
            .of
            .stderr
            .map_or_else(String::new, |stderr| format!(" ± {}", number(stderr)));
        format!(
            "step {}{tokens}: {}{stderr}",
            count(mark.of.step),
            number(mark.of.value)
        )
    };
    ScatterPlot::new()
        .with_data(marks.iter().map(|mark| (mark.x, mark.y)))
        .with_color(color(i))
        .with_size(2.2)
        .with_tooltips()
        .with_tooltip_labels(marks.iter().map(said))
}

fn layout(size: Size, plots: &[Plot], drawn: &Drawn, view: &View) -> Layout {
    let short = || TickFormat::Custom(Arc::new(brief));
    let mut layout = Layout::auto_from_plots(plots)
        .with_width(size.0)
        .with_height(size.1)
        .with_theme(theme())
        .with_font_family("system-ui, sans-serif")
        .with_tick_size(11)
        .with_label_size(11)
        .with_x_tick_format(short())
        .with_y_tick_format(short())
        .with_x_label(match view.across {
            Across::Step => "step",
            Across::Tokens => "tokens",
        });
    if view.x_scale == Scale::Log {
        layout = layout.with_log_x();
        if let Some((min, max)) = drawn.x_range {
            layout = layout.with_x_axis_min(min).with_x_axis_max(max);
        }
    }
    if view.y_scale == Scale::Log {
        layout = layout.with_log_y();
    }
    layout
}

fn theme() -> Theme {
    Theme {
        background: "none".to_owned(),
        axis_color: "var(--axis)".to_owned(),
        grid_color: "var(--grid)".to_owned(),
        tick_color: "var(--axis)".to_owned(),
        text_color: "var(--soft)".to_owned(),
        ..Theme::light()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(u64, f64, f64)]) -> Curve {
        let point = |&(step, value, stderr): &(u64, f64, f64)| Point {
            step,
            tokens: (step != 7).then_some(step.saturating_mul(2048)),
            value,
            stderr: Some(stderr),
        };
        Curve {
            label: String::new(),
            points: points.iter().map(point).collect(),
        }
    }

    fn panel(curves: Vec<Curve>) -> Panel {
        Panel {
            title: "<b>task</b>".to_owned(),
            subtitle: "acc".to_owned(),
            curves,
        }
    }

    #[test]
    fn every_point_is_drawn_and_says_its_numbers_and_no_style_comes_along() {
        let points = [(0, 0.25, 0.04), (1, 0.3, 0.05), (1000, 0.5, 0.05)];
        let text = figure("panel-0", &panel(vec![curve(&points)]), &View::default()).into_string();
        assert_eq!(text.matches("<circle").count(), 3, "{text}");
        assert!(
            text.contains("<title>step 1,000 · 2.05M tokens: 0.500 ± 0.050</title>"),
            "{text}"
        );
        assert!(
            text.contains("var(--curve-0)") && text.contains("fill-opacity"),
            "a line with its band: {text}"
        );
        assert!(
            !text.contains("<style") && !text.contains("style=") && !text.contains("<script"),
            "{text}"
        );
        assert!(text.contains("&lt;b&gt;task") && !text.contains("<b>task"), "{text}");
    }

    #[test]
    fn a_logarithmic_axis_has_a_place_for_step_0_and_says_what_it_has_none_for() {
        let view = View {
            x_scale: Scale::Log,
            y_scale: Scale::Log,
            ..View::default()
        };
        let drawn = place(&[curve(&[(0, 3.0, 4.0), (2, 0.0, 0.0), (4, 2.0, 0.5)])], &view);
        let marks: Vec<_> = drawn.curves[0]
            .iter()
            .map(|mark| (mark.x, mark.low, mark.high))
            .collect();
        assert_eq!(marks, [(1.0, 2.0, 7.0), (4.0, 1.5, 2.5)]);
        assert_eq!(drawn.x_range, Some((1.0, 4.0)));
        assert_eq!(
            drawn.notes,
            ["1 point is not drawn: a logarithmic axis begins above 0."]
        );
    }

    #[test]
    fn steps_without_tokens_are_left_out_of_an_axis_of_tokens_in_words() {
        let view = View {
            across: Across::Tokens,
            ..View::default()
        };
        let drawn = place(&[curve(&[(1, 1.0, 0.0), (7, 1.0, 0.0)])], &view);
        assert_eq!(drawn.curves[0].len(), 1);
        assert_eq!(drawn.notes, ["1 point is not drawn: their steps say no tokens."]);
    }

    #[test]
    fn odd_curves_are_drawn_too() {
        let log = View {
            x_scale: Scale::Log,
            y_scale: Scale::Log,
            ..View::default()
        };
        for curves in [
            vec![],
            vec![curve(&[])],
            vec![curve(&[(0, 0.0, 0.0)])],
            vec![curve(&[(5, -1e300, 0.0), (6, 1e300, 0.0)])],
            vec![curve(&[(3, 1e-300, 1e-300)])],
            vec![curve(&[(1, 0.5, 0.0), (u64::MAX, 0.5, 0.0)])],
            (0..40).map(|i| curve(&[(i, 0.1, 0.1), (i + 1, 0.2, 0.1)])).collect(),
        ] {
            for view in [View::default(), log.clone()] {
                let text = figure("panel-0", &panel(curves.clone()), &view).into_string();
                assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            }
        }
    }
}
