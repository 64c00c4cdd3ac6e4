//! The only HTTP server: Prometheus v1, Alertmanager v2, health, federation and self-metrics.

pub mod alertmanager_v2;
