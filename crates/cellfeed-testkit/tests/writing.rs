//! The suite for writers, proven: it passes a healthy writer, and finds every fault out.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::unwrap_used)]

use arrow_array::{Array, ArrayRef, StringArray};
use cellfeed_core::{
    Backend, CellBatch, CsrRows, Error, Extras, MatrixKey, MemoryBackend, MemoryMatrix, NewStore,
    Result, StoreWriter, ValueType, Values, VarSchema, WriteOptions, Written, concat,
};
use cellfeed_testkit::writing::{Failure, Writing, check};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What a faulty writer does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LosesLastRow,
    LosesExtras,
    DropsExtrasSilently,
    SwapsMatrices,
    WritesOver,
    LeavesPartial,
    NamedTooEarly,
    TakesAnyCount,
    TakesAnyBatch,
    TakesAnyGene,
    RoundsValues,
    WrongBytes,
    WrongNnz,
    KeepsOld,
}

/// A format in memory: the file holds a number, under which the store is kept here.
static STORES: Mutex<Option<HashMap<u64, Arc<MemoryBackend>>>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(0);

fn open(path: &Path) -> Result<Arc<dyn Backend>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("cannot open", e))?;
    let stores = STORES.lock().unwrap();
    Ok(Arc::clone(&stores.as_ref().unwrap()[&text.parse().unwrap()]) as Arc<dyn Backend>)
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    partial: PathBuf,
    new: NewStore,
    fault: Fault,
    overwrite: bool,
    batches: Vec<CellBatch>,
    done: bool,
}

fn create(
    fault: Fault,
    path: &Path,
    new: NewStore,
    options: &WriteOptions,
) -> Result<Box<dyn StoreWriter>> {
    if let Some(codec) = options.codec() {
        return Err(Error::invalid_input(format!("there is no codec {codec}")));
    }
    let overwrite = options.overwrite() || fault == Fault::WritesOver;
    if path.exists() && !overwrite {
        return Err(Error::invalid_input("it exists"));
    }
    let partial = match fault {
        Fault::NamedTooEarly => path.to_path_buf(),
        _ => path.with_file_name(".partial"),
    };
    std::fs::write(&partial, "").map_err(|e| Error::io("cannot create", e))?;
    let path = path.to_path_buf();
    Ok(Box::new(Writer { path, partial, new, fault, overwrite, batches: vec![], done: false }))
}

impl StoreWriter for Writer {
    fn append(&mut self, batch: &CellBatch) -> Result<()> {
        if self.fault != Fault::TakesAnyBatch {
            self.new.check(batch)?;
            for (column, array) in self.new.obs.iter().zip(&batch.obs) {
                use arrow_array::cast::AsArray;
                use arrow_array::types::Int32Type;
                use arrow_schema::DataType as Type;
                use cellfeed_core::ColumnKind as Kind;
                match (&column.kind, array.data_type()) {
                    (Kind::Categorical { categories, .. }, Type::Dictionary(_, _)) => {
                        let codes = array.as_dictionary::<Int32Type>().keys();
                        let past = codes
                            .iter()
                            .flatten()
                            .any(|c| usize::try_from(c).unwrap() >= categories.len());
                        if past {
                            return Err(Error::invalid_input("a code has no category"));
                        }
                    }
                    (Kind::String, Type::Utf8)
                    | (Kind::Integer, Type::Int64 | Type::UInt64)
                    | (Kind::Float, Type::Float64)
                    | (Kind::Boolean, Type::Boolean) => {}
                    _ => return Err(Error::invalid_input("a column of another type")),
                }
            }
        }
        for (matrix, rows) in self.new.matrices.iter().zip(&batch.matrices) {
            for segment in rows.segments() {
                if self.fault != Fault::RoundsValues {
                    segment.values().cast(matrix.value_type)?;
                }
                let past = |g: &u32| u64::from(*g) >= matrix.var.n_rows();
                if self.fault != Fault::TakesAnyGene
                    && segment.indices().to_u32_vec().iter().any(past)
                {
                    return Err(Error::invalid_input("a gene past the last"));
                }
            }
        }
        self.batches.push(batch.clone());
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        let n: u64 = self.batches.iter().map(|b| b.n_rows).sum();
        if n != self.new.n_obs && self.fault != Fault::TakesAnyCount {
            return Err(Error::invalid_input(format!("{n} cells came")));
        }
        self.new.n_obs = n;
        let nnz: usize = self.batches.iter().flat_map(|b| &b.matrices).map(CsrRows::nnz).sum();
        if self.fault == Fault::LosesLastRow {
            // A row comes twice instead.
            let last = self.batches.iter().rposition(|b| b.n_rows == 1);
            let first = self.batches.iter().position(|b| b.n_rows == 1);
            if let (Some(first), Some(last)) = (first, last) {
                self.batches[last] = self.batches[first].clone();
            }
        }
        if self.fault == Fault::SwapsMatrices && self.new.matrices.len() > 2 {
            let (a, b) = (self.new.matrices[0].key.clone(), self.new.matrices[1].key.clone());
            (self.new.matrices[0].key, self.new.matrices[1].key) = (b, a);
        }
        let store = self.store();
        let number = NEXT.fetch_add(1, SeqCst);
        STORES.lock().unwrap().get_or_insert_default().insert(number, Arc::new(store));
        let text = number.to_string();
        if !(self.fault == Fault::KeepsOld && self.path.exists()) {
            assert!(self.overwrite || self.fault == Fault::NamedTooEarly || !self.path.exists());
            std::fs::write(&self.path, &text).unwrap();
        }
        if self.partial != self.path {
            std::fs::remove_file(&self.partial).unwrap();
        }
        self.done = true;
        let silent = self.fault == Fault::LosesExtras;
        let all = self.fault == Fault::DropsExtrasSilently;
        Ok(Written {
            n_obs: self.new.n_obs,
            nnz: nnz as u64 + u64::from(self.fault == Fault::WrongNnz),
            bytes: text.len() as u64 + u64::from(self.fault == Fault::WrongBytes),
            dropped: if all || silent && self.new.extras.elements.is_empty() {
                vec![("uns".to_owned(), "no place".to_owned())]
            } else {
                Vec::new()
            },
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.done && self.fault != Fault::LeavesPartial {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

impl Writer {
    fn store(&self) -> MemoryBackend {
        if self.batches.is_empty() {
            // Only the fault that takes any number of cells gets here.
            return MemoryBackend::try_new(0, vec![], vec![]).unwrap();
        }
        let column = |parts: Vec<ArrayRef>| -> ArrayRef { concat(&parts).unwrap() };
        let matrices = (0..self.new.matrices.len()).map(|i| {
            let new = &self.new.matrices[i];
            let (mut indptr, mut genes, mut parts) = (vec![0u64], Vec::new(), Vec::new());
            for segment in self.batches.iter().flat_map(|b| b.matrices[i].segments()) {
                let base = indptr[indptr.len() - 1];
                indptr.extend(segment.indptr()[1..].iter().map(|p| p + base));
                genes.extend(segment.indices().to_u32_vec());
                let to = new.value_type;
                let values = segment.values();
                parts.push(values.cast(to).unwrap_or_else(|_| Values::empty(to)));
            }
            let var = VarSchema { n_vars: new.var.n_rows(), ..VarSchema::default() };
            macro_rules! build {
                ($($variant:ident)*) => {
                    match new.value_type {
                        $(ValueType::$variant => {
                            let mut all = Vec::new();
                            for part in &parts {
                                let Values::$variant(v) = part else { panic!() };
                                all.extend_from_slice(v);
                            }
                            all.resize(genes.len(), Default::default());
                            MemoryMatrix::try_new(indptr, genes, all, var).unwrap()
                        })*
                        other => panic!("{other}"),
                    }
                };
            }
            (new.key.clone(), build!(U8 U16 U32 U64 I8 I16 I32 I64 F16 F32 F64))
        });
        let matrices: Vec<_> = matrices.collect();
        let obs = (0..self.new.obs.len()).map(|i| {
            let parts = self.batches.iter().map(|b| Arc::clone(&b.obs[i])).collect();
            (self.new.obs[i].clone(), column(parts))
        });
        let mut store = MemoryBackend::try_new(self.new.n_obs, matrices, obs.collect()).unwrap();
        for matrix in &self.new.matrices {
            store = store.with_var(&matrix.key, matrix.var.as_ref().clone()).unwrap();
        }
        store = store.with_var(&MatrixKey::X, self.new.var.as_ref().clone()).unwrap();
        if let Some(name) = &self.new.obs_index {
            let mut parts: Vec<ArrayRef> =
                self.batches.iter().flat_map(|b| b.obs_index.clone()).collect();
            parts.push(Arc::new(StringArray::from(Vec::<String>::new())));
            store = store.with_obs_names(name, column(parts)).unwrap();
        }
        match self.fault {
            Fault::LosesExtras | Fault::DropsExtrasSilently => store,
            _ => store.with_extras(Extras { left_out: vec![], ..self.new.extras.clone() }),
        }
    }
}

fn run(fault: Fault) -> std::result::Result<(), Failure> {
    check(move |path, new, options| create(fault, path, new, options), open)
}

#[test]
fn a_healthy_writer_passes() {
    run(Fault::None).unwrap();
}

#[test]
fn what_is_dropped_must_be_allowed() {
    let create = |path: &Path, new: NewStore, options: &WriteOptions| {
        create(Fault::LosesExtras, path, new, options)
    };
    assert!(
        Writing::new("store", create, open).may_drop("uns").check().is_err(),
        "obsm is lost too"
    );
}

#[test]
fn every_fault_is_found() {
    for (fault, word) in [
        (Fault::LosesLastRow, "law 1"),
        (Fault::LosesExtras, "was written, but is not there"),
        (Fault::DropsExtrasSilently, "may not be"),
        (Fault::SwapsMatrices, "X"),
        (Fault::WritesOver, "written over"),
        (Fault::LeavesPartial, "is left"),
        (Fault::NamedTooEarly, "before it is finished"),
        (Fault::TakesAnyCount, "is finished"),
        (Fault::TakesAnyBatch, "is taken"),
        (Fault::TakesAnyGene, "is taken"),
        (Fault::RoundsValues, "is taken"),
        (Fault::WrongBytes, "bytes were reported"),
        (Fault::WrongNnz, "values were reported"),
        (Fault::KeepsOld, "after it was replaced"),
    ] {
        let failure = run(fault).expect_err(&format!("{fault:?} passes")).to_string();
        println!("{fault:?}: {failure}");
        assert!(failure.contains(word), "{fault:?}: {failure}");
    }
}
