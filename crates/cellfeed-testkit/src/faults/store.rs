//! The store in memory with one defect.

use super::Fault;
use arrow_array::{Array, ArrayRef};
use async_trait::async_trait;
use cellfeed_core::{
    Archive, Backend, BackendExt, CsrRows, CsrSegment, EncodedRows, Error, Hints, Indices,
    MatrixKey, MemoryBackend, ReadCost, Result, RowBuffer, RowRanges, Schema, StoredRows,
    StoredSegment, Table, ValueType, Values,
};
use futures::future::pending;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Faulty {
    inner: MemoryBackend,
    fault: Fault,
    calls: AtomicU64,
    locked: AtomicBool,
    cursor: Mutex<RowRanges>,
}

#[async_trait]
impl Backend for Faulty {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        match self.fault {
            Fault::CostUnbounded => self.inner.cost(matrix, &self.within(rows)),
            _ => self.inner.cost(matrix, rows),
        }
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        let counted = self.fault != Fault::ObsPermitsLost;
        let call = if counted { self.calls.fetch_add(1, SeqCst) } else { 0 };
        match self.fault {
            Fault::RangesReversed => {
                let answer = self.inner.read_rows(matrix, rows).await?;
                Ok(CsrRows::new(answer.segments().iter().rev().cloned().collect()))
            }
            Fault::GapsIgnored if !rows.is_empty() && rows.end() <= self.schema().n_obs => {
                let start = rows.as_slice()[0].start;
                self.inner.read_rows(matrix, &RowRanges::single(start..start + rows.n_rows())).await
            }
            Fault::LayerFromX => {
                let layer = matches!(matrix, MatrixKey::Layer(_));
                self.inner.read_rows(if layer { &MatrixKey::X } else { matrix }, rows).await
            }
            Fault::ShorterAnswer => self.inner.read_rows(matrix, &self.within(rows)).await,
            Fault::EmptyRefused if rows.is_empty() => {
                Err(Error::invalid_input("no rows were asked for"))
            }
            Fault::MissingIsCorrupt => {
                let missing = |e: Error| Error::corrupt(e.message().to_owned());
                self.inner.read_rows(matrix, rows).await.map_err(missing)
            }
            Fault::SharedCursor => {
                self.set_cursor(rows);
                Yield::default().await;
                self.inner.read_rows(matrix, &self.cursor()).await
            }
            Fault::LockKept | Fault::LeftBusy => {
                while self.locked.swap(true, SeqCst) {
                    if self.fault == Fault::LeftBusy {
                        return Err(Error::internal("the store is in use"));
                    }
                    pending::<()>().await;
                }
                Yield::default().await;
                let answer = self.inner.read_rows(matrix, rows).await;
                self.locked.store(false, SeqCst);
                answer
            }
            Fault::ReadsWhilePolled => {
                let file = std::env::current_exe().and_then(std::fs::File::open);
                let read = file.and_then(|mut f| f.read_exact(&mut [0; 64]));
                read.map_err(|e| Error::io("cannot read", e))?;
                self.inner.read_rows(matrix, rows).await
            }
            Fault::WaitsWhilePolled => {
                let other = std::thread::spawn(|| std::thread::sleep(Duration::from_micros(200)));
                other.join().map_err(|_| Error::internal("a thread panicked"))?;
                self.inner.read_rows(matrix, rows).await
            }
            _ => {
                let answer = self.inner.read_rows(matrix, rows).await?;
                let n_vars = self.schema().matrix(matrix)?.n_vars();
                let inside = rows.as_slice().first().is_some_and(|r| r.start > 0);
                let segments = answer.segments().iter();
                let segments = segments.map(|s| self.spoil(s, n_vars, call, inside));
                Ok(CsrRows::new(segments.collect::<Result<_>>()?))
            }
        }
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        let answer = self.read_rows(matrix, rows).await?;
        match self.fault {
            Fault::StoredReversed => {
                let n = u32::try_from(answer.n_rows()).unwrap_or(u32::MAX);
                answer.gather(&(0..n).rev().collect::<Vec<_>>()).map(StoredRows::from)
            }
            Fault::DecodedOtherwise => {
                let segments = answer.segments().iter().cloned().map(Otherwise);
                let segments = segments.map(|s| StoredSegment::encoded(Arc::new(s)));
                Ok(StoredRows::new(segments.collect()))
            }
            _ => Ok(answer.into()),
        }
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        let call = self.calls.fetch_add(1, SeqCst);
        match self.fault {
            Fault::ShorterObs => self.inner.read_obs(columns, &self.within(rows)).await,
            Fault::MissingUnlisted => {
                let unlisted = |e: Error| Error::new(e.kind(), "no such column");
                self.inner.read_obs(columns, rows).await.map_err(unlisted)
            }
            Fault::SharedObsCursor => {
                self.set_cursor(rows);
                Yield::default().await;
                self.inner.read_obs(columns, &self.cursor()).await
            }
            Fault::ObsPermitsLost => {
                // `calls` counts the permits that are out.
                if call >= 64 {
                    pending::<()>().await;
                }
                Yield::default().await;
                let answer = self.inner.read_obs(columns, rows).await;
                self.calls.fetch_sub(1, SeqCst);
                answer
            }
            Fault::ObsOffByOne => {
                rows.check_within(self.schema().n_obs)?;
                let back = rows.iter_rows().map(|row| row.saturating_sub(1));
                self.gather(columns, back.collect()).await
            }
            Fault::ObsRemembers => {
                rows.check_within(self.schema().n_obs)?;
                let shift = if call % 4 == 3 { 1 } else { 0 };
                let last = self.schema().n_obs.saturating_sub(1);
                self.gather(columns, rows.iter_rows().map(|r| (r + shift).min(last)).collect())
                    .await
            }
            Fault::ObsInStoreOrder => {
                let position =
                    |name: &String| self.schema().obs.iter().position(|c| c.name == *name);
                let mut columns = columns.to_vec();
                columns.sort_by_key(position);
                self.inner.read_obs(&columns, rows).await
            }
            Fault::NullsFilled => {
                let arrays = self.inner.read_obs(columns, rows).await?;
                Ok(arrays.iter().map(|array| without_nulls(array)).collect())
            }
            _ => self.inner.read_obs(columns, rows).await,
        }
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let table = self.inner.read_var(matrix).await?;
        let index = || {
            let (name, names) = table.index()?;
            Some((name.to_owned(), Arc::new(names.clone()) as ArrayRef))
        };
        let columns = table.columns().iter().cloned();
        match self.fault {
            Fault::RawVarFromX if *matrix == MatrixKey::Raw => {
                self.inner.read_var(&MatrixKey::X).await
            }
            Fault::VarReversed => Table::try_new(table.n_rows(), index(), columns.rev().collect()),
            Fault::VarNamesAlone => Table::try_new(table.n_rows(), index(), Vec::new()),
            Fault::VarOffByOne => {
                let genes = 0..u32::try_from(table.n_rows()).unwrap_or(0);
                let back: Vec<u32> = genes.map(|gene| gene.saturating_sub(1)).collect();
                let moved = columns.map(|(c, array)| Ok((c, cellfeed_core::take(&array, &back)?)));
                Table::try_new(table.n_rows(), index(), moved.collect::<Result<_>>()?)
            }
            _ => Ok(table),
        }
    }

    fn archive(&self) -> Option<&dyn Archive> {
        self.inner.archive()
    }
}

impl Faulty {
    pub(super) fn new(inner: MemoryBackend, fault: Fault) -> Self {
        let (calls, locked) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { inner, fault, calls, locked, cursor: Mutex::new(RowRanges::empty()) }
    }

    /// The rows that there are.
    fn within(&self, rows: &RowRanges) -> RowRanges {
        let n_obs = self.schema().n_obs;
        let ranges = rows.as_slice().iter().filter(|r| r.start < n_obs);
        let ranges = ranges.map(|r| r.start..r.end.min(n_obs));
        RowRanges::try_from_ranges(ranges).unwrap_or_default()
    }

    fn set_cursor(&self, rows: &RowRanges) {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = rows.clone();
    }

    fn cursor(&self) -> RowRanges {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obs columns for rows in any order.
    async fn gather(&self, columns: &[String], rows: Vec<u64>) -> Result<Vec<ArrayRef>> {
        let mut out = Vec::new();
        for column in columns {
            let whole = self.inner.read_obs_column(column).await?;
            let rows: Vec<u32> = rows.iter().filter_map(|&r| u32::try_from(r).ok()).collect();
            out.push(cellfeed_core::take(&whole, &rows)?);
        }
        Ok(out)
    }

    /// A segment with the defect.
    fn spoil(&self, good: &CsrSegment, n_vars: u64, call: u64, inside: bool) -> Result<CsrSegment> {
        let mut indptr = good.indptr().to_vec();
        let mut genes = good.indices().to_u32_vec();
        let (values, t) = (good.values().to_f64_vec(), good.values().value_type());
        match self.fault {
            Fault::ValuesWidened if t == ValueType::F32 => {
                segment(indptr, genes, values.into(), n_vars)
            }
            Fault::OneValueWrong | Fault::SecondAnswerDiffers if t == ValueType::U16 => {
                let mut values = whole_numbers(&values);
                if let Some(value) = values.last_mut()
                    && (self.fault == Fault::OneValueWrong || call % 2 == 1)
                {
                    *value ^= 1;
                }
                segment(indptr, genes, values.into(), n_vars)
            }
            Fault::GenesPastNVars => {
                let past = u32::try_from(n_vars).unwrap_or(0);
                if let Some(gene) = genes.last_mut() {
                    *gene += past;
                }
                segment(indptr, genes, good.values().clone(), n_vars * 2)
            }
            Fault::ZerosDropped if t == ValueType::U16 => {
                let values = whole_numbers(&values);
                let before = |end: &u64| {
                    let end = usize::try_from(*end).unwrap_or(usize::MAX);
                    values.iter().take(end).filter(|v| **v != 0).count()
                };
                let kept = indptr.iter().map(|p| u64::try_from(before(p)).unwrap_or(0)).collect();
                let genes = genes.iter().zip(&values).filter(|(_, v)| **v != 0).map(|(g, _)| *g);
                let nonzero: Vec<u16> = values.iter().copied().filter(|v| *v != 0).collect();
                segment(kept, genes.collect(), nonzero.into(), n_vars)
            }
            Fault::PartsDiffer if inside && !genes.is_empty() => {
                genes.remove(0);
                indptr.iter_mut().for_each(|p| *p = p.saturating_sub(1));
                segment(indptr, genes, good.values().slice(1, good.nnz() - 1), n_vars)
            }
            _ => Ok(good.clone()),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // they were u16 before
fn whole_numbers(values: &[f64]) -> Vec<u16> {
    values.iter().map(|&v| v as u16).collect()
}

fn segment(indptr: Vec<u64>, genes: Vec<u32>, values: Values, n_vars: u64) -> Result<CsrSegment> {
    CsrSegment::try_new(indptr.into(), Indices::from(genes), values, n_vars)
}

/// Rows that are decoded to their number by themselves, and to what they are together.
#[derive(Debug)]
struct Otherwise(CsrSegment);

impl EncodedRows for Otherwise {
    fn indptr(&self) -> &[u64] {
        self.0.indptr()
    }

    fn encoded(&self, _row: usize) -> &[u8] {
        &[]
    }

    fn decode(&self, row: usize, into: &mut RowBuffer) -> Result<()> {
        let at = |i: usize| usize::try_from(self.0.indptr()[i]).unwrap_or(usize::MAX);
        let span = at(row)..at(row + 1);
        let found = self.0.indices().to_u32_vec();
        let (genes, values) = into.places::<u32, u8>(span.len());
        genes.copy_from_slice(&found[span]);
        values.fill(u8::try_from(row % 200).unwrap_or(0));
        Ok(())
    }

    fn decode_all(&self) -> Result<CsrSegment> {
        Ok(self.0.clone())
    }

    fn n_bytes(&self) -> usize {
        self.0.nnz()
    }
}

/// The same values with no nulls among them.
fn without_nulls(array: &ArrayRef) -> ArrayRef {
    let data = array.to_data().into_builder().nulls(None).build();
    data.map_or_else(|_| Arc::clone(array), arrow_array::make_array)
}

/// Is pending once.
#[derive(Default)]
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
