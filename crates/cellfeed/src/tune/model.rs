//! What a cell costs in seconds: a model with few terms, fitted to the settings that were timed.
//!
//! Seconds of a cell are a sum of non-negative parts: something for each cell, for each stretch of
//! rows, each byte read and decoded, each fetch, and for fetches that outgrow the processor's caches.
//! Which of the parts are used is decided by how well each point is predicted from the others, and
//! so is whether points correct their neighbours.

/// What a setting does, for each cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Features {
    /// Stretches of neighbouring rows.
    pub(super) runs: f64,
    /// Bytes read.
    pub(super) read: f64,
    /// Bytes decoded.
    pub(super) decoded: f64,
    /// Cells of a fetch: not for each cell.
    pub(super) cells: f64,
    /// Cells of a block: not for each cell. Only says which settings are neighbours.
    pub(super) block: f64,
}

const TERMS: usize = 6;
/// What the terms are, and what makes their units.
const NAMES: [&str; TERMS] = [
    "a cell",
    "a stretch of rows",
    "a KiB read",
    "a KiB decoded",
    "a fetch",
    "a doubling of the fetch",
];

impl Features {
    fn terms(&self) -> [f64; TERMS] {
        [
            1.0,
            self.runs,
            self.read / 1024.0,
            self.decoded / 1024.0,
            1.0 / self.cells,
            (self.cells / 256.0).log2().max(0.0),
        ]
    }

    /// How far from another setting, in steps of four in block and fetch.
    fn distance(&self, other: &Self) -> f64 {
        let steps = |a: f64, b: f64| (a / b).log2() / 2.0;
        steps(self.block, other.block).hypot(steps(self.cells, other.cells))
    }
}

/// A setting that was timed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) features: Features,
    /// Seconds a cell.
    pub(super) seconds: f64,
}

/// A fitted model.
#[derive(Debug, Clone)]
pub(super) struct Model {
    weights: [f64; TERMS],
    points: Vec<Point>,
    /// Whether points correct their neighbours.
    local: bool,
    /// How far each point is off when it is predicted from the others, as a logarithm.
    errors: Vec<f64>,
}

impl Model {
    /// Fits the model; `None` without points.
    pub(super) fn fit(points: &[Point]) -> Option<Self> {
        let points: Vec<Point> =
            points.iter().copied().filter(|p| p.seconds > 0.0 && p.seconds.is_finite()).collect();
        if points.is_empty() {
            return None;
        }
        let mut best: Option<(f64, Self)> = None;
        // Something for each cell is always there.
        for subset in (1..1usize << TERMS).step_by(2) {
            let used = subset.count_ones();
            // Two points a term at least, or one term.
            if used > 1 && u32::try_from(points.len()).unwrap_or(u32::MAX) < 2 * used {
                continue;
            }
            let Some(weights) = solve(&points, subset) else { continue };
            for local in [false, true] {
                let errors = left_out(&points, subset, local);
                let model = Self { weights, points: points.clone(), local, errors };
                // A term more must be worth it.
                let score = model.rms().unwrap_or_else(|| model.misfit()) + 0.01 * f64::from(used);
                if best.as_ref().is_none_or(|(least, _)| score < *least) {
                    best = Some((score, model));
                }
            }
        }
        best.map(|(_, model)| model)
    }

    /// Seconds of a cell with a setting.
    pub(super) fn seconds(&self, features: &Features) -> f64 {
        seconds(&self.weights, &self.points, self.local, features)
    }

    /// The root mean square of the errors of points predicted from the others, as a share.
    pub(super) fn error(&self) -> Option<f64> {
        self.rms().map(f64::exp_m1)
    }

    /// The largest of them.
    pub(super) fn worst(&self) -> Option<f64> {
        self.errors.iter().map(|e| e.abs()).reduce(f64::max).map(f64::exp_m1)
    }

    /// The parts that are used, and their seconds a unit.
    pub(super) fn parts(&self) -> Vec<(&'static str, f64)> {
        NAMES.into_iter().zip(self.weights).filter(|(_, w)| *w > 0.0).collect()
    }

    pub(super) fn n_points(&self) -> usize {
        self.points.len()
    }

    fn rms(&self) -> Option<f64> {
        let n = self.errors.len() as f64;
        (n > 0.0).then(|| (self.errors.iter().map(|e| e * e).sum::<f64>() / n).sqrt())
    }

    fn misfit(&self) -> f64 {
        let squares =
            self.points.iter().map(|p| (self.seconds(&p.features) / p.seconds).ln().powi(2));
        (squares.sum::<f64>() / self.points.len().max(1) as f64).sqrt()
    }
}

fn plain(weights: &[f64; TERMS], features: &Features) -> f64 {
    let sum: f64 = weights.iter().zip(features.terms()).map(|(w, x)| w * x).sum();
    sum.max(1e-12)
}

fn seconds(weights: &[f64; TERMS], points: &[Point], local: bool, features: &Features) -> f64 {
    let plain_seconds = plain(weights, features);
    if !local {
        return plain_seconds;
    }
    // The mean of what points near by are off, drawn to none where there are none.
    let (mut off, mut sum) = (0.0, 0.25);
    for point in points {
        let weight = (-point.features.distance(features).powi(2)).exp();
        off += weight * (point.seconds / plain(weights, &point.features)).ln();
        sum += weight;
    }
    plain_seconds * (off / sum).exp()
}

/// How far each point is off when predicted from the others; none with fewer than three points.
fn left_out(points: &[Point], subset: usize, local: bool) -> Vec<f64> {
    if points.len() < 3 {
        return Vec::new();
    }
    let mut errors = Vec::with_capacity(points.len());
    for (i, point) in points.iter().enumerate() {
        let mut others = points.to_vec();
        others.remove(i);
        // What cannot be fitted without the point counts as far off.
        let error = solve(&others, subset).map_or(3.0, |weights| {
            (seconds(&weights, &others, local, &point.features) / point.seconds).ln()
        });
        errors.push(error);
    }
    errors
}

/// Least squares of relative errors with the terms of a subset; `None` if it is not determined, or a
/// part would be negative.
fn solve(points: &[Point], subset: usize) -> Option<[f64; TERMS]> {
    let terms: Vec<usize> = (0..TERMS).filter(|t| subset >> t & 1 == 1).collect();
    let k = terms.len();
    if points.len() < k {
        return None;
    }
    // Terms are scaled to about 1, since their units differ by orders of magnitude.
    let scale: Vec<f64> = terms
        .iter()
        .map(|&t| points.iter().map(|p| p.features.terms()[t] / p.seconds).fold(0.0, f64::max))
        .collect();
    if scale.iter().any(|&s| s <= 0.0 || !s.is_finite()) {
        return None;
    }
    let mut matrix = vec![vec![0.0; k + 1]; k];
    for point in points {
        let x: Vec<f64> = terms
            .iter()
            .zip(&scale)
            .map(|(&t, s)| point.features.terms()[t] / point.seconds / s)
            .collect();
        for (row, xi) in matrix.iter_mut().zip(&x) {
            for (cell, xj) in row.iter_mut().zip(&x) {
                *cell += xi * xj;
            }
            if let Some(right) = row.last_mut() {
                *right += xi;
            }
        }
    }
    let solution = eliminate(matrix)?;
    let mut weights = [0.0; TERMS];
    for ((&t, s), w) in terms.iter().zip(&scale).zip(solution) {
        if w < 0.0 {
            return None;
        }
        weights[t] = w / s;
    }
    Some(weights)
}

/// Gauss's elimination with pivots, on rows that end with their right side.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let k = rows.len();
    for column in 0..k {
        let pivot =
            (column..k).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()))?;
        if rows[pivot][column].abs() < 1e-9 {
            return None;
        }
        rows.swap(column, pivot);
        let above = rows[column].clone();
        for (i, row) in rows.iter_mut().enumerate() {
            let factor = if i == column { 0.0 } else { row[column] / above[column] };
            for (cell, above) in row.iter_mut().zip(&above) {
                *cell -= factor * above;
            }
        }
    }
    Some((0..k).map(|i| rows[i][k] / rows[i][i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(block: f64, f: f64) -> Features {
        let cells = 64.0 * f;
        Features {
            runs: 1.0 / block,
            read: 8000.0 * (1.0 + 12.0 / block),
            decoded: 0.0,
            cells,
            block,
        }
    }

    const TIMED: [(f64, f64); 8] = [
        (16.0, 64.0),
        (1.0, 16.0),
        (1024.0, 64.0),
        (64.0, 4.0),
        (256.0, 16.0),
        (4.0, 64.0),
        (64.0, 64.0),
        (16.0, 16.0),
    ];

    fn fit(law: impl Fn(&Features) -> f64) -> Model {
        let points: Vec<Point> = TIMED
            .iter()
            .map(|&(b, f)| features(b, f))
            .map(|features| Point { features, seconds: law(&features) })
            .collect();
        Model::fit(&points).unwrap()
    }

    #[test]
    fn a_law_of_its_terms_is_found_and_extrapolated() {
        let law = |x: &Features| 2e-6 + 3e-5 * x.runs + 2e-3 / x.cells;
        let model = fit(law);
        assert!(model.error().unwrap() < 0.02, "{model:?}");
        for (b, f) in [(32.0, 256.0), (512.0, 256.0), (1.0, 64.0), (8.0, 4.0)] {
            let x = features(b, f);
            let ratio = model.seconds(&x) / law(&x);
            assert!((ratio - 1.0).abs() < 0.05, "{b} {f}: {ratio}");
        }
    }

    #[test]
    fn noise_is_told_as_an_error_and_not_followed() {
        // Off by up to 30 %, in a fixed pattern.
        let noise = std::cell::Cell::new(0u32);
        let law = |x: &Features| 2e-6 + 3e-5 * x.runs;
        let model = fit(|x| {
            noise.set(noise.get() + 5);
            law(x) * (1.0 + 0.3 * (f64::from(noise.get() % 7) / 3.0 - 1.0))
        });
        let error = model.error().unwrap();
        assert!((0.05..0.6).contains(&error), "{error}");
        assert!(model.worst().unwrap() >= error);
        let ratio = model.seconds(&features(32.0, 32.0)) / law(&features(32.0, 32.0));
        assert!((0.6..1.6).contains(&ratio), "{ratio}");
    }

    #[test]
    fn what_the_terms_do_not_know_is_learnt_from_neighbours() {
        let law = |x: &Features| 3e-6 * (1.0 + 0.5 * (x.block.log2() - 4.0).sin());
        let model = fit(law);
        assert!(model.misfit() < 0.25, "{model:?}");
        // Far from all points nothing is learnt: still a positive number of seconds.
        assert!(model.seconds(&features(1e6, 1e6)) > 0.0);
    }

    #[test]
    fn few_points_give_a_model_too() {
        assert!(Model::fit(&[]).is_none());
        let x = features(16.0, 16.0);
        let one = Model::fit(&[Point { features: x, seconds: 1e-5 }]).unwrap();
        assert!((one.seconds(&features(64.0, 4.0)) / 1e-5 - 1.0).abs() < 10.0);
        assert!((one.seconds(&x) - 1e-5).abs() < 1e-9);
        assert_eq!(one.error(), None);
        // The same twice determines no two terms.
        let point = Point { features: x, seconds: 1e-5 };
        let same = Model::fit(&[point; 4]).unwrap();
        assert!((same.seconds(&x) - 1e-5).abs() < 1e-9);
        assert!(Model::fit(&[Point { features: x, seconds: f64::NAN }]).is_none());
    }
}
