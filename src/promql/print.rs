//! A syntax tree back to text.
