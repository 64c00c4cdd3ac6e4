//! Integration tests: one binary, one module per subject.

mod licences;
mod tidy;
