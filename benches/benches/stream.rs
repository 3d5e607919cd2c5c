//! An epoch of block shuffling from a small file, uncompressed, gzip and lzf: to notice when a
//! change makes streaming slower. For figures to publish see `benches/README.md`.
//!
//! The file is small enough to stay in the page cache, so this is decoding and gathering, not the
//! disk.
#![allow(missing_docs, clippy::unwrap_used)]

use cellfeed::hdf5::{Compression, Frame, H5adWriter, Strings, WriteOptions};
use cellfeed::{LoaderOptions, OpenOptions, Plan, PlanOptions, Strategy};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

const CELLS: u64 = 16_384;
const GENES: u32 = 20_000;
/// Mean distance of a cell's expressed genes.
const STRIDE: u64 = 20;

/// The generator splitmix64, enough to make data.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % n).unwrap_or(0)
    }
}

/// About a thousand counts a cell, most of them 1, as in single-cell data.
fn write(path: &Path, compression: Compression) {
    let expected = CELLS * u64::from(GENES) / STRIDE;
    let options = WriteOptions::default().with_compression(compression).with_expected_nnz(expected);
    let mut writer = H5adWriter::create(path, GENES, &options).unwrap();
    let mut random = Random(1);
    let (mut indices, mut data) = (Vec::new(), Vec::new());
    for _ in 0..CELLS {
        indices.clear();
        data.clear();
        let mut gene = random.below(STRIDE);
        while gene < GENES {
            indices.push(gene);
            let rare = random.below(8) == 0;
            data.push(if rare { 2.0f32 + random.below(30) as f32 } else { 1.0 });
            gene += 1 + random.below(2 * STRIDE - 1);
        }
        let nnz = u64::try_from(indices.len()).unwrap();
        writer.append(&[0, nnz], &indices, &data).unwrap();
    }
    let name = |prefix: &'static str| {
        Strings::with(move |row, name| name.push_str(&format!("{prefix}{row}")))
    };
    writer.finish(&Frame::new(name("cell")), &Frame::new(name("gene"))).unwrap();
}

fn stream(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut group = c.benchmark_group("stream");
    group.throughput(Throughput::Elements(CELLS)).sample_size(10);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    let files =
        [("none", Compression::None), ("gzip", Compression::gzip()), ("lzf", Compression::Lzf)];
    for (name, compression) in files {
        let path = folder.path().join(format!("{name}.h5ad"));
        write(&path, compression);
        let store = cellfeed::open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
        let options = PlanOptions::default().with_batch_size(64).with_fetch_factor(64);
        let strategy = Strategy::BlockShuffling { block_size: 16 };
        let plan = Plan::new(store.n_obs(), strategy, &options).unwrap();
        let loader = store.loader(plan, LoaderOptions::default()).unwrap();
        let mut epoch = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                epoch += 1;
                let mut cells = 0;
                for minibatch in loader.epoch(epoch).unwrap() {
                    cells += black_box(minibatch.unwrap()).n_cells();
                }
                assert_eq!(u64::try_from(cells).unwrap(), CELLS);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stream);
criterion_main!(benches);
