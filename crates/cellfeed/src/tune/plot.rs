//! A picture of what was found: speed against diversity, as SVG.

use super::choose::badness;
use super::options::{PageCache, Target};
use super::report::{Candidate, Sampler, TuneReport};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 600.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 730.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 526.0;
const INK: &str = "#1f2430";
const FAINT: &str = "#8a919e";
const GRID: &str = "#e6e8ec";

/// A scale from values to places.
struct Axis {
    log: bool,
    values: (f64, f64),
    places: (f64, f64),
}

impl Axis {
    /// Over values, with a margin; a single value gets some room around it.
    fn over(values: impl Iterator<Item = f64>, log: bool, places: (f64, f64)) -> Self {
        let scaled = |v: f64| if log { v.max(1e-12).log10() } else { v };
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite()).map(scaled) {
            (least, most) = (least.min(v), most.max(v));
        }
        if !(least.is_finite() && most.is_finite()) {
            (least, most) = (0.0, 1.0);
        }
        let margin = ((most - least) * 0.06).max(if log { 0.04 } else { 0.004 });
        Self { log, values: (least - margin, most + margin), places }
    }

    fn at(&self, value: f64) -> f64 {
        let v = if self.log { value.max(1e-12).log10() } else { value };
        let share = ((v - self.values.0) / (self.values.1 - self.values.0)).clamp(0.0, 1.0);
        self.places.0 + share * (self.places.1 - self.places.0)
    }

    /// Round values on the scale.
    fn ticks(&self) -> Vec<f64> {
        let (from, to) = self.values;
        let mut ticks = Vec::new();
        if self.log {
            // 1, 2 and 5 of each power of ten, or more where that gives few.
            let few = to - from < 0.7;
            let steps: &[f64] = match (few, to - from > 3.0) {
                (true, _) => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
                (_, true) => &[1.0],
                _ => &[1.0, 2.0, 5.0],
            };
            let mut power = from.floor();
            while power <= to {
                let at = |s: &f64| s.log10() + power;
                ticks.extend(
                    steps
                        .iter()
                        .filter(|s| (from..=to).contains(&at(s)))
                        .map(|s| s * 10f64.powf(power)),
                );
                power += 1.0;
            }
        } else {
            let step = 10f64.powf(((to - from) / 4.0).log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0]
                .into_iter()
                .map(|s| s * step)
                .find(|s| (to - from) / s <= 7.0)
                .unwrap_or(step * 10.0);
            let mut tick = (from / step).ceil() * step;
            while tick <= to && ticks.len() < 50 {
                ticks.push(tick);
                tick += step;
            }
        }
        ticks
    }
}

/// A number as people write it on an axis.
fn tidy(v: f64) -> String {
    let text = if v >= 1e6 {
        format!("{:.1}M", v / 1e6)
    } else if v >= 10_000.0 {
        format!("{:.0}k", v / 1e3)
    } else if v >= 1000.0 {
        format!("{:.1}k", v / 1e3)
    } else if v >= 10.0 {
        format!("{v:.0}")
    } else {
        let text = format!("{v:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    text.replace(".0M", "M").replace(".0k", "k")
}

/// Text that is safe between tags: what XML 1.0 has no characters for is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A long text cut in the middle.
fn cut(text: &str, most: usize) -> String {
    let n = text.chars().count();
    if n <= most {
        return text.to_owned();
    }
    let half = most / 2;
    let head: String = text.chars().take(half).collect();
    let tail: String = text.chars().skip(n - (most - half - 1)).collect();
    format!("{head}…{tail}")
}

fn color(c: &Candidate) -> &'static str {
    match (c.block_size, c.sampler) {
        (1, _) => "#228833",
        (_, Sampler::BlockShuffling) => "#4477aa",
        (_, Sampler::Stratified) => "#d1495b",
        (_, Sampler::StratifiedByLabel) => "#b8860b",
    }
}

/// Draws speed against diversity: a point for each setting, filled where it was timed, the frontier,
/// the target, and what is recommended. The answer is a complete SVG document.
#[must_use]
pub fn plot(report: &TuneReport) -> String {
    Plot::new(report).draw()
}

struct Plot<'a> {
    report: &'a TuneReport,
    state: PageCache,
    x: Axis,
    y: Axis,
    out: String,
    /// What labels take, so that no two overlap.
    taken: Vec<(f64, f64, f64, f64)>,
}

impl<'a> Plot<'a> {
    fn new(report: &'a TuneReport) -> Self {
        let state = report.page_cache;
        let speeds =
            || report.candidates.iter().filter_map(move |c| c.speed(state)).map(|s| s.best());
        let target = match report.target {
            Target::Deff(most) => most.max(1.0),
            Target::Entropy(share) => share,
        };
        let log = matches!(report.target, Target::Deff(_));
        let values = report.candidates.iter().map(|c| Self::x_of(report, c));
        // The target is on the picture too.
        let x = Axis::over(values.chain([target, 1.0]), log, (LEFT, RIGHT));
        let y = Axis::over(speeds(), true, (BOTTOM, TOP));
        Self { report, state, x, y, out: String::new(), taken: Vec::new() }
    }

    /// The design effect, or the share of random's entropy.
    fn x_of(report: &TuneReport, c: &Candidate) -> f64 {
        match report.target {
            Target::Deff(_) => badness(c, report.target),
            Target::Entropy(_) if report.label.entropy_random > 0.0 => {
                c.diversity.entropy / report.label.entropy_random
            }
            Target::Entropy(_) => 1.0,
        }
    }

    fn place(&self, c: &Candidate) -> Option<(f64, f64)> {
        let speed = c.speed(self.state)?;
        Some((self.x.at(Self::x_of(self.report, c)), self.y.at(speed.best())))
    }

    fn put(&mut self, text: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    fn text(&mut self, (x, y): (f64, f64), more: &str, text: &str) {
        let text = escaped(text);
        self.put(format_args!(r#"<text x="{x:.1}" y="{y:.1}" {more}>{text}</text>"#));
    }

    fn draw(mut self) -> String {
        self.put(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="13" fill="{INK}">"#
        ));
        let r = self.report;
        let title = format!("Speed against diversity: {}", cut(&r.location, 60));
        self.put(format_args!("<title>{}</title>", escaped(&title)));
        self.put(format_args!(r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##));
        self.text((LEFT, 32.0), r#"font-size="18" font-weight="600""#, &title);
        let measure = match r.target {
            Target::Deff(most) => format!("DEFF_{} at most {}", r.window, tidy(most)),
            Target::Entropy(share) => format!("{} % of random's entropy", tidy(share * 100.0)),
        };
        let about = format!(
            "label {}, minibatches of {}, page cache {}; target {measure}, memory {:.1} GiB",
            cut(&r.label.column, 30),
            r.batch_size,
            self.state.as_str(),
            r.memory as f64 / f64::from(1 << 30)
        );
        self.text((LEFT, 54.0), &format!(r#"fill="{FAINT}""#), &about);
        self.axes();
        self.frontier();
        self.points();
        self.labels();
        self.legend();
        self.put("</svg>");
        self.out
    }

    fn axes(&mut self) {
        let target = match self.report.target {
            Target::Deff(most) => most,
            Target::Entropy(share) => share,
        };
        let at = self.x.at(target);
        let deff = matches!(self.report.target, Target::Deff(_));
        let (from, to) = if deff { (LEFT, at) } else { (at, RIGHT) };
        self.put(format_args!(
            r##"<rect x="{from:.1}" y="{TOP}" width="{:.1}" height="{:.1}" fill="#eef6ee"/>"##,
            (to - from).max(0.0),
            BOTTOM - TOP
        ));
        for tick in self.x.ticks() {
            let x = self.x.at(tick);
            self.put(format_args!(
                r#"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}" stroke="{GRID}"/>"#
            ));
            let label = if deff { tidy(tick) } else { format!("{} %", tidy(tick * 100.0)) };
            self.text((x, BOTTOM + 18.0), r#"text-anchor="middle" font-size="12""#, &label);
        }
        for tick in self.y.ticks() {
            let y = self.y.at(tick);
            self.put(format_args!(
                r#"<line x1="{LEFT}" y1="{y:.1}" x2="{RIGHT}" y2="{y:.1}" stroke="{GRID}"/>"#
            ));
            let style = r#"text-anchor="end" font-size="12""#;
            self.text((LEFT - 8.0, y + 4.0), style, &tidy(tick));
        }
        self.put(format_args!(
            r#"<rect x="{LEFT}" y="{TOP}" width="{:.1}" height="{:.1}" fill="none" stroke="{FAINT}"/>"#,
            RIGHT - LEFT,
            BOTTOM - TOP
        ));
        self.put(format_args!(
            r##"<line x1="{at:.1}" y1="{TOP}" x2="{at:.1}" y2="{BOTTOM}" stroke="#228833" stroke-dasharray="5 4"/>"##
        ));
        let middle = f64::midpoint(LEFT, RIGHT);
        let what = if deff {
            format!(
                "DEFF_{}: variance against independent cells (1 is as good as random; left is better)",
                self.report.window
            )
        } else {
            "entropy of a minibatch, as a share of true random's (right is better)".to_owned()
        };
        self.text((middle, BOTTOM + 44.0), r#"text-anchor="middle""#, &what);
        let y = f64::midpoint(TOP, BOTTOM);
        let turned = format!(r#"text-anchor="middle" transform="rotate(-90 24 {y:.1})""#);
        self.text((24.0, y), &turned, "cells a second (up is better)");
    }

    fn frontier(&mut self) {
        let on = self.report.candidates.iter().filter(|c| c.frontier);
        let mut places: Vec<(f64, f64)> = on.filter_map(|c| self.place(c)).collect();
        places.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        if path.len() > 1 {
            self.put(format_args!(
                r#"<polyline points="{}" fill="none" stroke="{INK}" stroke-width="1.2" stroke-opacity="0.55"/>"#,
                path.join(" ")
            ));
        }
    }

    fn points(&mut self) {
        let report = self.report;
        for (i, c) in report.candidates.iter().enumerate() {
            let (Some((x, y)), Some(speed)) = (self.place(c), c.speed(self.state)) else {
                continue;
            };
            let color = color(c);
            let fill = if speed.measured.is_some() { color } else { "#ffffff" };
            // What does not fit, and what others beat, steps back.
            let opacity = match (c.fits, c.frontier || i == report.recommended) {
                (false, _) => 0.2,
                (true, false) => 0.55,
                (true, true) => 1.0,
            };
            let radius = if c.frontier { 5.0 } else { 3.5 };
            let deff = c.diversity.deff_w.map(|d| format!(", DEFF_{} {d:.2}", report.window));
            let about = format!(
                "{}, blocks of {}, fetch factor {}: {} cells/s {}{}, {:.3} bits, {} MiB{}",
                c.sampler,
                c.block_size,
                c.fetch_factor,
                tidy(speed.best()),
                if speed.measured.is_some() { "measured" } else { "predicted" },
                deff.unwrap_or_default(),
                c.diversity.entropy,
                c.memory.div_ceil(1 << 20),
                if c.fits { "" } else { ", more than the limit" }
            );
            self.put(format_args!(
                r#"<circle class="point" cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{fill}" stroke="{color}" stroke-width="1.5" opacity="{opacity}"><title>{}</title></circle>"#,
                escaped(&about)
            ));
        }
        if let Some((x, y)) = report.candidates.get(report.recommended).and_then(|c| self.place(c))
        {
            self.put(format_args!(
                r#"<circle id="recommended" cx="{x:.1}" cy="{y:.1}" r="10" fill="none" stroke="{INK}" stroke-width="2"/>"#
            ));
        }
    }

    /// Names of the recommended point and of those of the frontier that have room for it.
    fn labels(&mut self) {
        let report = self.report;
        let n = report.candidates.len();
        let others = (0..n).filter(|&i| i != report.recommended && report.candidates[i].frontier);
        let points: Vec<_> =
            report.candidates.iter().filter(|c| c.frontier).filter_map(|c| self.place(c)).collect();
        self.taken.extend(points.into_iter().map(|(x, y)| (x - 6.0, y - 6.0, x + 6.0, y + 6.0)));
        for i in [report.recommended].into_iter().chain(others) {
            let Some(c) = report.candidates.get(i) else { continue };
            let Some((x, y)) = self.place(c) else { continue };
            let text = format!("{} × {}", c.block_size, c.fetch_factor);
            let width = 7.2 * text.chars().count() as f64;
            let best = i == report.recommended;
            let near = if best { 14.0 } else { 8.0 };
            let places = [
                (x + near, y + 4.0),
                (x - near - width, y + 4.0),
                (x - width / 2.0, y - near),
                (x - width / 2.0, y + near + 12.0),
            ];
            let free = |&(x, y): &(f64, f64)| {
                let inside =
                    x > LEFT + 2.0 && x + width < RIGHT - 2.0 && y > TOP + 12.0 && y < BOTTOM - 3.0;
                let clear = |t: &(f64, f64, f64, f64)| {
                    x + width < t.0 || t.2 < x || y + 1.0 < t.1 || t.3 < y - 12.0
                };
                inside && self.taken.iter().all(clear)
            };
            let Some((x, y)) = places.into_iter().find(free) else { continue };
            self.taken.push((x - 6.0, y - 12.0, x + width + 6.0, y));
            // With a white rim, since points that are no frontier's may lie below.
            let rim = r##"stroke="#ffffff" stroke-width="3" paint-order="stroke""##;
            let style = if best { r#"font-weight="700""# } else { r#"font-size="12""# };
            self.text((x, y), &format!("{style} {rim}"), &text);
        }
    }

    fn legend(&mut self) {
        let report = self.report;
        let x = RIGHT + 24.0;
        let mut y = TOP + 8.0;
        let mut samplers: Vec<(&str, &str)> = Vec::new();
        for c in &report.candidates {
            let name = if c.block_size == 1 { "true random" } else { c.sampler.as_str() };
            if !samplers.iter().any(|s| s.1 == name) {
                samplers.push((color(c), name));
            }
        }
        for (color, name) in samplers {
            self.put(format_args!(
                r#"<circle cx="{x}" cy="{:.1}" r="5" fill="{color}"/>"#,
                y - 4.0
            ));
            self.text((x + 14.0, y), "", name);
            y += 22.0;
        }
        y += 8.0;
        let dot = |fill: &str, opacity: f64, y: f64| {
            format!(
                r#"<circle cx="{x}" cy="{:.1}" r="5" fill="{fill}" stroke="{INK}" stroke-width="1.5" opacity="{opacity}"/>"#,
                y - 4.0
            )
        };
        let rows = [
            (dot(INK, 1.0, y), "timed"),
            (dot("#ffffff", 1.0, y + 22.0), "predicted"),
            (dot("#ffffff", 0.3, y + 44.0), "needs more memory"),
            (
                format!(
                    r#"<circle cx="{x}" cy="{:.1}" r="8" fill="none" stroke="{INK}" stroke-width="2"/>"#,
                    y + 62.0
                ),
                "recommended",
            ),
            (
                format!(
                    r#"<line x1="{}" y1="{:.1}" x2="{}" y2="{:.1}" stroke="{INK}" stroke-opacity="0.55" stroke-width="1.2"/>"#,
                    x - 7.0,
                    y + 84.0,
                    x + 7.0,
                    y + 84.0
                ),
                "frontier",
            ),
            (
                format!(
                    r##"<rect x="{}" y="{:.1}" width="14" height="12" fill="#eef6ee" stroke="#228833" stroke-dasharray="3 2"/>"##,
                    x - 7.0,
                    y + 100.0
                ),
                "meets the target",
            ),
        ];
        for (mark, name) in rows {
            self.put(mark);
            self.text((x + 14.0, y), "", name);
            y += 22.0;
        }
        let about = format!(r#"font-size="12" fill="{FAINT}""#);
        y += 14.0;
        for line in ["Numbers at points are", "block size × fetch factor."] {
            self.text((x - 7.0, y), &about, line);
            y += 17.0;
        }
        if let Some(error) = report.model.error {
            let line = format!("Predictions: ± {:.0} %.", error * 100.0);
            self.text((x - 7.0, y + 6.0), &about, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_stay_inside() {
        for (values, log) in [
            (vec![1.0, 900.0], true),
            (vec![1.0, 1.4], true),
            (vec![5.0], true),
            (vec![1e3, 1e9], true),
            (vec![0.3, 1.0], false),
            (vec![1.0], false),
            (vec![], true),
        ] {
            let axis = Axis::over(values.iter().copied(), log, (10.0, 110.0));
            let ticks = axis.ticks();
            assert!((1..=20).contains(&ticks.len()), "{values:?}: {ticks:?}");
            for v in values.iter().chain(&ticks) {
                assert!((10.0..=110.0).contains(&axis.at(*v)), "{values:?} {v}");
            }
            assert!(axis.at(f64::INFINITY) <= 110.0 && axis.at(0.0) >= 10.0);
        }
    }

    #[test]
    fn texts_are_safe_and_short() {
        assert_eq!(escaped("a<b & \"c\"\u{1}\u{ffff}"), "a&lt;b &amp; &quot;c&quot; ");
        assert_eq!(cut("abcdefghij", 5), "ab…ij");
        assert_eq!(tidy(1_500_000.0), "1.5M");
        assert_eq!(tidy(200_000.0), "200k");
        assert_eq!(tidy(1000.0), "1k");
        assert_eq!((tidy(1.5), tidy(20.0), tidy(1.0)), ("1.5".into(), "20".into(), "1".into()));
    }
}
