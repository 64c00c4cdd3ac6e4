//! The type check of a parsed query.
