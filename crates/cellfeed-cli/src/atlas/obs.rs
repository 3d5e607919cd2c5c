//! Who is where: the plate, well, sublibrary and cell line of every cell, in five bytes a cell.

use super::random::{Purpose, Random, cumulative, shares};
use super::{AtlasOptions, BLOCK, Order};
use cellfeed::{Error, Result};
use rayon::prelude::*;

/// Doses in micromolar; the first is the control's.
pub(super) const DOSES: [f32; 4] = [0.0, 0.05, 0.5, 5.0];

/// One drug at one dose on one plate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Well {
    pub(super) plate: usize,
    /// Drug 0 is the vehicle control.
    pub(super) drug: usize,
    pub(super) dose: usize,
}

/// The codes of all cells.
#[derive(Debug)]
pub(super) struct Obs {
    /// By plate.
    pub(super) wells: Vec<Well>,
    pub(super) well: Vec<u16>,
    pub(super) sublibrary: Vec<u16>,
    pub(super) line: Vec<u8>,
    pub(super) sublibraries: usize,
    /// The running sums of the cell lines' sizes.
    pub(super) line_sizes: Vec<f64>,
}

impl Obs {
    pub(super) fn new(options: &AtlasOptions) -> Result<Self> {
        let AtlasOptions { cells, plates, lines, run, seed, .. } = *options;
        let wells = wells(options);
        if u16::try_from(wells.len()).is_err() || !(1..=256).contains(&lines) {
            return Err(Error::invalid_input(format!(
                "an atlas has at most 65535 wells and 256 cell lines, not {} and {lines}",
                wells.len()
            )));
        }
        let mut random = Random::new(seed, Purpose::Layout, 0);
        let line_sizes = cumulative((0..lines).map(|_| (0.9 * random.normal()).exp()));
        // The control has the cells of two wells.
        let size = |well: &Well| if well.drug == 0 { 2.0 } else { 1.0 };
        let of_plate = |plate| wells.partition_point(|w: &Well| w.plate < plate);
        let plate_wells: Vec<_> = (0..plates).map(|p| of_plate(p)..of_plate(p + 1)).collect();
        let plate_sizes =
            cumulative(plate_wells.iter().map(|range| wells[range.clone()].iter().map(size).sum()));
        let runs = cells as f64 / (wells.len() * run) as f64;
        let sublibraries = super::random::whole(runs.round()).clamp(1, usize::from(u16::MAX));

        let mut obs = Self {
            well: vec![0; cells],
            sublibrary: vec![0; cells],
            line: vec![0; cells],
            sublibraries,
            line_sizes: Vec::new(),
            wells,
        };
        let mut first = 0;
        for (plate, end) in shares(cells, &plate_sizes).into_iter().enumerate() {
            let range = plate_wells[plate].clone();
            let sizes = cumulative(obs.wells[range.clone()].iter().map(size));
            match options.order {
                Order::H5ad => obs.lay_runs(first..end, range, &sizes, &mut random),
                Order::Sorted => obs.lay_lines(first..end, range.start, &sizes, &line_sizes),
                Order::Hf | Order::Random => {}
            }
            first = end;
        }
        let all_sizes = cumulative(obs.wells.iter().map(size));
        obs.draw(options, &line_sizes, &all_sizes);
        obs.line_sizes = line_sizes;
        Ok(obs)
    }

    /// Sublibraries one after the other, in each a short run of every well.
    fn lay_runs(
        &mut self,
        cells: std::ops::Range<usize>,
        wells: std::ops::Range<usize>,
        sizes: &[f64],
        random: &mut Random,
    ) {
        let even = cumulative(std::iter::repeat_n(1.0, self.sublibraries));
        let mut first = cells.start;
        for (sublibrary, end) in shares(cells.len(), &even).into_iter().enumerate() {
            let end = cells.start + end;
            self.sublibrary[first..end].fill(code(sublibrary));
            let before = std::iter::once(0.0).chain(sizes.iter().copied());
            let uneven = cumulative(
                sizes
                    .iter()
                    .zip(before)
                    .map(|(to, from)| (to - from) * (0.3 * random.normal()).exp()),
            );
            let mut from = first;
            for (well, to) in wells.clone().zip(shares(end - first, &uneven)) {
                self.well[from..first + to].fill(code(well));
                from = first + to;
            }
            first = end;
        }
    }

    /// Cell lines one after the other, in each all its cells of one well together.
    fn lay_lines(
        &mut self,
        cells: std::ops::Range<usize>,
        first_well: usize,
        sizes: &[f64],
        line_sizes: &[f64],
    ) {
        let mut first = cells.start;
        for (line, end) in shares(cells.len(), line_sizes).into_iter().enumerate() {
            let end = cells.start + end;
            self.line[first..end].fill(u8::try_from(line).unwrap_or(u8::MAX));
            let mut from = first;
            for (well, to) in shares(end - first, sizes).into_iter().enumerate() {
                self.well[from..first + to].fill(code(first_well + well));
                from = first + to;
            }
            first = end;
        }
    }

    /// Draws what the order leaves to chance, every block from a stream of its own.
    fn draw(&mut self, options: &AtlasOptions, line_sizes: &[f64], well_sizes: &[f64]) {
        let (order, sublibraries) = (options.order, self.sublibraries);
        let plates = cumulative_plates(&self.wells, well_sizes, options.plates);
        let plate_ends = shares(options.cells, &plates);
        let blocks = self.line.par_chunks_mut(BLOCK);
        let blocks = blocks.zip(self.well.par_chunks_mut(BLOCK));
        let blocks = blocks.zip(self.sublibrary.par_chunks_mut(BLOCK));
        blocks.enumerate().for_each(|(block, ((line, well), sublibrary))| {
            let mut random = Random::new(options.seed, Purpose::Obs, block);
            for i in 0..line.len() {
                if order != Order::Sorted {
                    line[i] = u8::try_from(random.pick(line_sizes)).unwrap_or(u8::MAX);
                }
                if order != Order::H5ad {
                    sublibrary[i] = code(random.below(sublibraries));
                }
                if order == Order::Random {
                    well[i] = code(random.pick(well_sizes));
                }
                if order == Order::Hf {
                    // A well of this cell's plate: a point in the plate's part of the sums.
                    let plate = plate_ends.partition_point(|&end| end <= block * BLOCK + i);
                    let from = plate.checked_sub(1).map_or(0.0, |before| plates[before]);
                    let at = random.between(from, plates[plate]);
                    let last = well_sizes.len() - 1;
                    well[i] = code(well_sizes.partition_point(|&sum| sum <= at).min(last));
                }
            }
        });
    }
}

/// The sums of all wells' sizes up to the end of each plate.
fn cumulative_plates(wells: &[Well], well_sizes: &[f64], plates: usize) -> Vec<f64> {
    let end = |plate| wells.partition_point(|w| w.plate <= plate);
    (0..plates).map(|plate| end(plate).checked_sub(1).map_or(0.0, |i| well_sizes[i])).collect()
}

fn code(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The control is on every plate, every drug at three doses on three plates.
fn wells(options: &AtlasOptions) -> Vec<Well> {
    let control = (0..options.plates).map(|plate| Well { plate, drug: 0, dose: 0 });
    let treated = (1..options.drugs).flat_map(|drug| {
        (1..DOSES.len()).map(move |dose| Well {
            plate: (3 * drug + 5 * dose) % options.plates,
            drug,
            dose,
        })
    });
    let mut wells: Vec<Well> = control.chain(treated).collect();
    wells.sort_by_key(|well| (well.plate, well.drug, well.dose));
    wells
}
