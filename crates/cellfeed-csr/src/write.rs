//! The writer: streams rows into plain arrays, or packed ones, under a temporary name.

use crate::columns::{ColumnWriter, HashedFile, text_column, write_table};
use crate::header::{
    FORMAT, FileEntry, Header, LayoutName, MatrixEntry, NAME, TableEntry, VERSION,
};
use crate::packed::PackedRows;
use cellfeed_core::io::Staging;
use cellfeed_core::{
    CellBatch, ColumnKind, CsrSegment, Error, Indices, MatrixKey, NewMatrix, NewStore, Result,
    StoreWriter, ValueSpan, ValueType, Values, WriteOptions, Written,
};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// The words that [`WriteOptions::with_codec`] takes.
pub const CODECS: [&str; 2] = ["plain", "packed"];

/// Begins a store. Rows are `plain` unless the codec says `packed`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](cellfeed_core::ErrorKind::InvalidInput) for a codec that the format
/// does not have, for two matrices or obs columns of one name, or if the destination exists and is not
/// to be replaced; `Io` if it cannot be made.
pub fn create(path: &Path, new: NewStore, options: &WriteOptions) -> Result<Box<dyn StoreWriter>> {
    let layout = match options.codec() {
        None | Some("plain") => LayoutName::Plain,
        Some("packed") => LayoutName::Packed,
        Some(other) => {
            return Err(Error::invalid_input(format!(
                "a .csr store has no codec {other:?}; there are {}",
                CODECS.join(", ")
            )));
        }
    };
    if options.chunk_rows().is_some() {
        return Err(Error::invalid_input(
            "a .csr store has no chunks: every row is read by itself",
        ));
    }
    new.check_names()?;
    let staging = Staging::folder(path, options.overwrite(), crate::backend::looks_like)?;
    let folder = staging.path();
    let matrices = new
        .matrices
        .iter()
        .enumerate()
        .map(|(i, matrix)| MatrixWriter::create(folder, i, matrix, layout));
    let matrices = matrices.collect::<Result<_>>()?;
    let column = |name: String| move |i: usize| format!("{name}/{i}.arrow");
    let path_of = column("obs".to_owned());
    let obs = new.obs.iter().enumerate();
    let obs = obs.map(|(i, schema)| ColumnWriter::new(schema.clone(), path_of(i))).collect();
    if let Some(odd) = new.obs.iter().find(|c| matches!(c.kind, ColumnKind::Unreadable(_))) {
        return Err(Error::invalid_input(format!("the column {:?} has no values", odd.name)));
    }
    let obs_index = new
        .obs_index
        .as_ref()
        .map(|name| ColumnWriter::new(text_column(name), "obs/index.arrow".to_owned()));
    Ok(Box::new(CsrWriter { staging, new, matrices, obs, obs_index, n_obs: 0 }))
}

/// A store under construction.
#[derive(Debug)]
struct CsrWriter {
    staging: Staging,
    new: NewStore,
    matrices: Vec<MatrixWriter>,
    obs: Vec<ColumnWriter>,
    obs_index: Option<ColumnWriter>,
    n_obs: u64,
}

/// A matrix under construction.
#[derive(Debug)]
struct MatrixWriter {
    key: MatrixKey,
    announced: ValueType,
    n_vars: u64,
    nnz: u64,
    indptr: HashedFile,
    index_type: ValueType,
    rows: RowsWriter,
}

#[derive(Debug)]
enum RowsWriter {
    Plain { indices: HashedFile, data: Box<DataWriter> },
    Packed(Box<PackedRows>),
}

/// Values in the smallest type that held all of them so far.
#[derive(Debug)]
struct DataWriter {
    path: String,
    span: ValueSpan,
    value_type: ValueType,
    file: HashedFile,
    generation: u32,
}

impl MatrixWriter {
    fn create(
        folder: &Path,
        number: usize,
        matrix: &NewMatrix,
        layout: LayoutName,
    ) -> Result<Self> {
        let (key, n_vars) = (&matrix.key, matrix.var.n_rows());
        if u32::try_from(n_vars).is_err() {
            return Err(Error::unsupported("2^32 genes and more"));
        }
        // The names of layers may be anything: folders have numbers.
        let prefix = match key {
            MatrixKey::X => "X".to_owned(),
            MatrixKey::Raw => "raw".to_owned(),
            MatrixKey::Layer(_) => format!("layer-{number}"),
        };
        let index_type = if n_vars <= 1 << 16 { ValueType::U16 } else { ValueType::U32 };
        let file = |name: &str| HashedFile::create(folder, &format!("{prefix}/{name}"));
        let mut indptr = file("indptr")?;
        indptr.put(&0u64.to_le_bytes())?;
        let rows = match layout {
            LayoutName::Plain => RowsWriter::Plain {
                indices: file("indices")?,
                data: Box::new(DataWriter {
                    path: format!("{prefix}/data"),
                    span: ValueSpan::default(),
                    value_type: ValueType::U8,
                    file: file("data")?,
                    generation: 0,
                }),
            },
            LayoutName::Packed => {
                RowsWriter::Packed(Box::new(PackedRows::create(folder, &prefix)?))
            }
        };
        let (key, announced) = (key.clone(), matrix.value_type);
        Ok(Self { key, announced, n_vars, nnz: 0, indptr, index_type, rows })
    }

    fn append(&mut self, folder: &Path, segment: &CsrSegment) -> Result<()> {
        let values = segment.values().cast(self.announced)?;
        let (indptr, indices) = (segment.indptr().to_vec(), segment.indices().clone());
        let segment = &CsrSegment::try_new(indptr.into(), indices, values, self.n_vars)
            .map_err(|e| Error::invalid_input(e.message().to_owned()))?;
        let mut ends = Vec::with_capacity(segment.n_rows() * 8);
        for end in segment.indptr().iter().skip(1) {
            ends.extend_from_slice(&(self.nnz + end).to_le_bytes());
        }
        self.indptr.put(&ends)?;
        self.nnz += u64::try_from(segment.nnz()).unwrap_or(0);
        match &mut self.rows {
            RowsWriter::Plain { indices, data } => {
                put_indices(indices, segment.indices(), self.index_type)?;
                data.append(folder, segment.values())
            }
            RowsWriter::Packed(rows) => rows.append(segment),
        }
    }

    fn finish(self, folder: &Path) -> Result<MatrixEntry> {
        let text = |t: ValueType| t.as_str().to_owned();
        let mut entry = MatrixEntry {
            key: self.key.to_string(),
            layout: LayoutName::Plain,
            n_vars: self.n_vars,
            nnz: self.nnz,
            value_type: String::new(),
            index_type: text(self.index_type),
            indptr: self.indptr.finish()?,
            indices: None,
            data: None,
            offsets: None,
            rows: None,
        };
        match self.rows {
            RowsWriter::Plain { indices, data } => {
                entry.indices = Some(indices.finish()?);
                entry.value_type = text(data.value_type);
                entry.data = Some(data.finish(folder)?);
            }
            RowsWriter::Packed(rows) => {
                let (value_type, offsets, rows) = rows.finish()?;
                entry.layout = LayoutName::Packed;
                entry.value_type = text(value_type);
                entry.offsets = Some(offsets);
                entry.rows = Some(rows);
            }
        }
        Ok(entry)
    }
}

fn put_indices(file: &mut HashedFile, indices: &Indices, target: ValueType) -> Result<()> {
    const PART: usize = 1 << 16;
    match (indices, target) {
        (Indices::U16(b), ValueType::U16) => put_plain(file, b),
        (Indices::U32(b), ValueType::U32) => put_plain(file, b),
        (Indices::U16(b), _) => b.chunks(PART).try_for_each(|part| {
            let wide: Vec<u32> = part.iter().map(|&g| g.into()).collect();
            put_plain(file, &wide)
        }),
        (Indices::U32(b), _) => b.chunks(PART).try_for_each(|part| {
            // Below n_vars, which the type was chosen by.
            let narrow: Vec<u16> =
                part.iter().map(|&g| u16::try_from(g).unwrap_or(u16::MAX)).collect();
            put_plain(file, &narrow)
        }),
        _ => Err(Error::internal("gene indices of an unknown type")),
    }
}

/// Writes numbers little-endian; on the machines that there are, as they lie in memory.
fn put_plain<T: bytemuck::Pod>(file: &mut HashedFile, values: &[T]) -> Result<()> {
    if cfg!(target_endian = "big") {
        let size = size_of::<T>();
        let mut bytes = bytemuck::cast_slice::<T, u8>(values).to_vec();
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        return file.put(&bytes);
    }
    file.put(bytemuck::cast_slice(values))
}

impl DataWriter {
    fn append(&mut self, folder: &Path, values: &Values) -> Result<()> {
        self.span.add(values);
        let smallest = self.span.smallest();
        if smallest != self.value_type {
            self.promote(folder, smallest)?;
        }
        self.file.put(&values.cast(self.value_type)?.le_bytes())
    }

    /// Rewrites what is there in a wider type.
    fn promote(&mut self, folder: &Path, to: ValueType) -> Result<()> {
        self.generation += 1;
        let path = format!("{}.{}", self.path, self.generation);
        let next = HashedFile::create(folder, &path)?;
        let old = std::mem::replace(&mut self.file, next).finish()?;
        let full = folder.join(&old.path);
        let io = |e| Error::io("cannot read back", e).with("file", full.display());
        let mut source = File::open(&full).map_err(io)?;
        let mut rest = old.bytes;
        while rest > 0 {
            // A whole number of values of every type.
            let n = usize::try_from(rest.min(1 << 20)).unwrap_or(1 << 20);
            let mut part = vec![0u8; n];
            source.read_exact(&mut part).map_err(io)?;
            if cfg!(target_endian = "big") {
                part.chunks_exact_mut(self.value_type.size()).for_each(<[u8]>::reverse);
            }
            let values = Values::from_bytes(self.value_type, part.into())?;
            self.file.put(&values.cast(to)?.le_bytes())?;
            rest -= u64::try_from(n).unwrap_or(rest);
        }
        std::fs::remove_file(&full).map_err(io)?;
        self.value_type = to;
        Ok(())
    }

    fn finish(self, folder: &Path) -> Result<FileEntry> {
        let mut entry = self.file.finish()?;
        if entry.path != self.path {
            let io =
                |e| Error::io("cannot rename", e).with("file", folder.join(&self.path).display());
            std::fs::rename(folder.join(&entry.path), folder.join(&self.path)).map_err(io)?;
            entry.path = self.path;
        }
        Ok(entry)
    }
}

impl StoreWriter for CsrWriter {
    fn append(&mut self, batch: &CellBatch) -> Result<()> {
        self.new.check(batch)?;
        let folder = self.staging.path();
        for (writer, rows) in self.matrices.iter_mut().zip(&batch.matrices) {
            for segment in rows.segments() {
                writer
                    .append(folder, segment)
                    .map_err(|e| e.with_default("element", &writer.key))?;
            }
        }
        for (column, array) in self.obs.iter_mut().zip(&batch.obs) {
            column.append(folder, array)?;
        }
        if let (Some(column), Some(array)) = (&mut self.obs_index, &batch.obs_index) {
            column.append(folder, array)?;
        }
        self.n_obs += batch.n_rows;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Written> {
        let Self { staging, new, matrices, obs, obs_index, n_obs } = *self;
        if n_obs != new.n_obs {
            return Err(Error::invalid_input(format!(
                "{n_obs} cells were written, but {} were announced",
                new.n_obs
            )));
        }
        let folder = staging.path();
        let nnz = matrices.iter().map(|m| m.nnz).sum();
        let matrices =
            matrices.into_iter().map(|m| m.finish(folder)).collect::<Result<Vec<_>>>()?;
        let obs = TableEntry {
            n_rows: n_obs,
            index: obs_index.map(|c| c.finish(folder)).transpose()?,
            columns: obs.into_iter().map(|c| c.finish(folder)).collect::<Result<_>>()?,
        };
        let raw = new.matrices.iter().find(|m| m.key == MatrixKey::Raw);
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            writer: Some(concat!("cellfeed ", env!("CARGO_PKG_VERSION")).to_owned()),
            n_obs,
            obs,
            var: write_table(folder, "var", &new.var)?,
            raw_var: raw.map(|m| write_table(folder, "raw_var", &m.var)).transpose()?,
            matrices,
        };
        let text = header.text()?;
        let bytes =
            header.files().map(|f| f.bytes).sum::<u64>() + u64::try_from(text.len()).unwrap_or(0);
        // Last: a folder without it is no store.
        let path = folder.join(NAME);
        let io = |e| Error::io("cannot write", e).with("file", path.display());
        File::create(&path).and_then(|mut f| f.write_all(text.as_bytes())).map_err(io)?;
        let why = "a .csr store keeps matrices, obs and var alone";
        let dropped =
            new.extras.elements.iter().map(|(name, _)| (name.clone(), why.to_owned())).collect();
        staging.publish()?;
        Ok(Written { n_obs, nnz, bytes, dropped })
    }
}
