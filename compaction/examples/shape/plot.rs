//! Bytes written beside the size of the database, as SVG.
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;
/// The largest value of the vertical axis.
const MOST: f64 = 24.0;
const COLOURS: [&str; 7] = ["#1b6e3c", "#c0392b", "#8e44ad", "#2874a6", "#b7950b", "#5d6d7e", "#d35400"];

type Curve = (String, Vec<(f64, f64)>);

fn place((size, written): (f64, f64)) -> (f64, f64) {
    let (least, most) = (30f64.log10(), 2e6f64.log10());
    let x = LEFT + (size.log10() - least) / (most - least) * (WIDTH - LEFT - RIGHT);
    (x, HEIGHT - BOTTOM - written.min(MOST) / MOST * (HEIGHT - TOP - BOTTOM))
}

/// The log, a flush, and a fill with leveled compaction of ratio 10: a byte is rewritten about
/// (10 + 1) / 2 times in each level.
fn leveled(size: f64) -> f64 {
    2.0 + 5.5 * (size / 4.0).log10().max(0.0)
}

/// The log, a flush, and tiers of 8 runs without a leveled last level.
fn tiered(size: f64) -> f64 {
    2.0 + (size / 8.0).log(8.0).max(0.0)
}

/// Draws measured curves and the theoretical ones.
pub fn draw(curves: &[Curve]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\">Bytes written per byte of the program (log included)</text>\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        );
    };
    for written in (0..=MOST as u32).step_by(4) {
        let (x, y) = place((30.0, f64::from(written)));
        text(x - 8.0, y + 4.0, "end", "#444", &written.to_string());
    }
    for (size, label) in
        [(100.0, "100"), (1e3, "1,000"), (1e4, "10,000"), (1e5, "100,000"), (1e6, "1,000,000")]
    {
        let (x, y) = place((size, 0.0));
        text(x, y + 18.0, "middle", "#444", label);
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    text(
        middle,
        HEIGHT - 10.0,
        "middle",
        "#444",
        "size of the database in memtables (1,600,000 x 64 MiB: 100 TB)",
    );
    for (name, curve) in [("leveled, theory", leveled as fn(f64) -> f64), ("tiered, theory", tiered)] {
        let points: Vec<(f64, f64)> =
            (0..=48).map(|step| 36.0 * 10f64.powf(f64::from(step) / 10.0)).map(|s| (s, curve(s))).collect();
        line(&mut svg, &points[..points.partition_point(|point| point.0 <= 1.7e6)], "#999", "5 4", name);
    }
    for ((name, points), colour) in curves.iter().zip(COLOURS) {
        line(&mut svg, points, colour, "none", name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str, dashes: &str, name: &str) {
    let Some(last) = points.last() else { return };
    let path: Vec<String> =
        points.iter().map(|point| place(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let (x, y) = place(*last);
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
        path.join(" "),
        x + 6.0,
        y + 4.0
    );
}
