//! A synthetic single-cell atlas, shaped like a large drug screen: as many cells as wanted, a block
//! at a time, the same for the same seed.
//!
//! The transcripts of a cell are draws from a mixture of gene programmes: its cell line's, its
//! drug's (weaker, scaled by potency and dose; drugs of one mechanism share a part), its plate's and
//! a phase of the cell cycle. Depths, genes per cell and the share of ones are those of a published
//! screen (quartiles of 1,230, 1,748 and 2,583 transcripts; about 1,400 genes a cell), and so is the
//! order of the cells: plate after plate, sublibrary after sublibrary, wells in short runs, cell
//! lines at random inside.

mod obs;
mod programmes;
mod random;
mod sample;
mod tables;

use cellfeed::{Error, Result};
use obs::Obs;
use programmes::{MECHANISMS, Programmes};
use random::{Purpose, Random};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

pub(crate) use tables::Counts;

/// Cells of a block.
pub(crate) const BLOCK: usize = 1024;

/// In which order the cells are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// By plate, sublibrary and well in short runs, cell lines at random: as such screens are
    /// published as .h5ad.
    H5ad,
    /// By plate, at random inside.
    Hf,
    /// By plate, cell line and well: the worst case for a loader.
    Sorted,
    /// All at random.
    Random,
}

/// What an atlas is made of.
#[derive(Debug, Clone)]
pub(crate) struct AtlasOptions {
    pub(crate) cells: usize,
    /// At most 65,535.
    pub(crate) genes: usize,
    pub(crate) plates: usize,
    /// Cell lines, at most 256.
    pub(crate) lines: usize,
    /// Drugs, the control included.
    pub(crate) drugs: usize,
    pub(crate) order: Order,
    /// Cells of one well that are next to each other in [`Order::H5ad`], about.
    pub(crate) run: usize,
    pub(crate) seed: u64,
}

impl Default for AtlasOptions {
    fn default() -> Self {
        Self {
            cells: 200_000,
            genes: 20_000,
            plates: 14,
            lines: 50,
            drugs: 380,
            order: Order::H5ad,
            run: 75,
            seed: 0,
        }
    }
}

/// Consecutive cells, as CSR rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    pub(crate) first_cell: usize,
    pub(crate) indptr: Vec<u64>,
    pub(crate) indices: Vec<u32>,
    pub(crate) data: Vec<f32>,
    /// Transcripts of each cell.
    pub(crate) depths: Vec<u16>,
}

/// An atlas: the labels of its cells and what their transcripts are drawn from.
#[derive(Debug)]
pub(crate) struct Atlas {
    options: AtlasOptions,
    obs: Obs,
    programmes: Programmes,
    /// The mechanism of each drug.
    mechanisms: Vec<usize>,
    potency: Vec<f64>,
    plate_scale: Vec<f64>,
    line_scale: Vec<f64>,
}

impl Atlas {
    /// Lays out the cells and makes the gene programmes (four bytes a gene and programme).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](cellfeed::ErrorKind::InvalidInput) if a number is zero or too
    /// large.
    pub(crate) fn new(options: &AtlasOptions) -> Result<Arc<Self>> {
        let AtlasOptions { genes, plates, lines, drugs, seed, .. } = *options;
        if !(1..=usize::from(u16::MAX)).contains(&genes) {
            return Err(Error::invalid_input("an atlas has 1 to 65535 genes"));
        }
        if plates == 0 || drugs == 0 || options.run == 0 {
            return Err(Error::invalid_input("plates, drugs and runs start at 1"));
        }
        let mut random = Random::new(seed, Purpose::Scales, 0);
        let mechanisms: Vec<usize> = (0..drugs).map(|_| random.below(MECHANISMS)).collect();
        let mut potency: Vec<f64> =
            (0..drugs).map(|_| (0.6 * random.normal()).exp().clamp(0.2, 3.0)).collect();
        potency[0] = 0.0;
        let obs = Obs::new(options)?;
        let mut scales = |count: usize, spread: f64| -> Vec<f64> {
            (0..count).map(|_| spread * random.normal()).collect()
        };
        let plate_scale = scales(plates, 0.15);
        let line_scale = scales(lines, 0.22);
        // Centred, each line by its size, lest a large line move the whole atlas.
        let plate_mean = plate_scale.iter().sum::<f64>() / plates as f64;
        let before = std::iter::once(&0.0).chain(&obs.line_sizes);
        let sizes = obs.line_sizes.iter().zip(before).map(|(to, from)| to - from);
        let line_sum: f64 = line_scale.iter().zip(sizes).map(|(scale, size)| scale * size).sum();
        let line_mean = line_sum / obs.line_sizes.last().copied().unwrap_or(1.0);
        Ok(Arc::new(Self {
            obs,
            programmes: Programmes::new(seed, genes, lines, &mechanisms, plates),
            mechanisms,
            potency,
            plate_scale: plate_scale.iter().map(|scale| (scale - plate_mean).exp()).collect(),
            line_scale: line_scale.iter().map(|scale| (scale - line_mean).exp()).collect(),
            options: options.clone(),
        }))
    }

    /// The blocks, in order. They are made ahead, in rayon's pool, a few more than it has threads.
    pub(crate) fn blocks(self: &Arc<Self>) -> Blocks {
        let end = self.options.cells.div_ceil(BLOCK);
        Blocks { atlas: Arc::clone(self), next: 0, end, ahead: VecDeque::new() }
    }
}

/// The iterator of [`Atlas::blocks`].
#[derive(Debug)]
pub(crate) struct Blocks {
    atlas: Arc<Atlas>,
    next: usize,
    end: usize,
    ahead: VecDeque<Receiver<Block>>,
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        while self.next < self.end && self.ahead.len() < rayon::current_num_threads() + 2 {
            let (sender, receiver) = channel();
            let (atlas, number) = (Arc::clone(&self.atlas), self.next);
            // Nobody receives a block that is no longer wanted.
            rayon::spawn_fifo(move || drop(sender.send(atlas.block(number))));
            self.ahead.push_back(receiver);
            self.next += 1;
        }
        let receiver = self.ahead.pop_front()?;
        loop {
            match receiver.try_recv() {
                Ok(block) => return Some(block),
                Err(TryRecvError::Disconnected) => return None,
                // A thread of the pool helps rather than waits, lest a pool of one stand still.
                Err(TryRecvError::Empty) => match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => {}
                    Some(rayon::Yield::Idle) => std::thread::yield_now(),
                    None => return receiver.recv().ok(),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
