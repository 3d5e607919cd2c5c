//! The transcripts of a block of cells.

use super::programmes::PHASES;
use super::random::{Purpose, Random, whole};
use super::{Atlas, BLOCK, Block};

/// Median depth before plates and lines scale it; see `depth`.
const DEPTH: f64 = 1748.0 * 0.98;
const DRUG_WEIGHT: f64 = 0.22;
const PLATE_WEIGHT: f64 = 0.25;
/// Transcripts in a cell.
const LEAST: f64 = 300.0;
const MOST: f64 = 60_000.0;

/// How many transcripts a cell takes from each of its programmes.
struct Mixture {
    depth: usize,
    drug: usize,
    plate: usize,
    phase: usize,
}

/// Counts of the genes of one cell, and which are not zero.
struct Tally {
    counts: Vec<u16>,
    seen: Vec<u64>,
}

impl Tally {
    fn add(&mut self, gene: u16) {
        let gene = usize::from(gene);
        self.counts[gene] += 1;
        self.seen[gene / 64] |= 1 << (gene % 64);
    }

    /// Appends the counts in the order of genes and forgets them.
    fn drain(&mut self, indices: &mut Vec<u32>, data: &mut Vec<f32>) {
        for (word, first) in self.seen.iter_mut().zip((0u32..).step_by(64)) {
            while *word != 0 {
                let gene = first + word.trailing_zeros();
                *word &= *word - 1;
                indices.push(gene);
                if let Some(count) = usize::try_from(gene).ok().and_then(|g| self.counts.get_mut(g))
                {
                    data.push(f32::from(*count));
                    *count = 0;
                }
            }
        }
    }
}

impl Atlas {
    /// Makes block `number`.
    pub(super) fn block(&self, number: usize) -> Block {
        let first = number * BLOCK;
        let cells = BLOCK.min(self.options.cells - first);
        let mut random = Random::new(self.options.seed, Purpose::Cells, number);
        let genes = self.options.genes;
        let mut tally = Tally { counts: vec![0; genes], seen: vec![0; genes.div_ceil(64)] };
        let mut block = Block {
            first_cell: first,
            indptr: Vec::with_capacity(cells + 1),
            indices: Vec::with_capacity(cells * 1500),
            data: Vec::with_capacity(cells * 1500),
            depths: Vec::with_capacity(cells),
        };
        block.indptr.push(0);
        for cell in first..first + cells {
            let well = self.obs.wells[usize::from(self.obs.well[cell])];
            let line = usize::from(self.obs.line[cell]);
            let mixture = self.mixture(cell, &mut random);
            let phase = random.below(PHASES);
            let rest = mixture.depth - mixture.drug - mixture.plate - mixture.phase;
            for (count, table) in [
                (rest, &self.programmes.lines[line]),
                (mixture.drug, &self.programmes.drugs[well.drug]),
                (mixture.plate, &self.programmes.plates[well.plate]),
                (mixture.phase, &self.programmes.phases[phase]),
            ] {
                for _ in 0..count {
                    tally.add(table.draw(random.word()));
                }
            }
            tally.drain(&mut block.indices, &mut block.data);
            block.indptr.push(block.indices.len() as u64);
            block.depths.push(u16::try_from(mixture.depth).unwrap_or(u16::MAX));
        }
        block
    }

    fn mixture(&self, cell: usize, random: &mut Random) -> Mixture {
        let well = self.obs.wells[usize::from(self.obs.well[cell])];
        let line = usize::from(self.obs.line[cell]);
        let depth = depth(random) * self.plate_scale[well.plate] * self.line_scale[line];
        let depth = whole(depth.clamp(LEAST, MOST));
        let dosed = [0.0, 0.35, 0.65, 1.0][well.dose] * self.potency[well.drug];
        let drug = (DRUG_WEIGHT * dosed * random.between(0.4, 1.6)).min(0.55);
        let plate = PLATE_WEIGHT * random.between(0.7, 1.3);
        // A Beta(1, 12) number, by inversion.
        let phase = 1.0 - random.unit().powf(1.0 / 12.0);
        // The line keeps at least 15 %.
        let scale = (0.85 / (drug + plate + phase)).min(1.0);
        // A share of the depth, rounded up or down by chance so that its mean is exact.
        let mut share = |weight: f64| whole(weight * scale * depth as f64 + random.unit());
        let (drug, plate, phase) = (share(drug), share(plate), share(phase));
        // Roundings may add up to three: 15 % of the least depth are more.
        Mixture { depth, drug, plate, phase }
    }
}

/// Transcripts of a cell: lognormal, with one cell in eight from a wider and deeper lognormal.
fn depth(random: &mut Random) -> f64 {
    let (shift, spread) = if random.unit() < 0.12 { (0.45, 0.95) } else { (0.0, 0.48) };
    DEPTH * (shift + spread * random.normal()).exp()
}
