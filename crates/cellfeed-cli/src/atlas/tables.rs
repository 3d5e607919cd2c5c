//! The atlas's obs and var tables, made as they are written.

use super::obs::DOSES;
use super::{Atlas, Block};
use cellfeed::hdf5::{ColumnValues, Frame, Items, Strings};
use std::fmt::Write;

/// What is known of the cells once they have been made.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    genes: Vec<u16>,
    transcripts: Vec<u16>,
}

impl Counts {
    /// Takes the counts of the next block.
    pub(crate) fn take(&mut self, block: &Block) {
        let rows = block.indptr.windows(2).map(|pair| pair[1] - pair[0]);
        self.genes.extend(rows.map(|genes| u16::try_from(genes).unwrap_or(u16::MAX)));
        self.transcripts.extend_from_slice(&block.depths);
    }
}

/// The names of the categories, which a table borrows.
#[derive(Debug)]
pub(crate) struct Categories {
    plates: Vec<String>,
    samples: Vec<String>,
    sublibraries: Vec<String>,
    drugs: Vec<String>,
    lines: Vec<String>,
    mechanisms: Vec<String>,
}

fn numbered(count: usize, name: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(name).collect()
}

impl Atlas {
    /// The names of the categories.
    pub(crate) fn categories(&self) -> Categories {
        let drug = |d| if d == 0 { "DMSO_TF".to_owned() } else { format!("drug{d:03}") };
        let mechanisms = super::MECHANISMS;
        Categories {
            plates: numbered(self.options.plates, |p| format!("plate{}", p + 1)),
            samples: numbered(self.obs.wells.len(), |w| format!("smp_{w}")),
            sublibraries: numbered(self.obs.sublibraries, |s| format!("lib_{s}")),
            drugs: numbered(self.options.drugs, drug),
            lines: numbered(self.options.lines, |l| format!("line{l:02}")),
            mechanisms: numbered(mechanisms + 1, |m| {
                if m == mechanisms { "vehicle control".to_owned() } else { format!("moa{m}") }
            }),
        }
    }

    /// The obs table of cells whose counts have all been taken.
    pub(crate) fn obs<'a>(&'a self, categories: &'a Categories, counts: &'a Counts) -> Frame<'a> {
        let well = |cell: usize| self.obs.wells[usize::from(self.obs.well[cell])];
        let mechanism = move |cell| match well(cell).drug {
            0 => super::MECHANISMS,
            drug => self.mechanisms[drug],
        };
        Frame::new(Strings::with(|cell, name| {
            // Writing to a string cannot fail.
            let _ = write!(name, "c{cell}");
        }))
        .with_column("plate", coded(&categories.plates, move |cell| well(cell).plate))
        .with_column("sample", coded(&categories.samples, |cell| self.obs.well[cell].into()))
        .with_column(
            "sublibrary",
            coded(&categories.sublibraries, |cell| self.obs.sublibrary[cell].into()),
        )
        .with_column("drug", coded(&categories.drugs, move |cell| well(cell).drug))
        .with_column("conc", ColumnValues::F32(Items::with(move |cell| DOSES[well(cell).dose])))
        .with_column("cell_line", coded(&categories.lines, |cell| self.obs.line[cell].into()))
        .with_column("moa_fine", coded(&categories.mechanisms, mechanism))
        .with_column(
            "gene_count",
            ColumnValues::I32(Items::with(|cell| i32::from(counts.genes[cell]))),
        )
        .with_column(
            "tscp_count",
            ColumnValues::I32(Items::with(|cell| i32::from(counts.transcripts[cell]))),
        )
    }

    /// The var table: names alone.
    pub(crate) fn var(&self) -> Frame<'static> {
        Frame::new(Strings::with(|gene, name| {
            let _ = write!(name, "GENE{:05}", gene + 1);
        }))
    }
}

fn coded<'a>(categories: &'a [String], code: impl Fn(usize) -> usize + 'a) -> ColumnValues<'a> {
    ColumnValues::Categorical {
        codes: Items::with(move |cell| i32::try_from(code(cell)).unwrap_or(-1)),
        categories,
        ordered: false,
    }
}
