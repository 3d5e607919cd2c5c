//! Below the backends: threads, pooled buffers, the byte source and its statistics.
//!
//! A backend plans byte ranges and decodes bytes; everything between is here, written once.

mod budget;
mod buffers;
mod engine;
#[cfg(target_os = "linux")]
mod fault;
mod files;
mod folder;
mod local;
mod map;
mod prefetch;
mod roofline;
mod source;
mod staging;
mod stats;

pub use budget::{Budget, Permit, as_limit};
pub use buffers::{Buffer, BufferPool};
pub use engine::{Engine, EngineOptions};
pub use files::FileSet;
pub use folder::{Entry, Folder, check_name};
pub use local::LocalFile;
pub use map::{Access, MappedFile};
pub(crate) use prefetch::prefetch;
#[doc(hidden)]
pub use roofline::Roofline;
pub use source::{ByteSource, CoalesceOptions, Run, coalesce};
pub use staging::Staging;
pub use stats::{ReadStats, StatsSnapshot};
