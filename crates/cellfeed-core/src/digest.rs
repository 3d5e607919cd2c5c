//! One hash over a whole sequence of minibatches: equal for any thread count, read-ahead or storage
//! format, so that two runs, or two formats, can be compared in one line.

use crate::as_u64;
use crate::loader::{Data, Minibatch, X};
use crate::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use xxhash_rust::xxh3::Xxh3;

/// A running digest: XXH3 with 128 bits over these little-endian fields, minibatch by minibatch.
///
/// 1. the number of cells (u64), the number of genes (u64), and the row numbers (u64 each);
/// 2. for CSR: 0 (u64), `indptr` (u32 each), `indices` (u32 each), values (f32 each); for dense:
///    1 (u64), values (f32 each, row-major);
/// 3. for each obs column: categorical codes (i32 each, -1 for missing); or values: integers as 64
///    bits, floats as f64, booleans as one byte, text as its length (u64) and its UTF-8 bytes; each
///    value that is not a code is preceded by one byte, 1 if present, 0 if missing (and then nothing).
#[derive(Debug, Clone, Default)]
pub struct Digest {
    state: Box<State>,
}

#[derive(Clone, Default)]
struct State {
    hash: Xxh3,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Digest {
    /// A digest of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a minibatch, with its first `n_obs_columns` obs columns.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for an obs column of a type that no
    /// backend answers.
    pub fn update(&mut self, minibatch: &Minibatch, n_obs_columns: usize) -> Result<()> {
        self.word(as_u64(minibatch.n_cells()));
        self.word(minibatch.n_vars());
        self.items(minibatch.rows(), u64::to_le_bytes);
        match minibatch.x() {
            X::Csr { indptr, indices, data } => {
                self.word(0);
                self.items(indptr, i32::to_le_bytes);
                self.items(indices, i32::to_le_bytes);
                self.values(data);
            }
            X::Dense { data } => {
                self.word(1);
                self.values(data);
            }
        }
        for (_, column) in minibatch.obs().iter().take(n_obs_columns) {
            self.column(column)?;
        }
        Ok(())
    }

    /// The digest so far, in 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:032x}", self.state.hash.digest128())
    }

    fn word(&mut self, word: u64) {
        self.state.hash.update(&word.to_le_bytes());
    }

    fn items<T: Copy, const N: usize>(&mut self, items: &[T], bytes: impl Fn(T) -> [u8; N]) {
        let State { hash, scratch } = &mut *self.state;
        for part in items.chunks(4096) {
            scratch.clear();
            part.iter().for_each(|&v| scratch.extend_from_slice(&bytes(v)));
            hash.update(scratch);
        }
    }

    fn values(&mut self, data: &Data) {
        if let Some(values) = data.as_f32() {
            return self.items(values, f32::to_le_bytes);
        }
        let mut values = Vec::with_capacity(data.len());
        data.for_each_f32(|v| values.push(v));
        self.items(&values, f32::to_le_bytes);
    }

    fn column(&mut self, column: &ArrayRef) -> Result<()> {
        match column.data_type() {
            DataType::Dictionary(_, _) => {
                let keys = column.as_dictionary::<Int32Type>().keys();
                let codes: Vec<i32> = keys.iter().map(|k| k.unwrap_or(-1)).collect();
                self.items(&codes, i32::to_le_bytes);
            }
            DataType::Utf8 => {
                for text in column.as_string::<i32>() {
                    self.present(text.is_some());
                    if let Some(text) = text {
                        self.word(as_u64(text.len()));
                        self.state.hash.update(text.as_bytes());
                    }
                }
            }
            DataType::Int64 => {
                self.each(column.as_primitive::<Int64Type>().iter(), i64::to_le_bytes);
            }
            DataType::UInt64 => {
                self.each(column.as_primitive::<UInt64Type>().iter(), u64::to_le_bytes);
            }
            DataType::Float64 => {
                self.each(column.as_primitive::<Float64Type>().iter(), f64::to_le_bytes);
            }
            DataType::Boolean => self.each(column.as_boolean().iter(), |v| [u8::from(v)]),
            other => {
                return Err(Error::unsupported(format!("a column of type {other} has no digest")));
            }
        }
        Ok(())
    }

    fn present(&mut self, present: bool) {
        self.state.hash.update(&[u8::from(present)]);
    }

    fn each<T, const N: usize>(
        &mut self,
        values: impl Iterator<Item = Option<T>>,
        bytes: impl Fn(T) -> [u8; N],
    ) {
        for value in values {
            self.present(value.is_some());
            if let Some(value) = value {
                self.state.hash.update(&bytes(value));
            }
        }
    }
}
