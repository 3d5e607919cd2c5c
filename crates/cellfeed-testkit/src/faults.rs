//! Stores that break a law each, on purpose: what the suite must find out.
//!
//! Each is the store in memory with one defect, of the sort that readers have had.

mod columns;
mod store;

use crate::fixtures::{memory_backend, memory_subject};
use crate::oracle::Oracle;
use crate::subject::Subject;
use crate::violation::Law;
use cellfeed_core::Result;
use std::sync::Arc;
use store::Faulty;

/// A defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The ranges of a request are answered last first.
    RangesReversed,
    /// The gaps between the ranges are not left out.
    GapsIgnored,
    /// Values are widened to `f64`.
    ValuesWidened,
    /// One value of the store is another.
    OneValueWrong,
    /// Layers are answered from `X`.
    LayerFromX,
    /// Rows as they are stored are answered last first.
    StoredReversed,
    /// Rows that are decoded one by one have other values than those decoded together.
    DecodedOtherwise,
    /// Obs columns come from the row before.
    ObsOffByOne,
    /// Obs columns come in the order of the store.
    ObsInStoreOrder,
    /// Missing values of obs come as the first category, zero or the like.
    NullsFilled,
    /// The cost promises less than the answer holds.
    CostTooLow,
    /// The genes of `raw/X` are answered from `X`.
    RawVarFromX,
    /// Columns of var come last first.
    VarReversed,
    /// Columns of var are those of the gene before.
    VarOffByOne,
    /// Columns of var are left out.
    VarNamesAlone,
    /// The genes of a matrix stored by columns are answered last range first.
    ColumnsReversed,
    /// A matrix stored by columns is answered by rows.
    ColumnsAreRows,
    /// Genes past the last are left out.
    ColumnsShorter,
    /// The cost of columns promises less than the answer holds.
    ColumnCostTooLow,
    /// Genes are numbered past `n_vars`.
    GenesPastNVars,
    /// Stored zeros are left out.
    ZerosDropped,
    /// Every second answer has other values.
    SecondAnswerDiffers,
    /// Obs columns depend on what was read before.
    ObsRemembers,
    /// Parts that start inside the store lose their first value.
    PartsDiffer,
    /// All reads share one cursor.
    SharedCursor,
    /// All reads of obs share one cursor.
    SharedObsCursor,
    /// A read that is dropped keeps its lock, and the next waits forever.
    LockKept,
    /// A read that is dropped leaves the store in a state that it refuses to work in.
    LeftBusy,
    /// A read of obs that is dropped does not give its permit back; there are 64.
    ObsPermitsLost,
    /// Rows past the end are left out.
    ShorterAnswer,
    /// Obs rows past the end are left out.
    ShorterObs,
    /// The cost does not look at bounds.
    CostUnbounded,
    /// An empty request is refused.
    EmptyRefused,
    /// What is missing is reported as corrupt.
    MissingIsCorrupt,
    /// A missing column is reported without saying which there are.
    MissingUnlisted,
    /// A file is read on the polling thread.
    ReadsWhilePolled,
    /// The polling thread waits for another one.
    WaitsWhilePolled,
}

impl Fault {
    /// Every defect. Those of law 7 need a format; the suite's own tests have one.
    pub const ALL: [Self; 37] = [
        Self::RangesReversed,
        Self::GapsIgnored,
        Self::ValuesWidened,
        Self::OneValueWrong,
        Self::LayerFromX,
        Self::StoredReversed,
        Self::DecodedOtherwise,
        Self::ObsOffByOne,
        Self::ObsInStoreOrder,
        Self::NullsFilled,
        Self::CostTooLow,
        Self::RawVarFromX,
        Self::VarReversed,
        Self::VarOffByOne,
        Self::VarNamesAlone,
        Self::ColumnsReversed,
        Self::ColumnsAreRows,
        Self::ColumnsShorter,
        Self::ColumnCostTooLow,
        Self::GenesPastNVars,
        Self::ZerosDropped,
        Self::SecondAnswerDiffers,
        Self::ObsRemembers,
        Self::PartsDiffer,
        Self::SharedCursor,
        Self::SharedObsCursor,
        Self::LockKept,
        Self::LeftBusy,
        Self::ObsPermitsLost,
        Self::ShorterAnswer,
        Self::ShorterObs,
        Self::CostUnbounded,
        Self::EmptyRefused,
        Self::MissingIsCorrupt,
        Self::MissingUnlisted,
        Self::ReadsWhilePolled,
        Self::WaitsWhilePolled,
    ];

    /// The law that it breaks.
    #[must_use]
    pub fn law(self) -> Law {
        match self {
            Self::RangesReversed
            | Self::GapsIgnored
            | Self::ValuesWidened
            | Self::OneValueWrong
            | Self::LayerFromX
            | Self::StoredReversed
            | Self::DecodedOtherwise
            | Self::ObsOffByOne
            | Self::ObsInStoreOrder
            | Self::NullsFilled
            | Self::CostTooLow
            | Self::RawVarFromX
            | Self::VarReversed
            | Self::VarOffByOne
            | Self::VarNamesAlone
            | Self::ColumnsReversed
            | Self::ColumnsAreRows
            | Self::ColumnsShorter
            | Self::ColumnCostTooLow => Law::Agreement,
            Self::GenesPastNVars | Self::ZerosDropped => Law::CanonicalCsr,
            Self::SecondAnswerDiffers | Self::ObsRemembers | Self::PartsDiffer => Law::Purity,
            Self::SharedCursor | Self::SharedObsCursor => Law::Concurrency,
            Self::LockKept | Self::LeftBusy | Self::ObsPermitsLost => Law::Cancellation,
            Self::ShorterAnswer
            | Self::ShorterObs
            | Self::CostUnbounded
            | Self::EmptyRefused
            | Self::MissingIsCorrupt
            | Self::MissingUnlisted => Law::Bounds,
            Self::ReadsWhilePolled | Self::WaitsWhilePolled => Law::NoBlocking,
        }
    }

    /// A store of the oracle's contents with this defect.
    ///
    /// # Errors
    /// As [`memory_backend`].
    pub fn subject(self, oracle: Oracle) -> Result<Subject> {
        let by_columns = [
            Self::ColumnsReversed,
            Self::ColumnsAreRows,
            Self::ColumnsShorter,
            Self::ColumnCostTooLow,
        ];
        if by_columns.contains(&self) {
            return columns::subject(oracle, Some(self));
        }
        let backend = Faulty::new(memory_backend(&oracle)?, self);
        let subject = memory_subject(oracle)?;
        let shares_memory = self != Self::CostTooLow;
        Ok(Subject { backend: Arc::new(backend), shares_memory, ..subject })
    }
}

/// A healthy store whose layers are stored by columns.
///
/// # Errors
/// As [`memory_backend`].
pub fn stored_by_columns(oracle: Oracle) -> Result<Subject> {
    columns::subject(oracle, None)
}
