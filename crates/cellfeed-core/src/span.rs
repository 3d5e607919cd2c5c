//! What a set of values needs of a type: formats that choose the smallest type that holds all values
//! ask here.

use crate::value::{Value, ValueType, Values, with_values};

/// The extent of values seen so far, from which the smallest type that holds them all exactly
/// follows.
///
/// ```
/// use cellfeed_core::{ValueSpan, ValueType, Values};
///
/// let mut span = ValueSpan::default();
/// span.add(&Values::from(vec![1f32, 2.0, 200.0]));
/// assert_eq!(span.smallest(), ValueType::U8);
/// span.add(&Values::from(vec![-1f32, 300.0]));
/// assert_eq!(span.smallest(), ValueType::I16);
/// span.add(&Values::from(vec![0.5f32]));
/// assert_eq!(span.smallest(), ValueType::F32);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueSpan {
    /// Of whole numbers.
    least: i128,
    most: i128,
    /// Whether something is no whole number.
    fractions: bool,
    /// Whether something is not exact in 32 bits of float.
    needs_f64: bool,
}

/// Whole numbers up to here are exact in `f32`.
const F32_EXACT: i128 = 1 << 24;

impl ValueSpan {
    /// Takes values into account.
    pub fn add(&mut self, values: &Values) {
        with_values!(values, b => self.add_all(b));
    }

    fn add_all<T: Value>(&mut self, values: &[T]) {
        let (mut least, mut most) = (self.least, self.most);
        match T::TYPE {
            // Comparing in their own type is quick, and the types are narrow already.
            ValueType::U8 | ValueType::U16 | ValueType::I8 | ValueType::I16 => {
                let mut ends: Option<(T, T)> = None;
                for &v in values {
                    let (lo, hi) = ends.unwrap_or((v, v));
                    ends = Some((if v < lo { v } else { lo }, if v > hi { v } else { hi }));
                }
                for end in ends.iter().flat_map(|&(lo, hi)| [lo, hi]) {
                    let whole = end.as_integer().map_or(0, i128::from);
                    (least, most) = (least.min(whole), most.max(whole));
                }
            }
            ValueType::U64 => {
                for &v in values {
                    // What i64 does not hold is above it.
                    let whole = v.as_integer().map_or(i128::from(u64::MAX), i128::from);
                    most = most.max(whole);
                }
            }
            _ => {
                let (mut lo, mut hi) = (i64::MAX, i64::MIN);
                for &v in values {
                    // A zero below zero is no whole number that an integer could be.
                    let whole = v.as_integer().filter(|&w| w != 0 || v.to_f64().is_sign_positive());
                    if let Some(whole) = whole {
                        (lo, hi) = (lo.min(whole), hi.max(whole));
                    } else {
                        self.fractions = true;
                        let wide = v.to_f64();
                        self.needs_f64 |= T::TYPE == ValueType::F64
                            && !wide.is_nan()
                            && f64::from(v.to_f32()).to_bits() != wide.to_bits();
                    }
                }
                if lo <= hi {
                    (least, most) = (least.min(lo.into()), most.max(hi.into()));
                }
            }
        }
        (self.least, self.most) = (least, most);
    }

    /// Joins what was seen elsewhere.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            fractions: self.fractions || other.fractions,
            needs_f64: self.needs_f64 || other.needs_f64,
        }
    }

    /// The smallest type that holds every value: unsigned before signed, whole numbers before floats.
    #[must_use]
    pub fn smallest(self) -> ValueType {
        if self.fractions {
            let wide = self.most > F32_EXACT || self.least < -F32_EXACT;
            return if wide || self.needs_f64 { ValueType::F64 } else { ValueType::F32 };
        }
        let bits = |n: u32| i128::from(1u8) << n;
        if self.least >= 0 {
            return match self.most {
                m if m < bits(8) => ValueType::U8,
                m if m < bits(16) => ValueType::U16,
                m if m < bits(32) => ValueType::U32,
                _ => ValueType::U64,
            };
        }
        let fits = |n: u32| self.least >= -bits(n - 1) && self.most < bits(n - 1);
        match () {
            () if fits(8) => ValueType::I8,
            () if fits(16) => ValueType::I16,
            () if fits(32) => ValueType::I32,
            () => ValueType::I64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smallest(parts: &[Values]) -> ValueType {
        let mut span = ValueSpan::default();
        parts.iter().for_each(|p| span.add(p));
        let apart = parts.iter().fold(ValueSpan::default(), |all, p| {
            let mut one = ValueSpan::default();
            one.add(p);
            all.union(one)
        });
        assert_eq!(span, apart);
        for part in parts {
            part.cast(span.smallest()).unwrap();
        }
        span.smallest()
    }

    #[test]
    fn the_smallest_type_holds_everything() {
        assert_eq!(smallest(&[]), ValueType::U8);
        assert_eq!(smallest(&[vec![255f64].into()]), ValueType::U8);
        assert_eq!(smallest(&[vec![1u8].into(), vec![256f32].into()]), ValueType::U16);
        assert_eq!(smallest(&[vec![65_536i64].into()]), ValueType::U32);
        assert_eq!(smallest(&[vec![u64::MAX].into()]), ValueType::U64);
        assert_eq!(smallest(&[vec![-1i8].into(), vec![127u8].into()]), ValueType::I8);
        assert_eq!(smallest(&[vec![-1i8].into(), vec![128u8].into()]), ValueType::I16);
        assert_eq!(smallest(&[vec![i64::MIN].into()]), ValueType::I64);
        assert_eq!(smallest(&[vec![0.1f32, f32::NAN, f32::INFINITY].into()]), ValueType::F32);
        assert_eq!(smallest(&[vec![0.5f64, f64::NAN].into()]), ValueType::F32);
        assert_eq!(smallest(&[vec![1f64, -0.0].into()]), ValueType::F32);
        assert_eq!(smallest(&[vec![0.1f64].into()]), ValueType::F64);
        assert_eq!(smallest(&[vec![0.5f32].into(), vec![16_777_217i32].into()]), ValueType::F64);
    }
}
