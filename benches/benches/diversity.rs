//! `cargo bench --bench diversity`: the diversity of minibatches of an atlas like Tahoe-100M, for block
//! shuffling, stratified by position and stratified by label.
//!
//! The atlas has fourteen plates of Tahoe's relative sizes one after the other and twenty drugs on
//! each, in runs of 600 cells on average. First minibatches come from the loader over a file of that
//! atlas; then the plans alone are run, over more epochs and fetch factors, to find which fetch factor
//! comes within 1 % of true random sampling.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use cellfeed::diversity::{
    DiversityMeter, Expected, Labels, Sampling, expected, expected_in_order,
};
use cellfeed::hdf5::{ColumnValues, Frame, H5adWriter, Items, Strings, WriteOptions};
use cellfeed::{
    LoaderOptions, OpenOptions, Plan, PlanOptions, Store, Strata, Strategy, StrategyColumns, Subset,
};
use clap::Parser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Cells of Tahoe-100M's plates, in thousands.
const PLATES: [u64; 14] = [
    5_481, 8_065, 4_705, 7_004, 6_419, 7_545, 5_692, 8_881, 5_867, 8_045, 7_436, 10_487, 8_502,
    6_519,
];
const DRUGS: u64 = 20;
const RUN: f64 = 600.0;
const BATCH: u64 = 64;
const LABELS: [&str; 2] = ["plate", "drug"];

#[derive(Debug, Parser)]
struct Args {
    /// Cells of the atlas.
    #[arg(long, default_value_t = 1 << 20)]
    cells: u64,
    /// Epochs of the loader for each setting.
    #[arg(long, default_value_t = 2)]
    epochs: u64,
    /// Epochs of the plans alone.
    #[arg(long, default_value_t = 12)]
    plan_epochs: u64,
    /// Write the results as JSON here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The generator splitmix64, enough to make data.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Plate and drug of each cell.
fn atlas(cells: u64) -> [Vec<i64>; 2] {
    let all: u64 = PLATES.iter().sum();
    let mut plate = Vec::new();
    for (number, size) in (0i64..).zip(PLATES) {
        let upto = usize::try_from(if number == 13 { cells } else { size * cells / all }).unwrap();
        let upto = if number == 13 { upto } else { plate.len() + upto };
        plate.resize(upto, number);
    }
    let mut random = Random(1);
    let mut drug: Vec<i64> = Vec::new();
    while drug.len() < plate.len() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let run = ((-(1.0 - random.unit()).ln() * RUN) as usize).max(1);
        #[allow(clippy::cast_possible_truncation)]
        let number = (random.unit() * DRUGS as f64) as i64;
        let drug_here = plate[drug.len()] * 20 + number;
        drug.resize((drug.len() + run).min(plate.len()), drug_here);
    }
    [plate, drug]
}

fn write(path: &Path, [plate, drug]: &[Vec<i64>; 2]) {
    let mut writer = H5adWriter::create(path, 8, &WriteOptions::default()).unwrap();
    for cells in plate.chunks(1 << 14) {
        let indptr: Vec<u64> = (0..=u64::try_from(cells.len()).unwrap()).collect();
        writer.append(&indptr, &vec![3; cells.len()], &vec![1.0f32; cells.len()]).unwrap();
    }
    let name = |prefix: &'static str| {
        Strings::with(move |row, name| name.push_str(&format!("{prefix}{row}")))
    };
    let obs = Frame::new(name("cell"))
        .with_column("plate", ColumnValues::I64(Items::new(plate)))
        .with_column("drug", ColumnValues::I64(Items::new(drug)));
    writer.finish(&obs, &Frame::new(name("gene"))).unwrap();
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    TrueRandom,
    Uniform,
    Position,
    Label,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::TrueRandom => "true random",
            Self::Uniform => "uniform",
            Self::Position => "by position",
            Self::Label => "by label",
        }
    }

    fn plan(self, store: &Store, b: u64, f: u64) -> Plan {
        let by: &[&str] = if self == Self::Label { &["drug"] } else { &[] };
        let strategy = match self {
            Self::TrueRandom => Strategy::TrueRandom,
            Self::Uniform => Strategy::BlockShuffling { block_size: b },
            _ => Strategy::StratifiedBlockShuffling { block_size: b },
        };
        let options = PlanOptions::default().with_batch_size(BATCH).with_fetch_factor(f);
        let columns = StrategyColumns::default().with_by(by.iter().copied());
        store.plan(Subset::all(store.n_obs()), strategy, &columns, &options).unwrap()
    }

    fn theory(self, store: &Store, labels: &Labels, b: u64, f: u64, w: u64) -> Expected {
        let of = |sampling| expected(labels, sampling, BATCH, f, w).unwrap();
        match self {
            Self::TrueRandom => of(Sampling::Blocks { block_size: 1 }),
            Self::Uniform => of(Sampling::Blocks { block_size: b }),
            Self::Position => of(Sampling::StratifiedBlocks { block_size: b }),
            Self::Label => {
                let subset = Subset::all(store.n_obs());
                let by = ["drug".to_owned()];
                let strata = Strata::read(store.backend().as_ref(), &subset, b, &by).unwrap();
                expected_in_order(labels, b, strata.blocks(), BATCH, f, w).unwrap()
            }
        }
    }
}

/// Meters of plate with windows of 10, and of drug with 10 and 50.
struct Meters<'a> {
    labels: &'a [Labels; 2],
    plate: DiversityMeter,
    drug: [DiversityMeter; 2],
}

impl<'a> Meters<'a> {
    fn new(labels: &'a [Labels; 2]) -> Self {
        let meter = |label: usize, w| DiversityMeter::new(labels[label].counts(), BATCH, w);
        Self { labels, plate: meter(0, 10), drug: [meter(1, 10), meter(1, 50)] }
    }

    fn push(&mut self, plate: &[u32], drug: &[u32]) {
        self.plate.push(plate);
        self.drug.iter_mut().for_each(|meter| meter.push(drug));
    }

    /// The labels of minibatches as the loader gives them, together with the rows.
    fn load(&mut self, store: &Store, plan: &Plan, epochs: u64) {
        let options = LoaderOptions::default().with_obs(LABELS.map(str::to_owned).to_vec());
        let loader = store.loader(plan.clone(), options).unwrap();
        for minibatch in loader.epochs(0..epochs).unwrap() {
            let minibatch = minibatch.unwrap();
            let codes = [0, 1].map(|label: usize| {
                let mut of_cells = Labels::new();
                of_cells.extend(minibatch.obs_column(LABELS[label]).unwrap()).unwrap();
                let names = self.labels[label].names();
                let code = |name: &String| names.iter().position(|n| n == name).unwrap();
                let known: Vec<u32> =
                    of_cells.names().iter().map(|n| u32::try_from(code(n)).unwrap()).collect();
                let of = |&c: &u32| known[usize::try_from(c).unwrap()];
                of_cells.codes().iter().map(of).collect::<Vec<u32>>()
            });
            self.push(&codes[0], &codes[1]);
        }
    }

    /// The same of a plan alone.
    fn plan(&mut self, plan: &Plan, epochs: u64) {
        let at = |i: u64| usize::try_from(i).unwrap();
        for (epoch, k) in (0..epochs).flat_map(|e| (0..plan.n_fetches()).map(move |k| (e, k))) {
            let fetch = plan.fetch(epoch, k).unwrap();
            let rows: Vec<usize> = fetch.rows().iter_rows().map(at).collect();
            for minibatch in fetch.minibatches() {
                let codes = [0, 1].map(|label: usize| {
                    let all = self.labels[label].codes();
                    minibatch.iter().map(|&p| all[rows[at(p.into())]]).collect::<Vec<u32>>()
                });
                self.push(&codes[0], &codes[1]);
            }
        }
    }

    fn figures(&self) -> Value {
        json!({
            "plate_entropy": self.plate.entropy_mean(), "plate_deff_1": self.plate.deff_1(),
            "plate_deff_10": self.plate.deff_w(), "drug_entropy": self.drug[0].entropy_mean(),
            "drug_deff_10": self.drug[0].deff_w(), "drug_deff_50": self.drug[1].deff_w(),
            "minibatches": self.plate.n_minibatches(),
        })
    }
}

fn theory(kind: Kind, store: &Store, labels: &[Labels; 2], b: u64, f: u64) -> Value {
    let of = |label: usize, w| kind.theory(store, &labels[label], b, f, w);
    let (plate, drug, long) = (of(0, 10), of(1, 10), of(1, 50));
    json!({
        "plate_entropy": plate.entropy, "plate_deff_1": plate.deff_1, "plate_deff_10": plate.deff_w,
        "drug_entropy": drug.entropy, "drug_deff_10": drug.deff_w, "drug_deff_50": long.deff_w,
    })
}

fn say(what: &str, figures: &Value) {
    let of = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{what:<36} H {:.4} {:.4}   plate DEFF_10 {:6.3}   drug DEFF_10 {:6.3} DEFF_50 {:6.3}",
        of("plate_entropy"),
        of("drug_entropy"),
        of("plate_deff_10"),
        of("drug_deff_10"),
        of("drug_deff_50")
    );
}

fn main() {
    let args = Args::parse();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("atlas.h5ad");
    let columns = atlas(args.cells);
    write(&path, &columns);
    let store = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
    let labels = LABELS.map(|name| Labels::read(store.backend().as_ref(), name).unwrap());
    let mut results = Vec::new();
    let mut run = |kind: Kind, b: u64, f: u64, loader: bool| {
        let plan = kind.plan(&store, b, f);
        let mut meters = Meters::new(&labels);
        if loader {
            meters.load(&store, &plan, args.epochs);
        } else {
            meters.plan(&plan, args.plan_epochs);
        }
        let (measured, expected) = (meters.figures(), theory(kind, &store, &labels, b, f));
        let from = if loader { "loader" } else { "plan" };
        let what = format!("{from} b {b} f {f} {}", kind.name());
        say(&what, &measured);
        say("    expected", &expected);
        results.push(json!({
            "from": from, "strategy": kind.name(), "block_size": b, "fetch_factor": f,
            "measured": measured, "expected": expected,
        }));
    };
    run(Kind::TrueRandom, 1, 16, true);
    for (b, f) in [(16, 16), (16, 64), (16, 256), (64, 256)] {
        for kind in [Kind::Uniform, Kind::Position, Kind::Label] {
            run(kind, b, f, true);
        }
    }
    run(Kind::TrueRandom, 1, 16, false);
    for f in [4, 8, 16, 32, 64, 128, 256, 512, 1024] {
        for kind in [Kind::Uniform, Kind::Position, Kind::Label] {
            run(kind, 16, f, false);
        }
    }
    if let Some(out) = &args.json {
        let all = json!({
            "cells": args.cells, "epochs": args.epochs, "plan_epochs": args.plan_epochs,
            "batch_size": BATCH, "mean_run_of_drugs": RUN, "results": results,
        });
        std::fs::write(out, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
    }
}
