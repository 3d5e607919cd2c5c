//! Tahoe-100M's published layout: a row a cell, `genes` and `expressions` as lists, a marker at the
//! head of each, obs fields as columns, many shards as one store. Genes are tokens, which a table of
//! their own names.

use crate::column::Stored;
use crate::files::{Files, read_footer};
use crate::footer::{Footer, Leaf};
use crate::header::KEY;
use crate::layout::{Column, Opened, storage, var_schema};
use crate::options::ParquetOptions;
use crate::read::{Context, Genes, Matrix, NO_GENE};
use crate::table::{LARGEST, SmallFile};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef};
use cellfeed_core::io::{ByteSource, Engine, FileSet, LocalFile};
use cellfeed_core::{
    ColumnKind, ColumnSchema, Encoding, Error, ErrorKind, MatrixKey, MatrixSchema, Result, Schema,
    Table, ValueType,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
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
    folder: PathBuf,
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
pub(crate) fn looks_like(folder: &Path) -> bool {
    [folder.to_path_buf(), folder.join("data")]
        .iter()
        .any(|f| listed(f).is_ok_and(|names| !names.is_empty()))
}

/// The Parquet files of a folder that may be shards.
fn listed(folder: &Path) -> Result<Vec<String>> {
    let io = |e| Error::io("cannot list", e).with("file", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
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
fn complete(folder: &Path, names: &[String]) -> Result<()> {
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
            .with("file", folder.display()));
        }
    }
    Ok(())
}

/// The shards that a path stands for, if its files are of this layout.
pub(crate) fn shards(
    path: &Path,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
) -> Result<Option<Shards>> {
    if path.is_dir() {
        let data = path.join("data");
        let mut folder = path.to_path_buf();
        let mut names = listed(&folder)?;
        if names.is_empty() && data.is_dir() {
            names = listed(&data)?;
            folder = data;
        }
        if names.iter().any(|n| numbered(n).is_some()) {
            names.retain(|n| numbered(n).is_some());
        }
        if names.is_empty() {
            return Err(Error::not_found("the folder has no Parquet files, nor has data in it")
                .with("file", path.display()));
        }
        if !options.missing_shards {
            complete(&folder, &names)?;
        }
        return Ok(Some(Shards { folder, names }));
    }
    let footer = read_footer(&LocalFile::open(path, Arc::clone(engine))?)?;
    if footer.value(KEY).is_some() || [GENES, EXPRESSIONS].iter().any(|n| footer.leaf(n).is_none())
    {
        return Ok(None);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Some(Shards { folder: folder.to_path_buf(), names: vec![name] }))
}

/// Reads the footers of all shards, on a few threads where there are many.
fn footers(set: &FileSet, names: &[String], threads: usize) -> Result<Vec<Footer>> {
    let read = |name: &String| read_footer(&*set.open(name)?);
    let part = names.len().div_ceil(threads.min(8)).max(8);
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
    path: &Path,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
    shards: Shards,
) -> Result<Opened> {
    let set = FileSet::new(&shards.folder, Arc::clone(engine));
    let footers = footers(&set, &shards.names, engine.threads())?;
    let first = footers.first().ok_or_else(|| Error::internal("no shards"))?;
    let name = shards.folder.join(&shards.names[0]);
    let blame = |e: Error| e.with_default("file", name.display());
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
    let (tokens, var) = genes(&shards.folder, engine, options)?;
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
        location: path.display().to_string(),
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

/// Where the table of genes is.
fn find_genes(folder: &Path, options: &ParquetOptions) -> Result<PathBuf> {
    if let Some(path) = &options.gene_metadata {
        return Ok(path.clone());
    }
    let whole = folder.canonicalize();
    let whole = whole.map_err(|e| Error::io("cannot look at", e).with("file", folder.display()))?;
    let places = whole
        .ancestors()
        .take(3)
        .flat_map(|up| [up.join(GENE_METADATA), up.join("metadata").join(GENE_METADATA)]);
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::not_found(format!(
            "there is no {GENE_METADATA}, nor metadata/{GENE_METADATA}, beside the shards or up to \
             two folders above: genes are numbers without it; put it there, or name it in the options"
        ))
        .with("file", folder.display())
    })
}

/// Which column each token is, and the genes by their names.
fn genes(
    folder: &Path,
    engine: &Arc<Engine>,
    options: &ParquetOptions,
) -> Result<(Vec<u32>, Table)> {
    let path = find_genes(folder, options)?;
    let read = || {
        let file = LocalFile::open(&path, Arc::clone(engine))?;
        if file.len() > LARGEST {
            return Err(Error::corrupt(format!("a table of genes of {} bytes", file.len())));
        }
        let mut bytes = vec![0; usize::try_from(file.len()).unwrap_or(0)];
        file.read_exact_at(0, &mut bytes)?;
        understand_genes(&SmallFile::new(bytes.into())?)
    };
    read().map_err(|e| e.with_default("file", path.display()))
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
        let check = |numbers: &[usize]| complete(Path::new("d"), &names(numbers));
        assert!(check(&[0, 1, 2, 3, 4, 5]).is_ok());
        let error = check(&[0, 2, 3, 5]).unwrap_err().to_string();
        assert!(error.contains("2 of 6"), "{error}");
        assert!(error.contains("(train-00001-of-00006.parquet, train-00004-of-00006.parquet)"));
        let error = check(&[5]).unwrap_err().to_string();
        assert!(error.contains("train-00002-of-00006.parquet, ...)"), "{error}");
        assert!(complete(Path::new("d"), &["a.parquet".to_owned()]).is_ok());
    }
}
