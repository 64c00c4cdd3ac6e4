//! Evaluates a syntax tree over columns of samples.
