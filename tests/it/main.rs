//! Integration tests: one binary, one module per subject.

mod admin;
mod alert_delivery;
mod differential;
mod docs;
mod grafana;
mod http_api;
mod interop;
mod kill;
mod licences;
mod process;
mod promql_blocks;
mod promql_conformance;
mod promql_eval;
mod promql_limits;
mod promql_random;
mod promql_reference;
mod promql_scripts;
mod query_service;
mod remote_write_v2;
mod rules_examples;
mod shared;
mod store_faults;
mod templates;
mod tidy;
