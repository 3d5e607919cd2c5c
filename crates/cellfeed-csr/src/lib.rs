//! Raw memory-mapped CSR stores, plain and packed, and BioNeMo SCDL folders, as a Cellfeed backend.
#![forbid(unsafe_code)]
