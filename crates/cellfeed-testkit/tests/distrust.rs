//! Law 7, proven on a toy format: a careful reader passes, and each careless one is found out.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used
)]

use arrow_array::ArrayRef;
use async_trait::async_trait;
use cellfeed_core::io::Engine;
use cellfeed_core::{
    Archive, Backend, CsrRows, CsrSegment, Error, ErrorKind, Hints, MatrixKey, MemoryBackend,
    MemoryMatrix, ReadCost, Result, RowRanges, Schema, Table, VarSchema,
};
use cellfeed_testkit::{Law, Limits, Oracle, PeakAlloc, Subject, conformance, fixtures, suite};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// How a reader of the toy format is careless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Careless {
    Not,
    Panics,
    PanicsOnReading,
    AllocatesByHeader,
    Hangs,
    AnswersTooManyRows,
    AnswersPastNVars,
    NamesNoFile,
    BlamesItself,
    FailsOnHealthyFiles,
}

/// `X` as little-endian 64-bit numbers: rows, genes, values, then indptr, then indices. The values
/// are ones.
fn encode(oracle: &Oracle) -> Vec<u8> {
    let x = &oracle.matrices[0];
    let head = [oracle.n_obs, oracle.n_vars, x.indices.len() as u64];
    let genes = x.indices.iter().map(|&gene| u64::from(gene));
    let numbers = head.into_iter().chain(x.indptr.iter().copied()).chain(genes);
    numbers.flat_map(u64::to_le_bytes).collect()
}

fn number(bytes: &[u8], i: usize) -> Option<u64> {
    let bytes = bytes.get(i.checked_mul(8)?..i.checked_add(1)?.checked_mul(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn decode(bytes: &[u8], how: Careless) -> Result<MemoryBackend> {
    let corrupt = |what: &str| match how {
        Careless::NamesNoFile => Error::corrupt(what),
        Careless::BlamesItself => Error::internal(what).with("file", "toy"),
        _ => Error::corrupt(what).with("file", "toy"),
    };
    let get = |i: usize| number(bytes, i).ok_or_else(|| corrupt("the file ends early"));
    let head = |i: usize| match how {
        Careless::Panics => Ok(number(bytes, i).unwrap()),
        _ => get(i),
    };
    let (n_obs, n_vars, nnz) = (head(0)?, head(1)?, head(2)?);
    if how == Careless::AllocatesByHeader {
        let mut room: Vec<u8> = Vec::new();
        let _ = room.try_reserve(usize::try_from(n_obs).unwrap_or(usize::MAX));
        std::hint::black_box(&room);
    }
    let all = (n_obs as u128 + nnz as u128 + 4) * 8;
    if all != bytes.len() as u128 {
        if how == Careless::Hangs {
            std::thread::sleep(Duration::from_secs(3600));
        }
        return Err(corrupt("the file's length is not that of its header"));
    }
    // At most the file's length in numbers, as was just checked.
    let (rows, nnz) = (n_obs as usize, nnz as usize);
    let indptr = (0..=rows).map(|i| get(3 + i)).collect::<Result<Vec<u64>>>()?;
    let gene = |i| get(4 + rows + i).map(|gene| u32::try_from(gene).unwrap_or(u32::MAX));
    let genes = (0..nnz).map(gene).collect::<Result<Vec<u32>>>()?;
    let var = VarSchema { n_vars, ..VarSchema::default() };
    let matrix = MemoryMatrix::try_new(indptr, genes, vec![1f32; nnz], var);
    let matrix = matrix.map_err(|e| corrupt(e.message()))?;
    MemoryBackend::try_new(n_obs, vec![(MatrixKey::X, matrix)], Vec::new())
}

/// A toy store that is careless when it reads. It reads its file anew each time, on the I/O threads.
#[derive(Debug)]
struct Toy {
    inner: MemoryBackend,
    how: Careless,
    path: PathBuf,
    engine: Arc<Engine>,
}

#[async_trait]
impl Backend for Toy {
    fn schema(&self) -> &Arc<Schema> {
        self.inner.schema()
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn cost(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<ReadCost> {
        self.inner.cost(matrix, rows)
    }

    async fn read_rows(&self, matrix: &MatrixKey, rows: &RowRanges) -> Result<CsrRows> {
        let answer = self.inner.read_rows(matrix, rows).await?;
        let path = self.path.clone();
        let read = move || std::fs::read(path).map_err(|e| Error::io("cannot read", e));
        self.engine.blocking(read).await?;
        let n_vars = self.schema().var.n_vars;
        match self.how {
            Careless::PanicsOnReading if n_vars != ORACLE_VARS => panic!("there are other genes"),
            Careless::AnswersTooManyRows if n_vars != ORACLE_VARS => {
                Ok(CsrRows::new([answer.segments(), answer.segments()].concat()))
            }
            Careless::AnswersPastNVars if n_vars != ORACLE_VARS && !rows.is_empty() => {
                let gene = u32::try_from(n_vars).unwrap_or(u32::MAX);
                let mut indptr = vec![1; answer.n_rows() + 1];
                indptr[0] = 0;
                let (genes, values) = (vec![gene].into(), vec![1f32].into());
                let segment = CsrSegment::try_new(indptr.into(), genes, values, u64::MAX)?;
                Ok(CsrRows::new(vec![segment]))
            }
            Careless::FailsOnHealthyFiles => Err(Error::corrupt("no").with("file", "toy")),
            _ => Ok(answer),
        }
    }

    async fn read_obs(&self, columns: &[String], rows: &RowRanges) -> Result<Vec<ArrayRef>> {
        self.inner.read_obs(columns, rows).await
    }

    async fn read_var(&self, matrix: &MatrixKey) -> Result<Table> {
        self.inner.read_var(matrix).await
    }

    fn archive(&self) -> Option<&dyn Archive> {
        self.inner.archive()
    }
}

const ORACLE_VARS: u64 = 23;

fn toy_oracle() -> Oracle {
    let mut oracle = fixtures::oracle("toy", 37, 23, 9).without_obs_names();
    oracle.matrices.truncate(1);
    oracle.matrices[0].values = vec![1f32; oracle.matrices[0].indices.len()].into();
    oracle.obs.clear();
    oracle.var.clear();
    oracle.var_names.clear();
    oracle.raw_var_names.clear();
    oracle
}

fn subject(how: Careless) -> Subject {
    let write = |path: &Path, oracle: &Oracle| {
        std::fs::write(path, encode(oracle)).map_err(|e| Error::io("cannot write", e))
    };
    let engine = Arc::new(Engine::default());
    let open = move |path: &Path| -> Result<Arc<dyn Backend>> {
        let (path, engine) = (path.to_owned(), Arc::clone(&engine));
        let bytes = std::fs::read(&path).map_err(|e| Error::io("cannot read", e))?;
        Ok(Arc::new(Toy { inner: decode(&bytes, how)?, how, path, engine }))
    };
    let subject = Subject::written("toy.bin", toy_oracle(), write, open).unwrap();
    subject.with_shared_memory()
}

fn careful() -> Vec<Subject> {
    vec![subject(Careless::Not)]
}

conformance!(toy, careful);

#[test]
fn careless_readers_are_found() {
    for (how, what) in [
        (Careless::Panics, "panicked"),
        (Careless::PanicsOnReading, "there are other genes"),
        (Careless::AllocatesByHeader, "bytes of memory"),
        (Careless::Hangs, "no answer within"),
        (Careless::AnswersTooManyRows, "rows, got"),
        (Careless::AnswersPastNVars, "n_vars"),
        (Careless::NamesNoFile, "does not name the file"),
        (Careless::BlamesItself, "not called corrupt"),
        (Careless::FailsOnHealthyFiles, "undamaged"),
    ] {
        let limits = Limits { timeout: Duration::from_secs(2), ..Limits::default() };
        let subject = subject(how).with_limits(limits);
        let violation = suite::run_one(Law::Distrust, &subject).expect_err(&format!("{how:?}"));
        let message = violation.to_string();
        println!("{how:?}: {message}");
        assert!(message.starts_with("law 7 (distrust): toy: "), "{message}");
        assert!(message.contains(what), "{how:?}: {message}");
    }
}

#[test]
fn foreign_oracles_are_loaded_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.oracle.json");
    std::fs::write(&path, r#"{"n_obs": 0, "n_vars": 0, "matrices": {}, "writer": null}"#).unwrap();
    assert_eq!(Oracle::load(&path).unwrap().name, "empty");
    let error = Oracle::load(&folder.path().join("none.oracle.json")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
