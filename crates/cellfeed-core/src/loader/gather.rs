//! The gather: rows of a fetch, in file order, into a minibatch in the plan's order, converting
//! values in the same pass. Each row that is not canonical yet is made so on the way: its gene indices
//! are looked at, or it is decoded. This is the one copy that a decoded row undergoes.

use super::fetch::Fetch;
use super::minibatch::{Data, Layout, Minibatch, Output, OutputType, Recycler, X};
use super::transform::Recipe;
use crate::csr::{Genes, Row, RowBuffer, with_row_values};
use crate::value::Value;
use crate::vector;
use crate::{Error, Result};
use half::f16;
use std::sync::Arc;

/// Digits of a number that people can read.
const LONGEST_NUMBER: usize = 20;

/// Where a row of a fetch lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowRef {
    pub(super) segment: u32,
    /// Where in the segment.
    pub(super) place: usize,
    pub(super) len: u32,
}

/// What minibatches are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) layout: Layout,
    pub(super) output: OutputType,
    pub(super) recipe: Option<&'a Recipe>,
}

/// Gathers minibatch `j` of a fetch.
pub(super) fn gather(
    fetch: &Fetch,
    j: usize,
    form: Form<'_>,
    recycler: &Arc<Recycler>,
    buffer: &mut RowBuffer,
) -> Result<Minibatch> {
    let Form { layout, output, recipe } = form;
    let positions = fetch.plan.minibatch(j);
    let mut vectors = recycler.take();
    let index = |p: &u32| usize::try_from(*p).unwrap_or(usize::MAX);
    vectors.rows.extend(positions.iter().map(|p| fetch.rows[index(p)]));
    let refs = positions.iter().map(|p| fetch.refs[index(p)]).zip(&vectors.rows);
    let args = Args { fetch, refs, recipe, buffer };
    let data = match (layout, output) {
        (Layout::Csr, _) => {
            let (indptr, indices) = (&mut vectors.indptr, &mut vectors.indices);
            match output {
                OutputType::U8 => args.csr::<u8>(indptr, indices, vectors.data),
                OutputType::U16 => args.csr::<u16>(indptr, indices, vectors.data),
                OutputType::I32 => args.csr::<i32>(indptr, indices, vectors.data),
                OutputType::I64 => args.csr::<i64>(indptr, indices, vectors.data),
                OutputType::F16 => args.csr::<f16>(indptr, indices, vectors.data),
                OutputType::F32 => args.csr::<f32>(indptr, indices, vectors.data),
                OutputType::F64 => args.csr::<f64>(indptr, indices, vectors.data),
            }
        }
        (Layout::Dense, OutputType::U8) => args.dense::<u8>(vectors.data),
        (Layout::Dense, OutputType::U16) => args.dense::<u16>(vectors.data),
        (Layout::Dense, OutputType::I32) => args.dense::<i32>(vectors.data),
        (Layout::Dense, OutputType::I64) => args.dense::<i64>(vectors.data),
        (Layout::Dense, OutputType::F16) => args.dense::<f16>(vectors.data),
        (Layout::Dense, OutputType::F32) => args.dense::<f32>(vectors.data),
        (Layout::Dense, OutputType::F64) => args.dense::<f64>(vectors.data),
    }?;
    let x = match layout {
        Layout::Csr => X::Csr { indptr: vectors.indptr, indices: vectors.indices, data },
        Layout::Dense => X::Dense { data },
    };
    Ok(Minibatch {
        epoch: fetch.plan.epoch(),
        number: fetch.plan.first_minibatch() + u64::try_from(j).unwrap_or(u64::MAX),
        n_vars: fetch.n_vars,
        rows: vectors.rows,
        x,
        obs: fetch.take_obs(positions)?,
        recycler: Arc::clone(recycler),
    })
}

struct Args<'a, R> {
    fetch: &'a Fetch,
    refs: R,
    recipe: Option<&'a Recipe>,
    /// For rows that have to be decoded or sorted.
    buffer: &'a mut RowBuffer,
}

impl<'a, R: Iterator<Item = (RowRef, &'a u64)> + Clone> Args<'a, R> {
    fn csr<O: Output>(
        self,
        indptr: &mut Vec<i32>,
        indices: &mut Vec<i32>,
        data: Data,
    ) -> Result<Data> {
        let mut out = O::vec_of(data).unwrap_or_default();
        let nnz: u64 = self.refs.clone().map(|(r, _)| u64::from(r.len)).sum();
        if i32::try_from(nnz).is_err() {
            return Err(Error::invalid_input(format!(
                "a minibatch of {nnz} non-zeros is too large for 32-bit offsets; lower batch_size"
            )));
        }
        let nnz = usize::try_from(nnz).unwrap_or(0);
        indices.reserve(nnz);
        out.reserve(nnz);
        indptr.push(0);
        let mut scratch = Vec::new();
        for (row, &number) in announced(self.fetch, self.refs) {
            let row = self.fetch.row(row, number, self.buffer)?;
            if let Some(recipe) = self.recipe {
                let put = |gene: u32, value| {
                    indices.push(gene.cast_signed());
                    out.push(value);
                };
                transform(recipe, row, false, &mut scratch, put).map_err(at(number))?;
                indptr.push(i32::try_from(indices.len()).unwrap_or(i32::MAX));
                continue;
            }
            match row.genes {
                Genes::U16(genes) => vector::extend(indices, genes, i32::from),
                Genes::U32(genes) => vector::extend(indices, genes, u32::cast_signed),
            }
            with_row_values!(row, values => extend(&mut out, values)).map_err(at(number))?;
            // Checked above: the total fits.
            indptr.push(i32::try_from(indices.len()).unwrap_or(i32::MAX));
        }
        Ok(O::data(out))
    }

    fn dense<O: Output>(self, data: Data) -> Result<Data> {
        let mut out = O::vec_of(data).unwrap_or_default();
        let width = usize::try_from(self.fetch.n_vars).unwrap_or(usize::MAX);
        let len = self.refs.clone().count().checked_mul(width).ok_or_else(|| {
            Error::invalid_input("a dense minibatch is larger than the address space")
        })?;
        out.resize(len, O::default());
        if width == 0 {
            return Ok(O::data(out));
        }
        let rows = announced(self.fetch, self.refs);
        for ((row, &number), target) in rows.zip(out.chunks_exact_mut(width)) {
            let row = self.fetch.row(row, number, self.buffer)?;
            let Some(recipe) = self.recipe else {
                scatter_row(row, target).map_err(at(number))?;
                continue;
            };
            let put = |gene: u32, value| {
                if let Some(slot) = target.get_mut(gene as usize) {
                    *slot = value;
                }
            };
            transform(recipe, row, true, &mut Vec::new(), put).map_err(at(number))?;
        }
        Ok(O::data(out))
    }
}

/// The same rows, of each of which the processor is told before the one ahead of it is copied.
fn announced<'a>(
    fetch: &Fetch,
    refs: impl Iterator<Item = (RowRef, &'a u64)> + Clone,
) -> impl Iterator<Item = (RowRef, &'a u64)> {
    let mut ahead = refs.clone().skip(1);
    refs.inspect(move |(row, _)| {
        if let Some((next, _)) = ahead.next() {
            fetch.prefetch(next, *row);
        }
    })
}

/// Puts a row through a recipe.
fn transform<O: Output>(
    recipe: &Recipe,
    row: Row<'_>,
    any_order: bool,
    scratch: &mut Vec<(u32, O)>,
    put: impl FnMut(u32, O),
) -> Result<()> {
    with_row_values!(row, values => match row.genes {
        Genes::U16(genes) => recipe.row(genes, values, any_order, scratch, put),
        Genes::U32(genes) => recipe.row(genes, values, any_order, scratch, put),
    })
}

/// Appends a row's values, converted.
#[inline]
fn extend<O: Output, S: Value>(out: &mut Vec<O>, values: &[S]) -> Result<()> {
    if !O::holds_all::<S>() {
        check::<O, S>(values)?;
    }
    vector::extend(out, values, O::convert);
    Ok(())
}

fn check<O: Output, S: Value>(values: &[S]) -> Result<()> {
    match values.iter().find(|&&v| !O::holds(v)) {
        None => Ok(()),
        Some(&v) => Err(not_held::<O, S>(v)),
    }
}

/// A value that a type does not hold, and the narrowest that does.
pub(super) fn not_held<O: Output, S: Value>(value: S) -> Error {
    let types = [
        (u8::holds(value), OutputType::U8),
        (u16::holds(value), OutputType::U16),
        (i32::holds(value), OutputType::I32),
        (i64::holds(value), OutputType::I64),
        (f32::holds(value), OutputType::F32),
    ];
    let wide =
        types.into_iter().find(|(holds, _)| *holds).map_or(OutputType::F64, |(_, wide)| wide);
    let mut text = value.to_string();
    if text.len() > LONGEST_NUMBER {
        text = format!("{:e}", value.to_f64());
    }
    Error::invalid_input(format!(
        "the value {text} cannot be had as {}; ask for {wide}, which holds it",
        O::TYPE
    ))
}

/// Says in which row of the store something is wrong.
fn at(row: u64) -> impl Fn(Error) -> Error {
    move |error| error.with_default("row", row)
}

fn scatter_row<O: Output>(row: Row<'_>, target: &mut [O]) -> Result<()> {
    with_row_values!(row, values => match row.genes {
        Genes::U16(genes) => scatter(target, genes, values),
        Genes::U32(genes) => scatter(target, genes, values),
    })
}

/// Puts a row's values, converted, at their genes.
fn scatter<O: Output, S: Value, I: Copy + Into<u32>>(
    target: &mut [O],
    genes: &[I],
    values: &[S],
) -> Result<()> {
    if !O::holds_all::<S>() {
        check::<O, S>(values)?;
    }
    for (&gene, &value) in genes.iter().zip(values) {
        // Canonical rows have no gene past the end; the bound check is the price of certainty.
        if let Some(slot) = target.get_mut(gene.into() as usize) {
            *slot = O::convert(value);
        }
    }
    Ok(())
}
