//! The `Backend` of Parquet stores: looks matrices and columns up, and leaves the reading to `read` and
//! `column`.

use crate::column::Collector;
use crate::files::{ChunkPlan, Want};
use crate::layout::{self, Column, Opened};
use crate::options::ParquetOptions;
use crate::page::Scratch;
use crate::place::Place;
use crate::read::{Context, Matrix};
use crate::roofline;
use crate::tahoe;
use arrow_array::ArrayRef;
use async_trait::async_trait;
use bytes::Bytes;
use cellfeed_core::io::{Engine, FileSet, Folder, Roofline};
use cellfeed_core::{
    Archive, Backend, CsrRows, Error, Extras, Hints, MatrixKey, ReadCost, Result, RowRanges,
    Schema, Table,
};
use rayon::prelude::*;
use std::path::Path;
use std::sync::Arc;

/// Fetches that are worth reading at once where each read waits long.
const FAR_AT_ONCE: usize = 4;

/// A Parquet file of our own layout, or Tahoe-100M's: one shard, or a folder of them.
#[derive(Debug)]
pub struct ParquetBackend {
    location: String,
    schema: Arc<Schema>,
    context: Arc<Context>,
    matrices: Vec<(MatrixKey, Arc<Matrix>)>,
    columns: Arc<Vec<Column>>,
    var: Table,
    raw_var: Option<Table>,
}

/// Whether a path is a Parquet file with cells in it, or a folder of such, by its bytes.
#[must_use]
pub fn is_parquet(path: &Path) -> bool {
    if path.is_dir() {
        tahoe::looks_like(&FileSet::new(path, Arc::default()))
    } else {
        tahoe::begins_as_parquet(path)
    }
}

impl ParquetBackend {
    /// Opens a store: reads the footers, the page indexes and the genes. Blocks meanwhile.
    ///
    /// # Errors
    /// Of kind `NotFound` or `Io` if the store cannot be opened, `Unsupported` if it is of a newer
    /// version or has no columns that can be cells, `Corrupt` if its footer is damaged or shards are
    /// missing.
    #[allow(clippy::needless_pass_by_value)] // as every backend's
    pub fn open(path: &Path, engine: Arc<Engine>, options: &ParquetOptions) -> Result<Self> {
        Self::open_place(&Place::local(path, &engine), engine, options)
    }

    /// As [`open`](Self::open), a file in a folder, wherever that is; with an empty name the folder
    /// itself, of shards.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(
        folder: Arc<dyn Folder>,
        name: &str,
        engine: Arc<Engine>,
        options: &ParquetOptions,
    ) -> Result<Self> {
        let location = folder.place(name);
        Self::open_place(&Place { folder, name: name.to_owned(), location }, engine, options)
    }

    #[allow(clippy::needless_pass_by_value)] // it becomes the store's
    fn open_place(place: &Place, engine: Arc<Engine>, options: &ParquetOptions) -> Result<Self> {
        let opened = match tahoe::shards(place, options)? {
            Some(shards) => tahoe::open(place, &engine, options, shards)?,
            None => layout::open(place, &engine)?,
        };
        let Opened { schema, context, matrices, columns, var, raw_var } = opened;
        Ok(Self {
            location: place.location.clone(),
            schema: Arc::new(schema),
            context: Arc::new(context),
            matrices,
            columns: Arc::new(columns),
            var,
            raw_var,
        })
    }

    /// The bare limits of the machine for the pages that `read_rows` of these fetches needs: for
    /// benchmarks. Blocks, and works on `threads` threads of its own.
    ///
    /// # Errors
    /// As [`read_rows`](Backend::read_rows).
    #[doc(hidden)]
    pub fn roofline(
        &self,
        matrix: &MatrixKey,
        fetches: &[RowRanges],
        threads: usize,
    ) -> Result<Roofline> {
        for rows in fetches {
            rows.check_within(self.schema.n_obs)?;
        }
        roofline::measure(&self.context, self.matrix(matrix)?, fetches, threads)
    }

    fn matrix(&self, key: &MatrixKey) -> Result<&Arc<Matrix>> {
        self.schema.pick(key, &self.matrices)
    }

    fn blame(&self, error: Error) -> Error {
        error.with_default("file", &self.location)
    }
}

#[async_trait]
impl Backend for ParquetBackend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        let files = &self.context.files;
        let leaf = self.matrices.first().map(|(_, m)| m.data);
        let units = leaf.map(|leaf| {
            let pages = files.column(leaf).map(|c| c.pages.get().map_or(1, |p| p.len()));
            pages.sum::<usize>().max(1)
        });
        #[allow(clippy::cast_precision_loss)] // advice
        let rows = units.map(|n| self.schema.n_obs as f64 / n as f64);
        let concurrency = if files.set.is_far() { FAR_AT_ONCE } else { 1 };
        Hints { chunk_rows: rows, concurrency }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        rows.check_within(self.schema.n_obs)?;
        Ok(self.matrix(matrix)?.cost(&self.context, rows))
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        rows.check_within(self.schema.n_obs)?;
        let found = self.matrix(matrix)?;
        let read = found.read(&self.context, rows).await;
        read.map_err(|e| self.blame(e.with_default("element", matrix)))
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        rows.check_within(self.schema.n_obs)?;
        let mut wanted = Vec::with_capacity(columns.len());
        for name in columns {
            self.schema.check_obs(name)?;
            let at = self.columns.iter().position(|c| c.name == *name);
            wanted.push(at.ok_or_else(|| {
                Error::internal(format!("column {name} is in the schema, but was not opened"))
            })?);
        }
        let mut distinct = wanted.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let read = read_columns(&self.context, &self.columns, &distinct, rows);
        let arrays = read.await.map_err(|e| self.blame(e))?;
        let array = |at: &usize| {
            let place = distinct.binary_search(at).ok();
            place.map(|place| Arc::clone(&arrays[place]))
        };
        wanted.iter().map(array).collect::<Option<_>>().ok_or_else(|| Error::internal("columns"))
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        if *matrix != MatrixKey::X {
            self.schema.matrix(matrix)?;
        }
        Ok(match (matrix, &self.raw_var) {
            (MatrixKey::Raw, Some(raw)) => raw.clone(),
            _ => self.var.clone(),
        })
    }

    fn archive(&self) -> Option<&dyn Archive> {
        Some(self)
    }
}

/// Obs columns of rows: all their pages in one read, then a task a column.
async fn read_columns(
    context: &Arc<Context>,
    columns: &Arc<Vec<Column>>,
    wanted: &[usize],
    rows: &RowRanges,
) -> Result<Vec<ArrayRef>> {
    let files = &context.files;
    let wants = files.split(rows);
    let plan = |want: &Want| -> Vec<ChunkPlan> {
        let chunk = |&c: &usize| files.chunk(want.group, columns[c].leaf).plan(&want.rows);
        wanted.iter().map(chunk).collect()
    };
    let plans: Vec<Vec<ChunkPlan>> = wants.iter().map(plan).collect();
    let ranges = wants.iter().zip(&plans).flat_map(|(want, plans)| {
        plans.iter().flat_map(|plan| plan.ranges().map(|range| (want.group, range)))
    });
    let bytes = files.fetch(&context.engine, ranges.collect()).await?;
    let (context, columns, wanted) = (Arc::clone(context), Arc::clone(columns), wanted.to_vec());
    let engine = Arc::clone(&context.engine);
    let decode = move || {
        // Where each plan's bytes begin.
        let mut at = 0;
        let mut starts = Vec::new();
        for plan in plans.iter().flatten() {
            starts.push(at);
            at += plan.ranges().count();
        }
        let one = |(k, &c): (usize, &usize)| {
            let column = &columns[c];
            let work = |scratch: &mut Scratch| {
                let files = &context.files;
                let mut collector = Collector::new(&files.leaves[column.leaf], &column.stored);
                for (i, (want, plans)) in wants.iter().zip(&plans).enumerate() {
                    let start = starts[i * wanted.len() + k];
                    let pieces: &[Bytes] = &bytes[start..start + plans[k].ranges().count()];
                    let group = &files.groups[want.group];
                    let chunk = files.chunk(want.group, column.leaf);
                    let place = (group.first_row, group.n_rows);
                    collector
                        .add(chunk, (&plans[k], pieces), &want.rows, place, scratch)
                        .map_err(|e| files.blame(e, want.group))?;
                }
                collector.finish()
            };
            let read = context.with_scratch(work);
            read.map_err(|e| e.with_default("element", format_args!("obs/{}", column.name)))
        };
        wanted.par_iter().enumerate().map(one).collect()
    };
    engine.compute(decode).await
}

#[async_trait]
impl Archive for ParquetBackend {
    async fn read_extras(&self, _limit: u64) -> Result<Extras> {
        // The format keeps none.
        Ok(Extras::default())
    }

    fn column_cost(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<ReadCost> {
        self.matrix(matrix)?;
        Err(self.blame(by_rows(matrix)))
    }

    async fn read_columns(&self, matrix: &MatrixKey, _genes: &RowRanges) -> Result<CsrRows> {
        self.matrix(matrix)?;
        Err(self.blame(by_rows(matrix)))
    }
}

fn by_rows(matrix: &MatrixKey) -> Error {
    Error::unsupported(format!("{matrix} is stored by rows; read rows of it"))
}
