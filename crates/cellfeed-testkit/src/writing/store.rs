//! Oracles as stores to be written: what is announced, and batches of odd sizes.

use crate::compare::bits;
use crate::fixtures::{column_array, column_schema, var_table};
use crate::oracle::{Oracle, OracleMatrix};
use arrow_array::{ArrayRef, StringArray};
use cellfeed_core::{
    ArrayValues, Attribute, CellBatch, CsrRows, CsrSegment, Element, Error, Extras, Indices,
    MatrixKey, NewMatrix, NewStore, Node, Result, RowRanges, ValueType, Values, take_rows,
};
use std::ops::Range;
use std::sync::Arc;

/// Sizes of batches, over and over.
const SIZES: [u64; 7] = [1, 7, 0, 64, 3, 501, 2];

/// What a writer is told of the oracle's store.
///
/// # Errors
/// As [`column_array`].
pub fn new_store(oracle: &Oracle, extras: Extras) -> Result<NewStore> {
    let var = Arc::new(var_table(oracle, &MatrixKey::X)?);
    let matrices = oracle.matrices.iter().map(|matrix| {
        let raw = matrix.key == MatrixKey::Raw;
        let var = if raw { Arc::new(var_table(oracle, &matrix.key)?) } else { Arc::clone(&var) };
        let nnz = u64::try_from(matrix.values.len()).ok();
        Ok(NewMatrix {
            key: matrix.key.clone(),
            var,
            value_type: matrix.values.value_type(),
            expected_nnz: nnz.filter(|_| !raw),
        })
    });
    Ok(NewStore {
        n_obs: oracle.n_obs,
        matrices: matrices.collect::<Result<_>>()?,
        obs_index: (!oracle.obs_names.is_empty()).then(|| "cell".to_owned()),
        obs: oracle.obs.iter().map(column_schema).collect(),
        var,
        extras,
    })
}

/// The oracle's cells in batches of odd sizes, empty ones among them. Rows come in one segment or in
/// several, with narrow and wide indices; every third batch has its values in a wider type than was
/// announced.
///
/// # Errors
/// As [`column_array`].
pub fn batches(oracle: &Oracle, new: &NewStore) -> Result<Vec<CellBatch>> {
    let columns: Vec<ArrayRef> =
        oracle.obs.iter().map(|c| column_array(c, oracle.n_obs)).collect::<Result<_>>()?;
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(&oracle.obs_names));
    let (mut batches, mut start) = (Vec::new(), 0);
    for (i, size) in SIZES.into_iter().cycle().enumerate() {
        if start == oracle.n_obs && i > 2 {
            break;
        }
        let rows = start..(start + size).min(oracle.n_obs);
        start = rows.end;
        let wanted = RowRanges::single(rows.clone());
        let matrices = oracle.matrices.iter().map(|m| csr(m, rows.clone(), i));
        let obs = columns.iter().map(|array| take_rows(array, &wanted));
        let obs_index = new.obs_index.as_ref().map(|_| take_rows(&names, &wanted)).transpose()?;
        batches.push(CellBatch {
            n_rows: wanted.n_rows(),
            matrices: matrices.collect::<Result<_>>()?,
            obs_index,
            obs: obs.collect::<Result<_>>()?,
        });
    }
    Ok(batches)
}

fn at(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn csr(matrix: &OracleMatrix, rows: Range<u64>, batch: usize) -> Result<CsrRows> {
    let n = rows.end - rows.start;
    let cuts = if batch.is_multiple_of(2) { vec![0, n] } else { vec![0, n / 3, n / 3, n] };
    let segments = cuts.windows(2).enumerate().map(|(part, cut)| {
        let indptr = &matrix.indptr[at(rows.start + cut[0])..=at(rows.start + cut[1])];
        let (first, last) = (at(indptr[0]), at(indptr[indptr.len() - 1]));
        let genes = &matrix.indices[first..last];
        let short = genes.iter().map(|&g| u16::try_from(g).ok()).collect::<Option<Vec<u16>>>();
        let indices = match short {
            Some(short) if part == 1 => Indices::from(short),
            _ => Indices::from(genes.to_vec()),
        };
        let values = matrix.values.slice(first, last - first);
        let wide = (batch % 3 == 2).then(|| widened(&values)).flatten();
        let indptr: Vec<u64> =
            indptr.iter().map(|p| p - matrix.indptr[at(rows.start + cut[0])]).collect();
        CsrSegment::try_new(indptr.into(), indices, wide.unwrap_or(values), matrix.n_vars)
    });
    Ok(CsrRows::new(segments.collect::<Result<_>>()?))
}

/// The values as `f64`, if they come back from that as they were.
fn widened(values: &Values) -> Option<Values> {
    let wide = values.cast(ValueType::F64).ok()?;
    let back = wide.cast(values.value_type()).ok()?;
    (bits(&back) == bits(values)).then_some(wide)
}

fn element(kind: &str, version: &str, node: Node) -> Element {
    let text = |name: &str, value: &str| (name.to_owned(), Attribute::Text(value.to_owned()));
    let attributes = match kind {
        "" => Vec::new(),
        _ => vec![text("encoding-type", kind), text("encoding-version", version)],
    };
    Element { attributes, node }
}

fn array(kind: &str, shape: &[u64], values: ArrayValues) -> Element {
    element(kind, "0.2.0", Node::Array { shape: shape.to_vec(), values })
}

fn group(kind: &str, members: Vec<(&str, Element)>) -> Element {
    let members = members.into_iter().map(|(name, e)| (name.to_owned(), e)).collect();
    element(kind, "0.1.0", Node::Group(members))
}

/// Extras of every sort, as AnnData would have them: nested groups, scalars, text, truth values, arrays
/// of two dimensions and of no length, a sparse matrix.
#[must_use]
pub fn extras(oracle: &Oracle) -> Extras {
    let numbers = |values: Values| ArrayValues::Numbers(values);
    let texts = |t: &[&str]| ArrayValues::Texts(StringArray::from_iter_values(t));
    let n = at(oracle.n_obs);
    let embedding: Vec<f32> = (0u16..).take(n * 2).map(|i| f32::from(i) / 3.0 - 1.0).collect();
    let params = vec![
        ("method", array("string", &[], texts(&["umap"]))),
        ("n_neighbors", array("numeric-scalar", &[], numbers(vec![15i64].into()))),
        ("metric_kwds", group("dict", vec![])),
        ("use_rep", array("numeric-scalar", &[], ArrayValues::Bools(vec![true]))),
    ];
    let uns = vec![
        ("neighbors", group("dict", vec![("params", group("dict", params))])),
        ("colors", array("string-array", &[3], texts(&["#1f77b4", "", "µ"]))),
        ("flags", array("array", &[4], ArrayValues::Bools(vec![true, false, false, true]))),
        (
            "table",
            array("array", &[2, 3], numbers(vec![0.5f64, -0.0, f64::NAN, 1.0, 2.0, 3.0].into())),
        ),
        ("counts", array("array", &[3], numbers(vec![0u64, 1, u64::MAX].into()))),
        ("none", array("array", &[0], numbers(Vec::<i32>::new().into()))),
        ("bytes", array("array", &[3], numbers(vec![0u8, 255, 7].into()))),
    ];
    let mut distances = group(
        "csr_matrix",
        vec![
            (
                "data",
                element(
                    "",
                    "",
                    Node::Array { shape: vec![0], values: numbers(Vec::<f32>::new().into()) },
                ),
            ),
            (
                "indices",
                element(
                    "",
                    "",
                    Node::Array { shape: vec![0], values: numbers(Vec::<i32>::new().into()) },
                ),
            ),
            (
                "indptr",
                element(
                    "",
                    "",
                    Node::Array {
                        shape: vec![oracle.n_obs + 1],
                        values: numbers(vec![0i32; n + 1].into()),
                    },
                ),
            ),
        ],
    );
    let side = i64::try_from(oracle.n_obs).unwrap_or(0);
    distances.attributes.push(("shape".to_owned(), Attribute::Integers(vec![side, side])));
    let elements = vec![
        ("uns", group("dict", uns)),
        (
            "obsm",
            group(
                "dict",
                vec![("X_umap", array("array", &[oracle.n_obs, 2], numbers(embedding.into())))],
            ),
        ),
        ("obsp", group("dict", vec![("distances", distances)])),
    ];
    let elements = elements.into_iter().map(|(name, e)| (name.to_owned(), e)).collect();
    Extras { elements, left_out: Vec::new() }
}

/// A batch of one row too wide, or of a value too large: for refusals.
pub(super) fn odd_rows(genes: Vec<u32>, values: Values, n_vars: u64) -> Result<CsrRows> {
    let nnz = u64::try_from(genes.len()).map_err(|_| Error::internal("too many genes"))?;
    let segment = CsrSegment::try_new(vec![0, nnz].into(), genes.into(), values, n_vars)?;
    Ok(CsrRows::new(vec![segment]))
}
