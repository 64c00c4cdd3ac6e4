//! Narthex: Prometheus, Alertmanager and a long-term metrics store in one library and one binary.
//!
//! The modules below stand in reading order, lowest layer first. A module imports only from the
//! layers above it in this list; `tests/it/tidy.rs` holds us to that. `docs/ARCHITECTURE.md` is
//! the map.

pub mod base;

pub mod model;

pub mod encoding;

pub mod storage;

pub mod http_client;
pub mod promql;
pub mod template;

pub mod alerting;
pub mod discovery;
pub mod remote;
pub mod rules;
pub mod scrape;

pub mod config;

pub mod api;

pub mod server;

pub mod cli;
