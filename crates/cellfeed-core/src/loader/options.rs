//! What to load, in which form, and with how much memory.

use super::minibatch::{Layout, OutputType};
use super::transform::Transform;
use crate::io::Engine;
use crate::schema::MatrixKey;
use std::sync::Arc;

/// What to load, in which form, and with how much memory.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    pub(super) matrix: MatrixKey,
    pub(super) obs: Vec<String>,
    pub(super) layout: Layout,
    pub(super) output: OutputType,
    pub(super) transform: Transform,
    pub(super) memory: u64,
    pub(super) read_ahead: Option<usize>,
    pub(super) engine: Option<Arc<Engine>>,
}

impl Default for LoaderOptions {
    /// `X` as CSR of `f32`, no obs columns, 1 GiB, as many fetches ahead as the store likes: one,
    /// four where it is far away.
    fn default() -> Self {
        Self {
            matrix: MatrixKey::X,
            obs: Vec::new(),
            layout: Layout::Csr,
            output: OutputType::F32,
            transform: Transform::default(),
            memory: 1 << 30,
            read_ahead: None,
            engine: None,
        }
    }
}

impl LoaderOptions {
    /// The matrix to load.
    #[must_use]
    pub fn with_matrix(mut self, matrix: MatrixKey) -> Self {
        self.matrix = matrix;
        self
    }

    /// Obs columns to load beside it.
    #[must_use]
    pub fn with_obs(mut self, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.obs = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Sparse or dense minibatches.
    #[must_use]
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// The value type of minibatches.
    #[must_use]
    pub fn with_output(mut self, output: OutputType) -> Self {
        self.output = output;
        self
    }

    /// What is made of values and genes while rows are copied.
    #[must_use]
    pub fn with_transform(mut self, transform: Transform) -> Self {
        self.transform = transform;
        self
    }

    /// Bytes of memory that fetches and waiting minibatches may hold.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// How many fetches may be read or wait beside the one that is gathered, memory permitting. At
    /// least 1. More help where the consumer or the disk is unsteady; each costs the page faults
    /// of its buffers once. By default, or for none, one, and four where each read
    /// waits long.
    #[must_use]
    pub fn with_read_ahead(mut self, fetches: impl Into<Option<usize>>) -> Self {
        self.read_ahead = fetches.into().map(|n| n.max(1));
        self
    }

    /// The threads and buffers to use: best those of the store. Without this the loader makes its
    /// own.
    #[must_use]
    pub fn with_engine(mut self, engine: Arc<Engine>) -> Self {
        self.engine = Some(engine);
        self
    }
}
