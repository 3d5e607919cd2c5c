//! A selection of genes: which columns stay, and rows and tables of those alone.

use crate::Store;
use arrow_array::{Array, ArrayRef};
use cellfeed_core::{CsrRows, CsrSegment, Error, Indices, Result, Table, take};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Genes of `X` and the layers that stay, in the store's order.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// The new number of each gene of the store, if it stays.
    number: Arc<Vec<Option<u32>>>,
    kept: Arc<Vec<u32>>,
    pub(super) missing: Vec<String>,
}

impl Selection {
    /// Looks names up.
    pub(super) fn of(source: &Store, names: &[String]) -> Result<Self> {
        let var = &source.schema().var;
        let blame = |e: Error| e.with("file", &source.schema().location);
        if var.names.is_empty() && var.n_vars > 0 {
            return Err(blame(Error::invalid_input(
                "the store's genes have no names to select by",
            )));
        }
        let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut found: HashMap<&str, u32> = HashMap::new();
        let (mut number, mut kept) = (Vec::with_capacity(var.names.len()), Vec::new());
        for (i, name) in (0u32..).zip(&var.names) {
            if !wanted.contains(name.as_str()) {
                number.push(None);
                continue;
            }
            if found.insert(name, i).is_some() {
                return Err(blame(Error::invalid_input(format!(
                    "two genes are called {name:?}, so it cannot be selected by name"
                ))));
            }
            number.push(Some(u32::try_from(kept.len()).unwrap_or(u32::MAX)));
            kept.push(i);
        }
        let missing: Vec<String> =
            names.iter().filter(|n| !found.contains_key(n.as_str())).cloned().collect();
        if kept.is_empty() {
            return Err(blame(Error::not_found("none of the genes that were asked for are there")));
        }
        Ok(Self { number: Arc::new(number), kept: Arc::new(kept), missing })
    }

    /// The table of the genes that stay.
    pub(super) fn table(&self, var: &Table) -> Result<Table> {
        let n = u64::try_from(self.kept.len()).unwrap_or(u64::MAX);
        let pick = |array: &dyn Array| take(array, &self.kept);
        let index = var.index().map(|(name, names)| Ok((name.to_owned(), pick(names)?)));
        let columns = var.columns().iter().map(|(c, array)| Ok((c.clone(), pick(array)?)));
        let index: Option<(String, ArrayRef)> = index.transpose()?;
        Table::try_new(n, index, columns.collect::<Result<_>>()?)
    }

    /// How many genes.
    pub(super) fn n_vars(&self) -> u64 {
        u64::try_from(self.kept.len()).unwrap_or(u64::MAX)
    }

    /// Rows with those genes alone.
    pub(super) fn rows(&self, rows: &CsrRows) -> Result<CsrRows> {
        let segments = rows.segments().iter().map(|s| self.segment(s)).collect::<Result<_>>()?;
        Ok(CsrRows::new(segments))
    }

    fn segment(&self, segment: &CsrSegment) -> Result<CsrSegment> {
        let genes = |i: usize| match segment.indices() {
            Indices::U16(b) => usize::from(b[i]),
            Indices::U32(b) => usize::try_from(b[i]).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let (mut indptr, mut indices, mut places) = (vec![0u64], Vec::new(), Vec::new());
        for row in segment.indptr().windows(2) {
            let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
            for i in at(row[0])..at(row[1]) {
                if let Some(Some(new)) = self.number.get(genes(i)) {
                    indices.push(*new);
                    places.push(i);
                }
            }
            indptr.push(u64::try_from(indices.len()).unwrap_or(u64::MAX));
        }
        let values = segment.values().take(&places);
        CsrSegment::try_new(indptr.into(), indices.into(), values, self.n_vars())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellfeed_core::io::Engine;
    use cellfeed_core::{MatrixKey, MemoryBackend, MemoryMatrix, VarSchema};

    #[test]
    fn rows_keep_the_genes_that_were_asked_for_in_the_stores_order() {
        let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let var = VarSchema { n_vars: 4, names, ..VarSchema::default() };
        let x = MemoryMatrix::try_new(
            vec![0, 3, 3, 5],
            vec![0, 1, 3, 1, 2],
            vec![1f32, 2.0, 3.0, 4.0, 5.0],
            var,
        );
        let backend =
            MemoryBackend::try_new(3, vec![(MatrixKey::X, x.unwrap())], Vec::new()).unwrap();
        let store = Store::new(Arc::new(backend), Arc::new(Engine::default()));
        let names = ["d", "nobody", "b"].map(str::to_owned);
        let selection = Selection::of(&store, &names).unwrap();
        assert_eq!(selection.missing, ["nobody"]);
        let rows = cellfeed_core::RowRanges::single(0..3);
        let whole = store.backend().read_rows(&MatrixKey::X, &rows);
        let got = selection.rows(&futures::executor::block_on(whole).unwrap()).unwrap();
        let segment = &got.segments()[0];
        assert_eq!(segment.indptr(), [0, 2, 2, 3]);
        assert!(matches!(segment.indices(), Indices::U32(b) if b[..] == [0, 1, 0]));
        assert_eq!(segment.values().to_f64_vec(), [2.0, 3.0, 4.0]);
        let table = Table::of_names(4, &store.schema().var.names).unwrap();
        let (_, kept) =
            selection.table(&table).map(|t| (t.n_rows(), t.index().unwrap().1.clone())).unwrap();
        assert_eq!((kept.value(0), kept.value(1)), ("b", "d"));
        assert!(Selection::of(&store, &["nobody".to_owned()]).is_err());
    }
}
