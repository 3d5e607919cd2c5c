//! Stores in memory put together: genes, columns, types, and what is refused.

use super::*;
use crate::obs::categorical_array;
use crate::{ColumnSchema, ErrorKind, MemoryBackend, MemoryMatrix, Value};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, Float64Array, Int64Array, StringArray, UInt64Array};
use futures::executor::block_on;

type Columns = Vec<(ColumnSchema, ArrayRef)>;

/// A store of two cells whose rows are `first` and `second`, in genes of these names.
fn store<T: Value>(names: &[&str], rows: [&[(u32, T)]; 2], obs: Columns) -> Arc<dyn Backend> {
    let indptr = vec![0, as_u64(rows[0].len()), as_u64(rows[0].len() + rows[1].len())];
    let all = || rows.iter().flat_map(|r| r.iter());
    let (indices, values) = (all().map(|v| v.0).collect(), all().map(|v| v.1).collect());
    let var = VarSchema { n_vars: as_u64(names.len()), ..VarSchema::default() };
    let x = MemoryMatrix::try_new(indptr, indices, values, var).unwrap();
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let cells: ArrayRef = Arc::new(StringArray::from(vec!["first", "second"]));
    let table = Table::of_names(as_u64(names.len()), &names).unwrap();
    let backend = MemoryBackend::try_new(2, vec![(MatrixKey::X, x)], obs).unwrap();
    let backend = backend.with_var(&MatrixKey::X, table).unwrap();
    Arc::new(backend.with_obs_names("cell", cells).unwrap())
}

fn join(stores: &[Arc<dyn Backend>], options: &ConcatOptions) -> Result<ConcatBackend> {
    ConcatBackend::try_new(stores.to_vec(), options, Arc::new(Engine::default()))
}

/// Rows as (gene, value), by row.
fn rows(backend: &ConcatBackend, rows: &[u64]) -> Vec<Vec<(u32, f64)>> {
    let rows = RowRanges::try_from_rows(rows).unwrap();
    let found = block_on(backend.read_rows(&MatrixKey::X, &rows)).unwrap();
    let mut out = Vec::new();
    for s in found.segments() {
        assert_eq!(s.values().value_type(), backend.schema().matrices[0].value_type);
        let (genes, values) = (s.indices().to_u32_vec(), s.values().to_f64_vec());
        for w in s.indptr().windows(2) {
            let span = usize::try_from(w[0]).unwrap()..usize::try_from(w[1]).unwrap();
            out.push(span.map(|i| (genes[i], values[i])).collect());
        }
    }
    out
}

fn two() -> [Arc<dyn Backend>; 2] {
    [
        store::<u8>(&["a", "b", "c"], [&[(0, 1), (2, 3)], &[(1, 255)]], vec![]),
        store::<f32>(&["d", "c", "a"], [&[(0, 0.5), (1, 7.0), (2, 9.0)], &[]], vec![]),
    ]
}

#[test]
fn genes_are_aligned_by_name() {
    let inner = join(&two(), &ConcatOptions::default()).unwrap();
    assert_eq!(inner.schema().var.names, ["a", "c"]);
    assert_eq!(inner.schema().matrices[0].nnz, None);
    assert_eq!(
        rows(&inner, &[0, 1, 2, 3]),
        [vec![(0, 1.0), (1, 3.0)], vec![], vec![(0, 9.0), (1, 7.0)], vec![]]
    );
    let outer = join(&two(), &ConcatOptions::default().with_join(Join::Outer)).unwrap();
    assert_eq!(outer.schema().var.names, ["a", "b", "c", "d"]);
    assert_eq!(outer.schema().matrices[0].nnz, Some(6));
    assert_eq!(rows(&outer, &[1, 2]), [vec![(1, 255.0)], vec![(0, 9.0), (2, 7.0), (3, 0.5)]]);
    let table = block_on(outer.read_var(&MatrixKey::X)).unwrap();
    assert_eq!(table.index().unwrap().1.value(3), "d");
    let wanted = RowRanges::single(1..3);
    assert!(outer.cost(&MatrixKey::X, &wanted).unwrap().bytes_held >= 4 * 8);
    let past = RowRanges::single(3..5);
    let error = block_on(outer.read_rows(&MatrixKey::X, &past)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfBounds);
    let none = block_on(outer.read_rows(&MatrixKey::X, &RowRanges::empty())).unwrap();
    assert_eq!(none.n_rows(), 0);
}

#[test]
fn equal_genes_pass_through_whatever_their_names() {
    let twice = || store::<u8>(&["a", "a"], [&[(0, 1)], &[(1, 2)]], vec![]);
    let joined = join(&[twice(), twice()], &ConcatOptions::default()).unwrap();
    assert_eq!(rows(&joined, &[1, 3]), [vec![(1, 2.0)], vec![(1, 2.0)]]);
    let part = RowRanges::single(0..1);
    let share = |b: &dyn Backend| {
        let rows = block_on(b.read_rows(&MatrixKey::X, &part)).unwrap();
        match rows.segments()[0].values() {
            crate::Values::U8(values) => values.as_ptr(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(share(&joined), share(joined.stores[0].as_ref()));
}

#[test]
fn what_cannot_be_aligned_is_refused() {
    let options = ConcatOptions::default();
    let fails = |stores: &[Arc<dyn Backend>], word: &str| {
        let error = join(stores, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(word), "{error}");
    };
    let other = store::<u8>(&["x"], [&[], &[]], vec![]);
    fails(&[], "no stores");
    fails(&[store::<u8>(&["a", "a"], [&[], &[]], vec![]), two()[0].clone()], "two genes");
    fails(&[two()[0].clone(), other.clone()], "no gene is in all");
    assert!(
        join(&[two()[0].clone(), other], &ConcatOptions::default().with_join(Join::Outer)).is_ok()
    );
    assert!(join(&two(), &ConcatOptions::default().with_label("cell")).is_err());
}

#[test]
fn columns_are_joined_by_name_and_kind() {
    let column = |name: &str, kind| ColumnSchema { name: name.into(), kind, encoding: "".into() };
    let categorical = |names: [&str; 2], codes: [Option<i32>; 2]| {
        let names = Arc::new(names.map(str::to_owned).to_vec());
        let schema = ColumnSchema::categorical("type", names.to_vec(), false);
        (schema, categorical_array(codes, &names).unwrap())
    };
    let integers = |name: &str, v: [i64; 2]| -> (ColumnSchema, ArrayRef) {
        (column(name, ColumnKind::Integer), Arc::new(Int64Array::from(v.to_vec())))
    };
    let x: [&[(u32, u8)]; 2] = [&[], &[]];
    let first = store(
        &["a"],
        x,
        vec![
            categorical(["T", "B"], [Some(1), None]),
            integers("n", [1, -2]),
            integers("depth", [3, 4]),
            integers("mine", [0, 0]),
            integers("odd", [0, 0]),
        ],
    );
    let second = store(
        &["a"],
        x,
        vec![
            (column("odd", ColumnKind::Float), Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            categorical(["NK", "T"], [Some(0), Some(1)]),
            (column("n", ColumnKind::Integer), Arc::new(UInt64Array::from(vec![7, 8]))),
            (column("depth", ColumnKind::String), Arc::new(StringArray::from(vec!["x", "y"]))),
        ],
    );
    let joined = join(&[first, second], &ConcatOptions::default().with_label("source")).unwrap();
    let names: Vec<&str> = joined.schema().obs.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["type", "n", "depth", "mine", "odd", "source"]);
    for (name, word) in [("depth", "do not go together"), ("mine", "only 1 of the 2")] {
        let error = joined.schema().obs_column(name).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let wanted = ["source", "type", "n", "odd", "cell"].map(str::to_owned);
    let found = block_on(joined.read_obs(&wanted, &RowRanges::single(1..4))).unwrap();
    let text = |array: &ArrayRef| {
        let array = array.as_dictionary::<Int32Type>();
        let names = array.values().as_string::<i32>();
        let name = |k: Option<i32>| k.map(|k| names.value(usize::try_from(k).unwrap()).to_owned());
        array.keys().iter().map(|k| name(k).unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(text(&found[0]), ["memory", "memory (2)", "memory (2)"]);
    assert_eq!(text(&found[1]), ["", "NK", "T"]);
    assert_eq!(found[2].as_primitive::<Int64Type>().values()[..], [-2, 7, 8]);
    assert_eq!(found[3].as_primitive::<Float64Type>().value(1), 0.5);
    assert_eq!(found[4].as_string::<i32>().value(2), "second");
    let none = block_on(joined.read_obs(&wanted, &RowRanges::empty())).unwrap();
    for (empty, full) in none.iter().zip(&found) {
        assert_eq!((empty.len(), empty.data_type()), (0, full.data_type()));
    }
}

#[test]
fn types_grow_as_little_as_holds_all() {
    use ValueType::{F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    for (a, b, both) in [
        (U8, U8, U8),
        (U8, U32, U32),
        (U8, I8, I16),
        (U8, I32, I32),
        (U16, I16, I32),
        (U32, I64, I64),
        (U64, I8, I64),
        (F16, U8, F16),
        (F16, U16, F32),
        (F32, U16, F32),
        (F32, I32, F64),
        (F16, F32, F32),
        (F32, F64, F64),
    ] {
        assert_eq!((wider(a, b), wider(b, a)), (both, both), "{a} and {b}");
    }
}

#[test]
fn few_common_genes_are_a_warning() {
    let store = |names: &[&str]| store::<u8>(names, [&[(0, 1)], &[]], vec![]);
    let engine = Arc::new(Engine::default());
    let open = |stores: &[Arc<dyn Backend>], join| {
        let options = ConcatOptions::default().with_join(join);
        ConcatBackend::try_new(stores.to_vec(), &options, Arc::clone(&engine)).unwrap();
        engine.stats().take_warnings()
    };
    let stores = [store(&["a", "b", "c", "d", "e"]), store(&["x", "e", "y"])];
    let warnings = open(&stores, Join::Inner);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("only 1 genes are in all of the 2 stores, which have 5 and 3"));
    assert!(open(&stores, Join::Outer).is_empty());
    // Half of the smallest store's genes, or more, are what stores of one kind have.
    let stores = [store(&["a", "b", "c", "d", "e"]), store(&["x", "e", "y", "b"])];
    assert!(open(&stores, Join::Inner).is_empty());
}
