//! How diverse minibatches are: what is measured, and what theory expects.
//!
//! The measure within a minibatch is the plug-in Shannon entropy of a label, in bits. Over several
//! minibatches it is the design effect `DEFF_w`: the variance of the mean label shares over `w`
//! consecutive minibatches, over that of independent cells. `docs/diversity.md` explains both, with
//! figures; the functions here give the formulas.

mod deff;
mod entropy;
mod labels;
mod meter;
mod numbers;
mod strata;
mod stretches;
mod structure;
#[cfg(test)]
mod tests;
mod theory;

pub use deff::{correlation_in_fetch, deff, rho_from_autocorrelation, rho_of_runs};
pub use entropy::{
    entropy_bounds, expected_entropy_pure_blocks, expected_entropy_random,
    expected_entropy_second_order, expected_entropy_without_replacement, shares_entropy,
};
pub(crate) use labels::Coder;
pub use labels::{Labels, check_label};
pub use meter::DiversityMeter;
pub use structure::LabelStructure;
pub use theory::{Expected, Sampling, expected, expected_in_order};

use crate::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use std::collections::HashMap;
use std::hash::Hash;

/// The plug-in Shannon entropy in bits of counts: `-sum p log2 p` with `p = count / total`.
///
/// ```
/// assert_eq!(cellfeed_core::entropy_bits([2, 2, 0, 4]), 1.5);
/// assert_eq!(cellfeed_core::entropy_bits([]), 0.0);
/// ```
#[must_use]
pub fn entropy_bits(counts: impl IntoIterator<Item = u64>) -> f64 {
    // With n the total: H = log2 n - sum c log2 c / n.
    let (mut total, mut weighted) = (0.0, 0.0);
    for count in counts {
        let count = count as f64;
        if count > 0.0 {
            total += count;
            weighted += count * count.log2();
        }
    }
    if total > 0.0 { (f64::log2(total) - weighted / total).max(0.0) } else { 0.0 }
}

/// The entropy in bits of an obs column's values; missing values count as one more label.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for an array of a type that no obs
/// column has.
pub fn label_entropy(labels: &ArrayRef) -> Result<f64> {
    fn count<K: Hash + Eq>(keys: impl Iterator<Item = Option<K>>) -> f64 {
        let mut counts = HashMap::<Option<K>, u64>::new();
        for key in keys {
            *counts.entry(key).or_default() += 1;
        }
        // Summed in a fixed order, so that the same labels give the same bits.
        let mut counts: Vec<u64> = counts.into_values().collect();
        counts.sort_unstable();
        entropy_bits(counts)
    }
    Ok(match labels.data_type() {
        DataType::Dictionary(_, _) => count(labels.as_dictionary::<Int32Type>().keys().iter()),
        DataType::Utf8 => count(labels.as_string::<i32>().iter()),
        DataType::Int64 => count(labels.as_primitive::<Int64Type>().iter()),
        DataType::UInt64 => count(labels.as_primitive::<UInt64Type>().iter()),
        DataType::Boolean => count(labels.as_boolean().iter()),
        DataType::Float64 => {
            count(labels.as_primitive::<Float64Type>().iter().map(|v| v.map(f64::to_bits)))
        }
        other => {
            return Err(Error::unsupported(format!("labels of type {other} cannot be counted")));
        }
    })
}
