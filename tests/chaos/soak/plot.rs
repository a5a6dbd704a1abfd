//! The picture of a run: a panel for each figure, with the restarts of the server.

use std::fmt::Write as _;

use super::samples::Sample;

const WIDTH: f64 = 720.0;
const PANEL_HEIGHT: f64 = 84.0;
const PANEL_STEP: f64 = 120.0;
const LEFT: f64 = 20.0;
const TOP: f64 = 34.0;

type Figure = fn(&Sample) -> f64;

const PANELS: [(&str, &str, Figure); 6] = [
    ("Resident memory", "MB", |sample| sample.memory_kb as f64 / 1000.0),
    ("Descriptors", "", |sample| sample.descriptors as f64),
    ("Threads", "", |sample| sample.threads as f64),
    ("Tasks of the runtime", "", |sample| sample.tasks as f64),
    ("Page of /metrics, uncompressed", "kB", |sample| sample.page as f64 / 1000.0),
    ("Time of a scrape", "ms", |sample| sample.scrape_ms),
];

/// Each panel begins at zero.
pub(crate) fn svg(samples: &[Sample], restarts: &[f64]) -> String {
    let height = TOP + PANEL_STEP * PANELS.len() as f64;
    let end = samples.last().map_or(1.0, |last| last.seconds);
    let x = |seconds: f64| LEFT + seconds / end * (WIDTH - 2.0 * LEFT);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\">A pool under load for {:.0} minutes; vertical lines: restarts of the server</text>\n",
        end / 60.0
    );
    for (index, (name, unit, figure)) in PANELS.iter().enumerate() {
        let top = TOP + PANEL_STEP * index as f64 + 18.0;
        let bottom = top + PANEL_HEIGHT;
        let most = samples.iter().map(figure).fold(0.0, f64::max);
        let last = samples.last().map_or(0.0, figure);
        let y = |value: f64| bottom - value / most.max(1.0) * PANEL_HEIGHT;
        let _ = writeln!(
            text,
            "<text x=\"{LEFT}\" y=\"{}\">{name}: at most {most:.0} {unit}, at the end {last:.0} {unit}</text>",
            top - 5.0
        );
        for restart in restarts {
            let x = x(*restart);
            let _ = writeln!(text, "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#c33\" stroke-dasharray=\"3 3\"/>");
        }
        let _ = writeln!(text, "<path d=\"M{LEFT} {bottom}H{}\" stroke=\"#999\"/>", WIDTH - LEFT);
        let points = samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample.seconds), y(figure(sample))));
        let points = points.collect::<Vec<_>>().join(" ");
        let _ = writeln!(text, "<polyline points=\"{points}\" fill=\"none\" stroke=\"#235\"/>");
    }
    text + "</svg>\n"
}
