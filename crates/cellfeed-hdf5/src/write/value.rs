//! Values and gene indices to the bytes of the type that the file has.

use cellfeed_core::{Error, Result, Value, ValueType};
use half::f16;

/// Whole numbers up to here are exact in `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Whether `target` can hold the values: integers only whole numbers in range.
pub(super) fn check<T: Value>(values: &[T], target: ValueType) -> Result<()> {
    let (least, most) = match target {
        _ if T::TYPE == target => return Ok(()),
        ValueType::U8 => (0.0, f64::from(u8::MAX)),
        ValueType::U16 => (0.0, f64::from(u16::MAX)),
        ValueType::U32 => (0.0, f64::from(u32::MAX)),
        ValueType::U64 => (0.0, EXACT),
        ValueType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        ValueType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        ValueType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        ValueType::I64 => (-EXACT, EXACT),
        ValueType::F16 | ValueType::F32 | ValueType::F64 => {
            let integers = !matches!(T::TYPE, ValueType::F16 | ValueType::F32 | ValueType::F64);
            let most = match target {
                ValueType::F16 => 2048.0,
                ValueType::F32 => 16_777_216.0,
                _ => EXACT,
            };
            let lost = |v: &&T| integers && v.to_f64().abs() > most;
            return values.iter().find(lost).map_or(Ok(()), |v| refuse(*v, target));
        }
        _ => return Err(Error::unsupported(format!("cannot write values of type {target}"))),
    };
    let fits = |v: f64| v >= least && v <= most && v.fract() == 0.0;
    values.iter().find(|v| !fits(v.to_f64())).map_or(Ok(()), |v| refuse(*v, target))
}

fn refuse<T: Value>(value: T, target: ValueType) -> Result<()> {
    Err(Error::invalid_input(format!("{target} cannot hold the value {value}")))
}

#[inline]
fn put<T, const N: usize>(values: &[T], out: &mut [u8], convert: impl Fn(&T) -> [u8; N]) {
    for (slot, value) in out.chunks_exact_mut(N).zip(values) {
        slot.copy_from_slice(&convert(value));
    }
}

/// Puts checked values into `out` as little-endian values of type `target`.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`check` has seen that the values fit; a float narrowed to a float is rounded"
)]
pub(super) fn put_values<T: Value>(values: &[T], target: ValueType, out: &mut [u8]) {
    if T::TYPE == target && cfg!(target_endian = "little") {
        out.copy_from_slice(bytemuck::cast_slice(values));
        return;
    }
    match target {
        ValueType::U8 => put(values, out, |v| (v.to_f64() as u8).to_le_bytes()),
        ValueType::U16 => put(values, out, |v| (v.to_f64() as u16).to_le_bytes()),
        ValueType::U32 => put(values, out, |v| (v.to_f64() as u32).to_le_bytes()),
        ValueType::U64 => put(values, out, |v| (v.to_f64() as u64).to_le_bytes()),
        ValueType::I8 => put(values, out, |v| (v.to_f64() as i8).to_le_bytes()),
        ValueType::I16 => put(values, out, |v| (v.to_f64() as i16).to_le_bytes()),
        ValueType::I32 => put(values, out, |v| (v.to_f64() as i32).to_le_bytes()),
        ValueType::I64 => put(values, out, |v| (v.to_f64() as i64).to_le_bytes()),
        ValueType::F16 => put(values, out, |v| f16::from_f64(v.to_f64()).to_le_bytes()),
        ValueType::F32 => put(values, out, |v| (v.to_f64() as f32).to_le_bytes()),
        _ => put(values, out, |v| v.to_f64().to_le_bytes()),
    }
}

/// Puts gene indices into `out` as little-endian `i64` or, for any other type, `i32`.
pub(super) fn put_indices(indices: &[u32], target: ValueType, out: &mut [u8]) {
    match target {
        ValueType::I64 => put(indices, out, |i| u64::from(*i).to_le_bytes()),
        // Below 2^31, u32 and i32 have the same bytes.
        _ => put(indices, out, |i| i.to_le_bytes()),
    }
}
