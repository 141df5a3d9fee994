//! Bars: one small panel for every workload, one bar for every engine.
use super::colour;
use crate::engine::{Name, Result};
use crate::report::summary::{Cell, Row, Summary};
use crate::report::tables::short;
use crate::workload::Kind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

const COLUMNS: usize = 3;
const PANEL_WIDTH: i32 = 400;
const BAR_HEIGHT: i32 = 19;
/// Widths of the engines' names and of the numbers beside the bars.
const NAMES_WIDTH: i32 = 74;
const NUMBERS_WIDTH: i32 = 74;
const TITLE_HEIGHT: i32 = 26;
/// Characters of the usual size that fit above a panel; a longer title is smaller.
const TITLE_CHARACTERS: usize = 48;
const HEADER_HEIGHT: i32 = 44;

/// Draws all workloads; false if there is none.
pub fn throughput(path: &Path, summary: &Summary) -> Result<bool> {
    let rows: Vec<&Row> = summary.rows.iter().filter(|row| row.cells.len() > 1).collect();
    if rows.is_empty() {
        return Ok(false);
    }
    // Panels in a row are as high as the one with most bars.
    let lines: Vec<&[&Row]> = rows.chunks(COLUMNS).collect();
    let line_height = |line: &[&Row]| {
        let bars = line.iter().map(|row| row.cells.len()).max().unwrap_or(1) as i32;
        TITLE_HEIGHT + bars * BAR_HEIGHT + 18
    };
    let width = COLUMNS as i32 * PANEL_WIDTH;
    let height = HEADER_HEIGHT + lines.iter().map(|line| line_height(line)).sum::<i32>();
    let area = SVGBackend::new(path, (width as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let style = ("sans-serif", 19).into_font().color(&BLACK);
    area.draw(&Text::new(
        "Operations per second (opening: milliseconds, less is better); whiskers: smallest and largest round",
        (12, 12),
        style,
    ))?;
    let mut top = HEADER_HEIGHT;
    for line in lines {
        for (at, row) in line.iter().enumerate() {
            panel(&area.margin(0, 0, 0, 0), row, at as i32 * PANEL_WIDTH, top)?;
        }
        top += line_height(line);
    }
    area.present()?;
    Ok(true)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    row: &Row,
    left: i32,
    top: i32,
) -> Result<()> {
    let unit = if row.kind == Kind::Time { ", ms" } else { "" };
    let title = format!("{}{unit}", row.title);
    let size = (14 * TITLE_CHARACTERS / title.chars().count().max(TITLE_CHARACTERS)) as i32;
    let bold = ("sans-serif", size).into_font().style(FontStyle::Bold).color(&BLACK);
    area.draw(&Text::new(title, (left + 12, top + 4), bold))?;
    let most = row.cells.iter().filter_map(|cell| cell.value).map(|[_, _, most]| most).fold(0.0, f64::max);
    let room = PANEL_WIDTH - NAMES_WIDTH - NUMBERS_WIDTH - 24;
    let length = |value: f64| (value / most.max(1e-9) * f64::from(room)).round() as i32;
    for (at, cell) in row.cells.iter().enumerate() {
        let y = top + TITLE_HEIGHT + at as i32 * BAR_HEIGHT;
        let zero = left + NAMES_WIDTH + 12;
        let middle = y + BAR_HEIGHT / 2;
        let weight = if cell.engine == Name::Sapwood { FontStyle::Bold } else { FontStyle::Normal };
        let font = ("sans-serif", 12).into_font().style(weight).color(&BLACK);
        let right = font.clone().pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(cell.engine.title(), (zero - 6, middle), right))?;
        let end = match cell.value {
            Some([mean, least, most]) => {
                let bar = [(zero, y + 3), (zero + length(mean).max(1), y + BAR_HEIGHT - 3)];
                area.draw(&Rectangle::new(bar, colour(cell.engine).filled()))?;
                if cell.rounds > 1 {
                    let (from, to) = (zero + length(least), zero + length(most));
                    let line = RGBColor(60, 60, 60).stroke_width(1);
                    area.draw(&PathElement::new(vec![(from, middle), (to, middle)], line))?;
                    for x in [from, to] {
                        area.draw(&PathElement::new(vec![(x, middle - 3), (x, middle + 3)], line))?;
                    }
                }
                zero + length(most).max(length(mean))
            }
            None => zero,
        };
        let left_middle = font.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(label(row.kind, cell), (end + 6, middle), left_middle))?;
    }
    Ok(())
}

fn label(kind: Kind, cell: &Cell) -> String {
    match (cell.value, &cell.problem) {
        (Some([mean, ..]), None) if kind == Kind::Time => format!("{mean:.1}"),
        (Some([mean, ..]), None) => short(mean),
        (Some([mean, ..]), Some(_)) => format!("{} (failed once)", short(mean)),
        (None, Some(problem)) if problem.starts_with("not offered") => "not offered".into(),
        (None, _) => "failed".into(),
    }
}
