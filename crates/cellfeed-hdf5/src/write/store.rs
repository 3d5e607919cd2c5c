//! Whole stores as `.h5ad`: all matrices, obs, var and the rest, through [`StoreWriter`].
//!
//! Chunks of the matrices are written side by side as rows come. Tables come last: obs columns are
//! collected in memory, a code in one to four bytes a row, a number in eight, text in eight and its
//! length, and each matrix keeps four bytes a row; 10^7 cells with a name of 20 bytes and ten columns
//! take about a gigabyte.
//!
//! What a column becomes (the encodings are those that anndata 0.8 and later read):
//!
//! | column | encoding |
//! |---|---|
//! | categorical | `categorical` 0.2.0; categories are text |
//! | text | `string-array` 0.2.0 |
//! | text of which some is missing | `categorical` 0.2.0, missing values being missing codes |
//! | integers, booleans | `array` 0.2.0; with missing ones `nullable-integer`, `nullable-boolean` 0.1.0 |
//! | floats | `array` 0.2.0; missing ones are NaN, which is said |
//!
//! Values of half precision are written as `f32`: scipy has no such matrices, and anndata would refuse
//! the file. `nullable-string-array` would keep text text, but anndata before 0.12 refuses a whole file for it.

use super::chunked::{Packing, guess_chunk};
use super::columns::{Collected, Texts};
use super::elements::Elements;
use super::frame::{Frame, Strings, may_name};
use super::matrix::CsrStream;
use super::options::Compression;
use super::sink::Sink;
use super::{extras, finish_file, message};
use cellfeed_core::{
    CellBatch, ColumnSchema, Error, MatrixKey, NewMatrix, NewStore, Result, StoreWriter, Table,
    ValueType, WriteOptions, Written,
};
use std::fmt::Write;
use std::path::Path;

/// Rows of a chunk, where they are asked for, make at most this many elements.
const LARGEST_CHUNK: u64 = 1 << 24;

/// Begins an `.h5ad` file of a whole store.
///
/// Codecs are `none`, which is the default as with anndata, `gzip[:LEVEL]`, `lzf`, and
/// `gzip-shuffle[:LEVEL]` and `lzf-shuffle`, which shuffle bytes before. Chunks have about
/// [`chunk_rows`](WriteOptions::chunk_rows) rows, or what h5py would guess.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) for a codec that is not
/// known, a store that cannot be (two matrices of one name, genes that are not as many as the
/// matrix has), or a file that exists and is not to be replaced;
/// [`ErrorKind::Io`](cellfeed_core::ErrorKind::Io) if it cannot be created.
pub fn create(path: &Path, new: NewStore, options: &WriteOptions) -> Result<Box<dyn StoreWriter>> {
    let (compression, shuffle) = codec(options.codec())?;
    let packing = Packing::new(compression, shuffle, new.matrices.len() * 2);
    new.check_matrices()?;
    for matrix in &new.matrices {
        let key = &matrix.key;
        if let MatrixKey::Layer(name) = key
            && (name.is_empty() || name == "." || name.contains(['/', '\0']))
        {
            return Err(Error::invalid_input(format!(
                "no layer of an .h5ad can be called {name:?}"
            )));
        }
        if *key != MatrixKey::Raw && matrix.var.n_rows() != new.var.n_rows() {
            return Err(Error::invalid_input(format!(
                "{key} has {} genes, but var has {}",
                matrix.var.n_rows(),
                new.var.n_rows()
            )));
        }
    }
    let mut dropped = Vec::new();
    let mut columns = Vec::with_capacity(new.obs.len());
    for (place, column) in new.obs.iter().enumerate() {
        let taken = new.obs[..place].iter().any(|c| c.name == column.name);
        match keepable("obs", &column.name, taken, &mut dropped) {
            true => columns.push(Some(Collected::new(column)?)),
            false => columns.push(None),
        }
    }
    let matrices = new.matrices.iter().map(|_| None).collect();
    let mut sink = Sink::create(path, options.overwrite())?;
    // The superblock's place.
    sink.append(&[0; message::SUPERBLOCK_LEN])?;
    let writer = H5adStore {
        new,
        sink,
        packing,
        chunk_rows: options.chunk_rows(),
        matrices,
        names: Texts::default(),
        columns,
        n_obs: 0,
        failed: false,
        dropped,
    };
    Ok(Box::new(writer))
}

fn codec(word: Option<&str>) -> Result<(Compression, bool)> {
    let word = word.unwrap_or("none");
    let (name, level) = word.split_once(':').map_or((word, None), |(n, l)| (n, Some(l)));
    let unknown = || {
        Error::invalid_input(format!(
            "no codec of .h5ad is called {word:?}; there are none, gzip, gzip:LEVEL (0 to 9), lzf, \
             gzip-shuffle, gzip-shuffle:LEVEL and lzf-shuffle"
        ))
    };
    let shuffle = name.ends_with("-shuffle");
    let compression = match name.trim_end_matches("-shuffle") {
        "none" if !shuffle => Compression::None,
        "lzf" => Compression::Lzf,
        "gzip" => match level {
            None => Compression::gzip(),
            Some(level) => match level.parse() {
                Ok(level @ 0..=9) => Compression::Gzip { level },
                _ => return Err(unknown()),
            },
        },
        _ => return Err(unknown()),
    };
    if level.is_some() && !matches!(compression, Compression::Gzip { .. }) {
        return Err(unknown());
    }
    Ok((compression, shuffle))
}

/// Whether AnnData can have a column of this name; else it is said to be dropped.
fn keepable(table: &str, name: &str, taken: bool, dropped: &mut Vec<(String, String)>) -> bool {
    let why = match () {
        () if !may_name(name) => "no column of an .h5ad can have this name",
        () if taken => "an earlier column has this name",
        () => return true,
    };
    dropped.push((format!("{table}/{name}"), why.to_owned()));
    false
}

#[derive(Debug)]
struct H5adStore {
    new: NewStore,
    sink: Sink,
    packing: Packing,
    chunk_rows: Option<u64>,
    /// Begun with their first rows, from which the length of chunks is estimated.
    matrices: Vec<Option<CsrStream>>,
    names: Texts,
    /// `None` for one that cannot be kept.
    columns: Vec<Option<Collected>>,
    n_obs: u64,
    failed: bool,
    dropped: Vec<(String, String)>,
}

impl StoreWriter for H5adStore {
    fn append(&mut self, batch: &CellBatch) -> Result<()> {
        let done = self.take(batch);
        self.failed |= done.is_err();
        done
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        if self.failed {
            return Err(Error::invalid_input("a batch was refused, so the store is not complete"));
        }
        if self.n_obs != self.new.n_obs {
            return Err(Error::invalid_input(format!(
                "{} cells were announced, but {} came",
                self.new.n_obs, self.n_obs
            )));
        }
        for place in 0..self.matrices.len() {
            self.begin(place, 0, 0)?;
        }
        self.write()
    }
}

impl H5adStore {
    fn take(&mut self, batch: &CellBatch) -> Result<()> {
        self.new.check(batch)?;
        if self.n_obs.saturating_add(batch.n_rows) > self.new.n_obs {
            return Err(Error::invalid_input(format!(
                "{} cells were announced, but more come",
                self.new.n_obs
            )));
        }
        for (column, array) in self.columns.iter_mut().zip(&batch.obs) {
            if let Some(column) = column {
                column.append(array)?;
            }
        }
        if let Some(names) = &batch.obs_index {
            self.names.append(names).map_err(|e| e.with("column", "the names of the cells"))?;
        }
        for (place, rows) in batch.matrices.iter().enumerate() {
            if rows.n_rows() > 0 {
                self.begin(place, rows.n_rows() as u64, rows.nnz() as u64)?;
            }
            let key = &self.new.matrices[place].key;
            if let Some(matrix) = &mut self.matrices[place] {
                for segment in rows.segments() {
                    let appended = matrix.append_segment(segment, &mut self.sink);
                    appended.map_err(|e| e.with("element", key))?;
                }
            }
        }
        self.n_obs += batch.n_rows;
        Ok(())
    }

    /// Begins a matrix, of which the first rows have come, unless it is begun.
    fn begin(&mut self, place: usize, rows: u64, nnz: u64) -> Result<()> {
        if self.matrices[place].is_some() {
            return Ok(());
        }
        let NewMatrix { key, var, value_type, expected_nnz } = &self.new.matrices[place];
        let n_vars = i32::try_from(var.n_rows()).ok().and_then(|n| u32::try_from(n).ok());
        let n_vars = n_vars.ok_or_else(|| {
            Error::unsupported(format!("{key} has {} genes, more than 2^31", var.n_rows()))
        })?;
        let n_obs = u128::from(self.new.n_obs.max(1));
        let scaled = u128::from(nnz) * n_obs / u128::from(rows.max(1));
        let expected = expected_nnz.unwrap_or(u64::try_from(scaled).unwrap_or(u64::MAX));
        let chunk_rows = self.chunk_rows.map(u128::from);
        let chunk = |t: ValueType| match chunk_rows {
            None => guess_chunk(expected, t.size()),
            Some(rows) => {
                let elements = u64::try_from(u128::from(expected) * rows / n_obs);
                elements.unwrap_or(u64::MAX).min(expected).clamp(1, LARGEST_CHUNK)
            }
        };
        // scipy, and so anndata, has no sparse matrices of half precision.
        let value_type = match *value_type {
            ValueType::F16 => ValueType::F32,
            other => other,
        };
        let stream = CsrStream::new(n_vars, value_type, ValueType::I32, chunk, self.packing)?;
        self.matrices[place] = Some(stream);
        Ok(())
    }

    fn write(self) -> Result<Written> {
        let Self {
            new, mut sink, packing, matrices, names, mut columns, n_obs, mut dropped, ..
        } = self;
        let rows = usize::try_from(n_obs).map_err(|_| Error::unsupported("too many cells"))?;
        let nnz = matrices.iter().flatten().map(CsrStream::nnz).sum();
        let mut elements = Elements::new(&mut sink, packing);
        let (mut links, mut layers, mut raw) = (Vec::new(), Vec::new(), None);
        for (matrix, stream) in new.matrices.iter().zip(matrices) {
            let Some(stream) = stream else { continue };
            let address = stream.finish(&mut elements)?;
            match &matrix.key {
                MatrixKey::X => links.push(("X", address)),
                MatrixKey::Layer(name) => layers.push((name.as_str(), address)),
                MatrixKey::Raw => raw = Some((address, &matrix.var)),
            }
        }
        if let Some((x, var)) = raw {
            let var = table(&mut elements, "raw/var", var, &mut dropped)?;
            let varm = elements.group(("dict", "0.1.0"), &[], &[])?;
            let members = [("X", x), ("var", var), ("varm", varm)];
            links.push(("raw", elements.group(("raw", "0.1.0"), &[], &members)?));
        }
        layers.sort_unstable();
        links.push(("layers", elements.group(("dict", "0.1.0"), &[], &layers)?));
        for column in columns.iter_mut().flatten() {
            column.complete();
        }
        let index = new.obs_index.as_deref();
        let index = index.map(|name| (name, names.strings()));
        let kept: Vec<&Collected> = columns.iter().flatten().collect();
        links.push(("obs", frame(&mut elements, "obs", rows, index, &kept, &mut dropped)?));
        links.push(("var", table(&mut elements, "var", &new.var, &mut dropped)?));
        dropped.extend(new.extras.left_out.iter().cloned());
        for (name, element) in &new.extras.elements {
            if !["uns", "obsm", "varm", "obsp", "varp"].contains(&name.as_str()) {
                dropped.push((name.clone(), "it is no part of AnnData".to_owned()));
                continue;
            }
            let written = extras::write(&mut elements, name, element, &mut dropped)?;
            links.extend(written.map(|address| (name.as_str(), address)));
        }
        let bytes = finish_file(elements, links)?;
        sink.publish()?;
        Ok(Written { n_obs, nnz, bytes, dropped })
    }
}

/// Writes the genes.
fn table(
    elements: &mut Elements<'_>,
    name: &str,
    table: &Table,
    dropped: &mut Vec<(String, String)>,
) -> Result<u64> {
    let rows = usize::try_from(table.n_rows()).map_err(|_| Error::unsupported("too many genes"))?;
    let keep = |(column, _): &&(ColumnSchema, _)| keepable(name, &column.name, false, dropped);
    let columns = table.columns().iter().filter(keep);
    let columns = columns.map(|(column, array)| Collected::of(column, array));
    let columns = columns.collect::<Result<Vec<_>>>().map_err(|e| e.with("table", name))?;
    let mut names = Texts::default();
    let index = match table.index() {
        Some((index, array)) => {
            names.append(array).map_err(|e| e.with("table", name))?;
            Some((index, names.strings()))
        }
        None => None,
    };
    let kept: Vec<&Collected> = columns.iter().collect();
    frame(elements, name, rows, index, &kept, dropped)
}

/// Writes a table; rows without names are numbered, as in anndata.
fn frame(
    elements: &mut Elements<'_>,
    name: &str,
    rows: usize,
    index: Option<(&str, Strings<'_>)>,
    columns: &[&Collected],
    dropped: &mut Vec<(String, String)>,
) -> Result<u64> {
    let (index_name, strings) = index.unwrap_or_else(|| {
        let number = |row: usize, out: &mut String| {
            // Writing to a string does not fail.
            let _ = write!(out, "{row}");
        };
        ("_index", Strings::with(number))
    });
    let free = may_name(index_name) && columns.iter().all(|c| c.name != index_name);
    let mut frame = Frame::new(strings).with_index_name(if free { index_name } else { "_index" });
    for column in columns {
        frame = frame.with_column(&column.name, column.values());
        let lost = column.lost().map(str::to_owned);
        dropped.extend(lost.map(|why| (format!("{name}/{}", column.name), why)));
    }
    frame.check("table", rows)?;
    elements.frame(&frame, rows).map_err(|e| e.with("table", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_told_by_their_words() {
        let known = |word| codec(Some(word)).unwrap();
        assert_eq!(codec(None).unwrap(), (Compression::None, false));
        assert_eq!(known("gzip"), (Compression::gzip(), false));
        assert_eq!(known("gzip:9"), (Compression::Gzip { level: 9 }, false));
        assert_eq!(known("gzip-shuffle:1"), (Compression::Gzip { level: 1 }, true));
        assert_eq!(known("lzf-shuffle"), (Compression::Lzf, true));
        for word in ["", "zstd", "gzip:10", "gzip:", "lzf:3", "none:1", "none-shuffle", "shuffle"] {
            let error = codec(Some(word)).unwrap_err().to_string();
            assert!(error.contains("lzf"), "{error}");
        }
    }
}
