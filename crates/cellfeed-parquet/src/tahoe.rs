//! Tahoe-100M's published layout: a row a cell, `genes` and `expressions` as lists, a marker at the
//! head of each, obs fields as columns, many shards as one store. Genes are tokens, which a table of
//! their own names.

use crate::column::Stored;
use crate::files::{Files, read_footer};
use crate::footer::{Footer, Leaf};
use crate::header::KEY;
use crate::layout::{Column, Opened, storage, var_schema};
use crate::options::ParquetOptions;
use crate::place::Place;
use crate::read::{Context, Genes, Matrix, NO_GENE};
use crate::table::{LARGEST, SmallFile};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use cellfeed_core::io::{ByteSource, Engine, Entry, Folder, LocalFile};
use cellfeed_core::{
    ColumnKind, ColumnSchema, Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, Result, Schema,
    Table, ValueType,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

const GENES: &str = "genes";
const EXPRESSIONS: &str = "expressions";
/// The column that names cells.
const BARCODE: &str = "BARCODE_SUB_LIB_ID";
const GENE_METADATA: &str = "gene_metadata.parquet";
const TOKEN: &str = "token_id";
const NAME: &str = "ensembl_id";
/// Tokens above this are not believed: the table is as long as the highest.
const HIGHEST: i64 = 1 << 24;

/// Files of a store, in order.
#[derive(Debug)]
pub(crate) struct Shards {
    /// The folder below the root that they are in.
    below: &'static str,
    names: Vec<String>,
}

/// Whether a file begins as Parquet does.
pub(crate) fn begins_as_parquet(path: &Path) -> bool {
    let mut magic = [0; 4];
    path.is_file()
        && File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok()
        && &magic == b"PAR1"
}

/// Whether a folder has Parquet files where shards are looked for.
pub(crate) fn looks_like(folder: &dyn Folder) -> bool {
    ["", "data"].iter().any(|f| listed(folder, f).is_ok_and(|names| !names.is_empty()))
}

/// The Parquet files that may be shards, of a folder below the root.
fn listed(folder: &dyn Folder, below: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, _) in folder.list(below)? {
        let table = name.ends_with("metadata.parquet");
        if name.ends_with(".parquet") && !name.starts_with('.') && !table {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// `train-00003-of-03388.parquet` as `train`, 3, 3388.
fn numbered(name: &str) -> Option<(&str, usize, usize)> {
    let stem = name.strip_suffix(".parquet")?;
    let (rest, total) = stem.rsplit_once("-of-")?;
    let (prefix, number) = rest.rsplit_once('-')?;
    Some((prefix, number.parse().ok()?, total.parse().ok()?))
}

/// Refuses a folder from which numbered shards are missing.
fn complete(folder: &str, names: &[String]) -> Result<()> {
    let mut splits: BTreeMap<(&str, usize), Vec<usize>> = BTreeMap::new();
    for (prefix, number, total) in names.iter().filter_map(|n| numbered(n)) {
        splits.entry((prefix, total)).or_default().push(number);
    }
    for ((prefix, total), mut found) in splits {
        found.sort_unstable();
        let mut missing = Vec::new();
        let (mut next, mut n) = (0, 0);
        for &number in found.iter().chain([&total]) {
            for gap in next..number.min(total) {
                n += 1;
                if missing.len() < 3 {
                    missing.push(format!("{prefix}-{gap:05}-of-{total:05}.parquet"));
                }
            }
            next = number + 1;
        }
        if n > 0 {
            let more = if n > missing.len() { ", ..." } else { "" };
            return Err(Error::corrupt(format!(
                "{n} of {total} shards are missing ({}{more}): get them, or allow missing shards in \
                 the options if the folder is meant to be a part",
                missing.join(", ")
            ))
            .with("file", folder));
        }
    }
    Ok(())
}

/// The shards that a path stands for, if its files are of this layout.
pub(crate) fn shards(place: &Place, options: &ParquetOptions) -> Result<Option<Shards>> {
    let folder = &*place.folder;
    if place.name.is_empty() {
        let (mut below, mut names) = ("", listed(folder, "")?);
        if names.is_empty() && folder.look("data")? == Some(Entry::Folder) {
            (below, names) = ("data", listed(folder, "data")?);
        }
        if names.iter().any(|n| numbered(n).is_some()) {
            names.retain(|n| numbered(n).is_some());
        }
        if names.is_empty() {
            return Err(Error::not_found("the folder has no Parquet files, nor has data in it")
                .with("file", &place.location));
        }
        if !options.missing_shards {
            complete(&folder.place(below), &names)?;
        }
        if !below.is_empty() {
            names.iter_mut().for_each(|name| *name = format!("{below}/{name}"));
        }
        return Ok(Some(Shards { below, names }));
    }
    let footer = read_footer(&*folder.open(&place.name)?)?;
    if footer.value(KEY).is_some() || [GENES, EXPRESSIONS].iter().any(|n| footer.leaf(n).is_none())
    {
        return Ok(None);
    }
    Ok(Some(Shards { below: "", names: vec![place.name.clone()] }))
}

/// Threads that wait for footers where each takes long to come.
const FAR_THREADS: usize = 32;

/// Reads the footers of all shards, on a few threads where there are many.
fn footers(set: &dyn Folder, names: &[String], threads: usize) -> Result<Vec<Footer>> {
    let read = |name: &String| read_footer(&*set.open(name)?);
    let (threads, least) = if set.is_far() { (FAR_THREADS, 1) } else { (threads.min(8), 8) };
    let part = names.len().div_ceil(threads).max(least);
    let parts: Vec<Result<Vec<Footer>>> = std::thread::scope(|scope| {
        let started: Vec<_> = names
            .chunks(part)
            .map(|names| scope.spawn(move || names.iter().map(read).collect()))
            .collect();
        let end = |_| Err(Error::internal("a thread that reads footers ended"));
        started.into_iter().map(|t| t.join().unwrap_or_else(end)).collect()
    });
    let mut all = Vec::with_capacity(names.len());
    for part in parts {
        all.extend(part?);
    }
    Ok(all)
}

/// Opens shards.
pub(crate) fn open(
    place: &Place,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
    shards: Shards,
) -> Result<Opened> {
    let set = Arc::clone(&place.folder);
    let footers = footers(&*set, &shards.names, engine.threads())?;
    let first = footers.first().ok_or_else(|| Error::internal("no shards"))?;
    let name = set.place(&shards.names[0]);
    let blame = |e: Error| e.with_default("file", &name);
    let list = |column: &str| {
        let found = first
            .leaf(column)
            .filter(|&i| first.leaves[i].max_rep == 1 && first.leaves[i].value_type().is_some());
        found.ok_or_else(|| {
            blame(Error::unsupported(format!(
                "the folder's files have no column {column:?} of lists of numbers, as those of \
                 Tahoe-100M do; a file of our own is opened by its name"
            )))
        })
    };
    let (indices, data) = (list(GENES)?, list(EXPRESSIONS)?);
    let value_type = first.leaves[data].value_type();
    let value_type = value_type.ok_or_else(|| Error::internal("values of no type"))?;
    let (tokens, var) = genes(&set, shards.below, engine, options)?;
    let writer = first.writer.clone();
    let files = Files::open(set, shards.names, &footers)?;
    drop(footers);
    let mut nnz = 0u64;
    for (i, group) in files.groups.iter().enumerate() {
        let [a, b] = [indices, data].map(|leaf| files.chunk(i, leaf).n_values);
        let values = a.checked_sub(group.n_rows.into()).filter(|_| a == b);
        nnz = nnz.saturating_add(values.ok_or_else(|| {
            let what = format!("{a} genes and {b} expressions for {} cells", group.n_rows);
            files.blame(Error::corrupt(what), i)
        })?);
    }
    // 2^16 less the two numbers of what is no gene.
    let narrow = var.n_rows() < (1 << 16) - 1;
    let matrix = Matrix {
        indices,
        data,
        n_vars: var.n_rows(),
        value_type,
        index_type: if narrow { ValueType::U16 } else { ValueType::U32 },
        blob: false,
        genes: Genes::Tokens(Arc::new(tokens)),
    };
    let (mut columns, mut obs, mut obs_index) = (Vec::new(), Vec::new(), None);
    for (leaf, found) in files.leaves.iter().enumerate() {
        if [GENES, EXPRESSIONS].contains(&found.name.as_str()) {
            continue;
        }
        column(found, leaf, &mut columns, &mut obs, &mut obs_index);
    }
    let shape = var_schema(&var);
    let described = MatrixSchema {
        key: MatrixKey::X,
        encoding: Encoding::Csr,
        value_type,
        nnz: Some(nnz),
        var: Arc::clone(&shape),
        arrays: storage(&files, &MatrixKey::X, &matrix, nnz),
        unreadable: None,
    };
    let schema = Schema {
        format: "tahoe".to_owned(),
        location: place.location.clone(),
        writer,
        n_obs: files.n_rows,
        matrices: vec![described],
        obs_index,
        obs,
        var: shape,
    };
    let context = Context::new(files, Arc::clone(engine));
    let matrices = vec![(MatrixKey::X, Arc::new(matrix))];
    Ok(Opened { schema, context, matrices, columns, var, raw_var: None })
}

fn column(
    found: &Leaf,
    leaf: usize,
    columns: &mut Vec<Column>,
    obs: &mut Vec<ColumnSchema>,
    obs_index: &mut Option<String>,
) {
    if obs.iter().any(|c| c.name == found.name) {
        // Another leaf of a structure.
        return;
    }
    let name = found.name.clone();
    let kind = match Stored::guess(found) {
        Ok((stored, kind)) => {
            columns.push(Column { name: name.clone(), leaf, stored });
            kind
        }
        Err(why) => ColumnKind::Unreadable(why),
    };
    if name == BARCODE && kind == ColumnKind::String {
        *obs_index = Some(name);
        return;
    }
    obs.push(ColumnSchema { name, kind, encoding: "parquet".to_owned() });
}

/// Finds the table of genes, for shards in a folder below the root.
fn find_genes(
    root: &Arc<dyn Folder>,
    below: &str,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
) -> Result<Arc<dyn ByteSource>> {
    let local = |path: &Path| -> Result<Arc<dyn ByteSource>> {
        Ok(Arc::new(LocalFile::open(path, Arc::clone(engine))?))
    };
    if let Some(path) = &options.gene_metadata {
        return local(path);
    }
    let names = || [GENE_METADATA.to_owned(), format!("metadata/{GENE_METADATA}")];
    let place = root.place(below);
    if let Some(folder) = root.local() {
        let folder = folder.join(below);
        let whole = folder.canonicalize();
        let whole = whole.map_err(|e| Error::io("cannot look at", e).with("file", &place))?;
        let mut places = whole.ancestors().take(3).flat_map(|up| names().map(|name| up.join(name)));
        if let Some(path) = places.find(|path| path.is_file()) {
            return local(&path);
        }
    } else {
        let (mut folder, mut within) = (Some(Arc::clone(root)), below);
        for _ in 0..3 {
            let Some(here) = folder.take() else { break };
            for name in names() {
                let name = if within.is_empty() { name } else { format!("{within}/{name}") };
                if let Some(Entry::File(_)) = here.look(&name)? {
                    return here.open(&name);
                }
            }
            folder = if within.is_empty() { here.parent() } else { Some(here) };
            within = "";
        }
    }
    Err(Error::not_found(format!(
        "there is no {GENE_METADATA}, nor metadata/{GENE_METADATA}, beside the shards or up to two \
         folders above: genes are numbers without it; put it there, or name it in the options"
    ))
    .with("file", place))
}

/// Which column each token is, and the genes by their names.
fn genes(
    root: &Arc<dyn Folder>,
    below: &str,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
) -> Result<(Vec<u32>, Table)> {
    let file = find_genes(root, below, engine, options)?;
    let read = || {
        if file.len() > LARGEST {
            return Err(Error::corrupt(format!("a table of genes of {} bytes", file.len())));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
        file.read_exact_at(0, &mut bytes)?;
        understand_genes(&SmallFile::new(bytes.into())?)
    };
    read().map_err(|e| e.with_default("file", file.location()))
}

fn understand_genes(small: &SmallFile) -> Result<(Vec<u32>, Table)> {
    let wanted = |name: &str| {
        small
            .footer
            .leaf(name)
            .ok_or_else(|| Error::corrupt(format!("the table of genes has no column {name:?}")))
    };
    let (token_leaf, name_leaf) = (wanted(TOKEN)?, wanted(NAME)?);
    let mut columns = Vec::<(ColumnSchema, ArrayRef)>::new();
    let mut names = None;
    for (leaf, found) in small.footer.leaves.iter().enumerate() {
        let Ok((stored, kind)) = Stored::guess(found) else { continue };
        let array = small.column(leaf, &stored)?;
        if leaf == name_leaf {
            names = Some(array);
            continue;
        }
        let (name, encoding) = (found.name.clone(), "parquet".to_owned());
        columns.push((ColumnSchema { name, kind, encoding }, array));
    }
    let tokens = columns.iter().find(|(c, _)| c.name == small.footer.leaves[token_leaf].name);
    let tokens = tokens.and_then(|(_, array)| array.as_primitive_opt::<Int64Type>());
    let tokens = tokens.ok_or_else(|| Error::corrupt("tokens are not whole numbers"))?;
    let mut table = Vec::new();
    for (column, token) in (0u32..).zip(tokens) {
        let token = token
            .filter(|t| (0..=HIGHEST).contains(t))
            .ok_or_else(|| Error::corrupt(format!("gene {column} has the token {token:?}")))?;
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        if place >= table.len() {
            table.resize(place + 1, NO_GENE);
        }
        if table[place] != NO_GENE {
            return Err(Error::corrupt(format!("two genes have the token {token}")));
        }
        table[place] = column;
    }
    let n = u64::try_from(tokens.len()).unwrap_or(u64::MAX);
    let names = names.filter(|names| names.null_count() == 0);
    let names =
        names.ok_or_else(|| Error::corrupt("genes without names, or names that are no text"))?;
    let table_of_genes = Table::try_new(n, Some((NAME.to_owned(), names)), columns);
    let table_of_genes =
        table_of_genes.map_err(|e| Error::new(ErrorKind::Corrupt, e.message().to_owned()))?;
    Ok((table, table_of_genes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_shards_are_named() {
        let names = |numbers: &[usize]| -> Vec<String> {
            numbers.iter().map(|n| format!("train-{n:05}-of-00006.parquet")).collect()
        };
        let check = |numbers: &[usize]| complete("d", &names(numbers));
        assert!(check(&[0, 1, 2, 3, 4, 5]).is_ok());
        let error = check(&[0, 2, 3, 5]).unwrap_err().to_string();
        assert!(error.contains("2 of 6"), "{error}");
        assert!(error.contains("(train-00001-of-00006.parquet, train-00004-of-00006.parquet)"));
        let error = check(&[5]).unwrap_err().to_string();
        assert!(error.contains("train-00002-of-00006.parquet, ...)"), "{error}");
        assert!(complete("d", &["a.parquet".to_owned()]).is_ok());
    }
}
