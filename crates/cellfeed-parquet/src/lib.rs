//! Parquet stores, one row a cell, as a Cellfeed backend.
#![forbid(unsafe_code)]
