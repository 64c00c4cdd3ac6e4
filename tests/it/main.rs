//! Integration tests: one binary, one module per subject.

mod licences;
mod promql_conformance;
mod promql_eval;
mod promql_scripts;
mod promql_store;
mod templates;
mod tidy;
