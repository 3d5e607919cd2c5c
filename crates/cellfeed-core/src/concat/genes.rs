//! Lists of genes joined by name, and rows carried over to the joined list.

use super::Join;
use crate::csr::{CsrRows, CsrSegment};
use crate::schema::{ColumnKind, VarSchema};
use crate::value::{Indices, ValueType};
use crate::{Error, Result, as_u64};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// The genes of several stores as one list.
#[derive(Debug)]
pub(super) struct Genes {
    pub(super) var: Arc<VarSchema>,
    /// For each store, how its genes are numbered in the list.
    pub(super) maps: Vec<GeneMap>,
    /// Whether the lists differed, so that columns of genes are not those of the first store.
    pub(super) aligned: bool,
}

/// How the genes of a store are numbered in the joined list.
#[derive(Debug, Clone)]
pub(super) enum GeneMap {
    /// As they are.
    Same,
    /// By a table: the new number of each gene, or that it is left out.
    Table { numbers: Arc<Vec<Option<u32>>>, ascending: bool, n_vars: u64 },
}

impl Genes {
    /// Joins the lists of stores that lie at `places`.
    pub(super) fn join(vars: &[Arc<VarSchema>], places: &[&str], join: Join) -> Result<Self> {
        let Some(first) = vars.first() else {
            return Err(Error::internal("no lists of genes to join"));
        };
        let equal = |v: &Arc<VarSchema>| v.n_vars == first.n_vars && v.names == first.names;
        if vars.iter().all(equal) {
            let maps = vec![GeneMap::Same; vars.len()];
            return Ok(Self { var: Arc::clone(first), maps, aligned: false });
        }
        let mut known = Vec::with_capacity(vars.len());
        for (var, place) in vars.iter().zip(places) {
            known.push(by_name(var).map_err(|e| e.with("file", place))?);
        }
        let names: Vec<&str> = match join {
            Join::Inner => {
                let all = |name: &&str| known.iter().all(|k| k.contains_key(name));
                first.names.iter().map(String::as_str).filter(all).collect()
            }
            Join::Outer => {
                let mut seen = std::collections::HashSet::new();
                let names = vars.iter().flat_map(|v| v.names.iter().map(String::as_str));
                names.filter(|name| seen.insert(*name)).collect()
            }
        };
        if names.is_empty() {
            return Err(Error::invalid_input(
                "no gene is in all of the stores; join them outer to keep the genes of each",
            ));
        }
        let too_many = |_| Error::invalid_input("the stores have more than 2^32 genes together");
        u32::try_from(names.len()).map_err(too_many)?;
        let number: HashMap<&str, u32> = names.iter().copied().zip(0u32..).collect();
        let n_vars = as_u64(names.len());
        let map = |var: &Arc<VarSchema>| {
            let numbers: Vec<Option<u32>> =
                var.names.iter().map(|name| number.get(name.as_str()).copied()).collect();
            let kept: Vec<u32> = numbers.iter().flatten().copied().collect();
            let same =
                kept.len() == numbers.len() && kept.iter().copied().eq(0..as_u32(kept.len()));
            if same {
                return GeneMap::Same;
            }
            let ascending = kept.windows(2).all(|w| w[0] < w[1]);
            GeneMap::Table { numbers: Arc::new(numbers), ascending, n_vars }
        };
        let maps = vars.iter().map(map).collect();
        let why = "the stores have different genes, and columns of genes are of each store alone";
        let mut columns: Vec<crate::ColumnSchema> = Vec::new();
        for column in vars.iter().flat_map(|v| &v.columns) {
            if columns.iter().all(|c| c.name != column.name) {
                let kind = ColumnKind::Unreadable(why.to_owned());
                columns.push(crate::ColumnSchema { kind, ..column.clone() });
            }
        }
        let names = names.into_iter().map(str::to_owned).collect();
        Ok(Self { var: Arc::new(VarSchema { n_vars, names, columns }), maps, aligned: true })
    }
}

impl Genes {
    /// A warning if of the store with the fewest genes less than half are in the list: names of two kinds,
    /// as symbols and Ensembl's, have hardly any in common, and rows that are nearly empty look sound.
    pub(super) fn few(&self, vars: &[Arc<VarSchema>], what: &str) -> Option<String> {
        let fewest = vars.iter().map(|v| v.n_vars).min()?;
        if self.var.n_vars >= fewest.div_ceil(2) {
            return None;
        }
        Some(format!(
            "only {} {what} are in all of the {} stores, which have {}; the others are left out: if the \
             stores name genes by different kinds of names, make them the same; to keep the genes of each, \
             join them outer (--join outer, join=\"outer\")",
            self.var.n_vars,
            vars.len(),
            numbers(vars)
        ))
    }
}

/// How many genes stores have, for people.
fn numbers(vars: &[Arc<VarSchema>]) -> String {
    let n: Vec<String> = vars.iter().map(|v| v.n_vars.to_string()).collect();
    match &n[..] {
        [all @ .., last] if !all.is_empty() && n.len() <= 4 => {
            format!("{} and {last}", all.join(", "))
        }
        _ => {
            let of = || vars.iter().map(|v| v.n_vars);
            format!("from {} to {}", of().min().unwrap_or(0), of().max().unwrap_or(0))
        }
    }
}

fn as_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn by_name(var: &VarSchema) -> Result<HashMap<&str, usize>> {
    if as_u64(var.names.len()) != var.n_vars {
        return Err(Error::invalid_input(
            "the genes have no names, so they cannot be aligned with those of another store",
        ));
    }
    let mut known = HashMap::with_capacity(var.names.len());
    for (i, name) in var.names.iter().enumerate() {
        if known.insert(name.as_str(), i).is_some() {
            return Err(Error::invalid_input(format!(
                "two genes are called {name:?}, so genes cannot be aligned by name; make the names unique"
            )));
        }
    }
    Ok(known)
}

impl GeneMap {
    /// Whether no gene is left out.
    pub(super) fn keeps_all(&self) -> bool {
        match self {
            Self::Same => true,
            Self::Table { numbers, .. } => numbers.iter().all(Option::is_some),
        }
    }

    /// Rows with the joined list's numbers and values of this type. In parallel on the rayon threads
    /// of the caller.
    pub(super) fn carry(&self, rows: &CsrRows, value_type: ValueType) -> Result<CsrRows> {
        let segments = rows.segments().par_iter().map(|s| self.segment(s, value_type));
        Ok(CsrRows::new(segments.collect::<Result<_>>()?))
    }

    fn segment(&self, segment: &CsrSegment, value_type: ValueType) -> Result<CsrSegment> {
        let at = |p: u64| usize::try_from(p).unwrap_or(usize::MAX);
        let rows = segment.indptr().windows(2).map(|w| at(w[0])..at(w[1]));
        let Self::Table { numbers, ascending, n_vars } = self else {
            let values = segment.values().cast(value_type)?;
            let indptr = segment.indptr().to_vec().into();
            return CsrSegment::try_new(indptr, segment.indices().clone(), values, u64::MAX);
        };
        let (indptr, indices, places) = match segment.indices() {
            Indices::U16(genes) => renumber(rows, genes, numbers, *ascending),
            Indices::U32(genes) => renumber(rows, genes, numbers, *ascending),
        };
        let values = segment.values().take(&places).cast(value_type)?;
        CsrSegment::try_new(indptr.into(), indices.into(), values, *n_vars)
    }
}

/// New row offsets and genes, and from which places the values come.
fn renumber<I: Copy + Into<u32>>(
    rows: impl Iterator<Item = Range<usize>>,
    genes: &[I],
    numbers: &[Option<u32>],
    ascending: bool,
) -> (Vec<u64>, Vec<u32>, Vec<usize>) {
    let (mut indptr, mut indices, mut places) = (vec![0u64], Vec::new(), Vec::new());
    let mut row: Vec<(u32, usize)> = Vec::new();
    for span in rows {
        row.clear();
        for place in span {
            let gene = usize::try_from(genes[place].into()).unwrap_or(usize::MAX);
            if let Some(Some(new)) = numbers.get(gene) {
                row.push((*new, place));
            }
        }
        if !ascending {
            row.sort_unstable();
        }
        indices.extend(row.iter().map(|(new, _)| *new));
        places.extend(row.iter().map(|(_, place)| *place));
        indptr.push(as_u64(indices.len()));
    }
    (indptr, indices, places)
}
