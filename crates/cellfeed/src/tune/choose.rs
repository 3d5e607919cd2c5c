//! Choosing: the frontier of speed against diversity, the best setting on it, and what to time next.

use super::report::{Candidate, Sampler};
use super::{PageCache, Target};

/// How much slower a setting may be than the fastest to be taken for its diversity: less than what can
/// be measured.
const ALIKE: f64 = 0.03;

/// How far from diverse a setting is; smaller is better. Design effects below 1 are no merit: they
/// come of drawing without replacement, or by chance.
pub(super) fn badness(candidate: &Candidate, target: Target) -> f64 {
    match target {
        // With one value there is no diversity to be had.
        Target::Deff(_) => candidate.diversity.deff_w.unwrap_or(1.0).max(1.0),
        Target::Entropy(_) => -candidate.diversity.entropy,
    }
}

fn speed(candidate: &Candidate, state: PageCache) -> f64 {
    candidate.speed(state).map_or(0.0, |speed| speed.best())
}

/// The best setting: of those that fit and meet the target the fastest; among those that are nearly as
/// fast the most diverse, then one that needs no labels, then the one with the least memory. If none meets the target, the most
/// diverse that fits; `None` if nothing fits.
pub(super) fn best(candidates: &[Candidate], target: Target, state: PageCache) -> Option<usize> {
    let fitting = || candidates.iter().enumerate().filter(|(_, c)| c.fits);
    let meeting = fitting().filter(|(_, c)| c.meets);
    let fastest = meeting.map(|(_, c)| speed(c, state)).reduce(f64::max);
    let pool: Vec<(usize, &Candidate)> = match fastest {
        Some(fastest) => fitting()
            .filter(|(_, c)| c.meets && speed(c, state) >= fastest * (1.0 - ALIKE))
            .collect(),
        None => {
            let least = fitting().map(|(_, c)| badness(c, target)).reduce(f64::min)?;
            // As diverse as can be told.
            let near = |c: &Candidate| badness(c, target) <= least + 0.01 * least.abs();
            let near: Vec<_> = fitting().filter(|(_, c)| near(c)).collect();
            let fastest = near.iter().map(|(_, c)| speed(c, state)).fold(0.0, f64::max);
            near.into_iter().filter(|(_, c)| speed(c, state) >= fastest * (1.0 - ALIKE)).collect()
        }
    };
    // In steps, since the last digits of a design effect are noise and memory is not.
    let step = |c: &Candidate| (badness(c, target) * 20.0).round();
    let needs = |c: &Candidate| c.sampler == Sampler::StratifiedByLabel;
    pool.into_iter()
        .min_by(|(_, a), (_, b)| {
            let diverse = step(a).total_cmp(&step(b));
            diverse.then(needs(a).cmp(&needs(b))).then(a.memory.cmp(&b.memory))
        })
        .map(|(i, _)| i)
}

/// Marks the frontier: the settings that fit, and of which none is both as fast and more diverse.
pub(super) fn mark_frontier(candidates: &mut [Candidate], target: Target, state: PageCache) {
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].fits).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&candidates[a], &candidates[b]);
        speed(b, state)
            .total_cmp(&speed(a, state))
            .then(badness(a, target).total_cmp(&badness(b, target)))
    });
    let mut least = f64::INFINITY;
    for i in order {
        let bad = badness(&candidates[i], target);
        // What is no more diverse than can be told is not on it.
        let better = bad < least - 0.002 * least.abs().min(1.0) || least.is_infinite();
        candidates[i].frontier = better;
        if better {
            least = bad;
        }
    }
}

/// A place in the plane of block and fetch, each in steps of a doubling.
type Place = (f64, f64);

/// Settings to time: `first`, then each time the one that is furthest from those that are chosen. A
/// setting may be left out by `allowed`.
pub(super) fn spread_out(
    places: &[Place],
    first: usize,
    n: usize,
    allowed: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let mut chosen = vec![first];
    let distance = |a: Place, b: Place| (a.0 - b.0).hypot(a.1 - b.1);
    while chosen.len() < n {
        let nearest = |i: usize| {
            chosen.iter().map(|&j| distance(places[i], places[j])).fold(f64::INFINITY, f64::min)
        };
        let next = (0..places.len())
            .filter(|&i| allowed(i))
            .map(|i| (i, nearest(i)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        match next {
            Some((i, far)) if far > 0.5 => chosen.push(i),
            _ => break,
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::report::{Diversity, Speed};
    use super::*;

    /// A setting of a made-up cost: more speed with larger blocks, less diversity.
    fn candidate(b: u64, f: u64, rho: f64) -> Candidate {
        let deff = 1.0 + rho * b as f64 / (f as f64 * 4.0);
        let seconds = 1e-6 * (1.0 + 20.0 / b as f64);
        let memory = f << 20;
        Candidate {
            sampler: Sampler::BlockShuffling,
            block_size: b,
            fetch_factor: f,
            memory,
            memory_ahead: memory / 2,
            fits: memory <= 256 << 20,
            diversity: Diversity {
                entropy: 3.0 - 0.1 * (deff - 1.0),
                deff_w: Some(deff),
                ..Diversity::default()
            },
            theory: None,
            meets: deff <= 1.5,
            warm: Some(Speed { predicted: 1.0 / seconds, measured: None, runs: 0, spread: 0.0 }),
            cold: None,
            frontier: false,
        }
    }

    fn grid(rho: f64) -> Vec<Candidate> {
        let pairs =
            [1, 16, 64, 256, 1024].into_iter().flat_map(|b| [1, 16, 256, 1024].map(|f| (b, f)));
        pairs.map(|(b, f)| candidate(b, f, rho)).collect()
    }

    const DEFF: Target = Target::Deff(1.5);

    fn choice(candidates: &[Candidate], target: Target) -> (u64, u64) {
        let i = best(candidates, target, PageCache::Warm).unwrap();
        (candidates[i].block_size, candidates[i].fetch_factor)
    }

    #[test]
    fn the_fastest_that_meets_the_target_within_memory() {
        // 1 + b / (4 f) at most 1.5, f at most 256: b up to 512.
        let candidates = grid(1.0);
        assert_eq!(choice(&candidates, DEFF), (256, 256));
        // No structure: any block will do, and the largest is fastest.
        let shuffled = grid(0.0);
        assert_eq!(choice(&shuffled, DEFF), (1024, 1));
        // Nearly as fast and far more diverse is better.
        let mut alike = grid(0.1);
        for c in &mut alike {
            c.warm = Some(Speed { predicted: 1e6, measured: None, runs: 0, spread: 0.0 });
        }
        assert_eq!(choice(&alike, DEFF).0, 1);
        // What was measured counts more than what was predicted.
        let mut measured = grid(1.0);
        let i = best(&measured, DEFF, PageCache::Warm).unwrap();
        if let Some(speed) = &mut measured[i].warm {
            speed.measured = Some(1.0);
        }
        assert_eq!(choice(&measured, DEFF), (64, 256));
    }

    #[test]
    fn where_nothing_meets_the_target_the_most_diverse_that_fits() {
        let mut candidates = grid(1.0);
        for c in &mut candidates {
            c.meets = false;
        }
        assert_eq!(choice(&candidates, DEFF), (1, 256));
        // Entropy instead: the same order.
        assert_eq!(choice(&candidates, Target::Entropy(1.0)).1, 256);
        for c in &mut candidates {
            c.fits = false;
        }
        assert_eq!(best(&candidates, DEFF, PageCache::Warm), None);
        assert_eq!(best(&[], DEFF, PageCache::Warm), None);
    }

    #[test]
    fn the_frontier_has_no_setting_that_another_beats() {
        let mut candidates = grid(1.0);
        mark_frontier(&mut candidates, DEFF, PageCache::Warm);
        let on: Vec<&Candidate> = candidates.iter().filter(|c| c.frontier).collect();
        assert!(on.len() >= 4, "{on:?}");
        for c in &on {
            assert!(c.fits);
            for other in candidates.iter().filter(|c| c.fits) {
                let faster = speed(other, PageCache::Warm) > speed(c, PageCache::Warm);
                assert!(!(faster && badness(other, DEFF) < badness(c, DEFF) - 0.01), "{c:?}");
            }
        }
        // A label with one value leaves the fastest alone.
        for c in &mut candidates {
            c.diversity.deff_w = None;
        }
        mark_frontier(&mut candidates, DEFF, PageCache::Warm);
        assert_eq!(candidates.iter().filter(|c| c.frontier).count(), 1);
    }

    #[test]
    fn what_is_timed_is_spread_over_the_grid() {
        let places: Vec<Place> =
            (0..10).flat_map(|b| (0..10).map(move |f| (f64::from(b), f64::from(f)))).collect();
        let chosen = spread_out(&places, 44, 5, |_| true);
        assert_eq!(chosen[0], 44);
        for corner in [0, 9, 90, 99] {
            assert!(chosen.contains(&corner), "{chosen:?}");
        }
        // Nothing twice, and no more than there is.
        assert_eq!(spread_out(&places[..3], 0, 9, |_| true).len(), 3);
        assert_eq!(spread_out(&places, 44, 9, |i| i == 0), [44, 0]);
    }
}
