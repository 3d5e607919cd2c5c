//! The bar chart: a panel for each setting, a bar for each format, its limit behind it.

use crate::report::Row;
use crate::stores::Store;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 15.0;
const STEP: f64 = 19.0;

fn colour(name: &str) -> &'static str {
    match name.split('-').next() {
        Some("h5ad") => "#b9a06a",
        Some("zarr") => "#5b8f6b",
        Some("parquet") => "#9a6f9f",
        _ => "#2f6f9f",
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, size: u32, weight: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" \
         font-weight=\"{weight}\" fill=\"#222\">{words}</text>"
    );
}

/// Digits in groups of three.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The chart as SVG.
pub(crate) fn draw(cells: u64, genes: u64, stores: &[Store], rows: &[Row]) -> String {
    let most = rows.iter().map(|r| r.cells_per_second).fold(1.0, f64::max);
    // Limits beyond the chart are cut at its edge.
    let edge = WIDTH - LEFT - RIGHT;
    let scale = edge / most;
    let mut body = String::new();
    let mut y = 70.0;
    let mut heading = String::new();
    for row in rows {
        let state = if row.cold { "from disk" } else { "in the page cache" };
        let this = format!("{}, {state}", row.setting);
        if this != heading {
            y += 14.0;
            text(&mut body, 12.0, y, "start", 12, "bold", &this);
            y += 7.0;
            heading = this;
        }
        let store = &stores[row.store];
        text(&mut body, LEFT - 8.0, y + BAR - 4.0, "end", 11, "normal", &store.name);
        if let Some(limit) = row.limit {
            let width = (limit * scale).min(edge);
            let _ = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"#e6e6e6\"/>"
            );
        }
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
            row.cells_per_second * scale,
            colour(&store.name)
        );
        let middle = y + BAR / 2.0;
        let _ = writeln!(
            body,
            "<path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#222\"/>",
            LEFT + row.slowest * scale,
            LEFT + row.fastest.min(most) * scale
        );
        let end = LEFT + row.fastest.min(most) * scale + 6.0;
        text(&mut body, end, y + BAR - 4.0, "start", 11, "normal", &grouped(row.cells_per_second));
        y += STEP;
    }
    let height = y + 16.0;
    let mut head = String::new();
    text(&mut head, 12.0, 24.0, "start", 15, "bold", "Cells per second by storage format");
    let detail = format!(
        "{} cells x {} genes, minibatches of 64, CSR f32; medians, lines from slowest to fastest; \
         grey: the bare limit",
        grouped(cells as f64),
        grouped(genes as f64)
    );
    text(&mut head, 12.0, 44.0, "start", 11, "normal", &detail);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\">\n\
         <rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#fff\"/>\n{head}{body}</svg>\n"
    )
}
