//! Pages as the `parquet` crate writes them: every encoding and codec, both versions.
#![allow(clippy::unwrap_used, clippy::panic)]

use cellfeed_core::ErrorKind;
use cellfeed_core::io::Engine;
use cellfeed_parquet::{ParquetBackend, ParquetOptions};
use cellfeed_testkit::{Oracle, OracleValues, check_oracle};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int64Type};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "message cells {
    optional group genes (LIST) { repeated group list { optional int64 element; } }
    optional group expressions (LIST) { repeated group list { required float element; } }
    optional binary plate (UTF8);
}";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parquet")
}

/// The cells of the small Tahoe folder, without columns that say nothing here.
fn oracle() -> Oracle {
    let mut oracle = Oracle::load(&data().join("tahoe.oracle.json")).unwrap();
    oracle.obs.retain(|c| c.name == "plate");
    oracle.obs_names.clear();
    oracle
}

/// Values of a cell with their definition and repetition levels.
type Cell<T> = (Vec<T>, Vec<i16>, Option<Vec<i16>>);

fn column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, rows: &[Cell<T::T>]) {
    let mut writer = group.next_column().unwrap().unwrap();
    for (values, definition, repetition) in rows {
        let typed = writer.typed::<T>();
        typed.write_batch(values, Some(definition), repetition.as_deref()).unwrap();
    }
    writer.close().unwrap();
}

fn write(path: &Path, oracle: &Oracle, properties: WriterProperties) {
    let x = &oracle.matrices[0];
    let OracleValues::Integer(tokens) =
        &oracle.var.iter().find(|c| c.name == "token_id").unwrap().values
    else {
        panic!("tokens")
    };
    let OracleValues::String(plates) = &oracle.obs[0].values else { panic!("plates") };
    let values = x.values.to_f64_vec();
    let (mut genes, mut expressions, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for (ends, plate) in x.indptr.windows(2).zip(plates) {
        let span = usize::try_from(ends[0]).unwrap()..usize::try_from(ends[1]).unwrap();
        let token = |&g: &u32| i64::try_from(tokens[g as usize].unwrap()).unwrap();
        let row: Vec<i64> =
            std::iter::once(1).chain(x.indices[span.clone()].iter().map(token)).collect();
        let repetition: Vec<i16> = (0..row.len()).map(|i| i16::from(i > 0)).collect();
        let data = std::iter::once(-2.0).chain(values[span].iter().copied());
        #[allow(clippy::cast_possible_truncation)]
        let data: Vec<f32> = data.map(|v| v as f32).collect();
        expressions.push((data, vec![2; row.len()], Some(repetition.clone())));
        genes.push((row, vec![3; repetition.len()], Some(repetition)));
        let word: Vec<ByteArray> = plate.iter().map(|p| ByteArray::from(p.as_str())).collect();
        let level = vec![i16::from(plate.is_some())];
        words.push((word, level, None));
    }
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in [0..40, 40..genes.len()] {
        let mut group = writer.next_row_group().unwrap();
        column::<Int64Type>(&mut group, &genes[rows.clone()]);
        column::<FloatType>(&mut group, &expressions[rows.clone()]);
        column::<ByteArrayType>(&mut group, &words[rows]);
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn open(path: &Path) -> ParquetBackend {
    let options =
        ParquetOptions::default().with_gene_metadata(data().join("gene_metadata.parquet"));
    ParquetBackend::open(path, Arc::new(Engine::default()), &options).unwrap()
}

#[test]
fn every_encoding_codec_and_version_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let oracle = oracle();
    let path_of = |name: &str| match name {
        "plate" => ColumnPath::new(vec![name.to_owned()]),
        _ => ColumnPath::new([name, "list", "element"].map(str::to_owned).to_vec()),
    };
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::try_new(3).unwrap()),
    ];
    let encodings = [
        None,
        Some([Encoding::PLAIN, Encoding::PLAIN, Encoding::PLAIN]),
        Some([
            Encoding::DELTA_BINARY_PACKED,
            Encoding::BYTE_STREAM_SPLIT,
            Encoding::DELTA_LENGTH_BYTE_ARRAY,
        ]),
        Some([Encoding::BYTE_STREAM_SPLIT, Encoding::BYTE_STREAM_SPLIT, Encoding::PLAIN]),
    ];
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for (codec, page_rows) in codecs.into_iter().zip([3, 1, 1000, 16]) {
            for encodings in encodings {
                let mut properties = WriterProperties::builder()
                    .set_writer_version(version)
                    .set_compression(codec)
                    .set_dictionary_enabled(encodings.is_none())
                    .set_data_page_row_count_limit(page_rows)
                    .set_write_batch_size(1);
                for (name, encoding) in
                    ["genes", "expressions", "plate"].iter().zip(encodings.iter().flatten())
                {
                    properties = properties.set_column_encoding(path_of(name), *encoding);
                }
                write(&path, &oracle, properties.build());
                check_oracle(&open(&path), &oracle)
                    .unwrap_or_else(|e| panic!("{version:?} {codec:?} {encodings:?}: {e}"));
            }
        }
    }
}

#[test]
fn an_encoding_that_is_not_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let oracle = oracle();
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_column_encoding("plate".into(), Encoding::DELTA_BYTE_ARRAY)
        .build();
    write(&path, &oracle, properties);
    let rows = cellfeed_core::RowRanges::single(0..61);
    let read = cellfeed_core::Backend::read_obs;
    let store = open(&path);
    let error =
        futures::executor::block_on(read(&store, &["plate".to_owned()], &rows)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("DELTA_BYTE_ARRAY"), "{error}");
}
