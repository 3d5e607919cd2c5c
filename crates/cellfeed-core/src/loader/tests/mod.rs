//! The loader over the in-memory store: order, content, types, memory, errors, shutdown.

#[cfg(test)]
mod ends;
#[cfg(test)]
mod refused;

use super::queue::{Queue, n_bytes};
use super::{Data, Layout, Loader, LoaderOptions, OutputType, ReadCost, Transform, X};
use crate::io::{Engine, EngineOptions};
use crate::memory::{MemoryBackend, MemoryMatrix};
use crate::obs::categorical_array;
use crate::plan::{PlanOptions, Strategy};
use crate::schema::{ColumnSchema, VarSchema};
use crate::{Archive, Table};
use crate::{
    Backend, CsrRows, Digest, Error, ErrorKind, Hints, MatrixKey, Plan, Result, RowCheck,
    RowRanges, Schema, StoredRows, StoredSegment,
};
use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use async_trait::async_trait;
use futures::StreamExt;
use futures::executor::block_on;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Row r holds genes r % 5 and 5 + r % 3 with values r and r + 0.5.
fn store(n: u64) -> Arc<dyn Backend> {
    let mut indptr = vec![0];
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    for r in 0..n {
        indices.extend([u32::try_from(r % 5).unwrap(), u32::try_from(5 + r % 3).unwrap()]);
        values.extend([r as f64, r as f64 + 0.5]);
        indptr.push(indptr.last().unwrap() + 2);
    }
    let names = (0..8).map(|i| format!("gene{i}")).collect();
    let var = VarSchema { n_vars: 8, names, ..VarSchema::default() };
    let matrix = MemoryMatrix::try_new(indptr, indices, values, var).unwrap();
    let categories = Arc::new((0..7).map(|i| format!("plate{i}")).collect::<Vec<_>>());
    let codes = (0..n).map(|r| (r % 8 != 7).then_some(i32::try_from(r % 8).unwrap()));
    let codes = categorical_array(codes, &categories).unwrap();
    let column = ColumnSchema::categorical("plate", categories.to_vec(), false);
    Arc::new(
        MemoryBackend::try_new(n, vec![(MatrixKey::X, matrix)], vec![(column, codes)]).unwrap(),
    )
}

fn plan(n: u64) -> Plan {
    let options = PlanOptions::default().with_batch_size(6).with_fetch_factor(4).with_seed(3);
    Plan::new(n, Strategy::BlockShuffling { block_size: 4 }, &options).unwrap()
}

fn expected_rows(plan: &Plan, epoch: u64) -> Vec<u64> {
    let mut out = Vec::new();
    for k in 0..plan.n_fetches() {
        let fetch = plan.fetch(epoch, k).unwrap();
        let rows: Vec<u64> = fetch.rows().iter_rows().collect();
        out.extend(fetch.minibatches().flatten().map(|&p| rows[p as usize]));
    }
    out
}

#[test]
fn workers_share_an_epoch_and_each_goes_on_where_it_was() {
    let loader = Loader::new(store(101), plan(101), LoaderOptions::default()).unwrap();
    let take = |worker, skip| -> Vec<(u64, Vec<u64>)> {
        let run = loader.epoch_of_worker(1, worker, 2, skip).unwrap();
        run.map(|m| m.map(|m| (m.number(), m.rows().to_vec())).unwrap()).collect()
    };
    let (first, second) = (take(0, 0), take(1, 0));
    assert!(first.len() > 5 && second.len() > 5);
    for skip in [1, 5, first.len() - 1, first.len(), 100] {
        assert_eq!(take(0, skip as u64), first[skip.min(first.len())..]);
    }
    let mut all = [first, second].concat();
    all.sort();
    let rows: Vec<u64> = all.into_iter().flat_map(|(_, rows)| rows).collect();
    assert_eq!(rows, expected_rows(loader.plan(), 1));
    let error = loader.epoch_of_worker(0, 2, 2, 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn minibatches_hold_the_rows_of_the_plan() {
    let n = 101;
    let options = LoaderOptions::default().with_obs(["plate"]);
    let loader = Loader::new(store(n), plan(n), options).unwrap();
    let mut rows = Vec::new();
    for (i, minibatch) in loader.epoch(2).unwrap().enumerate() {
        let minibatch = minibatch.unwrap();
        assert_eq!((minibatch.epoch(), minibatch.number()), (2, i as u64));
        let X::Csr { indptr, indices, data } = minibatch.x() else { panic!("not sparse") };
        let data = data.as_f32().unwrap();
        let codes = minibatch.obs_column("plate").unwrap().as_dictionary::<Int32Type>();
        for (cell, &row) in minibatch.rows().iter().enumerate() {
            let span = indptr[cell] as usize..indptr[cell + 1] as usize;
            assert_eq!(indices[span.clone()], [(row % 5) as i32, 5 + (row % 3) as i32]);
            assert_eq!(data[span], [row as f32, row as f32 + 0.5]);
            assert_eq!(codes.key(cell), (row % 8 != 7).then_some((row % 8) as usize));
        }
        rows.extend_from_slice(minibatch.rows());
    }
    assert_eq!(rows, expected_rows(loader.plan(), 2));
}

#[test]
fn a_resumed_plan_yields_what_is_left() {
    let n = 101;
    let whole = expected_rows(&plan(n), 1);
    for at in 0..plan(n).n_minibatches() {
        let resumed = plan(n).resume(&plan(n).state(1, at).unwrap()).unwrap();
        let loader = Loader::new(store(n), resumed, LoaderOptions::default()).unwrap();
        let minibatches: Vec<_> = loader.epochs(1..3).unwrap().map(Result::unwrap).collect();
        assert_eq!((minibatches[0].epoch(), minibatches[0].number()), (1, at));
        let rows: Vec<u64> = minibatches.iter().flat_map(|m| m.rows().to_vec()).collect();
        let first = usize::try_from(at * 6).unwrap();
        assert_eq!(rows, [&whole[first..], &expected_rows(&plan(n), 2)].concat());
    }
}

#[test]
fn dense_equals_sparse_and_types_convert() {
    let n = 40;
    let loader = |options| Loader::new(store(n), plan(n), options).unwrap();
    let sparse: Vec<_> = loader(LoaderOptions::default()).epoch(0).unwrap().collect();
    let options = LoaderOptions::default().with_layout(Layout::Dense).with_output(OutputType::F64);
    for (dense, sparse) in loader(options).epoch(0).unwrap().zip(sparse) {
        let (dense, sparse) = (dense.unwrap(), sparse.unwrap());
        let X::Csr { indptr, indices, data } = sparse.x() else { panic!("not sparse") };
        let Data::F64(values) = dense.x().data() else { panic!("not f64") };
        assert_eq!(values.len(), dense.n_cells() * 8);
        let mut want = vec![0f64; values.len()];
        for cell in 0..sparse.n_cells() {
            for i in indptr[cell] as usize..indptr[cell + 1] as usize {
                want[cell * 8 + indices[i] as usize] = f64::from(data.as_f32().unwrap()[i]);
            }
        }
        assert_eq!(*values, want);
    }
    // Halves are not integers: refused, with the value.
    let options = LoaderOptions::default().with_output(OutputType::I32);
    let error = loader(options).epoch(0).unwrap().find_map(Result::err).unwrap();
    assert!(error.to_string().contains(".5 cannot be had as i32"), "{error}");
}

#[test]
fn the_digest_does_not_depend_on_threads_or_read_ahead() {
    let n = 500;
    let digest = |threads: usize, ahead: usize, memory: u64, epoch| {
        let engine = Engine::new(EngineOptions::default().with_threads(threads));
        let options = LoaderOptions::default()
            .with_obs(["plate"])
            .with_read_ahead(ahead)
            .with_memory(memory)
            .with_engine(Arc::new(engine));
        let loader = Loader::new(store(n), plan(n), options).unwrap();
        let mut digest = Digest::new();
        for minibatch in loader.epoch(epoch).unwrap() {
            digest.update(&minibatch.unwrap(), 1).unwrap();
        }
        digest.hex()
    };
    let want = digest(1, 1, 1 << 30, 0);
    assert_eq!(digest(4, 8, 1 << 30, 0), want);
    assert_eq!(digest(2, 3, 4096, 0), want);
    assert_ne!(digest(1, 1, 1 << 30, 1), want);
}

#[test]
fn a_stream_gives_what_the_iterator_gives_and_epochs_follow_each_other() {
    let n = 50;
    let loader = Loader::new(store(n), plan(n), LoaderOptions::default()).unwrap();
    let stream = loader.epochs(1..3).unwrap().into_stream();
    let minibatches: Vec<_> = block_on(StreamExt::collect(stream.map(Result::unwrap)));
    let rows: Vec<u64> = minibatches.iter().flat_map(|m| m.rows().to_vec()).collect();
    let want = [expected_rows(loader.plan(), 1), expected_rows(loader.plan(), 2)].concat();
    assert_eq!(rows, want);
}

#[test]
fn what_is_missing_is_named_at_once() {
    let new = |options| Loader::new(store(9), plan(9), options).map(|_| ()).unwrap_err();
    let error = new(LoaderOptions::default().with_matrix(MatrixKey::Layer("spliced".into())));
    assert!(error.to_string().contains("the store has X"), "{error}");
    let error = new(LoaderOptions::default().with_obs(["plat"]));
    assert!(error.to_string().contains("plate"), "{error}");
    assert!(Loader::new(store(9), plan(10), LoaderOptions::default()).is_err());
}

/// A store whose reads fail, hang, or cost too much.
#[derive(Debug)]
struct Odd {
    inner: Arc<dyn Backend>,
    fails_from: u64,
    hangs: bool,
    held: u64,
    /// How many fetches it likes to be read at once, and how many are.
    liked: usize,
    reading: Arc<AtomicUsize>,
}

impl Odd {
    fn new(n: u64) -> Self {
        let (inner, reading) = (store(n), Arc::default());
        Self { inner, fails_from: n + 1, hangs: false, held: 0, liked: 1, reading }
    }
}

#[async_trait]
impl Backend for Odd {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }
    fn hints(&self) -> Hints {
        Hints { concurrency: self.liked, ..self.inner.hints() }
    }
    fn cost(&self, _: &MatrixKey, _: &RowRanges) -> Result<ReadCost> {
        Ok(ReadCost { bytes_held: self.held, exact: true, ..ReadCost::default() })
    }
    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.reading.fetch_add(1, Relaxed);
        if self.hangs {
            futures::future::pending::<()>().await;
        }
        if rows.end() > self.fails_from {
            return Err(Error::corrupt("the disk is on fire"));
        }
        self.inner.read_rows(matrix, rows).await
    }
    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }
    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }
    fn archive(&self) -> Option<&dyn Archive> {
        self.inner.archive()
    }
}

#[test]
fn an_error_comes_in_its_place_and_ends_the_run() {
    let odd = Odd { fails_from: 72, ..Odd::new(96) };
    let options = PlanOptions::default().with_batch_size(6).with_fetch_factor(4);
    let plan = Plan::new(96, Strategy::Streaming { shuffle: true }, &options).unwrap();
    let loader = Loader::new(Arc::new(odd), plan, LoaderOptions::default()).unwrap();
    let mut run = loader.epoch(0).unwrap();
    assert_eq!(run.by_ref().take_while(Result::is_ok).count(), 12);
    assert!(run.next().is_none());
}

#[test]
fn dropping_a_run_that_hangs_returns() {
    let odd = Odd { hangs: true, ..Odd::new(96) };
    let loader = Loader::new(Arc::new(odd), plan(96), LoaderOptions::default()).unwrap();
    let start = Instant::now();
    drop(loader.epoch(0).unwrap());
    assert!(start.elapsed() < Duration::from_secs(20));
    // And one that is full, whose producer waits for room.
    let options = LoaderOptions::default().with_memory(4096);
    let loader = Loader::new(store(5000), plan(5000), options).unwrap();
    let mut run = loader.epoch(0).unwrap();
    assert!(run.next().unwrap().is_ok());
    drop(run);
}

#[test]
fn a_store_that_is_far_is_read_as_many_fetches_ahead_as_it_likes() {
    // What it likes, what the options say, and what is read at once.
    for (liked, said, at_once) in [(1, None, 1), (2, None, 1), (4, None, 4), (4, Some(2), 2)] {
        let odd = Odd { hangs: true, liked, ..Odd::new(960) };
        let reading = Arc::clone(&odd.reading);
        let options = LoaderOptions::default().with_read_ahead(said);
        let loader = Loader::new(Arc::new(odd), plan(960), options).unwrap();
        let run = loader.epoch(0).unwrap();
        let start = Instant::now();
        while reading.load(Relaxed) < at_once && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Time for one too many.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(reading.load(Relaxed), at_once, "{liked} {said:?}");
        drop(run);
    }
}

#[test]
fn a_fetch_over_budget_says_what_would_fit() {
    let odd = Odd { held: 100 << 20, ..Odd::new(96) };
    let options = LoaderOptions::default().with_memory(64 << 20);
    let loader = Loader::new(Arc::new(odd), plan(96), options).unwrap();
    let error = loader.epoch(0).unwrap().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OverBudget);
    assert!(error.to_string().contains("lower fetch_factor from 4 to 1"), "{error}");
}

#[test]
fn rows_are_transformed_while_they_are_copied() {
    // Reordered: gene 6 comes before gene 1.
    let genes = ["gene6", "gene1", "gene3"];
    let transform = Transform::default().with_genes(genes).with_normalize_total(100.0).with_log1p();
    // Row r holds r at r % 5 and r + 0.5 at 5 + r % 3.
    let want = |row: u64| {
        let (a, b) = (row as f64, row as f64 + 0.5);
        let made = |x: f64| (x * 100.0 / (a + b)).ln_1p() as f32;
        let at = |gene: u64| match gene {
            g if g == row % 5 => made(a),
            g if g == 5 + row % 3 => made(b),
            _ => 0.0,
        };
        [6, 1, 3].map(at)
    };
    for layout in [Layout::Csr, Layout::Dense] {
        let options =
            LoaderOptions::default().with_transform(transform.clone()).with_layout(layout);
        let loader = Loader::new(store(101), plan(101), options).unwrap();
        assert_eq!(loader.n_vars(), 3);
        let mut cells = 0;
        for minibatch in loader.epoch(0).unwrap() {
            let minibatch = minibatch.unwrap();
            assert_eq!(minibatch.n_vars(), 3);
            for (cell, &row) in minibatch.rows().iter().enumerate() {
                let got: Vec<f32> = match minibatch.x() {
                    X::Dense { data } => data.as_f32().unwrap()[cell * 3..cell * 3 + 3].to_vec(),
                    X::Csr { indptr, indices, data } => {
                        let span = indptr[cell] as usize..indptr[cell + 1] as usize;
                        assert!(indices[span.clone()].is_sorted());
                        let mut got = vec![0.0; 3];
                        for i in span {
                            got[indices[i] as usize] = data.as_f32().unwrap()[i];
                        }
                        got
                    }
                };
                for (got, want) in got.iter().zip(want(row)) {
                    assert!((got - want).abs() <= 2e-7 * want.abs(), "{row}: {got} {want}");
                }
                cells += 1;
            }
        }
        assert_eq!(cells, 101);
    }
    let options = LoaderOptions::default().with_transform(Transform::default().with_genes(["x"]));
    let error = Loader::new(store(9), plan(9), options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("genes are not in the matrix: x"), "{error}");
}

/// A store that leaves gene indices to whoever copies the rows.
#[derive(Debug)]
struct Unchecked {
    inner: Arc<dyn Backend>,
    rows: Vec<(Vec<u32>, Vec<f32>)>,
    check: Arc<RowCheck>,
}

impl Unchecked {
    /// 24 cells of 8 genes, all alike but for one of them.
    fn new(odd: (u64, &[u32]), check: RowCheck) -> Arc<Self> {
        let row = |r: u64| {
            let genes = if r == odd.0 { odd.1.to_vec() } else { vec![1, 4, 6] };
            let values = genes.iter().map(|&g| (r * 10) as f32 + g as f32).collect();
            (genes, values)
        };
        let rows = (0..24).map(row).collect();
        Arc::new(Self { inner: store(24), rows, check: Arc::new(check) })
    }
}

#[async_trait]
impl Backend for Unchecked {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }
    fn hints(&self) -> Hints {
        self.inner.hints()
    }
    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.inner.cost(matrix, rows)
    }
    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.read_stored(matrix, rows).await?.canonical(rows)
    }
    async fn read_stored(&self, _: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        // A segment for each range, so that rows are told apart across several.
        let segment = |range: &std::ops::Range<u64>| {
            let rows = range.clone().map(|r| &self.rows[usize::try_from(r).unwrap()]);
            let (genes, values): (Vec<_>, Vec<_>) = rows.clone().cloned().unzip();
            let mut indptr = vec![0u64];
            rows.for_each(|(g, _)| indptr.push(indptr[indptr.len() - 1] + g.len() as u64));
            let (genes, values) = (genes.concat(), values.concat());
            StoredSegment::unchecked(indptr.into(), genes.into(), values.into(), &self.check)
        };
        Ok(StoredRows::new(rows.as_slice().iter().map(segment).collect::<Result<_>>()?))
    }
    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }
    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }
    fn archive(&self) -> Option<&dyn Archive> {
        None
    }
}

#[test]
fn rows_that_nobody_looked_at_are_looked_at_when_they_are_copied() {
    let check = || RowCheck::new(8, "a.h5ad", "X/indices");
    let options = [
        LoaderOptions::default(),
        LoaderOptions::default().with_layout(Layout::Dense),
        LoaderOptions::default().with_transform(Transform::default().with_binarize(0.0)),
    ];
    for options in options {
        // Indices that are wrong: refused whatever is made of the row, and named.
        for (genes, sorting, what) in [
            (&[1u32, 4, 8][..], true, "gene index 8 is not below n_vars, 8"),
            (&[1, 8, 4], true, "gene index 8 is not below n_vars, 8"),
            (&[4, 1, 4], true, "gene 4 appears twice"),
            (&[1, 6, 4], false, "gene 4 comes after gene 6"),
            (&[u32::MAX], true, "is not below n_vars"),
        ] {
            let check = if sorting { check().sorting() } else { check() };
            let store = Unchecked::new((13, genes), check);
            let loader = Loader::new(store.clone(), plan(24), options.clone()).unwrap();
            let error = loader.epoch(0).unwrap().find_map(Result::err).unwrap();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let text = error.to_string();
            let place = "(row 13, file a.h5ad, element X/indices)";
            assert!(text.contains(what) && text.contains(place), "{text}");
            // And the same by the read that looks itself.
            let rows = RowRanges::try_from_ranges([1..3, 9..15]).unwrap();
            let error = block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }
    // Rows out of order are sorted, in CSR too.
    let store = Unchecked::new((13, &[6, 1, 4]), check().sorting());
    let rows = RowRanges::single(12..15);
    let found = block_on(store.read_rows(&MatrixKey::X, &rows)).unwrap();
    assert_eq!(found.segments()[0].indices().to_u32_vec(), [1, 4, 6, 1, 4, 6, 1, 4, 6]);
    let loader = Loader::new(store, plan(24), LoaderOptions::default()).unwrap();
    let mut cells = 0;
    for minibatch in loader.epoch(0).unwrap() {
        let minibatch = minibatch.unwrap();
        let X::Csr { indptr, indices, data } = minibatch.x() else { panic!("dense") };
        for (cell, &row) in minibatch.rows().iter().enumerate() {
            let span = indptr[cell] as usize..indptr[cell + 1] as usize;
            assert_eq!(indices[span.clone()], [1, 4, 6]);
            let want = [1.0, 4.0, 6.0].map(|g| (row * 10) as f32 + g);
            assert_eq!(data.as_f32().unwrap()[span], want);
            cells += 1;
        }
    }
    assert_eq!(cells, 24);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_full_queue_wakes_its_producer_once_half_of_it_is_taken() {
    let loader = Loader::new(store(96), plan(96), LoaderOptions::default()).unwrap();
    let mut minibatches = loader.epoch(0).unwrap().map(Result::unwrap);
    let mut next = || Ok(minibatches.next().unwrap());
    let first = next();
    let queue = Queue::new(4 * n_bytes(first.as_ref().unwrap()));
    for minibatch in [first, next(), next(), next()] {
        assert!(block_on(queue.push(minibatch)));
    }
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut push = std::pin::pin!(queue.push(next()));
    assert!(push.as_mut().poll(&mut context).is_pending());
    assert!(queue.pop_blocking().is_some());
    assert_eq!(woken.0.load(Relaxed), 0);
    assert!(queue.pop_blocking().is_some());
    assert_eq!(woken.0.load(Relaxed), 1);
    assert!(push.as_mut().poll(&mut context).is_ready());
}
