//! Transforms that are made in the gather, in the pass that copies a row: genes chosen or reordered,
//! totals normalised, logarithms, zeros and ones.

use super::gather::not_held;
use super::minibatch::{Output, OutputType};
use crate::schema::VarSchema;
use crate::value::{Value, ValueType};
use crate::{Error, ErrorKind, Result, as_u64};
use std::collections::HashMap;

/// What is made of the values of a cell, always in this order whatever order it is asked for in:
///
/// 1. [`normalize_total`](Self::with_normalize_total): by the total over **all** genes of the matrix,
/// 2. [`log1p`](Self::with_log1p),
/// 3. [`binarize`](Self::with_binarize),
/// 4. [`genes`](Self::with_genes) chosen.
///
/// ```
/// use cellfeed_core::Transform;
///
/// let transform = Transform::default()
///     .with_genes(["ENSG00000139618", "ENSG00000141510"])
///     .with_normalize_total(10_000.0)
///     .with_log1p();
/// assert!(!transform.is_none());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transform {
    genes: Option<Vec<String>>,
    total: Option<f64>,
    log1p: bool,
    binarize: Option<f64>,
}

impl Transform {
    /// Only these genes, in this order, by name.
    #[must_use]
    pub fn with_genes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.genes = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Values times `target` over the cell's total, as `scanpy.pp.normalize_total` with that target
    /// sum. A cell whose total is 0 stays as it is, divided by 1.
    #[must_use]
    pub fn with_normalize_total(mut self, target: f64) -> Self {
        self.total = Some(target);
        self
    }

    /// `ln(1 + x)`, as `scanpy.pp.log1p`.
    #[must_use]
    pub fn with_log1p(mut self) -> Self {
        self.log1p = true;
        self
    }

    /// 1 for values above a threshold that is not negative, 0 for others.
    #[must_use]
    pub fn with_binarize(mut self, threshold: f64) -> Self {
        self.binarize = Some(threshold);
        self
    }

    /// Whether it leaves everything as it is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Makes it for the genes of a matrix and a type of values.
    ///
    /// # Errors
    /// `InvalidInput` for a target or threshold that makes no sense, for a result that the type cannot
    /// hold, for genes that are named twice or have no names; `NotFound` for genes that are not there.
    pub(super) fn recipe(&self, var: &VarSchema, output: OutputType) -> Result<Option<Recipe>> {
        if self.is_none() {
            return Ok(None);
        }
        let bad = |what: String| Err(Error::invalid_input(what));
        if let Some(target) = self.total.filter(|t| !t.is_finite() || *t <= 0.0) {
            return bad(format!("normalize_total to {target}; the target must be above 0"));
        }
        if let Some(threshold) = self.binarize.filter(|t| !t.is_finite() || *t < 0.0) {
            return bad(format!(
                "binarize at {threshold}; the threshold must be at least 0, since values that are \
                 not stored are 0"
            ));
        }
        let float = matches!(output, OutputType::F16 | OutputType::F32 | OutputType::F64);
        if self.binarize.is_none() && (self.total.is_some() || self.log1p) && !float {
            return bad(format!(
                "normalize_total and log1p give fractions, which {} cannot hold; ask for f32",
                output.as_str()
            ));
        }
        let genes = self.genes.as_ref().map(|names| GeneTable::new(names, var)).transpose()?;
        Ok(Some(Recipe { genes, total: self.total, log1p: self.log1p, binarize: self.binarize }))
    }
}

/// A transform made for a matrix.
#[derive(Debug)]
pub(super) struct Recipe {
    genes: Option<GeneTable>,
    total: Option<f64>,
    log1p: bool,
    binarize: Option<f64>,
}

/// Where each gene of the matrix goes.
#[derive(Debug)]
struct GeneTable {
    /// `u32::MAX` for those left out.
    to: Vec<u32>,
    n_vars: u64,
    ascending: bool,
}

/// Names that are listed in a message.
const SHOWN: usize = 5;

impl GeneTable {
    fn new(names: &[String], var: &VarSchema) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::invalid_input("no genes are named; name at least one"));
        }
        if as_u64(var.names.len()) != var.n_vars {
            return Err(Error::invalid_input(
                "the genes of this matrix have no names, so none can be chosen by name",
            ));
        }
        let mut wanted = HashMap::with_capacity(names.len());
        for (name, to) in names.iter().zip(0u32..) {
            if wanted.insert(name.as_str(), to).is_some() {
                return Err(Error::invalid_input(format!("the gene {name:?} is named twice")));
            }
        }
        let mut to = vec![u32::MAX; var.names.len()];
        let mut found = vec![false; names.len()];
        for (name, to) in var.names.iter().zip(&mut to) {
            let Some(&place) = wanted.get(name.as_str()) else { continue };
            let found = &mut found[place as usize];
            if std::mem::replace(found, true) {
                return Err(Error::invalid_input(format!(
                    "two genes of the matrix are called {name:?}, so it cannot be chosen by name"
                )));
            }
            *to = place;
        }
        let lacking: Vec<&str> =
            names.iter().zip(&found).filter(|(_, f)| !**f).map(|(n, _)| n.as_str()).collect();
        if !lacking.is_empty() {
            let shown = lacking.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
            let more = if lacking.len() > SHOWN { ", .." } else { "" };
            let known = var.names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{} of {} genes are not in the matrix: {shown}{more}; its genes are called {}, ..",
                    lacking.len(),
                    names.len(),
                    known.join(", ")
                ),
            ));
        }
        let ascending = to.iter().filter(|t| **t != u32::MAX).is_sorted();
        Ok(Self { to, n_vars: as_u64(names.len()), ascending })
    }

    fn place(&self, gene: u32) -> Option<u32> {
        self.to.get(gene as usize).copied().filter(|&to| to != u32::MAX)
    }
}

/// Whole numbers whose results a row remembers: counts are small, and a logarithm takes as long as
/// copying ten values.
const KEPT: usize = 64;

impl Recipe {
    /// Genes of what it makes, if it chooses some.
    pub(super) fn n_vars(&self) -> Option<u64> {
        self.genes.as_ref().map(|g| g.n_vars)
    }

    /// Puts a row through: `put` gets genes and values, the genes ascending unless `any_order`.
    pub(super) fn row<O: Output, S: Value, I: Copy + Into<u32>>(
        &self,
        genes: &[I],
        values: &[S],
        any_order: bool,
        scratch: &mut Vec<(u32, O)>,
        mut put: impl FnMut(u32, O),
    ) -> Result<()> {
        let scale = self.total.map_or(1.0, |target| {
            let total: f64 = values.iter().map(|v| v.to_f64()).sum();
            target / if total == 0.0 { 1.0 } else { total }
        });
        let mut kept = [None; KEPT];
        let mut of = |value: S| -> Result<O> {
            let known = value.as_integer().and_then(|v| usize::try_from(v).ok());
            let slot = known.and_then(|v| kept.get_mut(v));
            if let Some(Some(result)) = slot {
                return Ok(*result);
            }
            let result = self.value::<O>(value.to_f64() * scale)?;
            if let Some(slot) = slot {
                *slot = Some(result);
            }
            Ok(result)
        };
        let Some(table) = &self.genes else {
            for (&gene, &value) in genes.iter().zip(values) {
                put(gene.into(), of(value)?);
            }
            return Ok(());
        };
        if any_order || table.ascending {
            for (&gene, &value) in genes.iter().zip(values) {
                if let Some(to) = table.place(gene.into()) {
                    put(to, of(value)?);
                }
            }
            return Ok(());
        }
        scratch.clear();
        for (&gene, &value) in genes.iter().zip(values) {
            if let Some(to) = table.place(gene.into()) {
                scratch.push((to, of(value)?));
            }
        }
        scratch.sort_unstable_by_key(|(to, _)| *to);
        scratch.drain(..).for_each(|(to, value)| put(to, value));
        Ok(())
    }

    #[inline]
    fn value<O: Output>(&self, mut x: f64) -> Result<O> {
        if self.log1p {
            // As precise as the result: single precision takes half the time.
            #[allow(clippy::cast_possible_truncation)]
            let single = |x: f64| f64::from((x as f32).ln_1p());
            x = if O::TYPE == ValueType::F64 { x.ln_1p() } else { single(x) };
        }
        if let Some(threshold) = self.binarize {
            x = f64::from(u8::from(x > threshold));
        }
        if O::holds(x) {
            return Ok(O::convert(x));
        }
        Err(not_held::<O, f64>(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(names: &[&str]) -> VarSchema {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        VarSchema { n_vars: 4, names, ..VarSchema::default() }
    }

    fn made<O: Output>(
        transform: &Transform,
        output: OutputType,
        genes: &[u32],
        values: &[f32],
    ) -> Vec<(u32, O)> {
        let recipe = transform.recipe(&var(&["a", "b", "c", "d"]), output).unwrap().unwrap();
        let mut out = Vec::new();
        recipe.row(genes, values, false, &mut Vec::new(), |g, v: O| out.push((g, v))).unwrap();
        out
    }

    #[test]
    fn values_are_what_scanpy_makes_of_them() {
        let counts = [1.0, 3.0, 1.0, 95.0];
        let normalised = Transform::default().with_normalize_total(1e4);
        let got = made::<f32>(&normalised, OutputType::F32, &[0, 1, 2, 3], &counts);
        assert_eq!(got, [(0, 100.0), (1, 300.0), (2, 100.0), (3, 9500.0)]);
        // numpy: np.log1p(np.array([100, 300, 9500], dtype="f4")), and "f8".
        let log = normalised.clone().with_log1p();
        let got = made::<f32>(&log, OutputType::F32, &[0, 1, 2, 3], &counts);
        for ((_, got), want) in
            got.iter().zip([4.615_120_5f32, 5.707_110_4, 4.615_120_5, 9.159_152])
        {
            assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
        }
        let got = made::<f64>(&log, OutputType::F64, &[1], &[2.0]);
        assert_eq!(got, [(1, 10_000f64.ln_1p())]);
        // The total is that of all genes, though only one is chosen.
        let one = log.with_genes(["d", "a"]);
        let got = made::<f32>(&one, OutputType::F32, &[0, 1, 2, 3], &counts);
        assert_eq!(got.iter().map(|(g, _)| *g).collect::<Vec<_>>(), [0, 1]);
        assert!((got[0].1 - 9.159_152).abs() < 1e-5 && (got[1].1 - 4.615_12).abs() < 1e-5);
        // Negative values cancel; an empty cell stays empty.
        let got = made::<f32>(&normalised, OutputType::F32, &[0, 1], &[2.0, -2.0]);
        assert_eq!(got, [(0, 20_000.0), (1, -20_000.0)]);
        assert!(made::<f32>(&normalised, OutputType::F32, &[], &[]).is_empty());
    }

    #[test]
    fn zeros_and_ones() {
        let binary = Transform::default().with_binarize(1.0);
        let got = made::<u8>(&binary, OutputType::U8, &[0, 1, 3], &[1.0, 1.5, 7.0]);
        assert_eq!(got, [(0, 0), (1, 1), (3, 1)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let none = Transform::default();
        assert!(none.recipe(&var(&["a", "b", "c", "d"]), OutputType::I32).unwrap().is_none());
        let names = var(&["a", "b", "b", "d"]);
        for (transform, output, why) in [
            (none.clone().with_genes(["a", "x", "y"]), OutputType::F32, "2 of 3 genes are not"),
            (none.clone().with_genes(["a", "a"]), OutputType::F32, "named twice"),
            (none.clone().with_genes(["b"]), OutputType::F32, "two genes of the matrix"),
            (none.clone().with_genes([""; 0]), OutputType::F32, "at least one"),
            (none.clone().with_normalize_total(0.0), OutputType::F32, "above 0"),
            (none.clone().with_normalize_total(f64::NAN), OutputType::F32, "above 0"),
            (none.clone().with_log1p(), OutputType::I32, "i32 cannot hold"),
            (none.clone().with_binarize(-1.0), OutputType::U8, "at least 0"),
        ] {
            let message = transform.recipe(&names, output).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
        let unnamed = VarSchema { n_vars: 4, ..VarSchema::default() };
        let error = none.with_genes(["a"]).recipe(&unnamed, OutputType::F32).unwrap_err();
        assert!(error.to_string().contains("have no names"));
    }
}
