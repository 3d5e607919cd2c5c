//! What the writer writes is what another HDF5 implementation reads.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may panic, and its numbers are small"
)]

use cellfeed_core::{ErrorKind, ValueType};
use cellfeed_hdf5::{
    ColumnValues, Compression, Frame, H5adWriter, IndexType, Items, Strings, WriteOptions, Written,
};
use hdf5_pure::{AttrValue, DType, File};
use std::path::Path;

struct Csr {
    n_vars: u32,
    indptr: Vec<u64>,
    indices: Vec<u32>,
    data: Vec<f32>,
}

/// A matrix in which rows differ in length, some being empty.
fn csr(rows: u32, n_vars: u32) -> Csr {
    let mut csr = Csr { n_vars, indptr: vec![0], indices: vec![], data: vec![] };
    for row in 0..rows {
        for gene in (0..n_vars).filter(|gene| (gene * 7 + row * 13) % 11 < row % 5) {
            csr.indices.push(gene);
            csr.data.push((1 + (row + gene) % 120) as f32);
        }
        csr.indptr.push(csr.indices.len() as u64);
    }
    csr
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

/// Writes in blocks of 37 rows.
fn write(path: &Path, csr: &Csr, options: &WriteOptions) -> Written {
    let mut writer = H5adWriter::create(path, csr.n_vars, options).unwrap();
    let rows = csr.indptr.len() - 1;
    for first in (0..rows).step_by(37) {
        let bounds = &csr.indptr[first..=(first + 37).min(rows)];
        let (from, to) = (bounds[0] as usize, bounds[bounds.len() - 1] as usize);
        let indptr: Vec<u64> = bounds.iter().map(|at| at - bounds[0]).collect();
        writer.append(&indptr, &csr.indices[from..to], &csr.data[from..to]).unwrap();
    }
    let (cells, genes) = (names("c", rows), names("g", csr.n_vars as usize));
    writer.finish(&Frame::new(Strings::new(&cells)), &Frame::new(Strings::new(&genes))).unwrap()
}

fn check_x(file: &File, csr: &Csr) {
    let x = file.group("X").unwrap();
    let attributes = x.attrs().unwrap();
    assert_eq!(attributes["encoding-type"].as_str(), Some("csr_matrix"));
    let shape = vec![csr.indptr.len() as i64 - 1, i64::from(csr.n_vars)];
    assert_eq!(attributes["shape"], AttrValue::I64Array(shape));
    let as_u64 = |name: &str| -> Vec<u64> { x.dataset(name).unwrap().read_u64().unwrap() };
    assert_eq!(as_u64("indptr"), csr.indptr);
    let indices: Vec<u32> = as_u64("indices").iter().map(|&i| i as u32).collect();
    assert_eq!(indices, csr.indices);
    let data = x.dataset("data").unwrap();
    let data: Vec<f32> = if data.element_size().unwrap() == 2 && data.read_f64().unwrap().is_empty()
    {
        // hdf5-pure 0.47 reads half precision as bytes alone.
        let bytes = data.read_raw().unwrap();
        bytes.chunks(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
    } else {
        data.read_f64().unwrap().iter().map(|&v| v as f32).collect()
    };
    assert_eq!(data, csr.data);
}

#[test]
fn every_compression_and_chunk_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let csr = csr(400, 90);
    let compressions = [
        Compression::None,
        Compression::Gzip { level: 0 },
        Compression::gzip(),
        Compression::Gzip { level: 9 },
        Compression::Lzf,
    ];
    for compression in compressions {
        for shuffle in [false, true] {
            // One element would make 6,000 chunks, more than two levels of index.
            for chunk in [1, 7, 1000, 100_000] {
                let options = WriteOptions::default()
                    .with_compression(compression)
                    .with_shuffle(shuffle)
                    .with_chunk_elements(chunk)
                    .with_overwrite(true);
                let written = write(&path, &csr, &options);
                assert_eq!(written.bytes, std::fs::metadata(&path).unwrap().len());
                let file = File::open(&path).unwrap();
                check_x(&file, &csr);
                let data = file.dataset("X/data").unwrap();
                assert_eq!(data.chunk_shape().unwrap(), Some(vec![chunk]));
                assert_eq!(data.maxshape().unwrap(), Some(vec![hdf5_pure::MaxExtent::Unlimited]));
            }
        }
    }
}

#[test]
fn every_value_and_index_type() {
    let folder = tempfile::tempdir().unwrap();
    let csr = csr(100, 50);
    for value_type in ValueType::ALL {
        for index_type in [IndexType::I32, IndexType::I64] {
            let path = folder.path().join(format!("{value_type}{index_type:?}.h5ad"));
            let options = WriteOptions::default()
                .with_value_type(value_type)
                .with_index_type(index_type)
                .with_compression(Compression::gzip())
                .with_shuffle(true);
            write(&path, &csr, &options);
            let file = File::open(&path).unwrap();
            let data = file.dataset("X/data").unwrap();
            assert_eq!(data.element_size().unwrap(), value_type.size() as u64);
            let indices = file.dataset("X/indices").unwrap().dtype().unwrap();
            let expected = if index_type == IndexType::I32 { DType::I32 } else { DType::I64 };
            assert_eq!(indices, expected);
            assert_eq!(file.dataset("X/indptr").unwrap().dtype().unwrap(), expected);
            check_x(&file, &csr);
        }
    }
}

#[test]
fn tables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tables.h5ad");
    let rows = 5000;
    let indptr = vec![0; rows + 1];
    let strings: Vec<String> =
        (0..rows).map(|i| if i % 3 == 0 { String::new() } else { "é".repeat(i % 50) }).collect();
    let long = ["x".repeat(100_000), "y".to_owned()];
    let many = names("category", 300);
    let ints: Vec<i32> = (-10..4990).collect();
    let mut writer = H5adWriter::create(&path, 2, &WriteOptions::default()).unwrap();
    writer.append::<f32>(&indptr, &[], &[]).unwrap();
    let obs = Frame::new(Strings::with(|i, name| name.push_str(&format!("cell{i}"))))
        .with_column("int", ColumnValues::I32((&ints).into()))
        .with_column("long", ColumnValues::I64(Items::with(|i| i as i64 - (1 << 40))))
        .with_column("single", ColumnValues::F32(Items::with(|i| i as f32 / 3.0)))
        .with_column("double", ColumnValues::F64(Items::with(|i| i as f64 / 3.0)))
        .with_column("flag", ColumnValues::Bool(Items::with(|i| i % 3 == 1)))
        .with_column("words", ColumnValues::String((&strings).into()))
        .with_column(
            "few",
            ColumnValues::Categorical {
                codes: Items::with(|i| (i % 3) as i32 - 1),
                categories: &long,
                ordered: true,
            },
        )
        .with_column(
            "many",
            ColumnValues::Categorical {
                codes: Items::with(|i| (i % 300) as i32),
                categories: &many,
                ordered: false,
            },
        );
    let genes = names("g", 2);
    writer.finish(&obs, &Frame::new(Strings::new(&genes))).unwrap();

    let file = File::open(&path).unwrap();
    let root = file.root().attrs().unwrap();
    assert_eq!(root["encoding-type"].as_str(), Some("anndata"));
    assert_eq!(root["encoding-version"].as_str(), Some("0.1.0"));
    let mut groups = file.root().groups().unwrap();
    groups.sort();
    let expected = ["X", "layers", "obs", "obsm", "obsp", "uns", "var", "varm", "varp"];
    assert_eq!(groups, expected);
    let obs = file.group("obs").unwrap();
    let attributes = obs.attrs().unwrap();
    assert_eq!(attributes["encoding-type"].as_str(), Some("dataframe"));
    assert_eq!(attributes["encoding-version"].as_str(), Some("0.2.0"));
    assert_eq!(attributes["_index"].as_str(), Some("_index"));
    let order = format!("{:?}", attributes["column-order"]);
    let names = ["int", "long", "single", "double", "flag", "words", "few", "many"];
    let at: Vec<_> = names.iter().map(|name| order.find(&format!("{name:?}"))).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{order}");

    let column = |name: &str| obs.dataset(name).unwrap();
    assert_eq!(column("_index").read_string().unwrap()[4999], "cell4999");
    assert_eq!(column("int").read_i32().unwrap(), ints);
    assert_eq!(column("long").read_i64().unwrap()[5], 5 - (1i64 << 40));
    assert_eq!(column("single").read_f32().unwrap()[7], 7.0 / 3.0);
    assert_eq!(column("double").read_f64().unwrap()[7], 7.0 / 3.0);
    assert_eq!(column("flag").read_raw().unwrap()[..4], [0, 1, 0, 0]);
    assert_eq!(column("words").read_string().unwrap(), strings);
    let words = column("words").attrs().unwrap();
    assert_eq!(words["encoding-type"].as_str(), Some("string-array"));
    let int = column("int").attrs().unwrap();
    assert_eq!(int["encoding-type"].as_str(), Some("array"));

    assert_eq!(column("few/codes").read_i8().unwrap()[..4], [-1, 0, 1, -1]);
    assert_eq!(column("few/categories").read_string().unwrap(), long);
    assert_eq!(column("many/codes").dtype().unwrap(), DType::I16);
    assert_eq!(column("many/codes").read_i16().unwrap()[4999], 199);
    let few = obs.group("few").unwrap().attr_datatypes().unwrap();
    assert!(format!("{:?}", few["ordered"]).contains("TRUE"), "{:?}", few["ordered"]);
}

#[test]
fn no_rows_no_genes() {
    let folder = tempfile::tempdir().unwrap();
    for (n_vars, compression) in [(0, Compression::None), (4, Compression::gzip())] {
        let path = folder.path().join(format!("empty{n_vars}.h5ad"));
        let options = WriteOptions::default().with_compression(compression);
        let csr = Csr { n_vars, indptr: vec![0], indices: vec![], data: vec![] };
        let written = write(&path, &csr, &options);
        assert_eq!((written.n_obs, written.nnz), (0, 0));
        let file = File::open(&path).unwrap();
        check_x(&file, &csr);
        assert_eq!(file.dataset("obs/_index").unwrap().shape().unwrap(), [0]);
        assert_eq!(file.dataset("var/_index").unwrap().shape().unwrap(), [u64::from(n_vars)]);
    }
}

#[test]
fn an_interrupted_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    let mut writer = H5adWriter::create(&path, 5, &WriteOptions::default()).unwrap();
    writer.append(&[0, 1], &[4], &[1.0f32]).unwrap();
    assert!(!path.exists());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    // Nor does one that fails in its last step.
    let mut writer = H5adWriter::create(&path, 5, &WriteOptions::default()).unwrap();
    writer.append(&[0, 1], &[4], &[1.0f32]).unwrap();
    let (cells, genes) = (names("c", 2), names("g", 5));
    let error = writer
        .finish(&Frame::new(Strings::new(&cells)), &Frame::new(Strings::new(&genes)))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_exists_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5ad");
    std::fs::write(&path, "mine").unwrap();
    let error = H5adWriter::create(&path, 5, &WriteOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let options = WriteOptions::default().with_overwrite(true);
    drop(H5adWriter::create(&path, 5, &options).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn bad_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = WriteOptions::default().with_value_type(ValueType::U8);
    let path = folder.path().join("x.h5ad");
    let mut writer = H5adWriter::create(&path, 5, &options).unwrap();
    let cases: [(&[u64], &[u32], &[f32]); 9] = [
        (&[], &[], &[]),
        (&[1], &[], &[]),
        (&[0, 1], &[1, 2], &[1.0, 1.0]),
        (&[0, 2], &[1, 2], &[1.0]),
        (&[0, 2, 1, 2], &[1, 2], &[1.0, 1.0]),
        (&[0, 2], &[2, 2], &[1.0, 1.0]),
        (&[0, 2], &[1, 5], &[1.0, 1.0]),
        (&[0, 2], &[1, 2], &[1.0, 256.0]),
        (&[0, 2], &[1, 2], &[1.0, 0.5]),
    ];
    for (indptr, indices, data) in cases {
        let error = writer.append(indptr, indices, data).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{indptr:?} {indices:?} {data:?}");
    }
    assert_eq!((writer.n_obs(), writer.nnz()), (0, 0));
    let values: [i64; 2] = [3, 255];
    writer.append(&[0, 2], &[1, 2], &values).unwrap();
    assert_eq!((writer.n_obs(), writer.nnz()), (1, 2));

    let too_long = WriteOptions::default().with_chunk_elements(1 << 40);
    assert!(H5adWriter::create(folder.path().join("y"), 5, &too_long).is_err());
    let level = WriteOptions::default().with_compression(Compression::Gzip { level: 10 });
    assert!(H5adWriter::create(folder.path().join("z"), 5, &level).is_err());
}
