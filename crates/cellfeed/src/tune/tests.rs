//! Tuning a store, as a whole.
