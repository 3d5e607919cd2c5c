//! Several stores as one: their cells end to end, genes aligned by name.
//!
//! ```text
//! mod.rs      the backend: which rows are whose, and what reading them costs
//! genes.rs    lists of genes joined, and rows carried over to the joined list
//! columns.rs  obs columns that all stores have, in one kind
//! ```

mod columns;
mod genes;

#[cfg(test)]
mod tests;

use crate::backend::{Archive, Backend, Hints, ReadCost};
use crate::csr::{CsrRows, StoredRows};
use crate::io::Engine;
use crate::rows::RowRanges;
use crate::schema::{ColumnKind, MatrixKey, MatrixSchema, Schema, VarSchema};
use crate::table::Table;
use crate::value::ValueType;
use crate::{Error, Result, as_u64};
use arrow_array::ArrayRef;
use async_trait::async_trait;
use columns::{Column, join_columns};
use futures::future::try_join_all;
use genes::{GeneMap, Genes};
use std::sync::Arc;

/// Which genes several stores have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Join {
    /// Those that all stores have, in the order of the first.
    #[default]
    Inner,
    /// Those that any store has, in the order in which they are met; where a store lacks a gene, its
    /// cells have no value of it.
    Outer,
}

/// How stores are put together.
#[derive(Debug, Clone, Default)]
pub struct ConcatOptions {
    join: Join,
    label: Option<String>,
}

impl ConcatOptions {
    /// Which genes stay. Default: those that all stores have.
    #[must_use]
    pub fn with_join(mut self, join: Join) -> Self {
        self.join = join;
        self
    }

    /// Adds a categorical obs column of this name that says which store a cell is of, by its
    /// location. Default: none.
    #[must_use]
    pub fn with_label(mut self, column: impl Into<String>) -> Self {
        self.label = Some(column.into());
        self
    }

    /// The column that says which store a cell is of, if it is wanted.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }
}

/// A matrix of all stores.
#[derive(Debug)]
struct Joined {
    key: MatrixKey,
    value_type: ValueType,
    /// For each store, how its genes are numbered here.
    maps: Vec<GeneMap>,
}

/// Stores of any formats as one, which holds the cells of the first, then those of the second, and so
/// on.
///
/// Matrices and obs columns are those that all stores have; what only some have is listed in the
/// schema with the reason, as unreadable. Where all stores have the same genes in the same order, rows
/// pass through untouched.
#[derive(Debug)]
pub struct ConcatBackend {
    schema: Arc<Schema>,
    engine: Arc<Engine>,
    stores: Vec<Arc<dyn Backend>>,
    /// The first cell of each store, and one past the last of all.
    starts: Vec<u64>,
    matrices: Vec<Joined>,
    columns: Vec<Column>,
    x: Genes,
    raw: Option<Genes>,
}

impl ConcatBackend {
    /// Puts stores together. Rows are carried over on the engine's compute threads. Blocks while the
    /// stores say of what type their integer columns are. If less than half of the genes of the store that
    /// has the fewest are common to all, that is a [warning](crate::io::ReadStats::take_warnings) of the
    /// engine's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is no store, if genes have
    /// to be aligned and a store has none of their names or one twice, if no gene is common to all, or
    /// if the label is the name of a column.
    pub fn try_new(
        stores: Vec<Arc<dyn Backend>>,
        options: &ConcatOptions,
        engine: Arc<Engine>,
    ) -> Result<Self> {
        let Some(first) = stores.first() else {
            return Err(Error::invalid_input("no stores to put together; name at least one"));
        };
        let schemas: Vec<Arc<Schema>> = stores.iter().map(|s| Arc::clone(s.schema())).collect();
        let mut starts = vec![0u64];
        for schema in &schemas {
            let start = starts.last().copied().unwrap_or(0);
            let end = start.checked_add(schema.n_obs);
            starts.push(end.ok_or_else(|| Error::invalid_input("more than 2^64 cells"))?);
        }
        let places: Vec<&str> = schemas.iter().map(|s| s.location.as_str()).collect();
        let vars: Vec<Arc<VarSchema>> = schemas.iter().map(|s| Arc::clone(&s.var)).collect();
        let x = Genes::join(&vars, &places, options.join)?;
        if let Some(warning) = x.few(&vars, "genes") {
            engine.stats().warn(warning);
        }
        let (mut matrices, mut described, mut raw) = (Vec::new(), Vec::new(), None);
        for key in keys(&schemas) {
            let found: Vec<&MatrixSchema> = schemas.iter().filter_map(|s| s.find(&key)).collect();
            let Some(head) = found.first() else { continue };
            let value_type = found.iter().fold(head.value_type, |t, m| wider(t, m.value_type));
            let mut schema = MatrixSchema {
                key: key.clone(),
                encoding: head.encoding,
                value_type,
                nnz: None,
                var: Arc::clone(&x.var),
                arrays: Vec::new(),
                unreadable: None,
            };
            if found.len() < schemas.len() {
                schema.unreadable = Some(only(found.len(), schemas.len()));
            } else if let Some(m) = found.iter().find(|m| m.unreadable.is_some()) {
                schema.unreadable.clone_from(&m.unreadable);
            } else if key == MatrixKey::Raw {
                let vars: Vec<Arc<VarSchema>> = found.iter().map(|m| Arc::clone(&m.var)).collect();
                match Genes::join(&vars, &places, options.join) {
                    Ok(genes) => {
                        if let Some(warning) = genes.few(&vars, "genes of raw") {
                            engine.stats().warn(warning);
                        }
                        schema.var = Arc::clone(&genes.var);
                        raw = Some(genes);
                    }
                    Err(e) => schema.unreadable = Some(e.to_string()),
                }
            }
            if schema.unreadable.is_none() {
                let genes = raw.as_ref().filter(|_| key == MatrixKey::Raw).unwrap_or(&x);
                // What is left out of a row is not known without reading it.
                let whole = genes.maps.iter().all(GeneMap::keeps_all);
                let nnz = found.iter().map(|m| m.nnz).sum::<Option<u64>>();
                schema.nnz = nnz.filter(|_| whole);
                matrices.push(Joined { key, value_type, maps: genes.maps.clone() });
            }
            described.push(schema);
        }
        let obs_index = schemas.iter().all(|s| s.obs_index.is_some());
        let obs_index = schemas[0].obs_index.clone().filter(|_| obs_index);
        let (columns, obs) = join_columns(&stores, obs_index.as_deref(), options.label.as_deref())?;
        let schema = Schema {
            format: if stores.len() == 1 { first.schema().format.clone() } else { "joined".into() },
            location: places.join(" + "),
            writer: None,
            n_obs: starts.last().copied().unwrap_or(0),
            matrices: described,
            obs_index,
            obs,
            var: Arc::clone(&x.var),
        };
        Ok(Self { schema: Arc::new(schema), engine, stores, starts, matrices, columns, x, raw })
    }

    fn joined(&self, key: &MatrixKey) -> Result<&Joined> {
        self.schema.matrix(key)?;
        let found = self.matrices.iter().find(|m| m.key == *key);
        found.ok_or_else(|| Error::internal(format!("matrix {key} is in the schema alone")))
    }

    /// Rows by store, in the store's own numbers; stores of which no row is wanted are left out.
    fn split(&self, rows: &RowRanges) -> Result<Vec<(usize, RowRanges)>> {
        rows.check_within(self.schema.n_obs)?;
        let mut parts: Vec<(usize, RowRanges)> = Vec::new();
        let mut store = 0;
        for range in rows.as_slice() {
            let mut start = range.start;
            while start < range.end {
                while self.starts[store + 1] <= start {
                    store += 1;
                }
                let end = range.end.min(self.starts[store + 1]);
                let base = self.starts[store];
                if parts.last().is_none_or(|(s, _)| *s != store) {
                    parts.push((store, RowRanges::empty()));
                }
                if let Some((_, part)) = parts.last_mut() {
                    part.push(start - base..end - base);
                }
                start = end;
            }
        }
        Ok(parts)
    }

    fn untouched(&self, joined: &Joined, store: usize) -> bool {
        let stored = self.stores[store].schema().find(&joined.key);
        matches!(joined.maps[store], GeneMap::Same)
            && stored.is_some_and(|m| m.value_type == joined.value_type)
    }
}

/// Every matrix of any store, in the order in which they are met.
fn keys(schemas: &[Arc<Schema>]) -> Vec<MatrixKey> {
    let mut keys = Vec::new();
    for matrix in schemas.iter().flat_map(|s| &s.matrices) {
        if !keys.contains(&matrix.key) {
            keys.push(matrix.key.clone());
        }
    }
    keys
}

fn only(have: usize, all: usize) -> String {
    format!("only {have} of the {all} stores have it; all must")
}

/// The smallest type that holds the values of both; beyond 32 bits of integers mixed with floats, the
/// one that holds most of them, and the others are an error when they are met.
fn wider(a: ValueType, b: ValueType) -> ValueType {
    use ValueType::{F16, F32, F64, I8, I16, I32, I64};
    if a == b {
        return a;
    }
    let float = |t| matches!(t, F16 | F32 | F64);
    let signed = |t| matches!(t, I8 | I16 | I32 | I64);
    let size = a.size().max(b.size());
    match (float(a), float(b)) {
        (true, true) => [F32, F64][usize::from(size == 8)],
        (false, false) if signed(a) == signed(b) => {
            if a.size() > b.size() {
                a
            } else {
                b
            }
        }
        (false, false) => {
            let (s, u) = if signed(a) { (a, b) } else { (b, a) };
            if s.size() > u.size() {
                return s;
            }
            match u.size() {
                1 => I16,
                2 => I32,
                _ => I64,
            }
        }
        _ => {
            let (f, i) = if float(a) { (a, b) } else { (b, a) };
            match (f, i.size()) {
                (F16, 1) => F16,
                (F16 | F32, 1 | 2) => F32,
                _ => F64,
            }
        }
    }
}

#[async_trait]
impl Backend for ConcatBackend {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        let hints = || self.stores.iter().map(|s| s.hints());
        Hints {
            chunk_rows: hints().filter_map(|h| h.chunk_rows).reduce(f64::max),
            concurrency: hints().map(|h| h.concurrency).max().unwrap_or(1),
        }
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        let parts = self.split(rows)?;
        let joined = self.joined(matrix)?;
        let mut all = ReadCost { exact: true, ..ReadCost::default() };
        for (store, rows) in parts {
            let mut cost = self.stores[store].cost(matrix, &rows)?;
            if !self.untouched(joined, store) {
                // A copy in wider types, beside the places of the values in it. Answers that share
                // the store's memory cost nothing themselves, so rows are guessed from their mean.
                let schema = self.stores[store].schema();
                let mean = schema.matrix(matrix)?.nnz.unwrap_or(0) / schema.n_obs.max(1) + 1;
                let guess = mean.saturating_mul(rows.n_rows()).saturating_mul(3) / 2;
                let stored = as_u64(schema.matrix(matrix)?.value_type.size()) + 2;
                let values = guess.max(cost.bytes_kept.max(cost.bytes_decoded) / stored);
                let copied = values.saturating_mul(as_u64(joined.value_type.size()) + 4);
                cost.bytes_kept = copied.saturating_add(rows.n_rows() * 8);
                let beside = cost.bytes_kept.saturating_add(values.saturating_mul(16));
                cost.bytes_held = cost.bytes_held.saturating_add(beside);
                cost.exact = false;
            }
            all.bytes_read = all.bytes_read.saturating_add(cost.bytes_read);
            all.bytes_decoded = all.bytes_decoded.saturating_add(cost.bytes_decoded);
            all.bytes_held = all.bytes_held.saturating_add(cost.bytes_held);
            all.bytes_kept = all.bytes_kept.saturating_add(cost.bytes_kept);
            all.exact &= cost.exact;
        }
        Ok(all)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.read_stored(matrix, rows).await?.canonical_on(&self.engine, rows).await
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        let parts = self.split(rows)?;
        let joined = self.joined(matrix)?;
        let reads = parts.iter().map(|(store, rows)| async move {
            let backend = &self.stores[*store];
            if self.untouched(joined, *store) {
                let found = backend.read_stored(matrix, rows).await?;
                return Ok(found.numbered_after(self.starts[*store]));
            }
            let found = backend.read_rows(matrix, rows).await?;
            let (map, value_type) = (joined.maps[*store].clone(), joined.value_type);
            let location = backend.schema().location.clone();
            let carried = self.engine.compute(move || map.carry(&found, value_type)).await;
            let carried = carried.map_err(|e| e.with("element", matrix).with("file", location))?;
            Ok(StoredRows::from(carried))
        });
        Ok(StoredRows::join(try_join_all(reads).await?))
    }

    async fn will_read(&self, matrix: &MatrixKey, rows: &RowRanges) {
        // What is wrong with the rows the read will tell.
        for (store, rows) in self.split(rows).unwrap_or_default() {
            self.stores[store].will_read(matrix, &rows).await;
        }
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        let mut parts = self.split(rows)?;
        let mut wanted = Vec::with_capacity(columns.len());
        for name in columns {
            self.schema.check_obs(name)?;
            let found = self.columns.iter().find(|c| c.name == *name);
            let missing = || Error::internal(format!("column {name} is in the schema alone"));
            wanted.push(found.ok_or_else(missing)?);
        }
        // No rows have their types too.
        if parts.is_empty() {
            parts.push((0, RowRanges::empty()));
        }
        let wanted = &wanted;
        let reads = parts.iter().map(|(store, rows)| async move {
            let names = wanted.iter().filter_map(|c| c.stored_name(*store)).collect::<Vec<_>>();
            let found = self.stores[*store].read_obs(&names, rows).await?;
            let mut found = found.iter();
            let convert = |c: &&Column| {
                let stored = c.stored_name(*store).and_then(|_| found.next());
                c.convert(*store, stored, rows.n_rows())
            };
            wanted.iter().map(convert).collect::<Result<Vec<ArrayRef>>>()
        });
        let found: Vec<Vec<ArrayRef>> = try_join_all(reads).await?;
        let column = |i: usize| {
            let parts: Vec<ArrayRef> = found.iter().map(|part| Arc::clone(&part[i])).collect();
            crate::obs::concat(&parts)
        };
        (0..wanted.len()).map(column).collect()
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        let genes = match matrix {
            MatrixKey::X => &self.x,
            key => {
                self.joined(key)?;
                self.raw.as_ref().filter(|_| *key == MatrixKey::Raw).unwrap_or(&self.x)
            }
        };
        if !genes.aligned {
            return self.stores[0].read_var(matrix).await;
        }
        Table::of_names(genes.var.n_vars, &genes.var.names)
    }

    fn verify_files(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Option<u64>> {
        let mut all = None;
        for store in &self.stores {
            if let Some(bytes) = store.verify_files(progress)? {
                all = Some(all.unwrap_or(0) + bytes);
            }
        }
        Ok(all)
    }

    /// None: matrices by columns and what lies beside obs and var are of each store alone.
    fn archive(&self) -> Option<&dyn Archive> {
        None
    }
}

/// Whether a column can be read.
fn readable(kind: &ColumnKind) -> bool {
    !matches!(kind, ColumnKind::Unreadable(_))
}
