//! Collections as annbatch writes them: a group of AnnData groups `dataset_0`, `dataset_1`, ..., read as
//! one store of their cells end to end.

use crate::group::Group;
use crate::meta::node;
use crate::read::{Context, as_u64};
use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::Folder;
use cellfeed_core::{
    Archive, Backend, ConcatBackend, ConcatOptions, CsrRows, Error, Hints, MatrixKey, ReadCost,
    Result, RowRanges, Schema, StoredRows, Table,
};
use std::sync::Arc;

/// How annbatch marks a collection.
const MARK: &str = "annbatch-preshuffled";

/// Names of the datasets if the store is a collection: marked as one, or without `obs` but with
/// datasets in it.
pub(crate) fn datasets(root: &dyn Folder) -> Result<Option<Vec<String>>> {
    let Some(top) = node(root, "")? else { return Ok(None) };
    let marked = top.text("encoding-type") == Some(MARK);
    if top.array.is_some() || (!marked && node(root, "obs")?.is_some()) {
        return Ok(None);
    }
    let mut found: Vec<(u64, String)> = Vec::new();
    for name in crate::meta::members(root, "")? {
        let number = name.strip_prefix("dataset_").and_then(|n| n.parse().ok());
        if let Some(number) = number {
            found.push((number, name));
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        return if marked {
            Err(Error::corrupt("the collection has no dataset"))
        } else {
            Ok(None)
        };
    }
    // They are numbered from 0: a gap is a dataset that was lost, and cells with it.
    for (n, (number, name)) in found.iter().enumerate() {
        if *number != as_u64(n) {
            return Err(Error::corrupt(format!(
                "the collection has {name}, but no dataset_{n}: copy it again, whole"
            )));
        }
    }
    Ok(Some(found.into_iter().map(|(_, name)| name).collect()))
}

/// Opens datasets.
pub(crate) fn open(context: &Context, datasets: &[String]) -> Result<Vec<Arc<Group>>> {
    let mut groups = Vec::with_capacity(datasets.len());
    for name in datasets {
        let group = Group::open(context, name).map_err(|e| e.with_default("element", name))?;
        groups.push(Arc::new(group));
    }
    Ok(groups)
}

/// Datasets as one store.
pub(crate) fn join(context: &Context, groups: &[Arc<Group>]) -> Result<Arc<dyn Backend>> {
    let groups = groups.iter().map(|g| Arc::clone(g) as Arc<dyn Backend>).collect();
    let engine = Arc::clone(&context.engine);
    let joined = ConcatBackend::try_new(groups, &ConcatOptions::default(), engine)?;
    let schema = Schema {
        format: "zarr".to_owned(),
        location: context.files.location().to_owned(),
        ..Schema::clone(joined.schema())
    };
    Ok(Arc::new(Collection { joined, schema: Arc::new(schema) }))
}

/// Datasets joined, under the name of the collection.
#[derive(Debug)]
struct Collection {
    joined: ConcatBackend,
    schema: Arc<Schema>,
}

#[async_trait]
impl Backend for Collection {
    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn hints(&self) -> Hints {
        self.joined.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.joined.cost(matrix, rows)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        self.joined.read_rows(matrix, rows).await
    }

    async fn read_stored(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<StoredRows> {
        self.joined.read_stored(matrix, rows).await
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.joined.read_obs(columns, rows).await
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.joined.read_var(matrix).await
    }

    fn archive(&self) -> Option<&dyn Archive> {
        self.joined.archive()
    }
}
