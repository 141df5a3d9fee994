//! Lines: panels in a grid, with one legend for all.
use super::colour;
use crate::engine::{Name, Result};
use crate::report::tables::short;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const PANEL_WIDTH: u32 = 600;
const PANEL_HEIGHT: u32 = 300;
const HEADER_HEIGHT: u32 = 64;

/// One panel.
pub struct Panel {
    /// Its title.
    pub title: String,
    /// The unit of the vertical axis.
    pub y_label: &'static str,
    /// The unit of the horizontal axis.
    pub x_label: &'static str,
    /// Names for 0, 1, 2, … on the horizontal axis, if it has no numbers.
    pub categories: Vec<String>,
    /// The vertical axis.
    pub scale: Scale,
    /// The lines.
    pub series: Vec<Series>,
}

/// A vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0.
    Linear,
    /// In powers of ten.
    Logarithmic,
}

/// One line.
pub struct Series {
    /// The engine.
    pub engine: Name,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether the line is thin: for many points.
    pub thin: bool,
    /// Whether points are marked.
    pub dots: bool,
}

/// Draws the panels that have data, in `columns` columns; false if none has.
pub fn draw(path: &Path, title: &str, panels: &[Panel], columns: u32) -> Result<bool> {
    let panels: Vec<&Panel> =
        panels.iter().filter(|panel| panel.series.iter().any(|series| series.points.len() > 1)).collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let columns = columns.min(panels.len() as u32);
    // A single column shows time, which needs more width.
    let panel_width = if columns == 1 { PANEL_WIDTH * 2 } else { PANEL_WIDTH };
    let rows = (panels.len() as u32).div_ceil(columns);
    let size = (columns * panel_width, HEADER_HEIGHT + rows * PANEL_HEIGHT);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(title, (12, 10), ("sans-serif", 19).into_font().color(&BLACK)))?;
    legend(&area, &panels)?;
    let (_, body) = area.split_vertically(HEADER_HEIGHT);
    for (panel, area) in panels.iter().zip(body.split_evenly((rows as usize, columns as usize))) {
        draw_panel(panel, &area)?;
    }
    area.present()?;
    Ok(true)
}

fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>, panels: &[&Panel]) -> Result<()> {
    let mut x = 14;
    let shown = |name: &Name| panels.iter().any(|panel| panel.series.iter().any(|s| s.engine == *name));
    for name in Name::EVERY.into_iter().filter(shown) {
        let y = 48;
        area.draw(&Rectangle::new([(x, y - 2), (x + 22, y + 2)], colour(name).filled()))?;
        let font = ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name.title(), (x + 28, y), font))?;
        x += 44 + name.title().len() as i32 * 9;
    }
    Ok(())
}

fn draw_panel(panel: &Panel, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
    let points = || panel.series.iter().flat_map(|series| series.points.iter().copied());
    let most_x = points().map(|(x, _)| x).fold(1.0, f64::max);
    let most_y = points().map(|(_, y)| y).fold(f64::MIN_POSITIVE, f64::max);
    let least_y = points().map(|(_, y)| y).fold(f64::INFINITY, f64::min);
    let x = if panel.categories.is_empty() { 0.0..most_x } else { -0.2..panel.categories.len() as f64 - 0.8 };
    match panel.scale {
        Scale::Linear => {
            let mut chart = frame(panel, area).build_cartesian_2d(x, 0.0..most_y * 1.08)?;
            fill(panel, &mut chart)
        }
        Scale::Logarithmic => {
            let decades = 10f64.powf(least_y.log10().floor())
                ..10f64.powf(most_y.log10().ceil().max(least_y.log10().floor() + 1.0));
            let mut chart = frame(panel, area).build_cartesian_2d(x, decades.log_scale())?;
            fill(panel, &mut chart)
        }
    }
}

fn frame<'a, 'b>(
    panel: &Panel,
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(10)
        .margin_right(24)
        .caption(&panel.title, ("sans-serif", 15).into_font().style(FontStyle::Bold))
        .x_label_area_size(if panel.x_label.is_empty() { 24 } else { 38 })
        .y_label_area_size(66);
    builder
}

fn fill<Y>(
    panel: &Panel,
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
) -> Result<()>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let categories = &panel.categories;
    let name = |x: &f64| -> String {
        if categories.is_empty() {
            return format!("{x:.0}");
        }
        // Only whole numbers have names.
        let at = x.round();
        if (x - at).abs() > 0.01 || at < 0.0 {
            return String::new();
        }
        categories.get(at as usize).cloned().unwrap_or_default()
    };
    chart
        .configure_mesh()
        .light_line_style(RGBColor(240, 240, 240))
        .bold_line_style(RGBColor(215, 215, 215))
        .x_labels(if categories.is_empty() { 10 } else { categories.len() * 2 })
        .y_labels(6)
        .x_label_formatter(&name)
        .y_label_formatter(&|y| short(*y))
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 13))
        .x_desc(panel.x_label)
        .y_desc(panel.y_label)
        .draw()?;
    // Sapwood is drawn last, on top of the others.
    let (sapwood, others): (Vec<&Series>, Vec<&Series>) =
        panel.series.iter().partition(|series| series.engine == Name::Sapwood);
    for series in others.into_iter().chain(sapwood) {
        let width = if series.thin { 1 } else { 2 };
        let style = colour(series.engine).stroke_width(width);
        chart.draw_series(LineSeries::new(series.points.iter().copied(), style))?;
        if series.dots {
            let dot = |&point: &(f64, f64)| Circle::new(point, 3, colour(series.engine).filled());
            chart.draw_series(series.points.iter().map(dot))?;
        }
    }
    Ok(())
}
